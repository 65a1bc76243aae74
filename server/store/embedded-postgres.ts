import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmod,
  chown,
  copyFile,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import type { Logger } from 'pino'
import { syncFolder, writeDurably } from './durable-file.ts'
import {
  findPostgresBinaries,
  firstUnreachable,
  type PostgresBinaries,
  program,
  type ServerIdentity,
} from './postgres-binaries.ts'
import { alive, mayBePostmaster, type Postmaster, readPostmasterFile } from './postmaster-file.ts'

/** Everything `pg` needs to connect. */
export interface PostgresConnection {
  /** An absolute path is the folder of a Unix socket. */
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
  readonly ssl: false
}

export interface EmbeddedPostgresOptions {
  /** Folder of the launcher alone; made if missing. The database is in `cluster/` below it. */
  readonly dataFolder: string
  readonly log: Logger
  /** A bin folder, or `'system'` to search this machine; without it, the npm platform package. */
  readonly binaries?: string | undefined
}

/** How the server ended. Both are null when it was adopted: only a parent learns them. */
export interface PostgresExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A running PostgreSQL that this process owns. */
export interface EmbeddedPostgres {
  /** Database `gleaner` as role `gleaner`, its owner. Keeps its value across a restart. */
  readonly connection: PostgresConnection
  /** The same with role `postgres`, a superuser, and database `postgres`. */
  readonly administration: PostgresConnection
  readonly pid: number
  /** True if an earlier owner was killed and left this server running. */
  readonly adopted: boolean
  /**
   * Resolves, never rejects, once the server or this process's ownership of it is gone, whether
   * asked for or not. Call `startEmbeddedPostgres` again to go on.
   */
  readonly exited: Promise<PostgresExit>
  /**
   * Ends every session, writes a checkpoint and ends the server. Committed transactions are
   * durable with or without this. May be called twice.
   *
   * @throws Error if the server is still there after 30 s
   */
  stop(): Promise<void>
}

/** Another live process owns this data folder. */
export class DataFolderInUse extends Error {
  override readonly name = 'DataFolderInUse'
  readonly dataFolder: string
  /** Undefined if it could not be told. */
  readonly ownerPid: number | undefined
  /** Private, because loggers write out the fields of an error. */
  readonly #connection: PostgresConnection

  constructor(dataFolder: string, ownerPid: number | undefined, connection: PostgresConnection) {
    const who = ownerPid === undefined ? 'another Gleaner server' : `process ${ownerPid}`
    super(`The database in ${dataFolder} is in use by ${who}. Stop it first.`)
    this.dataFolder = dataFolder
    this.ownerPid = ownerPid
    this.#connection = connection
  }

  /** The owner's server, for a command that only wants to talk to the database. */
  get connection(): PostgresConnection {
    return this.#connection
  }
}

/** The data folder cannot be used by the user the server runs as. The message says what to do. */
export class DataFolderUnusable extends Error {
  override readonly name = 'DataFolderUnusable'
}

/** `initdb` or the server gave up. The message holds the end of its output. */
export class PostgresStartFailed extends Error {
  override readonly name = 'PostgresStartFailed'
}

/**
 * Starts PostgreSQL on a data folder, makes the folder's database on first use, and takes
 * ownership of it until `stop`, or until this process dies in whatever way. A server that a killed
 * owner left running is adopted. Commits are durable when acknowledged (`fsync` and
 * `synchronous_commit` are on).
 *
 * Ownership is an advisory lock in the server itself, held by one session of this process: the
 * kernel closes the session when the process dies, so no stale lock can remain.
 *
 * Started as root, PostgreSQL runs as the owner of an existing database folder, or else as nobody
 * (65534). That user must be able to reach the data folder: under a home folder with mode 700 it
 * cannot, and this refuses. `unreachableAsRoot` tells beforehand.
 *
 * It listens on a Unix socket in a folder with mode 700 in the data folder or, where that path is
 * too long, in the temporary folder; else on loopback TCP with a random password (kept in
 * `cluster/gleaner.password`, mode 600). Windows always uses TCP, and is untested.
 *
 * @throws DataFolderInUse
 * @throws DataFolderUnusable
 * @throws PostgresBinariesMissing
 * @throws PostgresStartFailed
 */
export async function startEmbeddedPostgres(
  options: EmbeddedPostgresOptions,
): Promise<EmbeddedPostgres> {
  const { log } = options
  const place = await preparePlace(resolve(options.dataFolder))
  await boundLog(place.logFile)

  let binaries: PostgresBinaries | undefined
  const listenings = [...LISTENINGS]
  let child: ChildProcess | undefined
  const begunMs = performance.now()

  for (;;) {
    const spentMs = performance.now() - begunMs
    if (spentMs > START_LIMIT_MS) {
      throw new PostgresStartFailed(`PostgreSQL did not get ready in ${START_LIMIT_MS / 1000} s.`)
    }

    const running = await takeRunning(place)
    if (running.kind === 'owned') {
      const owned = new OwnedPostgres(place, running, child, options)
      log.info(
        { pid: owned.pid, ms: Math.round(spentMs) },
        owned.adopted ? 'adopted a running PostgreSQL' : 'PostgreSQL is ready',
      )
      return owned
    }
    if (running.kind === 'in-use') {
      throw new DataFolderInUse(place.dataFolder, running.ownerPid, running.connection)
    }
    // A server that neither answers nor ends within the limit for silence is left to PostgreSQL's
    // own judgement below: it refuses to start beside a live one.
    if (running.kind === 'not-yet' && (running.recovering || spentMs < SILENCE_LIMIT_MS)) {
      await sleep(POLL_MS)
      continue
    }

    binaries ??= await findPostgresBinaries(options.binaries, place.dataFolder, place.identity)
    await ensureCluster(place, binaries, log)
    const transport = await openTransport(place, listenings[0] ?? 'loopback')
    if (transport === undefined) {
      listenings.shift()
      continue
    }
    const launched = await launch(place, binaries, transport)
    if (launched.kind === 'ready') {
      child = launched.child
      continue
    }
    const otherServer = /lock file "postmaster\.pid" (already exists|is empty)|pre-existing shared/
    const cannotListen = /could not (create any|bind|create listen socket)|lock file ".*\.s\.PGSQL/
    if (otherServer.test(launched.output) && spentMs < SILENCE_LIMIT_MS) {
      // Another starter was faster, or a killed server's last processes are still ending.
      await sleep(POLL_MS)
    } else if (cannotListen.test(launched.output) && listenings.length > 1) {
      log.warn({ transport, output: launched.output }, 'PostgreSQL cannot listen there')
      listenings.shift()
    } else {
      throw new PostgresStartFailed(explainFailure(place, launched.output))
    }
  }
}

/**
 * The folder that would keep PostgreSQL from reaching `dataFolder` if this process is root; else
 * undefined. Lets a caller choose another data folder instead of meeting DataFolderUnusable.
 */
export async function unreachableAsRoot(dataFolder: string): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return undefined
  return firstUnreachable(await realpathOfExisting(resolve(dataFolder)), NOBODY)
}

const NOBODY: ServerIdentity = { uid: 65_534, gid: 65_534 }

const ADMINISTRATOR = 'postgres'
const APPLICATION = 'gleaner'

/** Advisory lock of the owner, in database `postgres`. The numbers only have to be ours. */
const OWNER_LOCK = { classId: 0x676c_6561, objectId: 1 }

const POLL_MS = 10

/** Recovery after a crash replays at most `max_wal_size` (1 GB): minutes on a slow disk. */
const START_LIMIT_MS = 300_000

/** How long a server may be silent: a fast shutdown or the last processes of a killed one. */
const SILENCE_LIMIT_MS = 15_000

/** A session of a killed owner ends as soon as its backend reads the closed socket. */
const OWNER_GRACE_MS = 1_000

const FAST_SHUTDOWN_LIMIT_MS = 20_000
const IMMEDIATE_SHUTDOWN_LIMIT_MS = 10_000
const STOP_LIMIT_MS = FAST_SHUTDOWN_LIMIT_MS + IMMEDIATE_SHUTDOWN_LIMIT_MS

/** Between the end of our session and that of the server that ended it. */
const EXIT_REPORT_MS = 2_000

/** The log and its predecessor: 16 MiB, plus what one minute may add. */
const LOG_LIMIT_BYTES = 8 * 1024 * 1024
const LOG_CHECK_MS = 60_000

/** `sun_path` holds 104 bytes on macOS and 108 on Linux, with the final zero. */
const SOCKET_PATH_LIMIT_BYTES = 103

interface Place {
  readonly dataFolder: string
  readonly cluster: string
  readonly logFile: string
  readonly identity: ServerIdentity | undefined
}

/** Ways to listen, the best first. */
const LISTENINGS = ['socket in data folder', 'socket in temporary folder', 'loopback'] as const
type Listening = (typeof LISTENINGS)[number]

type Transport =
  | { readonly kind: 'socket'; readonly folder: string }
  | { readonly kind: 'tcp'; readonly port: number }

async function preparePlace(wanted: string): Promise<Place> {
  await mkdir(wanted, { recursive: true })
  const dataFolder = await realpath(wanted)
  const cluster = join(dataFolder, 'cluster')
  const logFile = join(dataFolder, 'server.log')

  if (process.getuid?.() !== 0) {
    return { dataFolder, cluster, logFile, identity: undefined }
  }
  const owner = await stat(cluster).catch(() => undefined)
  const identity =
    owner === undefined || owner.uid === 0 ? NOBODY : { uid: owner.uid, gid: owner.gid }
  // Restored from a backup by root: PostgreSQL insists on owning its files.
  if (owner?.uid === 0) await chownTree(cluster, identity)
  await chmod(dataFolder, (await stat(dataFolder)).mode | 0o011)
  const obstacle = await firstUnreachable(dataFolder, identity)
  if (obstacle !== undefined) {
    throw new DataFolderUnusable(
      `PostgreSQL refuses to run as root, so it runs as user ${identity.uid}, who cannot reach ` +
        `${dataFolder} because ${obstacle} is closed to others. Choose a data folder elsewhere ` +
        '(for example below /var/lib), or start Gleaner as an ordinary user.',
    )
  }
  return { dataFolder, cluster, logFile, identity }
}

type Running =
  | { kind: 'none' }
  /** A server process exists but does not serve (any more). */
  | { kind: 'not-yet'; recovering: boolean }
  | { kind: 'in-use'; ownerPid: number | undefined; connection: PostgresConnection }
  | OwnedServer

interface OwnedServer {
  readonly kind: 'owned'
  readonly postmaster: Postmaster
  readonly session: pg.Client
  readonly administration: PostgresConnection
}

/** Connects to the server that runs on this folder, if one does, and takes ownership of it. */
async function takeRunning(place: Place): Promise<Running> {
  const postmaster = await readPostmasterFile(place.cluster).catch((cause: unknown) => {
    throw new DataFolderUnusable(
      `The database in ${place.dataFolder} cannot be read. Start Gleaner as the user who made it.`,
      { cause },
    )
  })
  if (postmaster === undefined || !mayBePostmaster(postmaster.pid, place.cluster)) {
    return { kind: 'none' }
  }
  const recovering = postmaster.status === 'starting'
  if (postmaster.status !== 'ready') return { kind: 'not-yet', recovering }

  const administration: PostgresConnection = {
    // Everything stated, so that no PG* variable of the environment counts.
    host: isAbsolute(postmaster.socketFolder) ? postmaster.socketFolder : '127.0.0.1',
    port: postmaster.port,
    user: ADMINISTRATOR,
    password: (await readFile(passwordFile(place.cluster), 'utf8')).trim(),
    database: 'postgres',
    ssl: false,
  }
  const session = new pg.Client({
    ...administration,
    application_name: `gleaner-owner-${process.pid}`,
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
  })
  // Its 'end' event says all we need; without a listener an 'error' would end the process.
  session.on('error', () => {})
  try {
    await session.connect()
    const answer = await session.query<{ data_directory: string }>('show data_directory')
    const served = answer.rows[0]?.data_directory ?? ''
    if ((await realpath(served).catch(() => served)) !== place.cluster) {
      // The file is stale and its TCP port now belongs to some other PostgreSQL.
      await session.end()
      return { kind: 'none' }
    }
    const ownerPid = await lockOwnership(session)
    if (ownerPid !== 'locked') {
      await session.end()
      return { kind: 'in-use', ownerPid, connection: forApplication(administration) }
    }
    await ensureApplicationDatabase(session, administration.password)
    return { kind: 'owned', postmaster, session, administration }
  } catch (error) {
    await session.end().catch(() => {})
    if (isUnavailable(error)) return { kind: 'not-yet', recovering }
    throw new PostgresStartFailed(
      `The PostgreSQL on ${place.dataFolder} (process ${postmaster.pid}) refused its owner.`,
      { cause: error },
    )
  }
}

async function lockOwnership(session: pg.Client): Promise<'locked' | number | undefined> {
  const key = [OWNER_LOCK.classId, OWNER_LOCK.objectId]
  const begunMs = performance.now()
  for (;;) {
    const tried = await session.query<{ locked: boolean }>(
      'select pg_try_advisory_lock($1::int, $2::int) as locked',
      key,
    )
    if (tried.rows[0]?.locked === true) return 'locked'
    if (performance.now() - begunMs > OWNER_GRACE_MS) break
    await sleep(50)
  }
  const holder = await session.query<{ application_name: string }>(
    `select activity.application_name
       from pg_locks held join pg_stat_activity activity on activity.pid = held.pid
      where held.locktype = 'advisory' and held.granted
        and held.classid = $1::int::oid and held.objid = $2::int::oid`,
    key,
  )
  const pid = /^gleaner-owner-(\d+)$/.exec(holder.rows[0]?.application_name ?? '')?.[1]
  return pid === undefined ? undefined : Number(pid)
}

/** The application's role is not a superuser: SQL that goes wrong stays inside its database. */
async function ensureApplicationDatabase(session: pg.Client, password: string): Promise<void> {
  const role = await session.query('select from pg_roles where rolname = $1', [APPLICATION])
  if (role.rowCount === 0) {
    await session.query(
      `create role ${APPLICATION} login password ${session.escapeLiteral(password)}`,
    )
  }
  const database = await session.query('select from pg_database where datname = $1', [APPLICATION])
  if (database.rowCount === 0) {
    await session.query(`create database ${APPLICATION} owner ${APPLICATION}`)
  }
}

/** The server is starting, stopping, or was gone before we came. */
function isUnavailable(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = (error as { code?: unknown }).code
  const codes = ['57P01', '57P02', '57P03', 'ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE']
  // `pg` gives no code to a connection that ends under a query.
  return codes.includes(String(code)) || /^Connection terminated/.test(error.message)
}

function forApplication(administration: PostgresConnection): PostgresConnection {
  return { ...administration, user: APPLICATION, database: APPLICATION }
}

class OwnedPostgres implements EmbeddedPostgres {
  readonly connection: PostgresConnection
  readonly administration: PostgresConnection
  readonly pid: number
  readonly adopted: boolean
  readonly exited: Promise<PostgresExit>
  readonly #place: Place
  readonly #session: pg.Client
  readonly #child: ChildProcess | undefined
  readonly #options: EmbeddedPostgresOptions
  #stopped: Promise<void> | undefined
  #ownsServer = true

  constructor(
    place: Place,
    owned: OwnedServer,
    child: ChildProcess | undefined,
    options: EmbeddedPostgresOptions,
  ) {
    this.#place = place
    this.#session = owned.session
    this.#options = options
    this.administration = owned.administration
    this.connection = forApplication(owned.administration)
    this.pid = owned.postmaster.pid
    this.adopted = child?.pid !== this.pid
    this.#child = this.adopted ? undefined : child
    this.exited = this.#watch()
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  async #stop(): Promise<void> {
    // Whoever took the server over since decides about it.
    if (!this.#ownsServer) return
    this.#child?.ref()
    await sendSignal(this.pid, 'SIGINT', this.#options.binaries)
    if (!(await this.#isGoneWithin(FAST_SHUTDOWN_LIMIT_MS))) {
      this.#options.log.warn({ pid: this.pid }, 'PostgreSQL is slow to stop; ending it at once')
      await sendSignal(this.pid, 'SIGQUIT', this.#options.binaries)
      if (!(await this.#isGoneWithin(IMMEDIATE_SHUTDOWN_LIMIT_MS))) {
        throw new Error(`PostgreSQL (process ${this.pid}) does not stop`)
      }
    }
    await this.exited
    const socketFolder = this.administration.host
    if (isAbsolute(socketFolder) && dirname(socketFolder) !== this.#place.dataFolder) {
      // In the temporary folder. A starter may already use it again; it is then not empty.
      await rmdir(socketFolder).catch(() => {})
    }
  }

  async #watch(): Promise<PostgresExit> {
    const boundingLog = setInterval(() => {
      boundLog(this.#place.logFile).catch((err: unknown) => {
        this.#options.log.warn({ err }, 'the log of PostgreSQL cannot be shortened')
      })
    }, LOG_CHECK_MS)
    boundingLog.unref()
    const exit = await this.#end()
    this.#ownsServer = false
    clearInterval(boundingLog)
    // Already over, unless the server's end was reported first.
    await this.#session.end().catch(() => {})
    return exit
  }

  async #end(): Promise<PostgresExit> {
    const sessionEnd = new Promise<void>((resolve) => this.#session.once('end', resolve))
    const child = this.#child
    if (child === undefined) {
      await sessionEnd
      if (this.#stopped !== undefined) await this.#isGoneWithin(STOP_LIMIT_MS)
      return { code: null, signal: null }
    }
    const childExit = new Promise<void>((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) resolve()
      else child.once('exit', () => resolve())
    })
    await Promise.race([sessionEnd, childExit])
    // Sessions end before their server does: give it time to report how. A session alone can only
    // end through an administrator, and then ownership is lost all the same.
    const late = new AbortController()
    const limitMs = this.#stopped === undefined ? EXIT_REPORT_MS : STOP_LIMIT_MS
    const limit = sleep(limitMs, undefined, { signal: late.signal }).catch(() => {})
    await Promise.race([childExit, limit])
    late.abort()
    return { code: child.exitCode, signal: child.signalCode }
  }

  async #isGoneWithin(limitMs: number): Promise<boolean> {
    const begunMs = performance.now()
    while (alive(this.pid)) {
      if (performance.now() - begunMs > limitMs) return false
      await sleep(POLL_MS)
    }
    return true
  }
}

async function sendSignal(
  pid: number,
  signal: 'SIGINT' | 'SIGQUIT',
  wantedBinaries: string | undefined,
): Promise<void> {
  if (process.platform === 'win32') {
    // Windows has no such signals; PostgreSQL listens on a named pipe for them.
    const { binFolder } = await findPostgresBinaries(wantedBinaries, tmpdir(), undefined)
    await promisify(execFile)(join(binFolder, program('pg_ctl')), [
      'kill',
      signal.slice(3),
      String(pid),
    ])
    return
  }
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Makes the database files on first use. Complete or absent: a kill leaves nothing half-made. */
async function ensureCluster(place: Place, binaries: PostgresBinaries, log: Logger): Promise<void> {
  const made = await readFile(join(place.cluster, 'PG_VERSION'), 'utf8').catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    },
  )
  if (made !== undefined) {
    if (Number(made) === binaries.major) return
    throw new DataFolderUnusable(
      `The database in ${place.dataFolder} was made by PostgreSQL ${made.trim()}, and ` +
        `${binaries.binFolder} is ${binaries.major}. Set GLEANER_POSTGRES to the bin folder ` +
        `of a PostgreSQL ${made.trim()}, or dump the database with it and restore it here.`,
    )
  }
  await removeAbandoned(place.dataFolder)
  const fresh = `${place.cluster}.new-${process.pid}-${randomBytes(4).toString('hex')}`
  try {
    await mkdir(fresh, { mode: 0o700 })
    // Beside the folder until initdb, which insists on an empty one, is done.
    const password = `${fresh}.password`
    await writeDurably(password, randomBytes(24).toString('hex'))
    if (place.identity !== undefined) {
      await chown(fresh, place.identity.uid, place.identity.gid)
      await chown(password, place.identity.uid, place.identity.gid)
    }
    await runInitdb(place, binaries, fresh, password)
    await rename(password, passwordFile(fresh))
    await syncFolder(fresh)
    await rename(fresh, place.cluster)
    await syncFolder(place.dataFolder)
    // Committed: from here the folder has a database.
    log.info({ cluster: place.cluster }, 'made the database files')
  } catch (error) {
    await rm(fresh, { recursive: true, force: true })
    await rm(`${fresh}.password`, { force: true })
    const code = (error as NodeJS.ErrnoException).code
    // Another starter made them first.
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error
  }
}

async function runInitdb(
  place: Place,
  binaries: PostgresBinaries,
  cluster: string,
  password: string,
): Promise<void> {
  const settings = [
    ...['-D', cluster, '-U', ADMINISTRATOR, '--pwfile', password],
    // Byte order on every machine, whatever its locale.
    ...['--encoding=UTF8', '--no-locale', '--data-checksums', '--no-instructions'],
    // The socket's folder is closed to everyone else.
    ...['--auth-local=trust', '--auth-host=scram-sha-256'],
  ]
  try {
    await promisify(execFile)(join(binaries.binFolder, program('initdb')), settings, {
      cwd: place.dataFolder,
      env: serverEnvironment(),
      timeout: 120_000,
      ...place.identity,
    })
  } catch (cause) {
    const { stderr, message } = cause as { stderr?: string; message: string }
    throw new PostgresStartFailed(`initdb failed: ${stderr?.trim() || message}`, { cause })
  }
}

/** What an earlier first start left when it was killed; ten minutes are far beyond any. */
async function removeAbandoned(dataFolder: string): Promise<void> {
  for (const name of await readdir(dataFolder)) {
    if (!/^cluster\.new-\d+-[0-9a-f]+(\.password)?$/.test(name)) continue
    const path = join(dataFolder, name)
    const found = await stat(path).catch(() => undefined)
    if (found !== undefined && Date.now() - found.mtimeMs > 600_000) {
      await rm(path, { recursive: true, force: true })
    }
  }
}

type Launched =
  | { kind: 'ready'; child: ChildProcess }
  | { kind: 'ended'; output: string; code: number | null }

async function launch(
  place: Place,
  binaries: PostgresBinaries,
  transport: Transport,
): Promise<Launched> {
  const logHandle = await open(place.logFile, 'a', 0o640)
  try {
    if (place.identity !== undefined) {
      await logHandle.chown(place.identity.uid, place.identity.gid)
    }
    const logStart = (await logHandle.stat()).size
    const begunMs = performance.now()
    const child = spawn(
      join(binaries.binFolder, program('postgres')),
      ['-D', place.cluster, ...serverSettings(transport)],
      {
        cwd: place.dataFolder,
        env: { ...serverEnvironment(), ...(await notAServer(place.cluster)) },
        stdio: ['ignore', logHandle.fd, logHandle.fd],
        // A group of its own: Ctrl-C in the terminal must reach Gleaner alone, which then stops
        // its database last.
        detached: true,
        windowsHide: true,
        ...place.identity,
      },
    )
    let spawnError: Error | undefined
    child.once('error', (error) => {
      spawnError = error
    })
    child.unref()
    while (child.exitCode === null && child.signalCode === null && spawnError === undefined) {
      const postmaster = await readPostmasterFile(place.cluster)
      if (postmaster?.pid === child.pid && postmaster?.status === 'ready') {
        return { kind: 'ready', child }
      }
      if (performance.now() - begunMs > START_LIMIT_MS) {
        throw new PostgresStartFailed(`PostgreSQL (process ${child.pid}) is still not ready.`)
      }
      await sleep(POLL_MS)
    }
    if (spawnError !== undefined) {
      throw new PostgresStartFailed(`PostgreSQL cannot be run: ${spawnError.message}`, {
        cause: spawnError,
      })
    }
    const written = await readFile(place.logFile, 'utf8')
    return { kind: 'ended', output: written.slice(logStart).slice(-4_000), code: child.exitCode }
  } finally {
    await logHandle.close()
  }
}

/**
 * PostgreSQL refuses to start while the process named in a stale `postmaster.pid` exists, were it
 * some other program with a reused id: usual in containers, where ids start over. Told through
 * this variable, as `pg_ctl` tells it, that the process is no server, it goes on to its other
 * checks and replaces the file itself.
 */
async function notAServer(cluster: string): Promise<NodeJS.ProcessEnv> {
  const named = await readPostmasterFile(cluster)
  if (named === undefined || !alive(named.pid) || mayBePostmaster(named.pid, cluster)) return {}
  return { PG_GRANDPARENT_PID: String(named.pid) }
}

function serverSettings(transport: Transport): string[] {
  const settings: Record<string, string> = {
    fsync: 'on',
    synchronous_commit: 'on',
    full_page_writes: 'on',
    // A few server processes with pools of ten, and room for an administrator.
    max_connections: '60',
    shared_buffers: '128MB',
    // Set-based statements over small sets; parallel ones need more /dev/shm than containers have.
    max_parallel_workers_per_gather: '0',
    jit: 'off',
    timezone: 'UTC',
    log_timezone: 'UTC',
    // One crashed session ends the server: `exited` is then the only way a crash shows itself.
    restart_after_crash: 'off',
    // No statement and no key value, hence no contributor's data, gets into the log.
    log_min_error_statement: 'panic',
    log_error_verbosity: 'terse',
    log_checkpoints: 'off',
    logging_collector: 'off',
    ...(transport.kind === 'socket'
      ? {
          unix_socket_directories: transport.folder,
          unix_socket_permissions: '0700',
          listen_addresses: '',
        }
      : {
          unix_socket_directories: '',
          listen_addresses: '127.0.0.1',
          port: String(transport.port),
        }),
  }
  return Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
}

/** Nothing of our own environment, which may hold secrets, but what programs need to run. */
function serverEnvironment(): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { LC_ALL: 'C', TZ: 'UTC' }
  for (const name of ['PATH', 'SystemRoot', 'TEMP', 'TMP', 'TMPDIR', 'LD_LIBRARY_PATH']) {
    const value = process.env[name]
    if (value !== undefined) environment[name] = value
  }
  return environment
}

/** Undefined if it cannot listen so. Loopback is always possible. */
async function openTransport(place: Place, listening: Listening): Promise<Transport | undefined> {
  if (listening === 'loopback') {
    return { kind: 'tcp', port: await choosePort(join(place.dataFolder, 'port')) }
  }
  if (process.platform === 'win32') return undefined
  // The same at every start, so that pools find a restarted server.
  const digest = createHash('sha256').update(place.cluster).digest('hex')
  const folder =
    listening === 'socket in data folder'
      ? join(place.dataFolder, 'socket')
      : join(await realpath(tmpdir()), `gleaner-${digest.slice(0, 16)}`)
  // The setting is a list of folders, in which these have a meaning.
  if (/[,"\s]/.test(folder)) return undefined
  const path = join(folder, '.s.PGSQL.5432')
  if (Buffer.byteLength(path) > SOCKET_PATH_LIMIT_BYTES) return undefined
  const made = await makePrivateFolder(folder, place.identity)
  return made ? { kind: 'socket', folder } : undefined
}

/** False if somebody else put something there, as anyone may in the temporary folder. */
async function makePrivateFolder(
  folder: string,
  identity: ServerIdentity | undefined,
): Promise<boolean> {
  try {
    await mkdir(folder, { mode: 0o700 })
    if (identity !== undefined) await chown(folder, identity.uid, identity.gid)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return false
  }
  if (identity !== undefined && (await firstUnreachable(folder, identity)) !== undefined)
    return false
  const found = await lstat(folder)
  const uid = identity?.uid ?? process.getuid?.()
  return found.isDirectory() && found.uid === uid && (found.mode & 0o077) === 0
}

/** The port of the last start if it is still free, so that pools find a restarted server. */
async function choosePort(file: string): Promise<number> {
  const last = Number(await readFile(file, 'utf8').catch(() => '0'))
  const port = await freePort(last).catch(() => freePort(0))
  if (port !== last) await writeFile(file, String(port))
  return port
}

async function freePort(wanted: number): Promise<number> {
  const server = createServer()
  server.listen(wanted, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('a TCP server has a port')
  return address.port
}

function explainFailure(place: Place, output: string): string {
  const said = output.trim().split('\n').slice(-12).join('\n')
  const hint = /lock file "postmaster\.pid" already exists/.test(output)
    ? ` If that process is not PostgreSQL, delete ${join(place.cluster, 'postmaster.pid')}.`
    : ''
  return `PostgreSQL did not start.${hint} The end of ${place.logFile}:\n${said}`
}

/** Moves a full log aside. Its writer appends, so it goes on at the start of the emptied file. */
async function boundLog(logFile: string): Promise<void> {
  const found = await stat(logFile).catch(() => undefined)
  if (found === undefined || found.size <= LOG_LIMIT_BYTES) return
  await copyFile(logFile, `${logFile}.old`)
  await truncate(logFile, 0)
}

function passwordFile(cluster: string): string {
  return join(cluster, 'gleaner.password')
}

async function chownTree(path: string, identity: ServerIdentity): Promise<void> {
  const found = await lstat(path)
  if (found.isSymbolicLink()) return
  await chown(path, identity.uid, identity.gid)
  if (!found.isDirectory()) return
  for (const name of await readdir(path)) await chownTree(join(path, name), identity)
}

async function realpathOfExisting(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || path === dirname(path)) throw error
    return realpathOfExisting(dirname(path))
  }
}
