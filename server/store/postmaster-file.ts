import { readFileSync, readlinkSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** What a PostgreSQL server says about itself in `postmaster.pid`. */
export interface Postmaster {
  readonly pid: number
  readonly port: number
  /** Folder of its Unix socket; empty when it has none. */
  readonly socketFolder: string
  /** Host it listens on over TCP; empty when it does not. */
  readonly listenHost: string
  readonly status: string
}

/**
 * Reads `postmaster.pid` in a PostgreSQL data folder. Undefined when there is none, or when it is
 * not complete yet. The file may be stale: ask `mayBePostmaster`.
 */
export async function readPostmasterFile(cluster: string): Promise<Postmaster | undefined> {
  let text: string
  try {
    text = await readFile(join(cluster, 'postmaster.pid'), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  // Line order: PostgreSQL's src/include/utils/pidfile.h
  const lines = text.split('\n').map((line) => line.trim())
  const pid = Number(lines[0])
  const port = Number(lines[3])
  if (!Number.isSafeInteger(pid) || pid <= 0 || !Number.isSafeInteger(port)) return undefined
  return {
    pid,
    port,
    socketFolder: lines[4] ?? '',
    listenHost: lines[5] ?? '',
    status: lines[7] ?? '',
  }
}

/** True while a process with this id exists and has not ended (a zombie has). */
export function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    // EPERM: it exists and is another user's.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false
  }
  if (process.platform !== 'linux') return true
  try {
    // "pid (name) state …"; the name may hold anything, so look behind the last parenthesis.
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return text.charAt(text.lastIndexOf(')') + 2) !== 'Z'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENOENT'
  }
}

/**
 * Whether a live process can be the server of this data folder. A reused process id is recognised
 * on Linux by its working folder, which for a server is the data folder; elsewhere, and where
 * that cannot be read, the answer is yes.
 *
 * @param cluster the data folder, as a real path
 */
export function mayBePostmaster(pid: number, cluster: string): boolean {
  if (!alive(pid)) return false
  if (process.platform !== 'linux') return true
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === cluster
  } catch {
    // Not ours to read (another user, a hardened kernel): assume the worst.
    return true
  }
}
