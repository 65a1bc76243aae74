import type { HostSignal } from '../../lib/capture/use-files.ts'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import { markReady } from './leases.ts'
import { optOutsCovering } from './opt-outs.ts'
import type { Queryable } from './queryable.ts'

export interface NewTask {
  url: string
  urlDigest: Uint8Array
  origin: string
  depth: number
  priority: number
  foundAs: string
  chain: number
  shape: Uint8Array
  /** Why it will not be fetched; null when it waits for its turn. */
  refusal: string | null
}

/** Addresses kept out of the frontier that are written down for each campaign and host; more are counted. */
export const mostRefusalsKept = 1_000
/** The same for those that may come in when others of their shape turn out to be good. */
export const mostShapesKept = 20_000
/** How such a refusal begins. */
export const shapeRefusal = 'trap: shape-budget'

/** Which of these addresses the campaign knows already. */
export async function knownAddresses(
  tx: Queryable,
  campaign: Uint8Array,
  urlDigests: readonly Uint8Array[],
): Promise<Set<string>> {
  const { rows } = await tx.query<{ url_digest: Buffer }>(
    `select url_digest from task
     where campaign = $1 and kind = 'page' and url_digest = any($2::bytea[]) and visit = 0`,
    [campaign, urlDigests],
  )
  return new Set(rows.map((row) => row.url_digest.toString('base64url')))
}

export interface HostInCampaign {
  hostId: number
  origin: string
  pages: number
  refused: number
}

/** What the campaign has on each of these origins. Origins without a host are absent. */
export async function hostsInCampaign(
  tx: Queryable,
  campaign: Uint8Array,
  origins: readonly string[],
): Promise<Map<string, HostInCampaign>> {
  const { rows } = await tx.query<{ id: number; origin: string; pages: number; refused: number }>(
    `select h.id, h.origin, coalesce(q.pages, 0)::int8 as pages, coalesce(q.refused, 0)::int8 as refused
     from host h left join queue q on q.host_id = h.id and q.campaign = $1
     where h.origin = any($2::text[])`,
    [campaign, origins],
  )
  return new Map(rows.map(({ id, ...row }) => [row.origin, { hostId: id, ...row }]))
}

/** Hosts of a wide campaign come to be when their first address is found. */
export async function addHosts(
  tx: Queryable,
  origins: readonly string[],
  pace: { requestsPerSecond: number; requestsInFlight: number },
) {
  if (origins.length === 0) return
  await tx.query(
    `insert into host (origin, interval_ms, max_in_flight)
     select o, $2, $3 from unnest($1::text[]) as o order by o on conflict (origin) do nothing`,
    [origins, Math.ceil(1000 / pace.requestsPerSecond), pace.requestsInFlight],
  )
}

/** How many addresses of each shape a host has, and how many of those brought something new. */
export async function shapesOf(
  tx: Queryable,
  campaign: Uint8Array,
  shapes: readonly { hostId: number; shape: Uint8Array }[],
): Promise<Map<string, { known: number; fresh: number }>> {
  const { rows } = await tx.query<{
    host_id: number
    shape: Buffer
    known: number
    fresh: number
  }>(
    `select u.host_id, u.shape, u.known, u.fresh
     from unnest($2::bigint[], $3::bytea[]) as s (host_id, shape)
     join url_shape u on u.campaign = $1 and u.host_id = s.host_id and u.shape = s.shape`,
    [campaign, shapes.map(({ hostId }) => hostId), shapes.map(({ shape }) => shape)],
  )
  return new Map(rows.map((row) => [shapeKey(row.host_id, row.shape), row]))
}

export function shapeKey(hostId: number, shape: Uint8Array): string {
  return `${hostId} ${toBase64Url(shape)}`
}

/**
 * Adds addresses that the campaign does not know yet: `found`, or closed with
 * the reason that keeps them out. Adding one again changes nothing. Returns
 * how many wait for their turn.
 */
export async function addPages(
  tx: Queryable,
  campaign: Uint8Array,
  wanted: number,
  pages: readonly NewTask[],
): Promise<number> {
  if (pages.length === 0) return 0
  const { rows } = await tx.query<{ host_id: number; refused: boolean; shape: Buffer }>(
    `with given as (
       select p.*, h.id as host_id
       from unnest($3::text[], $4::bytea[], $5::text[], $6::int[], $7::int[], $8::text[], $9::int[], $10::bytea[], $11::text[])
         as p (url, digest, origin, depth, priority, found_as, chain, shape, refusal)
       join host h on h.origin = p.origin
     ), added as (
       insert into task (campaign, host_id, kind, url, url_digest, depth, priority, found_as, chain, shape,
                         state, wanted, verdict, reason, closed_at)
       select $1, host_id, 'page', url, digest, depth, priority, found_as, chain, shape,
              case when refusal is null then 'found' else 'closed' end, $2,
              case when refusal is not null then 'refused' end, refusal,
              case when refusal is not null then now() end
       from given order by priority, url
       on conflict (campaign, kind, url_digest, visit) do nothing
       returning host_id, url_digest, state
     )
     select a.host_id, a.state = 'closed' as refused, g.shape
     from added a join given g on g.host_id = a.host_id and g.digest = a.url_digest`,
    [
      campaign,
      wanted,
      pages.map((page) => page.url),
      pages.map((page) => page.urlDigest),
      pages.map((page) => page.origin),
      pages.map((page) => page.depth),
      pages.map((page) => page.priority),
      pages.map((page) => page.foundAs),
      pages.map((page) => page.chain),
      pages.map((page) => page.shape),
      pages.map((page) => page.refusal),
    ],
  )
  const waiting = rows.filter((row) => !row.refused)
  const hosts = [...new Set(rows.map((row) => row.host_id))].sort((a, b) => a - b)
  const count = (of: readonly { host_id: number }[], host: number) =>
    of.filter((row) => row.host_id === host).length
  // Task, host, queue: the order of locks (leases.ts).
  await wakeRobots(
    tx,
    [...new Set(waiting.map((row) => row.host_id))].sort((a, b) => a - b),
  )
  await tx.query(
    `insert into queue (campaign, host_id, pages, refused)
     select $1, c.* from unnest($2::bigint[], $3::int[], $4::int[]) as c
     on conflict (campaign, host_id)
     do update set pages = queue.pages + excluded.pages, refused = queue.refused + excluded.refused`,
    [
      campaign,
      hosts,
      hosts.map((host) => count(waiting, host)),
      hosts.map((host) => count(rows, host) - count(waiting, host)),
    ],
  )
  if (waiting.length === 0) return 0
  const shapes = new Map<string, { hostId: number; shape: Buffer; known: number }>()
  for (const { host_id, shape } of waiting) {
    const key = shapeKey(host_id, shape)
    const seen = shapes.get(key)
    if (seen) seen.known += 1
    else shapes.set(key, { hostId: host_id, shape, known: 1 })
  }
  const sorted = [...shapes].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, shape]) => shape)
  await tx.query(
    `insert into url_shape (campaign, host_id, shape, known)
     select $1, s.* from unnest($2::bigint[], $3::bytea[], $4::int[]) as s
     on conflict (campaign, host_id, shape) do update set known = url_shape.known + excluded.known`,
    [
      campaign,
      sorted.map(({ hostId }) => hostId),
      sorted.map(({ shape }) => shape),
      sorted.map(({ known }) => known),
    ],
  )
  await tx.query('update campaign set pages = pages + $2 where digest = $1', [
    campaign,
    waiting.length,
  ])
  return waiting.length
}

/** Counts addresses that a rule kept out and that are not written down. */
export async function countRefused(
  tx: Queryable,
  campaign: Uint8Array,
  counts: ReadonlyMap<number, number>,
) {
  if (counts.size === 0) return
  const hosts = [...counts.keys()].sort((a, b) => a - b)
  await tx.query(
    `insert into queue (campaign, host_id, refused)
     select $1, c.* from unnest($2::bigint[], $3::int[]) as c
     on conflict (campaign, host_id) do update set refused = queue.refused + excluded.refused`,
    [campaign, hosts, hosts.map((host) => counts.get(host) ?? 0)],
  )
}

// robots.txt ------------------------------------------------------------------

/** Hosts that were let sleep have work again: robots.txt may be due. */
async function wakeRobots(tx: Queryable, hostIds: readonly number[]) {
  await tx.query(
    `update host h set robots_due_at = now()
     from (select id from host where id = any($1::bigint[]) and robots_due_at is null
             and (robots_at is null or robots_at < now() - interval '20 hours')
             and not exists (select 1 from task t where t.host_id = host.id and t.kind = 'robots'
                             and t.state <> 'closed')
           order by id for no key update) as asleep
     where h.id = asleep.id`,
    [hostIds],
  )
}

/**
 * Asks for the robots.txt of hosts where it is due and somebody waits for it:
 * one task each, in the name of a campaign that works there. Hosts without
 * work go to sleep. Returns how many hosts were looked at.
 */
export async function askForRobots(
  tx: Queryable,
  limit: number,
  digestOf: (url: string) => Uint8Array,
): Promise<number> {
  // `for update`: an address that is being added right now holds its host by the foreign key.
  const { rows: due } = await tx.query<{ id: number }>(
    `select id from host where robots_due_at <= now()
     order by robots_due_at limit $1 for update skip locked`,
    [limit],
  )
  if (due.length === 0) return 0
  const ids = due.map((row) => row.id)
  const { rows } = await tx.query<{
    id: number
    origin: string
    campaign: Buffer
    quorum: number
    visit: number
  }>(
    `select h.id, h.origin, w.campaign, w.quorum,
            (select coalesce(max(t.visit) + 1, 0) from task t
             where t.campaign = w.campaign and t.kind = 'robots' and t.host_id = h.id) as visit
     from host h cross join lateral (
       select t.campaign, (c.manifest->>'quorum')::int as quorum
       from task t join campaign c on c.digest = t.campaign and c.state = 'running'
       where t.host_id = h.id and t.state <> 'closed' and t.kind = 'page' limit 1
     ) as w
     where h.id = any($1::bigint[])`,
    [ids],
  )
  const wanted = rows.map((row) => ({ ...row, url: `${row.origin}/robots.txt` }))
  // Whoever took out the whole host is not asked for this either. Its pages are refused as they are decided.
  const optedOut = await optOutsCovering(tx, wanted)
  const asked = wanted.filter(({ url }) => !optedOut.has(url))
  await tx.query(
    `insert into task (campaign, host_id, kind, url, url_digest, depth, priority, found_as, visit, state, wanted)
     select r.campaign, r.host_id, 'robots', r.url, r.digest, 0, -1, 'robots', r.visit, 'open', r.quorum
     from unnest($1::bytea[], $2::bigint[], $3::text[], $4::bytea[], $5::int[], $6::int[])
       as r (campaign, host_id, url, digest, visit, quorum)
     on conflict do nothing`,
    [
      asked.map((row) => row.campaign),
      asked.map((row) => row.id),
      asked.map((row) => row.url),
      asked.map((row) => digestOf(row.url)),
      asked.map((row) => row.visit),
      asked.map((row) => row.quorum),
    ],
  )
  await markReady(
    tx,
    asked.map((row) => ({ campaign: row.campaign, hostId: row.id })),
  )
  await tx.query('update host set robots_due_at = null where id = any($1::bigint[])', [ids])
  return ids.length
}

export type HostRobots =
  | { state: 'rules'; text: string; digest: Uint8Array; reason: string }
  | { state: 'allow-all' | 'disallow-all'; reason: string }

/**
 * What robots.txt said, as resolved by the quorum or the auditor. What is
 * unresolved forbids, and is asked for again after `askAgainMs`. Pages that
 * waited are decided anew, and so are open ones when the rules changed.
 *
 * @param crawlDelayMs what the file asks for, null when it does not
 */
export async function putRobots(
  tx: Queryable,
  hostId: number,
  robots: HostRobots,
  crawlDelayMs: number | null,
  askAgainMs: (failures: number) => number,
) {
  // Before the pages: whoever decides about them holds the host until it is done.
  const { rows } = await tx.query<{
    robots_state: string
    robots_digest: Buffer | null
    robots_failures: number
  }>('select robots_state, robots_digest, robots_failures from host where id = $1 for update', [
    hostId,
  ])
  const [before] = rows
  if (!before) throw new Error(`robots.txt of host ${hostId}, which there is not`)
  const failures = robots.state === 'disallow-all' ? before.robots_failures + 1 : 0
  const digest = robots.state === 'rules' ? robots.digest : null
  if (robots.state === 'rules') {
    await tx.query(
      'insert into robots_file (digest, body) values ($1, $2) on conflict do nothing',
      [robots.digest, storable(robots.text)],
    )
  }
  await tx.query(
    `update host set robots_state = $2, robots_text = $3, robots_digest = $4, robots_at = now(),
            crawl_delay_ms = $5, robots_failures = $6, robots_reason = $7,
            robots_due_at = now() + $8 * interval '1 millisecond'
     where id = $1`,
    [
      hostId,
      robots.state,
      robots.state === 'rules' ? storable(robots.text) : null,
      digest,
      crawlDelayMs ?? 0,
      Math.min(failures, 1000),
      robots.reason,
      askAgainMs(failures),
    ],
  )
  const same =
    before.robots_state === robots.state &&
    (before.robots_digest === null
      ? digest === null
      : digest !== null && before.robots_digest.equals(digest))
  if (failures >= mostRobotsFailures) {
    await tx.query(
      `update task set state = 'closed', verdict = 'refused', closed_at = now(), reason = $2
       where host_id = $1 and kind = 'page' and state in ('held', 'found')`,
      [hostId, `robots: not readable for ${failures} attempts, last ${robots.reason}`],
    )
    return
  }
  if (robots.state === 'disallow-all') {
    // Nobody has them yet: they wait for a robots.txt that can be read.
    await tx.query(
      `update task set state = 'held'
       where host_id = $1 and kind = 'page' and state = 'open' and granted = 0`,
      [hostId],
    )
    return
  }
  await tx.query(
    `update task set state = 'found' where host_id = $1 and kind = 'page' and state = 'held'`,
    [hostId],
  )
  if (same) return
  // Those that somebody answers for right now hold their task and wait for this host.
  await tx.query(
    `update task set state = 'found' where id in (
       select id from task where host_id = $1 and kind = 'page' and state = 'open'
       for no key update skip locked)`,
    [hostId],
  )
  if (before.robots_state === 'unknown') return
  // What the old file forbade, the new one may allow.
  await tx.query(
    `update task set state = 'found', verdict = null, reason = null, closed_at = null
     where host_id = $1 and kind = 'page' and verdict = 'refused' and reason like 'robots%'`,
    [hostId],
  )
}

/** Some thirty days of a robots.txt that cannot be read: then its pages are given up. */
const mostRobotsFailures = 37

/** What one source says about use on a whole host, in place of what it said before. */
export async function putHostSignals(
  tx: Queryable,
  hostId: number,
  source: HostSignal['source'],
  signals: readonly Pick<HostSignal, 'name' | 'value'>[],
) {
  await tx.query('delete from host_signal where host_id = $1 and source = $2', [hostId, source])
  await tx.query(
    `insert into host_signal (host_id, source, name, value)
     select $1, $2, s.name, s.value from unnest($3::text[], $4::text[]) as s (name, value)
     on conflict do nothing`,
    [
      hostId,
      source,
      signals.map(({ name }) => storable(name)),
      signals.map(({ value }) => storable(value)),
    ],
  )
}

/** A host's origin and the running campaigns that have pages there. */
export async function workOnHost(
  db: Queryable,
  hostId: number,
): Promise<{ origin: string; campaigns: Buffer[] }> {
  const { rows } = await db.query<{ origin: string; campaigns: Buffer[] | null }>(
    `select h.origin,
            (select array_agg(q.campaign order by q.campaign) from queue q
             join campaign c on c.digest = q.campaign and c.state = 'running'
             where q.host_id = h.id) as campaigns
     from host h where h.id = $1`,
    [hostId],
  )
  return { origin: rows[0]?.origin ?? '', campaigns: rows[0]?.campaigns ?? [] }
}

/** Digest of the robots.txt in force, null where the site has none. */
export async function robotsDigest(tx: Queryable, hostId: number): Promise<Buffer | null> {
  const { rows } = await tx.query<{ robots_digest: Buffer | null }>(
    'select robots_digest from host where id = $1',
    [hostId],
  )
  return rows[0]?.robots_digest ?? null
}

// Deciding ------------------------------------------------------------------------

export interface PageToDecide {
  taskId: number
  hostId: number
  use: Campaign['use']
  url: string
}

export interface HostToDecide {
  robotsState: 'unknown' | HostRobots['state']
  robotsText: string | null
  /** Wishes about use that hold for the whole host. */
  signals: HostSignal[]
}

/**
 * Pages about which nothing is decided yet, and what is known of their hosts,
 * both locked: the hosts against a new robots.txt, which would miss pages that
 * this transaction puts aside.
 */
export async function pagesToDecide(
  tx: Queryable,
  limit: number,
): Promise<{ pages: PageToDecide[]; hosts: Map<number, HostToDecide> }> {
  const { rows: pages } = await tx.query<{
    id: number
    host_id: number
    use: Campaign['use']
    url: string
  }>(
    `select t.id, t.host_id, c.manifest->>'use' as use, t.url
     from task t join campaign c on c.digest = t.campaign
     where t.state = 'found' order by t.id limit $1 for no key update of t skip locked`,
    [limit],
  )
  const ids = [...new Set(pages.map((page) => page.host_id))]
  const { rows: hosts } = await tx.query<{
    id: number
    robots_state: HostToDecide['robotsState']
    robots_text: string | null
  }>(
    `select id, robots_state, robots_text from host
     where id = any($1::bigint[]) order by id for key share`,
    [ids],
  )
  const { rows: signals } = await tx.query<HostSignal & { host_id: number }>(
    `select host_id, source, name, value from host_signal
     where host_id = any($1::bigint[]) order by host_id, source, name, value`,
    [ids],
  )
  return {
    pages: pages.map(({ id, host_id, ...page }) => ({ ...page, taskId: id, hostId: host_id })),
    hosts: new Map(
      hosts.map((host) => [
        host.id,
        {
          robotsState: host.robots_state,
          robotsText: host.robots_text,
          signals: signals.filter(({ host_id }) => host_id === host.id),
        },
      ]),
    ),
  }
}

/** Pages that may be fetched now, into the queue. */
export async function openTasks(tx: Queryable, ids: readonly number[]) {
  if (ids.length === 0) return
  const { rows } = await tx.query<{ campaign: Buffer; host_id: number }>(
    `update task set state = 'open' where id = any($1::bigint[]) returning campaign, host_id`,
    [ids],
  )
  await markReady(
    tx,
    rows.map((row) => ({ campaign: row.campaign, hostId: row.host_id })),
  )
}

/** Pages that wait for their host's robots.txt. */
export async function holdTasks(tx: Queryable, ids: readonly number[]) {
  if (ids.length === 0) return
  await tx.query(`update task set state = 'held' where id = any($1::bigint[])`, [ids])
}

/** Closes pages that nobody will fetch, each with the reason that the operator reads. */
export async function closeUnfetched(
  tx: Queryable,
  refused: readonly { taskId: number; reason: string }[],
) {
  if (refused.length === 0) return
  await tx.query(
    `update task set state = 'closed', verdict = 'refused', reason = r.reason, closed_at = now()
     from unnest($1::bigint[], $2::text[]) as r (id, reason) where task.id = r.id`,
    [refused.map(({ taskId }) => taskId), refused.map(({ reason }) => reason.slice(0, 1000))],
  )
  // A new robots.txt may forbid what somebody has fetched already: they are told that nothing comes of it.
  await tx.query(
    `insert into outcome (lease_id, node_id, verdict)
     select id, node_id, 'unresolved' from lease where task_id = any($1::bigint[]) and state = 'answered'
     on conflict do nothing`,
    [refused.map(({ taskId }) => taskId)],
  )
}

// Coming back -----------------------------------------------------------------------

export interface PageHistory {
  visits: number
  changes: number
  failures: number
  firstVisitMs: number | null
  lastVisitMs: number | null
  textDigest: Buffer | null
}

/** What is remembered of a page's earlier visits, locked; null on the first. */
export async function pageHistory(
  tx: Queryable,
  campaign: Uint8Array,
  urlDigest: Uint8Array,
): Promise<PageHistory | null> {
  const { rows } = await tx.query<{
    visits: number
    changes: number
    failures: number
    first_visit_at: Date | null
    last_visit_at: Date | null
    text_digest: Buffer | null
  }>(
    `select visits, changes, failures, first_visit_at, last_visit_at, text_digest
     from page where campaign = $1 and url_digest = $2 for no key update`,
    [campaign, urlDigest],
  )
  const [row] = rows
  return row
    ? {
        visits: row.visits,
        changes: row.changes,
        failures: row.failures,
        firstVisitMs: row.first_visit_at?.getTime() ?? null,
        lastVisitMs: row.last_visit_at?.getTime() ?? null,
        textDigest: row.text_digest,
      }
    : null
}

/** Remembers a visit and when to come again, null for never. */
export async function putPageHistory(
  tx: Queryable,
  visited: { taskId: number; history: PageHistory; dueAtMs: number | null },
) {
  const { history } = visited
  const at = (ms: number | null) => (ms === null ? null : new Date(ms))
  await tx.query(
    `insert into page (campaign, url_digest, host_id, url, depth, priority, visit, visits, changes,
                       failures, first_visit_at, last_visit_at, text_digest, due_at)
     select campaign, url_digest, host_id, url, depth, priority, visit, $2, $3, $4, $5, $6, $7, $8
     from task where id = $1
     on conflict (campaign, url_digest) do update
       set visit = excluded.visit, visits = excluded.visits, changes = excluded.changes,
           failures = excluded.failures, first_visit_at = excluded.first_visit_at,
           last_visit_at = excluded.last_visit_at, text_digest = excluded.text_digest,
           due_at = excluded.due_at`,
    [
      visited.taskId,
      history.visits,
      history.changes,
      history.failures,
      at(history.firstVisitMs),
      at(history.lastVisitMs),
      history.textDigest,
      at(visited.dueAtMs),
    ],
  )
}

/** Puts pages whose time has come into the frontier again, as a visit of their own. Returns how many. */
export async function revisitPages(tx: Queryable, limit: number): Promise<number> {
  const { rows } = await tx.query<{ host_id: number }>(
    `with due as (
       select p.campaign, p.url_digest from page p
       where p.due_at <= now()
         -- Not a join: by campaign, all of its pages would be read.
         and (select c.state from campaign c where c.digest = p.campaign) = 'running'
       order by p.due_at limit $1 for no key update of p skip locked
     ), taken as (
       update page p set due_at = null from due
       where p.campaign = due.campaign and p.url_digest = due.url_digest
       returning p.*
     )
     insert into task (campaign, host_id, kind, url, url_digest, depth, priority, found_as, visit, state, wanted)
     select t.campaign, t.host_id, 'page', t.url, t.url_digest, t.depth,
            -- What is not known yet comes before what is.
            least(t.priority, 9000) + 1000, 'revisit', t.visit + 1, 'found', (c.manifest->>'quorum')::int
     from taken t join campaign c on c.digest = t.campaign
     on conflict do nothing returning host_id`,
    [limit],
  )
  await wakeRobots(
    tx,
    [...new Set(rows.map((row) => row.host_id))].sort((a, b) => a - b),
  )
  return rows.length
}

/**
 * A page of this shape brought new text: there may be more of the kind. Of those that the shape's
 * budget kept out as many come in as it has grown by, as far as the campaign's own budget goes.
 */
export async function countFresh(
  tx: Queryable,
  place: { campaign: Uint8Array; hostId: number; shape: Uint8Array },
  budget: (fresh: number) => number,
  pageLimit: number,
) {
  const { campaign, hostId, shape } = place
  const { rows } = await tx.query<{ known: number; fresh: number }>(
    `update url_shape set fresh = fresh + 1
     where campaign = $1 and host_id = $2 and shape = $3 returning known, fresh`,
    [campaign, hostId, shape],
  )
  const [row] = rows
  const room = row ? Math.min(budget(row.fresh) - row.known, 100) : 0
  // Below its budget nothing was kept out.
  if (!row || room <= 0 || row.known < budget(row.fresh - 1)) return
  const { rows: taken } = await tx.query(
    `update task set state = 'found', verdict = null, reason = null, closed_at = null
     where id in (
       select id from task
       where host_id = $2 and campaign = $1 and verdict = 'refused' and shape = $3
         and reason like '${shapeRefusal}%'
       order by id limit greatest(0, least($4::int8, (select $5 - pages from campaign where digest = $1)))
       for no key update skip locked)
     returning id`,
    [campaign, hostId, shape, room, pageLimit],
  )
  if (taken.length === 0) return
  await tx.query(
    'update queue set pages = pages + $3, refused = refused - $3 where campaign = $1 and host_id = $2',
    [campaign, hostId, taken.length],
  )
  await tx.query(
    'update url_shape set known = known + $4 where campaign = $1 and host_id = $2 and shape = $3',
    [campaign, hostId, shape, taken.length],
  )
  await tx.query('update campaign set pages = pages + $2 where digest = $1', [
    campaign,
    taken.length,
  ])
}

/** PostgreSQL's text has no U+0000; a robots.txt may. */
function storable(text: string): string {
  return text.replaceAll('\u0000', '\ufffd')
}

/** The visits of one address in a campaign, the latest first, at most 20. */
export async function visitsOf(db: Queryable, campaign: Uint8Array, urlDigest: Uint8Array) {
  const { rows } = await db.query<{
    visit: number
    foundAddress: string
    foundAs: string
    depth: number
    priority: number
    chain: number
    state: 'found' | 'held' | 'open' | 'waiting' | 'closed'
    wanted: number
    granted: number
    verdict: string | null
    reason: string | null
    dueAt: Date | null
  }>(
    `select t.visit, t.url as "foundAddress", t.found_as as "foundAs", t.depth, t.priority, t.chain,
            t.state, t.wanted, t.granted, t.verdict, t.reason, p.due_at as "dueAt"
     from task t left join page p on p.campaign = t.campaign and p.url_digest = t.url_digest
     where t.campaign = $1 and t.kind = 'page' and t.url_digest = $2
     order by t.visit desc limit 20`,
    [campaign, urlDigest],
  )
  return rows
}
