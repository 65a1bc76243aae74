import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import type { LogEntry } from '../../lib/protocol/log-entry.ts'
import { type OptOutTarget, optOutCovers, targetText } from '../frontier/opt-out.ts'
import type { Database } from './database.ts'
import { type Ring, recalls, ring } from './doorbell.ts'
import { endLeases } from './leases.ts'
import { appendToLog } from './log.ts'
import { addOutcomes } from './outcomes.ts'
import type { Queryable } from './queryable.ts'

/** What `carryOutOptOuts` works with. */
export interface CarryOut {
  database: Database
  /** Signs the checkpoint of a tree. */
  signCheckpoint: (size: number, root: Uint8Array) => Promise<string>
}

type Verified = OptOutTarget & { id: Buffer }

/** Hosts looked at in one go: a domain may have a million. */
const hostsAtOnce = 500
/** Tasks, or leases, that one transaction locks: some tens of milliseconds. */
const tasksAtOnce = 2000
const leasesAtOnce = 500
/** Ids of records looked through by one statement: far below the statement timeout. */
const recordsAtOnce = 20_000

/**
 * Ends what is under way for each opt-out that is verified and not in the log yet: tasks close,
 * leases end and are recalled, records are marked as removed, the auditor's errands are called off,
 * and at last the log has it. In transactions of bounded size; killed anywhere, the next call goes
 * on, since everything done is no longer found. Several processes may call it. Returns how many
 * opt-outs were finished.
 */
export async function carryOutOptOuts(options: CarryOut): Promise<number> {
  const { rows } = await options.database.pool.query<Verified>(
    `select id, scope, host, path from opt_out
     where state = 'verified' and leaf_index is null order by verified_at limit 16`,
  )
  let finished = 0
  for (const optOut of rows) if (await carryOut(options, optOut)) finished += 1
  return finished
}

async function carryOut({ database, signCheckpoint }: CarryOut, optOut: Verified) {
  /** One bounded step. Null when another process is at this opt-out, or has finished it. */
  const step = <T>(body: (tx: Queryable) => Promise<T>): Promise<T | null> =>
    database.transaction(async (tx) => {
      const { rows } = await tx.query(
        `select 1 from opt_out where id = $1 and leaf_index is null
         for no key update skip locked`,
        [optOut.id],
      )
      return rows.length === 0 ? null : body(tx)
    })

  for (let after = 0; ; ) {
    const hosts = await hostsOf(database.pool, optOut, after)
    const last = hosts.at(-1)
    if (last === undefined) break
    let from: Place | undefined = { hosts, task: 0 }
    while (from) {
      const place: Place = from
      const next = await step(async (tx) => ({ from: await closeTasks(tx, optOut, place) }))
      if (next === null) return false
      from = next.from
    }
    for (let ended = leasesAtOnce; ended === leasesAtOnce; ) {
      const recalled = await step((tx) => recallLeases(tx, optOut, hosts))
      if (recalled === null) return false
      ended = recalled
    }
    if ((await step((tx) => callOffErrands(tx, optOut, hosts))) === null) return false
    after = last
  }
  // Every task is closed: from here no record of it can come into being.
  for (let after = 0; ; after += recordsAtOnce) {
    const from = after
    const more = await step((tx) => markRecords(tx, optOut, from))
    if (more === null) return false
    if (!more) break
  }
  const index = await step(async (tx) => {
    const leafIndex = await appendToLog(tx, [await logEntryOf(tx, optOut)], signCheckpoint)
    await tx.query('update opt_out set leaf_index = $2 where id = $1', [optOut.id, leafIndex])
    return leafIndex
  })
  return index !== null
}

/** Ids of hosts under the opt-out's name, ascending; of every scheme and port. */
async function hostsOf(db: Queryable, optOut: Verified, after: number): Promise<number[]> {
  const { rows } = await db.query<{ id: number }>(
    `select id from (
       select id, split_part(split_part(origin, '://', 2), ':', 1) as name from host where id > $1
     ) as h
     where name = $2 or ($3 and right(name, length($2) + 1) = '.' || $2)
     order by id limit $4`,
    [after, optOut.host, optOut.scope === 'domain', hostsAtOnce],
  )
  return rows.map(({ id }) => id)
}

/** Where a walk over tasks stands: hosts not yet done, and the last task seen on the first of them. */
interface Place {
  hosts: readonly number[]
  task: number
}

/** Closes covered tasks from a place on. Returns where to go on; undefined at the end. */
async function closeTasks(
  tx: Queryable,
  optOut: Verified,
  from: Place,
): Promise<Place | undefined> {
  // One host after another, as the index has them: no sort over all tasks of a domain.
  const { rows } = await tx.query<{ id: number; host_id: number; url: string }>(
    `select t.id, t.host_id, t.url
     from unnest($1::bigint[]) with ordinality as h (id, n)
     cross join lateral (
       select id, host_id, url from task
       where host_id = h.id and state <> 'closed' and id > case when h.n = 1 then $2::bigint else 0 end
       order by id limit $3
     ) as t
     limit $3`,
    [from.hosts, from.task, tasksAtOnce],
  )
  const covered = rows.filter(({ url }) => optOutCovers(optOut, url))
  const closed = await tx.query<{ id: number }>(
    `with held as (
       select id from task where id = any($1::bigint[]) and state <> 'closed'
       order by id for no key update)
     update task set state = 'closed', news = false, verdict = 'refused', reason = 'opted-out',
            closed_at = now()
     from held where task.id = held.id returning task.id`,
    [covered.map(({ id }) => id)],
  )
  const ids = closed.rows.map(({ id }) => id)
  await tx.query('update opt_out set tasks = tasks + $2 where id = $1', [optOut.id, ids.length])
  await letGo(tx, ids)
  const last = rows.at(-1)
  if (!last || rows.length < tasksAtOnce) return undefined
  return { hosts: from.hosts.slice(from.hosts.indexOf(last.host_id)), task: last.id }
}

/** Nodes that answered are asked nothing more, and told that the page came to nothing. */
async function letGo(tx: Queryable, taskIds: readonly number[]) {
  if (taskIds.length === 0) return
  await tx.query(
    // Whoever answers one now holds it and waits for its task: the answer changes nothing any more.
    `update follow_up set state = 'expired', reason = 'opted-out' where id in (
       select id from follow_up where task_id = any($1::bigint[]) and state = 'asked'
       for update skip locked)`,
    [taskIds],
  )
  const { rows } = await tx.query<{ id: Buffer; node: string }>(
    `select id, encode(node_id, 'hex') as node from lease
     where task_id = any($1::bigint[]) and state = 'answered' order by id`,
    [taskIds],
  )
  await addOutcomes(
    tx,
    rows.map(({ id }) => ({
      leaseId: id,
      verdict: 'unresolved',
      grade: null,
      duplicate: false,
      points: 0,
    })),
  )
  await ring(
    tx,
    rows.map(({ node }): Ring => ({ node, notice: 'outcomes' })),
  )
}

/** Ends live leases of tasks that were closed so, and recalls them from their nodes. */
async function recallLeases(tx: Queryable, optOut: Verified, hosts: readonly number[]) {
  // Leases before tasks before hosts (leases.ts). One that is being answered now has ended anyway.
  const { rows } = await tx.query<{ leaseId: Buffer; nodeId: Buffer }>(
    `select l.id as "leaseId", l.node_id as "nodeId" from lease l join task t on t.id = l.task_id
     where l.state = 'live' and l.host_id = any($1::bigint[])
       and t.state = 'closed' and t.reason = 'opted-out'
     order by l.id limit $2 for update of l skip locked`,
    [hosts, leasesAtOnce],
  )
  const ended = await endLeases(
    tx,
    rows.map(({ leaseId }) => ({ id: leaseId, reason: 'opted-out' })),
    // Not `refused`: the request may have been sent, and the host's clock counts it.
    'expired',
  )
  await tx.query('update opt_out set leases = leases + $2 where id = $1', [optOut.id, ended])
  await ring(tx, recalls(rows))
  return rows.length
}

/** Of a whole host all errands of the auditor end; of a prefix those to addresses inside it. */
async function callOffErrands(tx: Queryable, optOut: Verified, hosts: readonly number[]) {
  const { rows } = await tx.query<{ id: number; target: string }>(
    `select id, target from auditor_task
     where host_id = any($1::bigint[]) and opt_out is null and state in ('due', 'taken')
     order by id for no key update skip locked`,
    [hosts],
  )
  const off = rows.filter(({ target }) => optOut.scope !== 'prefix' || optOutCovers(optOut, target))
  await tx.query(
    `update auditor_task set state = 'failed', reason = 'opted-out', done_at = now()
     where id = any($1::bigint[])`,
    [off.map(({ id }) => id)],
  )
  return off.length
}

/**
 * Marks records among the next ids as removed: those leased under a covered address, and those whose
 * page in the end came from one. A text is then new again where it is found elsewhere.
 * Returns false when there are no more.
 */
async function markRecords(tx: Queryable, optOut: Verified, after: number): Promise<boolean> {
  const { rows } = await tx.query<{ id: number; leased: string; published: string }>(
    // The name stands in the address: what the search for it lets through is judged properly below.
    `select r.id, t.url as leased, r.row_json::jsonb->>'url' as published
     from record r join task t on t.id = r.task_id
     where r.id > $1 and r.id <= $2 and r.removed_by is null
       and (strpos(t.url, $3) > 0 or strpos(r.row_json, $3) > 0)`,
    [after, after + recordsAtOnce, optOut.host],
  )
  const covered = rows
    .filter((row) => optOutCovers(optOut, row.leased) || optOutCovers(optOut, row.published))
    .map(({ id }) => id)
  const marked = await tx.query(
    `with held as (
       select id from record where id = any($2::bigint[]) and removed_by is null
       order by id for no key update)
     update record set removed_by = $1 from held where record.id = held.id`,
    [optOut.id, covered],
  )
  await tx.query(
    // Known by its text, or where it has none by its bytes; both lead through the key.
    `delete from document d using record r left join payload p on p.lease_id = r.payload_lease
     where r.id = any($1::bigint[]) and d.campaign = r.campaign
       and d.text_digest in (r.text_digest, p.digest) and d.record_id = r.id`,
    [covered],
  )
  await tx.query('update opt_out set records = records + $2 where id = $1', [
    optOut.id,
    marked.rowCount ?? 0,
  ])
  const { rows: left } = await tx.query('select 1 from record where id > $1 limit 1', [
    after + recordsAtOnce,
  ])
  return left.length > 0
}

async function logEntryOf(tx: Queryable, optOut: Verified): Promise<string> {
  const { rows } = await tx.query<{ day: string }>(
    `select to_char(verified_at at time zone 'UTC', 'YYYY-MM-DD') as day from opt_out where id = $1`,
    [optOut.id],
  )
  const entry: LogEntry = {
    type: 'opt-out',
    scope: optOut.scope,
    target: targetText(optOut),
    day: rows[0]?.day ?? '',
  }
  return canonicalJson(entry)
}
