import pg from 'pg'
import type { Logger } from 'pino'
import type { Queryable } from './queryable.ts'

export interface DatabaseOptions {
  /** `connection` of an embedded server, or `{ connectionString }` of any other. */
  readonly connection: pg.PoolConfig
  readonly log: Logger
  /** Connections at most; 10 unless said. Each costs the server a process of about 10 MB. */
  readonly maxConnections?: number
  /** The server cancels a longer statement (SQLSTATE 57014); 30 000 unless said. */
  readonly statementTimeoutMs?: number
}

/**
 * An open database. Values arrive as: `int8` a safe integer (else the query throws RangeError),
 * `bytea` a Buffer, `timestamptz` a Date, `numeric` a string (so cast sums: `sum(x)::int8`),
 * `date` a string `2026-01-31`. `timestamp` without a zone throws: it means another instant on
 * another machine.
 *
 * A lost connection fails the queries on it and nothing else: it is logged, and later queries
 * connect anew. A query that failed so may have taken effect; derive identifiers from causes, and
 * repeat it.
 */
export interface Database {
  /** A Queryable, for statements that need no transaction. */
  readonly pool: pg.Pool

  /**
   * Runs `body` in one transaction. On return its effects are committed and durable; on a throw
   * they are rolled back, or, if the connection was lost during the commit, unknown.
   *
   * After a deadlock or serialization failure `body` runs again, five times in all at most: it
   * must have no effect outside the transaction.
   */
  transaction<T>(body: (tx: Queryable) => Promise<T>, options?: TransactionOptions): Promise<T>

  /** Ends idle connections at once and busy ones when their query is done. May be called twice. */
  close(): Promise<void>
}

export interface TransactionOptions {
  /** `read committed` unless said. */
  readonly isolation?: 'read committed' | 'repeatable read' | 'serializable'
}

/** Opens a pool; connects at the first query. */
export function openDatabase(options: DatabaseOptions): Database {
  const { log } = options
  const statementTimeoutMs = options.statementTimeoutMs ?? 30_000
  const pool = new pg.Pool({
    application_name: `gleaner-${process.pid}`,
    keepAlive: true,
    connectionTimeoutMillis: 10_000,
    idleTimeoutMillis: 60_000,
    ...options.connection,
    max: options.maxConnections ?? 10,
    statement_timeout: statementTimeoutMs,
    // A process that hangs inside a transaction must not hold its locks for ever.
    idle_in_transaction_session_timeout: 2 * statementTimeoutMs,
    types: valueParsers,
  })
  const lost = (err: Error): void => log.warn({ err }, 'lost a connection to the database')
  // Idle connections report to the pool; busy ones to themselves, and without a listener of their
  // own such an 'error' would end the process.
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', lost))

  let closed: Promise<void> | undefined
  return {
    pool,
    transaction: (body, { isolation = 'read committed' } = {}) =>
      repeatOnConflict(() => runTransaction(pool, body, isolation)),
    close: () => {
      closed ??= pool.end()
      return closed
    },
  }
}

async function runTransaction<T>(
  pool: pg.Pool,
  body: (tx: Queryable) => Promise<T>,
  isolation: string,
): Promise<T> {
  const client = await pool.connect()
  let broken = true
  try {
    await client.query(`begin isolation level ${isolation}`)
    const result = await body(transactionOn(client))
    const { command } = await client.query('commit')
    broken = false
    // The server answers so when a statement failed and the body went on as if it had not.
    if (command !== 'COMMIT') throw new Error('the transaction was rolled back: a statement failed')
    // Committed.
    return result
  } catch (error) {
    if (broken) {
      // A rollback fails only with the connection, and the server then rolls back by itself.
      const rolledBack = await client.query('rollback').catch(() => undefined)
      broken = rolledBack === undefined
    }
    throw error
  } finally {
    client.release(broken)
  }
}

/** A failed statement leaves the transaction failed; the connection is released when the body returns. */
function transactionOn(client: pg.PoolClient): Queryable {
  return {
    query: (text, values) => client.query(text, values === undefined ? undefined : [...values]),
  }
}

/** In all. Each repeat waits for the transaction that it lost against. */
const ATTEMPTS = 5

async function repeatOnConflict<T>(run: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await run()
    } catch (error) {
      if (attempt === ATTEMPTS || !isConflict(error)) throw error
    }
  }
}

/** serialization_failure and deadlock_detected: the server rolled back, and asks for a repeat. */
function isConflict(error: unknown): boolean {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined
  return code === '40001' || code === '40P01'
}

/**
 * Whether an error says that the database could not be reached, or was lost on the way: it starts,
 * stops, or all of its connections are busy. Nothing is wrong with what was asked; ask again.
 */
export function isAway(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const { code, syscall } = error as { code?: unknown; syscall?: unknown }
  // Class 08 is a failed connection, 57P a server that goes down or comes up.
  if (typeof code === 'string' && /^(08|57P)/.test(code)) return true
  // The socket's file is gone while the server is.
  if (code === 'ENOENT') return syscall === 'connect'
  if (code === 'ECONNREFUSED' || code === 'ECONNRESET' || code === 'EPIPE') return true
  // `pg` and its pool give these no code.
  return /^Connection terminated|connection error and is not queryable|^timeout exceeded when trying to connect/.test(
    error.message,
  )
}

const valueParsers: pg.CustomTypesConfig = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') => {
    if (format === 'binary') return pg.types.getTypeParser(oid, 'binary')
    return textParsers.get(oid) ?? pg.types.getTypeParser(oid, 'text')
  },
}

/** By type id, as in PostgreSQL's pg_type.dat. */
const textParsers = new Map<number, (text: string) => unknown>([
  [20, safeInteger], // int8
  [1016, (text) => elements(text).map((item) => (item === null ? null : safeInteger(item)))], // int8[]
  [1082, (text) => text], // date
  [1114, refuseTimestamp], // timestamp
])

function safeInteger(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new RangeError(`int8 ${text} is no safe integer`)
  return value
}

/** Of a one-dimensional array of numbers, which needs no quotes. */
function elements(text: string): (string | null)[] {
  const inner = text.slice(1, -1)
  if (inner === '') return []
  return inner.split(',').map((item) => (item === 'NULL' ? null : item))
}

function refuseTimestamp(): never {
  throw new TypeError('timestamp without time zone in a result: use timestamptz')
}
