import type { Campaign } from '../../lib/protocol/campaign.ts'
import { ring } from './doorbell.ts'
import { drawObservers } from './facts.ts'
import type { Queryable } from './queryable.ts'

/** A task picked for a node, before its lease is written. */
export interface Pick {
  taskId: number
  hostId: number
  kind: 'page' | 'robots'
  url: string
  campaign: Buffer
  limits: Campaign['limits']
}

/**
 * Picks at most `max` tasks for a node and writes their leases; run inside one
 * transaction. Host rows are the mutex of politeness: locked first, skipped
 * where another caller holds them, so no host is spoken to early and none has
 * more in flight than its sites allow.
 *
 * Order of locks everywhere in server/store: lease, task, host, each kind by
 * ascending id. Here the host comes first, so a task that somebody holds is
 * left out instead of waited for.
 *
 * A task never goes to two nodes that share an account or any network block
 * either was ever seen from.
 */
export async function grantLeases(
  tx: Queryable,
  asked: {
    nodeId: Uint8Array
    accountId: Uint8Array
    block: string
    campaigns: readonly Uint8Array[]
    max: number
    validForMs: number
    newLease: () => { id: Uint8Array; nonce: Uint8Array }
  },
): Promise<(Pick & { id: Uint8Array; nonce: Uint8Array })[]> {
  const consented = await tx.query<{ digest: Buffer; limits: Campaign['limits'] }>(
    `select c.digest, c.manifest->'limits' as limits from campaign c join consent s on s.campaign = c.digest
     where s.node_id = $1 and s.act = 'given' and c.state = 'running' and c.digest = any($2::bytea[])`,
    [asked.nodeId, asked.campaigns],
  )
  if (consented.rows.length === 0) return []
  const campaigns = consented.rows.map((row) => row.digest)
  const limits = new Map(consented.rows.map((row) => [row.digest.toString('hex'), row.limits]))
  const kin = await tx.query<{ id: Buffer }>(
    `select distinct theirs.node_id as id
       from node_block mine join node_block theirs on theirs.block = mine.block
      where mine.node_id = $1
     union select id from node where account_id = $2`,
    [asked.nodeId, asked.accountId],
  )
  const picks: (Pick & { id: Uint8Array; nonce: Uint8Array })[] = []
  const tried: number[] = []
  // One host after another: one that is held and not used would look busy to everybody who asks now.
  while (picks.length < asked.max && tried.length < asked.max) {
    const host = await holdHost(tx, campaigns, tried)
    if (!host) break
    tried.push(host.id)
    // At most a second's worth at once: a crawl delay of ten seconds is kept between any two.
    const burst = Math.max(1, Math.floor(1000 / host.interval_ms))
    const room = Math.min(host.room, burst, asked.max - picks.length)
    // A window in crawl order, then chance inside it: nobody chooses who observes what.
    const { rows: near } = await tx.query<{
      id: number
      kind: 'page' | 'robots'
      url: string
      campaign: Buffer
    }>(
      `select * from (
         select t.id, t.kind, t.url, t.campaign from task t
         where t.host_id = $1 and t.state = 'open' and t.granted < t.wanted
           and t.campaign = any($2::bytea[])
           and not exists (select 1 from lease l where l.task_id = t.id
                           and l.node_id = any($3::bytea[]) and l.state <> 'expired')
         order by t.depth, t.id limit 64
       ) as near order by random() limit $4`,
      [host.id, campaigns, kin.rows.map((row) => row.id), room],
    )
    const granted = await grant(
      tx,
      near.map((row) => row.id),
    )
    const rows = near.filter((row) => granted.has(row.id))
    if (rows.length === 0) continue
    for (const row of rows) {
      picks.push({
        taskId: row.id,
        hostId: host.id,
        kind: row.kind,
        url: row.url,
        campaign: row.campaign,
        limits: limits.get(row.campaign.toString('hex')) as Campaign['limits'],
        ...asked.newLease(),
      })
    }
    await tx.query(
      `update host set in_flight = in_flight + $2,
              next_at = greatest(next_at, now()) + $2 * interval_ms * interval '1 millisecond'
       where id = $1`,
      [host.id, rows.length],
    )
  }
  if (picks.length === 0) return []
  await tx.query(
    `insert into lease (id, task_id, host_id, node_id, account_id, block, nonce, state, expires_at)
     select l.id, l.task_id, l.host_id, $5, $6, $7, l.nonce, 'live',
            now() + $8 * interval '1 millisecond'
     from unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[]) as l (id, task_id, host_id, nonce)`,
    [
      picks.map((pick) => pick.id),
      picks.map((pick) => pick.taskId),
      picks.map((pick) => pick.hostId),
      picks.map((pick) => pick.nonce),
      asked.nodeId,
      asked.accountId,
      asked.block,
      asked.validForMs,
    ],
  )
  return picks
}

/** Locks the host with open work that has waited longest, of those that may be spoken to now. */
async function holdHost(
  tx: Queryable,
  campaigns: readonly Uint8Array[],
  except: readonly number[],
): Promise<{ id: number; room: number; interval_ms: number } | undefined> {
  const { rows } = await tx.query<{ id: number; room: number; interval_ms: number }>(
    `select h.id, h.max_in_flight - h.in_flight as room, h.interval_ms from host h
     where h.in_flight < h.max_in_flight and h.next_at <= now() and h.id <> all($2::bigint[])
       and exists (select 1 from task t where t.host_id = h.id and t.state = 'open'
                   and t.granted < t.wanted and t.campaign = any($1::bytea[]))
     order by h.next_at limit 1 for no key update of h skip locked`,
    [campaigns, except],
  )
  return rows[0]
}

/** Counts one more observer of each task that still wants one and that nobody holds. */
async function grant(tx: Queryable, taskIds: readonly number[]): Promise<Set<number>> {
  if (taskIds.length === 0) return new Set()
  const { rows } = await tx.query<{ id: number }>(
    `update task set granted = granted + 1 where id in (
       select id from task where id = any($1::bigint[]) and state = 'open' and granted < wanted
       for no key update skip locked)
     returning id`,
    [taskIds],
  )
  return new Set(rows.map((row) => row.id))
}

/** Gives tasks back to the frontier whose lease has run out. Returns how many. */
export async function expireLeases(tx: Queryable, limit: number): Promise<number> {
  const { rows } = await tx.query<{ id: Buffer }>(
    `select id from lease where state = 'live' and expires_at < now()
     order by expires_at limit $1 for update skip locked`,
    [limit],
  )
  return endLeases(
    tx,
    rows.map((row) => ({ id: row.id, reason: 'not answered in time' })),
    'expired',
  )
}

/** Ends live leases without an answer: the host's slot and the task's place are free again. */
export async function endLeases(
  tx: Queryable,
  ends: readonly { id: Uint8Array; reason: string }[],
  state: 'expired' | 'refused',
): Promise<number> {
  if (ends.length === 0) return 0
  const { rows } = await tx.query<{ task_id: number; host_id: number }>(
    `update lease set state = $2, reason = ended.reason
     from unnest($1::bytea[], $3::text[]) as ended (id, reason)
     where lease.id = ended.id and lease.state = 'live'
     returning task_id, host_id`,
    [ends.map(({ id }) => id), state, ends.map(({ reason }) => reason)],
  )
  await tx.query(
    `with held as (
       select id from task where id = any($1::bigint[]) order by id for no key update)
     update task set granted = granted - given.n, state = 'open', news = true
     from (select id, count(*) as n from unnest($1::bigint[]) as id group by id) as given
     join held using (id)
     where task.id = given.id and task.state <> 'closed'`,
    [rows.map((row) => row.task_id)],
  )
  await freeHosts(
    tx,
    rows.map((row) => row.host_id),
  )
  // Whoever asked while all was taken would not come again by itself for a while.
  const others = await drawObservers(
    tx,
    rows.map((row) => row.task_id),
  )
  await ring(
    tx,
    others.map((node) => ({ node, notice: 'work' })),
  )
  return rows.length
}

/** One slot for each mention of a host. */
export async function freeHosts(tx: Queryable, hostIds: readonly number[]) {
  if (hostIds.length === 0) return
  await tx.query(
    `with held as (
       select id from host where id = any($1::bigint[]) order by id for no key update)
     update host set in_flight = in_flight - given.n
     from (select id, count(*) as n from unnest($1::bigint[]) as id group by id) as given
     join held using (id)
     where host.id = given.id`,
    [hostIds],
  )
}
