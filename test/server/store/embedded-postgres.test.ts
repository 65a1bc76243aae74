import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, realpathSync } from 'node:fs'
import {
  chmod,
  chown,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { pino } from 'pino'
import { afterEach, describe, expect, test } from 'vitest'
import {
  DataFolderInUse,
  DataFolderUnusable,
  type EmbeddedPostgres,
  type PostgresConnection,
  startEmbeddedPostgres,
  unreachableAsRoot,
} from '../../../server/store/embedded-postgres.ts'
import {
  bundledBinaries,
  firstUnreachable,
  PostgresBinariesMissing,
} from '../../../server/store/postgres-binaries.ts'
import { alive, readPostmasterFile } from '../../../server/store/postmaster-file.ts'

const log = pino({ level: 'silent' })
const root = process.getuid?.() === 0
const nobody = { uid: 65_534, gid: 65_534 }
const debianFifteen = '/usr/lib/postgresql/15/bin'
const repository = fileURLToPath(new URL('../../../', import.meta.url))

const folders: string[] = []
const servers: EmbeddedPostgres[] = []
const children: ChildProcess[] = []

afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  for (const server of servers.splice(0)) await server.stop()
  // The last first: one may be inside another.
  for (const folder of folders.splice(0).reverse()) {
    // A failed test may leave an orphan.
    const orphan = await readPostmasterFile(join(folder, 'cluster'))
    if (orphan !== undefined && alive(orphan.pid)) {
      process.kill(orphan.pid, 'SIGQUIT')
      while (alive(orphan.pid)) await sleep(10)
    }
    await rm(folder, { recursive: true, force: true })
  }
})

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-test-'))
  folders.push(folder)
  await chmod(folder, 0o711)
  return folder
}

async function start(dataFolder: string, binaries?: string): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({ dataFolder, log, binaries })
  servers.push(server)
  return server
}

async function query(connection: PostgresConnection, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ ...connection })
  client.on('error', () => {})
  await client.connect()
  try {
    const result = await client.query({ text: sql, rowMode: 'array' })
    return result.rows.flat()
  } finally {
    await client.end()
  }
}

type OwnerSays =
  | { pid: number; adopted: boolean; connection: PostgresConnection }
  | { error: string; message: string }

async function startOwner(
  dataFolder: string,
  how: { env?: NodeJS.ProcessEnv; uid?: number; gid?: number } = {},
): Promise<{ child: ChildProcess; says: OwnerSays }> {
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', join(repository, 'test/server/store/postgres-owner.ts'), dataFolder],
    {
      cwd: repository,
      stdio: ['pipe', 'pipe', 'inherit'],
      ...how,
      env: { ...process.env, ...how.env },
    },
  )
  children.push(child)
  if (child.stdout === null) throw new Error('its standard output is a pipe')
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
  return { child, says: JSON.parse(line) as OwnerSays }
}

async function startedOwner(...how: Parameters<typeof startOwner>) {
  const { child, says } = await startOwner(...how)
  if ('error' in says) throw new Error(`${says.error}: ${says.message}`)
  return { child, says }
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL')
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

const versions: [string, string | undefined][] = [
  ['the bundled PostgreSQL', undefined],
  ['PostgreSQL 15', debianFifteen],
]

describe.each(versions)('with %s', (_name, binaries) => {
  const absent = binaries !== undefined && !existsSync(binaries)

  test.skipIf(absent)('a first start makes a database, a second finds it again', async () => {
    const folder = await temporaryFolder()
    const firstMs = performance.now()
    const first = await start(folder, binaries)
    const reopenMs = performance.now()
    expect(first.adopted).toBe(false)
    await query(first.connection, 'create table kept as select 41 + 1 as answer')
    const stopMs = performance.now()
    await first.stop()
    expect(await first.exited).toEqual({ code: 0, signal: null })
    const againMs = performance.now()
    const second = await start(folder, binaries)
    const doneMs = performance.now()
    console.info(
      `first ${Math.round(reopenMs - firstMs)} ms, stop ${Math.round(againMs - stopMs)} ms, ` +
        `again ${Math.round(doneMs - againMs)} ms`,
    )
    expect(second.adopted).toBe(false)
    expect(second.connection).toEqual(first.connection)
    expect(await query(second.connection, 'select answer from kept')).toEqual([42])
  })

  test.skipIf(absent)('its settings keep what is committed, and roles apart', async () => {
    const { connection, administration } = await start(await temporaryFolder(), binaries)
    const settings = ['fsync', 'synchronous_commit', 'full_page_writes', 'data_checksums']
    for (const setting of settings) {
      expect(await query(connection, `show ${setting}`)).toEqual(['on'])
    }
    expect(await query(connection, 'show server_encoding')).toEqual(['UTF8'])
    expect(await query(connection, 'select usesuper from pg_user where usename = user')).toEqual([
      false,
    ])
    expect(await query(administration, 'show is_superuser')).toEqual(['on'])
  })

  test.skipIf(absent)('a killed server is reported and starts again with its data', async () => {
    const folder = await temporaryFolder()
    const first = await start(folder, binaries)
    await query(first.connection, 'create table kept as select 7 as answer')
    process.kill(first.pid, 'SIGKILL')
    expect(await first.exited).toEqual({ code: null, signal: 'SIGKILL' })
    const second = await start(folder, binaries)
    expect(second.connection).toEqual(first.connection)
    expect(await query(second.connection, 'select answer from kept')).toEqual([7])
    // Its server is not the first one's to stop any more.
    await first.stop()
    expect(alive(second.pid)).toBe(true)
  })
})

test('a server whose owner was killed is adopted, running', async () => {
  const folder = await temporaryFolder()
  const { child, says } = await startedOwner(folder)
  await query(says.connection, 'create table kept as select 5 as answer')
  await kill(child)
  expect(alive(says.pid)).toBe(true)
  const begunMs = performance.now()
  const server = await start(folder)
  console.info(`adopted in ${Math.round(performance.now() - begunMs)} ms`)
  expect(server.adopted).toBe(true)
  expect(server.pid).toBe(says.pid)
  expect(server.connection).toEqual(says.connection)
  expect(await query(server.connection, 'select answer from kept')).toEqual([5])
  await server.stop()
  expect(alive(says.pid)).toBe(false)
  expect(await server.exited).toEqual({ code: null, signal: null })
})

test('an adopted server that dies is reported too', async () => {
  const folder = await temporaryFolder()
  const { child, says } = await startedOwner(folder)
  await kill(child)
  const server = await start(folder)
  expect(server.adopted).toBe(true)
  process.kill(says.pid, 'SIGKILL')
  await server.exited
  const next = await start(folder)
  expect(next.adopted).toBe(false)
})

test('one crashed session ends the server, which starts again', async () => {
  const folder = await temporaryFolder()
  const first = await start(folder)
  const [backend] = await query(
    first.administration,
    `select pid from pg_stat_activity where application_name like 'gleaner-owner-%'`,
  )
  process.kill(Number(backend), 'SIGKILL')
  const exit = await first.exited
  expect(exit.code).not.toBe(0)
  const second = await start(folder)
  expect(await query(second.connection, 'select 1')).toEqual([1])
})

test('a folder with a live owner is refused, in this process and another', async () => {
  const folder = await temporaryFolder()
  const server = await start(folder)
  const refusal = await startEmbeddedPostgres({ dataFolder: folder, log }).catch((e: unknown) => e)
  expect(refusal).toBeInstanceOf(DataFolderInUse)
  const inUse = refusal as DataFolderInUse
  expect(inUse.ownerPid).toBe(process.pid)
  expect(inUse.connection).toEqual(server.connection)
  expect(JSON.stringify({ ...inUse })).not.toContain(server.connection.password)
  const { says } = await startOwner(folder)
  expect(says).toMatchObject({ error: 'DataFolderInUse' })
  expect(await query(server.connection, 'select 1')).toEqual([1])
})

test('of two first starts at once, one owns the folder and one is refused', async () => {
  const folder = await temporaryFolder()
  const both = await Promise.all([startOwner(folder), startOwner(folder)])
  const names = both.map(({ says }) => ('error' in says ? says.error : 'owner')).sort()
  expect(names).toEqual(['DataFolderInUse', 'owner'])
  expect((await readdir(folder)).filter((name) => name.includes('.new-'))).toEqual([])
})

test.each([150, 400, 700, 1_000])(
  'a first start killed after %i ms leaves nothing in the way of the next',
  async (afterMs) => {
    const folder = await temporaryFolder()
    const script = join(repository, 'test/server/store/postgres-owner.ts')
    const child = spawn(process.execPath, ['--import', 'tsx', script, folder], { cwd: repository })
    children.push(child)
    // The time counts from the first trace of a start, not from that of the process.
    while ((await readdir(folder)).length === 0) await sleep(5)
    await sleep(afterMs)
    await kill(child)
    const server = await start(folder)
    expect(await query(server.connection, 'select 1')).toEqual([1])
  },
)

test('a stopped server is replaced by a starter that met it stopping', async () => {
  const folder = await temporaryFolder()
  const first = await start(folder)
  const [, second] = await Promise.all([first.stop(), start(folder)])
  expect(await query(second.connection, 'select 1')).toEqual([1])
})

test('a reused process id in a stale postmaster.pid does not prevent a start', async () => {
  const folder = await temporaryFolder()
  const first = await start(folder)
  process.kill(first.pid, 'SIGKILL')
  await first.exited
  // The same user as the server's: PostgreSQL on its own takes this process for a server.
  const other = spawn('sleep', ['60'], root ? nobody : {})
  children.push(other)
  const file = join(folder, 'cluster', 'postmaster.pid')
  const text = await readFile(file, 'utf8')
  await writeFile(file, text.replace(/^\d+/, String(other.pid)))
  const second = await start(folder)
  expect(await query(second.connection, 'select 1')).toEqual([1])
  expect(alive(other.pid ?? 0)).toBe(true)
})

test('a database of another major version is refused with advice', async () => {
  const folder = await temporaryFolder()
  await (await start(folder)).stop()
  await writeFile(join(folder, 'cluster', 'PG_VERSION'), '16\n')
  await expect(start(folder)).rejects.toThrow(/made by PostgreSQL 16.*GLEANER_POSTGRES/)
})

test('a folder without PostgreSQL is refused with advice', async () => {
  const empty = await temporaryFolder()
  const refusal = start(await temporaryFolder(), empty)
  await expect(refusal).rejects.toThrow(PostgresBinariesMissing)
  await expect(refusal).rejects.toThrow(/no PostgreSQL in .*DATABASE_URL/)
})

test('a path too long for a socket leads to one in the temporary folder', async () => {
  const folder = await temporaryFolder()
  const server = await start(join(folder, 'long'.repeat(30)))
  folders.push(join(folder, 'long'.repeat(30)))
  expect(dirname(server.connection.host)).toBe(realpathSync(tmpdir()))
  expect((await stat(server.connection.host)).mode & 0o777).toBe(0o700)
  await server.stop()
  expect(existsSync(server.connection.host)).toBe(false)
})

test('where no socket fits, it listens on loopback with a password', async () => {
  const folder = await temporaryFolder()
  const long = join(folder, 'long'.repeat(30))
  folders.push(long)
  await mkdir(long)
  const env = { TMPDIR: long }
  const { child, says } = await startedOwner(long, { env })
  const { connection } = says
  expect(connection.host).toBe('127.0.0.1')
  expect(await query(connection, 'select 1')).toEqual([1])
  await expect(query({ ...connection, password: 'wrong' }, 'select 1')).rejects.toThrow(/password/)
  const kept = await stat(join(long, 'cluster', 'gleaner.password'))
  expect(kept.mode & 0o777).toBe(0o600)
  await kill(child)
  const second = await startedOwner(long, { env })
  expect(second.says).toMatchObject({ adopted: true, connection })
  second.child.stdin?.write('stop\n')
  await once(second.child, 'exit')
  const third = await startedOwner(long, { env })
  expect(third.says).toMatchObject({ adopted: false, connection })
})

describe.runIf(root)('started as root', () => {
  test('the server runs as nobody', async () => {
    const folder = await temporaryFolder()
    const server = await start(folder)
    expect((await stat(`/proc/${server.pid}`)).uid).toBe(nobody.uid)
    const cluster = await stat(join(folder, 'cluster'))
    expect([cluster.uid, cluster.mode & 0o777]).toEqual([nobody.uid, 0o700])
  })

  test('a data folder that nobody cannot reach is refused with advice', async () => {
    const closed = join(await temporaryFolder(), 'closed')
    await mkdir(closed, { mode: 0o700 })
    const folder = join(closed, 'data')
    expect(await unreachableAsRoot(dirname(closed))).toBeUndefined()
    expect(await unreachableAsRoot(folder)).toBe(closed)
    await expect(start(folder)).rejects.toThrow(DataFolderUnusable)
    await expect(start(folder)).rejects.toThrow(`because ${closed} is closed to others`)
  })

  test('a cluster restored by root is given to the server', async () => {
    const folder = await temporaryFolder()
    await (await start(folder)).stop()
    execFileSync('chown', ['-R', '0:0', join(folder, 'cluster')])
    const server = await start(folder)
    expect(await query(server.connection, 'select 1')).toEqual([1])
  })

  test('binaries out of reach and without links are copied once', async () => {
    const manifest = createRequire(import.meta.url).resolve(
      `@embedded-postgres/${process.platform}-${process.arch}`,
    )
    const closed = await temporaryFolder()
    await chmod(closed, 0o700)
    const native = join(closed, 'native')
    await cp(join(dirname(manifest), '..', 'native'), native, {
      recursive: true,
      verbatimSymlinks: true,
      filter: (path) => !path.endsWith('libpq.so.5'),
    })
    const cache = await temporaryFolder()
    const copied = await bundledBinaries(native, '18', cache, nobody)
    expect(copied).toEqual({ binFolder: join(cache, 'pg-18', 'bin'), major: 18 })
    expect(await firstUnreachable(copied.binFolder, nobody)).toBeUndefined()
    expect(existsSync(join(cache, 'pg-18', 'lib', 'libpq.so.5'))).toBe(true)
    const data = await temporaryFolder()
    const server = await start(data, copied.binFolder)
    expect(await query(server.connection, 'select 1')).toEqual([1])
    const made = (await stat(join(cache, 'pg-18'))).mtimeMs
    await bundledBinaries(native, '18', cache, nobody)
    expect((await stat(join(cache, 'pg-18'))).mtimeMs).toBe(made)
  })

  test('an ordinary user starts it too, and root later serves the same folder', async () => {
    if ((await firstUnreachable(repository, nobody)) !== undefined) return
    const folder = await temporaryFolder()
    await chown(folder, nobody.uid, nobody.gid)
    const { child, says } = await startedOwner(folder, nobody)
    expect(await query(says.connection, 'select 1')).toEqual([1])
    child.stdin?.write('stop\n')
    await once(child, 'exit')
    const server = await start(folder)
    expect(server.connection).toEqual(says.connection)
    await server.stop()
    const again = await startedOwner(folder, nobody)
    expect(again.says.connection).toEqual(says.connection)
  })
})
