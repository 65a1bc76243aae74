import type { Campaign } from '../../lib/protocol/campaign.ts'
import { ring } from './doorbell.ts'
import { drawObservers } from './facts.ts'
import { freeHosts, type HostAnswer } from './hosts.ts'
import type { Queryable } from './queryable.ts'

/** A task picked for a node, before its lease is written. */
export interface Pick {
  taskId: number
  hostId: number
  kind: 'page' | 'robots'
  url: string
  campaign: Buffer
  limits: Campaign['limits']
  /** The campaign's list of domains, null when it has none. */
  list: { root: string; size: number } | null
  /** Milliseconds between two requests to this host. */
  paceMs: number
}

type Granted = Pick & { id: Uint8Array; nonce: Uint8Array }

/** Hosts of one look at the queue: as many as a call can ask for pages. */
const hostsAtOnce = 32
/** Hosts that had nothing for this node, one after another, before a call goes away empty-handed. */
const mostHostsTried = 128
/** A window in crawl order, then chance inside it: nobody chooses who observes what. */
const windowTasks = 24
/** The same where a node has had all that is near: some milliseconds a host. */
const farWindow = 500
const farHosts = 4

/**
 * Picks at most `max` tasks for a node and writes their leases; run inside one
 * transaction. Host rows are the mutex of politeness: locked first, skipped
 * where another caller holds them, so no host is spoken to early and none has
 * more in flight than its sites allow. Tasks are read in a statement of their
 * own, after the lock, so that they are seen as the last holder left them.
 *
 * Order of locks everywhere in server/store: lease, task, host, queue, each
 * kind by ascending id. Here hosts come first, so whatever somebody else holds
 * is left out instead of waited for.
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
): Promise<Granted[]> {
  const consented = await tx.query<{
    digest: Buffer
    limits: Campaign['limits']
    list: Pick['list']
  }>(
    `select c.digest, c.manifest->'limits' as limits, c.manifest->'wide' as list
     from campaign c join consent s on s.campaign = c.digest
     where s.node_id = $1 and s.act = 'given' and c.state = 'running' and c.digest = any($2::bytea[])
       and not exists (select 1 from halt) order by random()`,
    [asked.nodeId, asked.campaigns],
  )
  if (consented.rows.length === 0) return []
  const kin = await tx.query<{ id: Buffer }>(
    `select distinct theirs.node_id as id
       from node_block mine join node_block theirs on theirs.block = mine.block
      where mine.node_id = $1
     union select id from node where account_id = $2`,
    [asked.nodeId, asked.accountId],
  )
  const kinIds = kin.rows.map((row) => row.id)
  const picks: Granted[] = []
  for (const { digest, limits, list } of consented.rows) {
    const tried: number[] = []
    while (picks.length < asked.max && tried.length < mostHostsTried) {
      const wanted = Math.min(hostsAtOnce, asked.max - picks.length)
      const hosts = await holdHosts(tx, digest, tried, wanted)
      if (hosts.length === 0) break
      tried.push(...hosts.map((host) => host.id))
      const rows = await grantOn(tx, digest, hosts, kinIds, asked, asked.max - picks.length)
      if (rows.length === 0) rows.push(...(await grantFar(tx, digest, hosts, kinIds, asked)))
      await restHosts(tx, digest, hosts, rows)
      picks.push(...rows.map((row) => ({ ...row, campaign: digest, limits, list })))
      // Fewer hosts than asked for: there are no more.
      if (hosts.length < wanted) break
    }
    if (tried.length >= mostHostsTried) await lookElsewhere(tx, digest, tried)
    if (picks.length >= asked.max) break
  }
  return picks
}

/** Added to the priority of a task that wants more observers than the quorum: it waits behind others. */
export const contestedPriority = 20_000

interface HeldHost {
  id: number
  room: number
  paceMs: number
  robotsFresh: boolean
}

/** Locks hosts with open work that have waited longest, of those that may be spoken to now. */
async function holdHosts(
  tx: Queryable,
  campaign: Uint8Array,
  except: readonly number[],
  limit: number,
): Promise<HeldHost[]> {
  const { rows } = await tx.query<{
    id: number
    room: number
    pace_ms: number
    robots_fresh: boolean
  }>(
    `select h.id, h.max_in_flight - h.in_flight as room, h.pace_ms,
            -- RFC 9309 §2.4: a robots.txt is not used for longer than a day, and one that cannot be read forbids.
            coalesce(h.robots_state in ('rules', 'allow-all')
                     and h.robots_at > now() - interval '24 hours', false) as robots_fresh
     from queue q join host h on h.id = q.host_id
     where q.campaign = $1 and q.ready and q.due_at <= now()
       and h.in_flight < h.max_in_flight and h.next_at <= now() and h.id <> all($2::bigint[])
     order by q.due_at limit $3 for no key update of h, q skip locked`,
    [campaign, except, limit],
  )
  return rows.map((row) => ({
    id: row.id,
    // At most a quarter of a second's worth at once: a node keeps the pace between its own fetches,
    // but not with those that others begin meanwhile.
    room: Math.min(row.room, Math.max(1, Math.floor(250 / row.pace_ms))),
    paceMs: row.pace_ms,
    robotsFresh: row.robots_fresh,
  }))
}

/** Whether neither the node nor anybody of its kin has the task or had it. */
const notKin = `not exists (select 1 from lease l where l.task_id = t.id
                            and l.node_id = any($5::bytea[]) and l.state <> 'expired' offset 0)`
// `offset 0` keeps it a look into the index for each task: as a join, the planner reads all leases.

/**
 * Three windows: what is next; where this node has had all of that, what nobody has had; and pages
 * that wait for a third opinion, which may stand at the front for long.
 */
const nearTasks = `
  (select * from (
     select t.id, t.kind from task t
     where t.host_id = h.id and t.campaign = $1 and t.state = 'open' and t.granted < t.wanted
     order by t.priority, t.id limit $7) as t
   where ${notKin})
  union
  (select * from (
     select t.id, t.kind from task t
     where t.host_id = h.id and t.campaign = $1 and t.state = 'open' and t.granted = 0
     order by t.priority, t.id limit $7) as t
   -- One that this node gave back.
   where ${notKin})
  union
  (select t.id, t.kind from task t
   where t.host_id = h.id and t.campaign = $1 and t.state = 'open' and t.granted < t.wanted
     and t.priority >= ${contestedPriority} and ${notKin}
   order by t.priority, t.id limit $7)`

/**
 * A window anywhere among the host's tasks: what others have begun may stand far behind what this
 * node has begun, and they may be gone. Chance finds it, call by call.
 */
const farTasks = `
  select * from (
    select t.id, t.kind from task t
    where t.host_id = h.id and t.campaign = $1 and t.state = 'open' and t.granted < t.wanted
      and t.id >= (select min(s.id) + (random() * (max(s.id) - min(s.id)))::int8 from task s
                   where s.host_id = h.id and s.state <> 'closed')
    order by t.id limit $7) as t
  where ${notKin}`

/** Draws tasks on held hosts, counts one more observer of each and writes the leases. */
async function grantOn(
  tx: Queryable,
  campaign: Uint8Array,
  hosts: readonly HeldHost[],
  kin: readonly Uint8Array[],
  asked: Parameters<typeof grantLeases>[1],
  max: number,
  { tasks, window } = { tasks: nearTasks, window: windowTasks },
): Promise<Omit<Granted, 'campaign' | 'limits' | 'list'>[]> {
  const { rows } = await tx.query<{
    id: number
    host_id: number
    kind: 'page' | 'robots'
    url: string
  }>(
    `with near as (
       select t.id, row_number() over (order by h.place, t.place) as place
       from unnest($2::bigint[], $3::int[], $4::bool[]) with ordinality
         as h (id, room, robots_fresh, place)
       cross join lateral (
         select w.id, row_number() over (order by w.kind = 'robots' desc, random()) as place
         from (${tasks}) as w
         where w.kind = 'robots' or h.robots_fresh
         order by 2 limit h.room
       ) as t
     ), held as (
       select t.id from task t join near on near.id = t.id
       where t.state = 'open' and t.granted < t.wanted and near.place <= $6
       order by t.id for no key update of t skip locked
     )
     update task t set granted = t.granted + 1 from held where t.id = held.id
     returning t.id, t.host_id, t.kind, t.url`,
    [
      campaign,
      hosts.map((host) => host.id),
      hosts.map((host) => host.room),
      hosts.map((host) => host.robotsFresh),
      kin,
      max,
      window,
    ],
  )
  if (rows.length === 0) return []
  const paces = new Map(hosts.map((host) => [host.id, host.paceMs]))
  const picks = rows.map((row) => ({
    taskId: row.id,
    hostId: row.host_id,
    kind: row.kind,
    url: row.url,
    paceMs: paces.get(row.host_id) ?? 0,
    ...asked.newLease(),
  }))
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

/** For a node that would go away with nothing: a look further back, on those hosts that have a further back. */
async function grantFar(
  tx: Queryable,
  campaign: Uint8Array,
  hosts: readonly HeldHost[],
  kin: readonly Uint8Array[],
  asked: Parameters<typeof grantLeases>[1],
) {
  const { rows } = await tx.query<{ id: number }>(
    `select h.id from unnest($2::bigint[]) as h (id)
     where exists (select 1 from task t where t.host_id = h.id and t.campaign = $1
                   and t.state = 'open' and t.granted < t.wanted offset $3) limit $4`,
    [campaign, hosts.map((host) => host.id), windowTasks, farHosts],
  )
  const deep = hosts.filter((host) => rows.some((row) => row.id === host.id))
  if (deep.length === 0) return []
  return grantOn(tx, campaign, deep, kin, asked, asked.max, { tasks: farTasks, window: farWindow })
}

/** Moves the clocks of held hosts on, and takes hosts without open tasks out of the queue. */
async function restHosts(
  tx: Queryable,
  campaign: Uint8Array,
  hosts: readonly HeldHost[],
  granted: readonly { hostId: number }[],
) {
  const counts = hosts.map(({ id }) => granted.filter((one) => one.hostId === id).length)
  await tx.query(
    `with rested as (
       update host h
       set in_flight = h.in_flight + g.n,
           next_at = greatest(h.next_at, now()) + g.n * h.pace_ms * interval '1 millisecond'
       from unnest($2::bigint[], $3::int[]) as g (id, n)
       where h.id = g.id and g.n > 0
       returning h.id, case when h.in_flight < h.max_in_flight then h.next_at else 'infinity' end as due_at
     )
     update queue q
     set due_at = coalesce(r.due_at, q.due_at),
         ready = exists (select 1 from task t where t.host_id = q.host_id and t.campaign = $1
                         and t.state = 'open' and t.granted < t.wanted)
     from unnest($2::bigint[]) as g (id) left join rested r on r.id = g.id
     where q.campaign = $1 and q.host_id = g.id`,
    [campaign, hosts.map((host) => host.id), counts],
  )
}

/**
 * Hosts that had nothing for this node stand behind others for a second: whoever has had the first
 * half of everything there would look at nothing else.
 */
async function lookElsewhere(tx: Queryable, campaign: Uint8Array, hosts: readonly number[]) {
  await tx.query(
    `update queue set due_at = greatest(due_at, now()) + interval '1 second'
     where campaign = $1 and host_id = any($2::bigint[]) and due_at < 'infinity'`,
    [campaign, hosts],
  )
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
     -- Not = 'live' alone: where statistics say that few are, the planner would read all of those.
     where lease.id = ended.id and lease.state || '' = 'live'
     returning task_id, host_id`,
    [ends.map(({ id }) => id), state, ends.map(({ reason }) => reason)],
  )
  if (rows.length === 0) return 0
  const { rows: reopened } = await tx.query<{ campaign: Buffer; host_id: number }>(
    `with held as (
       select id from task where id = any($1::bigint[]) order by id for no key update)
     update task set granted = granted - given.n, state = 'open',
            -- While nobody has said anything there is nothing to decide.
            news = news or exists (select 1 from observation o where o.task_id = task.id)
     from (select id, count(*) as n from unnest($1::bigint[]) as id group by id) as given
     join held using (id)
     where task.id = given.id and task.state <> 'closed'
     returning task.campaign, task.host_id`,
    [rows.map((row) => row.task_id)],
  )
  await freeHosts(
    tx,
    rows.map(
      (row): HostAnswer => ({
        hostId: row.host_id,
        // Nobody knows whether, or when, an unanswered page was fetched.
        kind: state === 'expired' ? 'silence' : 'unused',
      }),
    ),
  )
  await markReady(
    tx,
    reopened.map((row) => ({ campaign: row.campaign, hostId: row.host_id })),
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

/**
 * Says that these campaigns have open tasks on these hosts. Always writes the
 * row: a lease call that is about to call the same host empty holds it, and
 * what it decides must come first.
 */
export async function markReady(
  tx: Queryable,
  places: readonly { campaign: Uint8Array; hostId: number }[],
) {
  if (places.length === 0) return
  await tx.query(
    `insert into queue (campaign, host_id, ready)
     select distinct p.campaign, p.host_id, true
     from unnest($1::bytea[], $2::bigint[]) as p (campaign, host_id)
     order by p.host_id, p.campaign
     on conflict (campaign, host_id) do update set ready = true`,
    [places.map(({ campaign }) => campaign), places.map(({ hostId }) => hostId)],
  )
}
