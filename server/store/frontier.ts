import type { Queryable } from './queryable.ts'

export interface NewTask {
  url: string
  urlDigest: Uint8Array
  origin: string
  depth: number
}

/**
 * Adds pages that the campaign does not know yet, in state `found`, up to its
 * page limit. Adding one again changes nothing. Returns how many were new.
 */
export async function addPages(
  tx: Queryable,
  campaign: Uint8Array,
  wanted: number,
  pageLimit: number,
  pages: readonly NewTask[],
): Promise<number> {
  if (pages.length === 0) return 0
  const { rows } = await tx.query(
    `insert into task (campaign, host_id, kind, url, url_digest, depth, state, wanted)
     select $1, h.id, 'page', p.url, p.digest, p.depth, 'found', $2
     from unnest($3::text[], $4::bytea[], $5::text[], $6::int[]) as p (url, digest, origin, depth)
     join host h on h.origin = p.origin
     order by p.depth, p.url
     limit greatest(0, $7 - (select count(*) from task where campaign = $1 and kind = 'page'))
     on conflict (campaign, kind, url_digest) do nothing returning id`,
    [
      campaign,
      wanted,
      pages.map((page) => page.url),
      pages.map((page) => page.urlDigest),
      pages.map((page) => page.origin),
      pages.map((page) => page.depth),
      pageLimit,
    ],
  )
  return rows.length
}

/** Hosts with pages found whose robots.txt nobody was asked for yet. */
export async function hostsWithoutRobots(
  tx: Queryable,
  limit: number,
): Promise<{ hostId: number; origin: string; campaign: Buffer; quorum: number }[]> {
  const { rows } = await tx.query<{
    host_id: number
    origin: string
    campaign: Buffer
    quorum: number
  }>(
    `select distinct on (h.id) h.id as host_id, h.origin, t.campaign, (c.manifest->>'quorum')::int as quorum
     from host h join task t on t.host_id = h.id and t.state = 'found'
     join campaign c on c.digest = t.campaign and c.state = 'running'
     where h.robots_state = 'unknown' order by h.id limit $1`,
    [limit],
  )
  return rows.map(({ host_id, ...row }) => ({ ...row, hostId: host_id }))
}

export async function addRobotsTask(
  tx: Queryable,
  task: {
    hostId: number
    url: string
    urlDigest: Uint8Array
    campaign: Uint8Array
    quorum: number
  },
) {
  await tx.query(
    `insert into task (campaign, host_id, kind, url, url_digest, depth, state, wanted)
     values ($1, $2, 'robots', $3, $4, 0, 'open', $5) on conflict do nothing`,
    [task.campaign, task.hostId, task.url, task.urlDigest, task.quorum],
  )
  await tx.query(
    `update host set robots_state = 'asked' where id = $1 and robots_state = 'unknown'`,
    [task.hostId],
  )
}

export type HostRobots =
  | { state: 'rules'; text: string; digest: Uint8Array }
  | { state: 'allow-all' | 'disallow-all' }

/** What robots.txt said, as resolved by the quorum. `crawlDelayMs` can only slow the host down. */
export async function putRobots(
  tx: Queryable,
  hostId: number,
  robots: HostRobots,
  crawlDelayMs: number | null,
) {
  await tx.query(
    `update host set robots_state = $2, robots_text = $3, robots_digest = $4, robots_at = now(),
            interval_ms = greatest(interval_ms, $5)
     where id = $1`,
    [
      hostId,
      robots.state,
      robots.state === 'rules' ? robots.text : null,
      robots.state === 'rules' ? robots.digest : null,
      crawlDelayMs ?? 0,
    ],
  )
}

/** Pages found on hosts whose robots.txt is resolved, locked for this transaction. */
export async function pagesToDecide(
  tx: Queryable,
  limit: number,
): Promise<
  { taskId: number; url: string; robotsState: HostRobots['state']; robotsText: string | null }[]
> {
  const { rows } = await tx.query<{
    id: number
    url: string
    robots_state: HostRobots['state']
    robots_text: string | null
  }>(
    `select t.id, t.url, h.robots_state, h.robots_text
     from host h join task t on t.host_id = h.id and t.state = 'found'
     where h.robots_state in ('rules', 'allow-all', 'disallow-all')
     order by t.id limit $1 for no key update of t skip locked`,
    [limit],
  )
  return rows.map((row) => ({
    taskId: row.id,
    url: row.url,
    robotsState: row.robots_state,
    robotsText: row.robots_text,
  }))
}

export async function openTasks(tx: Queryable, ids: readonly number[]) {
  if (ids.length === 0) return
  await tx.query(`update task set state = 'open' where id = any($1::bigint[])`, [ids])
}

/** Closes pages that nobody will fetch, with the reason that the operator and the summary read. */
export async function closeUnfetched(tx: Queryable, ids: readonly number[], reason: string) {
  if (ids.length === 0) return
  await tx.query(
    `update task set state = 'closed', verdict = 'refused', reason = $2, closed_at = now()
     where id = any($1::bigint[])`,
    [ids, reason],
  )
}

/** Digest of the robots.txt in force, null where the site has none. */
export async function robotsDigest(tx: Queryable, hostId: number): Promise<Buffer | null> {
  const { rows } = await tx.query<{ robots_digest: Buffer | null }>(
    'select robots_digest from host where id = $1',
    [hostId],
  )
  return rows[0]?.robots_digest ?? null
}
