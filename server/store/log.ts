import { CompactRange, type CompactRangeState } from '../../lib/tlog/compact-range.ts'
import { leafHash } from '../../lib/tlog/merkle.ts'
import type { Queryable } from './queryable.ts'

/** Serialises appends of all server processes. Any constant will do. */
const logLock = 0x676c6f67

/**
 * Appends entries and signs the new checkpoint, in the caller's transaction:
 * either all of it becomes durable or none. Returns the first new index.
 */
export async function appendToLog(
  tx: Queryable,
  entries: readonly string[],
  sign: (size: number, root: Uint8Array) => Promise<string>,
): Promise<number> {
  if (entries.length === 0) throw new Error('nothing to append to the log')
  await tx.query('select pg_advisory_xact_lock($1)', [logLock])
  const latest = await tx.query<{ range: CompactRangeState }>(
    'select range from log_checkpoint order by size desc limit 1',
  )
  const range = latest.rows[0] ? CompactRange.fromState(latest.rows[0].range) : new CompactRange()
  const first = range.size
  const hashes = entries.map((entry) => leafHash(new TextEncoder().encode(entry)))
  for (const hash of hashes) range.append(hash)
  await tx.query(
    `insert into log_leaf (index, hash, entry)
     select $1 + l.n - 1, l.hash, l.entry
     from unnest($2::bytea[], $3::text[]) with ordinality as l (hash, entry, n)`,
    [first, hashes, entries],
  )
  await tx.query('insert into log_checkpoint (size, root, range, note) values ($1, $2, $3, $4)', [
    range.size,
    range.root(),
    JSON.stringify(range.state()),
    await sign(range.size, range.root()),
  ])
  return first
}

export async function latestCheckpoint(
  db: Queryable,
): Promise<{ size: number; note: string } | null> {
  const { rows } = await db.query<{ size: number; note: string }>(
    'select size, note from log_checkpoint order by size desc limit 1',
  )
  return rows[0] ?? null
}

/** Leaf hashes of the first `size` entries. */
export async function leafHashes(db: Queryable, size: number): Promise<Buffer[]> {
  const { rows } = await db.query<{ hash: Buffer }>(
    'select hash from log_leaf where index < $1 order by index',
    [size],
  )
  if (rows.length !== size) throw new Error(`the log holds ${rows.length} leaves of ${size}`)
  return rows.map((row) => row.hash)
}

export async function leafIndexOf(db: Queryable, hash: Uint8Array): Promise<number | null> {
  const { rows } = await db.query<{ index: number }>(
    'select index from log_leaf where hash = $1 order by index limit 1',
    [hash],
  )
  return rows[0]?.index ?? null
}

export async function entriesAt(
  db: Queryable,
  indexes: readonly number[],
): Promise<{ leafIndex: number; entry: string }[]> {
  const { rows } = await db.query<{ index: number; entry: string }>(
    'select index, entry from log_leaf where index = any($1::bigint[]) order by index',
    [indexes],
  )
  return rows.map((row) => ({ leafIndex: row.index, entry: row.entry }))
}
