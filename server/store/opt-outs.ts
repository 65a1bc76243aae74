import type { OptOut } from '../../lib/protocol/opt-out.ts'
import {
  namesAbove,
  nextLookMs,
  type OptOutTarget,
  optOutCovers,
  proofPlaces,
  waitingMs,
} from '../frontier/opt-out.ts'
import { addAuditorTasks } from './auditor-tasks.ts'
import type { Queryable } from './queryable.ts'

/** Serialises new requests, so that one target has one, and the bounds hold. Any constant will do. */
const requestLock = 0x6f707452
/**
 * Held shared by whoever opens tasks, from the question whether they are opted out until that is
 * committed; held alone for the moment in which an opt-out becomes verified. So a task is either
 * opened before, and then seen by those who close, or refused. Any constant will do.
 */
const coverLock = 0x6f707443

/** Of the whole server: an owner asks once, and a script must not fill the table. */
const newAMinute = 20
/** With five look-ups each they cost the auditor less than two a second. */
const mostWaiting = 1000
/** A button that is pressed twice asks once. */
const lookAgainSeconds = 10

export interface StoredOptOut extends OptOutTarget {
  id: Buffer
  token: string
  state: OptOut['state']
  reason: string | null
  requestedAt: Date
  verifiedAt: Date | null
  tasks: number
  leases: number
  records: number
  leafIndex: number | null
}

const columns = `id, scope, host, path, token, state, reason, requested_at as "requestedAt",
  verified_at as "verifiedAt", tasks, leases, records, leaf_index as "leafIndex"`

export type Requested =
  | { kind: 'new' | 'known'; optOut: StoredOptOut }
  | { kind: 'too-many' | 'full'; retryAfterSeconds: number }

/**
 * Asks for an opt-out. A target that waits or is out already is answered with what there is, token
 * included: asking again costs nothing and finds the way back.
 */
export async function requestOptOut(
  tx: Queryable,
  target: OptOutTarget,
  made: { id: Uint8Array; token: string },
): Promise<Requested> {
  await tx.query('select pg_advisory_xact_lock($1)', [requestLock])
  await endUnproven(tx)
  const known = await tx.query<StoredOptOut>(
    `select ${columns} from opt_out
     where scope = $1 and host = $2 and path = $3 and state in ('waiting', 'verified')
     order by state = 'verified' desc limit 1`,
    [target.scope, target.host, target.path],
  )
  if (known.rows[0]) return { kind: 'known', optOut: known.rows[0] }
  const { rows } = await tx.query<{ waiting: number; fresh: number; wait: number | null }>(
    `select count(*) filter (where state = 'waiting') as waiting,
            count(*) filter (where requested_at > now() - interval '1 minute') as fresh,
            ceil(extract(epoch from min(requested_at)
              filter (where requested_at > now() - interval '1 minute')
              + interval '1 minute' - now()))::int8 as wait
     from opt_out where state = 'waiting' or requested_at > now() - interval '1 minute'`,
  )
  const [now] = rows
  if (now && now.fresh >= newAMinute) {
    return { kind: 'too-many', retryAfterSeconds: Math.max(1, now.wait ?? 60) }
  }
  // One is proven or seven days old some time; an hour is soon enough to try again.
  if (now && now.waiting >= mostWaiting) return { kind: 'full', retryAfterSeconds: 3600 }
  const added = await tx.query<StoredOptOut>(
    `insert into opt_out (id, scope, host, path, token) values ($1, $2, $3, $4, $5)
     returning ${columns}`,
    [made.id, target.scope, target.host, target.path, made.token],
  )
  const { dns, files } = proofPlaces(target)
  await addAuditorTasks(tx, [
    ...dns.map((name) => ({ kind: 'opt-out-dns' as const, target: name, optOut: made.id })),
    ...files.map((url) => ({ kind: 'opt-out-file' as const, target: url, optOut: made.id })),
  ])
  return { kind: 'new', optOut: added.rows[0] as StoredOptOut }
}

export async function optOutById(db: Queryable, id: Uint8Array): Promise<StoredOptOut | null> {
  const { rows } = await db.query<StoredOptOut>(`select ${columns} from opt_out where id = $1`, [
    id,
  ])
  return rows[0] ?? null
}

/** The newest first. */
export async function latestOptOuts(
  db: Queryable,
  wanted: { state?: OptOut['state'] | undefined; limit: number },
): Promise<StoredOptOut[]> {
  const { rows } = await db.query<StoredOptOut>(
    `select ${columns} from opt_out where $1::text is null or state = $1
     order by requested_at desc, id limit $2`,
    [wanted.state ?? null, wanted.limit],
  )
  return rows
}

/** A place where a proof is looked for, and what the auditor last found there. */
export interface Look {
  kind: 'dns' | 'file'
  at: string
  lookedAt: Date | null
  found: string | null
}

/** What the auditor found at each place, in the order in which the places are tried. */
export async function looksFor(
  db: Queryable,
  optOut: OptOutTarget & { id: Uint8Array },
): Promise<Look[]> {
  const { rows } = await db.query<{ target: string; done_at: Date | null; reason: string | null }>(
    'select target, done_at, reason from auditor_task where opt_out = $1',
    [optOut.id],
  )
  const { dns, files } = proofPlaces(optOut)
  const places = [
    ...dns.map((at) => ({ kind: 'dns' as const, at })),
    ...files.map((at) => ({ kind: 'file' as const, at })),
  ]
  return places.map((place) => {
    const row = rows.find(({ target }) => target === place.at)
    return { ...place, lookedAt: row?.done_at ?? null, found: row?.reason ?? null }
  })
}

export type AskedForLook =
  | { kind: 'asked' | 'settled' | 'unknown' }
  | { kind: 'too-soon'; retryAfterSeconds: number }

/** Has the auditor look for the proof now. */
export async function askForLook(tx: Queryable, id: Uint8Array): Promise<AskedForLook> {
  const { rows } = await tx.query<{ state: string }>(
    'select state from opt_out where id = $1 for no key update',
    [id],
  )
  if (!rows[0]) return { kind: 'unknown' }
  if (rows[0].state !== 'waiting') return { kind: 'settled' }
  const last = await tx.query<{ wait: number | null }>(
    `select ceil($2 - extract(epoch from now() - max(greatest(
              case when due_at <= now() then due_at end, taken_at, done_at))))::int8 as wait
     from auditor_task where opt_out = $1`,
    [id, lookAgainSeconds],
  )
  const wait = last.rows[0]?.wait ?? 0
  if (wait > 0) return { kind: 'too-soon', retryAfterSeconds: wait }
  await tx.query(
    `update auditor_task set state = 'due', due_at = now() where opt_out = $1 and state <> 'taken'`,
    [id],
  )
  return { kind: 'asked' }
}

/**
 * What the auditor found at one place. A proof makes the opt-out verified: once that is committed
 * no task of it opens any more, and `carryOutOptOuts` (opted-out.ts) ends what is under way. Without
 * one it goes on waiting. Returns whether it became verified now; repeating changes nothing.
 *
 * Call it early in a transaction that holds no task, lease or host: it waits for those who open tasks.
 *
 * @param look.reason for people: where the proof was, or what was found instead
 */
export async function settleProof(
  tx: Queryable,
  id: Uint8Array,
  look: { found: boolean; reason: string },
): Promise<boolean> {
  const reason = look.reason.slice(0, 1000)
  if (!look.found) {
    await tx.query(`update opt_out set reason = $2 where id = $1 and state = 'waiting'`, [
      id,
      reason,
    ])
    return false
  }
  await tx.query('select pg_advisory_xact_lock($1)', [coverLock])
  const { rowCount } = await tx.query(
    `update opt_out set state = 'verified', reason = $2, verified_at = clock_timestamp()
     where id = $1 and state = 'waiting'`,
    [id, reason],
  )
  if (rowCount === 0) return false
  // The other places need no more look. One that is looked at now ends by itself.
  await tx.query(
    `update auditor_task set state = 'done' where id in (
       select id from auditor_task where opt_out = $1 and state = 'due' for update skip locked)`,
    [id],
  )
  return true
}

/**
 * Which of these addresses an opt-out covers, each with the opt-out's id. Ask in the transaction
 * that then opens or adds tasks: until it ends, no opt-out becomes verified beside it.
 */
export async function optOutsCovering(
  tx: Queryable,
  addresses: readonly { url: string }[],
): Promise<Map<string, Buffer>> {
  const covering = new Map<string, Buffer>()
  if (addresses.length === 0) return covering
  // A statement of its own: what is read below must be as of after the lock.
  await tx.query('select pg_advisory_xact_lock_shared($1)', [coverLock])
  const names = new Map(addresses.map(({ url }) => [url, namesAbove(url)]))
  const { rows } = await tx.query<OptOutTarget & { id: Buffer }>(
    `select id, scope, host, path from opt_out where state = 'verified' and host = any($1::text[])`,
    [[...new Set([...names.values()].flat())]],
  )
  const byHost = new Map<string, (OptOutTarget & { id: Buffer })[]>()
  for (const row of rows) byHost.set(row.host, [...(byHost.get(row.host) ?? []), row])
  for (const [url, above] of names) {
    const found = above
      .flatMap((name) => byHost.get(name) ?? [])
      .find((optOut) => optOutCovers(optOut, url))
    if (found) covering.set(url, found.id)
  }
  return covering
}

/** The verified opt-out with the widest reach that touches a host. */
export async function optOutOfHost(db: Queryable, host: string): Promise<StoredOptOut | null> {
  const { rows } = await db.query<StoredOptOut>(
    `select ${columns} from opt_out
     where state = 'verified' and host = any($1::text[]) and (scope = 'domain' or host = $2)
     order by array_position(array['domain', 'host', 'prefix'], scope), length(host), verified_at
     limit 1`,
    [namesAbove(`https://${host}/`), host],
  )
  return rows[0] ?? null
}

/**
 * Requests without a proof end after seven days; those that wait get their next look. Bounded by how
 * many may wait. Ended ones stay readable: at most a thousand come to be in seven days.
 */
export async function keepOptOuts(tx: Queryable): Promise<number> {
  const ended = await endUnproven(tx)
  const { rows: waiting } = await tx.query<{ id: Buffer }>(
    `select id from opt_out where state = 'waiting'`,
  )
  if (waiting.length === 0) return ended
  const { rows: looked } = await tx.query<{ id: number; requested_at: Date; done_at: Date }>(
    `select a.id, o.requested_at, coalesce(a.done_at, now()) as done_at
     from auditor_task a join opt_out o on o.id = a.opt_out
     where a.opt_out = any($1::bytea[]) and a.state in ('done', 'failed')
     order by a.id limit 1000 for no key update of a skip locked`,
    [waiting.map(({ id }) => id)],
  )
  if (looked.length === 0) return ended
  await tx.query(
    `update auditor_task a set state = 'due', due_at = next.at
     from unnest($1::bigint[], $2::timestamptz[]) as next (id, at) where a.id = next.id`,
    [
      looked.map(({ id }) => id),
      looked.map((one) => new Date(nextLookMs(one.requested_at.getTime(), one.done_at.getTime()))),
    ],
  )
  return ended + looked.length
}

async function endUnproven(tx: Queryable): Promise<number> {
  const { rows } = await tx.query<{ id: Buffer }>(
    `update opt_out set state = 'failed',
            reason = coalesce(reason || ' ', '') || 'No proof was found within seven days.'
     where id in (
       select id from opt_out
       where state = 'waiting' and requested_at < now() - $1 * interval '1 millisecond'
       order by requested_at limit 100 for no key update skip locked)
     returning id`,
    [waitingMs],
  )
  if (rows.length === 0) return 0
  await tx.query(
    `update auditor_task set state = 'failed' where opt_out = any($1::bytea[]) and state = 'due'`,
    [rows.map(({ id }) => id)],
  )
  return rows.length
}
