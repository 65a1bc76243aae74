import type { Queryable } from './queryable.ts'

/** What an operator watches, as it stands in the database. */
export interface Measures {
  halted: boolean
  campaigns: ReadonlyMap<string, number>
  tasks: ReadonlyMap<string, number>
  frontierPages: number
  hosts: number
  hostsHeld: number
  requestsInFlight: number
  liveLeases: number
  openFollowUps: number
  activeNodes: number
  records: number
  unloggedRecords: number
  logLeaves: number
  pendingPoints: number
}

/**
 * Up to so many rows are counted, some 20 ms; more are estimated from PostgreSQL's statistics,
 * which autovacuum renews when a tenth of a table has changed.
 */
const mostCounted = 100_000

/** Reads all of it. Cheap however much there is: small tables, partial indexes, or estimates. */
export async function readMeasures(db: Queryable): Promise<Measures> {
  const small = await db.query<{
    halted: boolean
    frontier_pages: number
    hosts: number
    hosts_held: number
    requests_in_flight: number
    live_leases: number
    open_follow_ups: number
    active_nodes: number
    unlogged_records: number
    log_leaves: number
    pending_points: number
  }>(
    `select exists (select from halt) as halted,
            (select coalesce(sum(pages), 0)::int8 from campaign) as frontier_pages,
            h.hosts, h.hosts_held, h.requests_in_flight,
            (select count(*) from lease where state = 'live') as live_leases,
            (select count(*) from follow_up where state = 'asked') as open_follow_ups,
            (select count(*) from node where seen_at > now() - interval '2 minutes') as active_nodes,
            (select count(*) from record where leaf_index is null) as unlogged_records,
            (select coalesce(max(size), 0)::int8 from log_checkpoint) as log_leaves,
            (select coalesce(sum(debits_pending), 0)::int8 from account where kind = 'campaign')
              as pending_points
     from (select count(*) as hosts, count(*) filter (where hold_until > now()) as hosts_held,
                  coalesce(sum(in_flight), 0)::int8 as requests_in_flight from host) as h`,
  )
  const campaigns = await db.query<{ state: string; n: number }>(
    'select state, count(*) as n from campaign group by state',
  )
  const [row] = small.rows
  if (row === undefined) throw new Error('a select without from gave no row')
  const tasks = await tasksByState(db)
  const estimated = await rowsOf(db, 'record')
  const records = await db.query<{ n: number }>('select count(*) as n from record where $1', [
    estimated <= mostCounted,
  ])
  return {
    halted: row.halted,
    campaigns: new Map(campaigns.rows.map(({ state, n }) => [state, n])),
    tasks,
    frontierPages: row.frontier_pages,
    hosts: row.hosts,
    hostsHeld: row.hosts_held,
    requestsInFlight: row.requests_in_flight,
    liveLeases: row.live_leases,
    openFollowUps: row.open_follow_ups,
    activeNodes: row.active_nodes,
    records: estimated <= mostCounted ? (records.rows[0]?.n ?? 0) : estimated,
    unloggedRecords: row.unlogged_records,
    logLeaves: row.log_leaves,
    pendingPoints: row.pending_points,
  }
}

async function tasksByState(db: Queryable): Promise<Map<string, number>> {
  const total = await rowsOf(db, 'task')
  if (total > mostCounted) {
    const { rows } = await db.query<{ state: string; share: number }>(
      `select v.state, v.share from pg_stats s,
         unnest(s.most_common_vals::text::text[], s.most_common_freqs::float8[]) as v (state, share)
       where s.schemaname = current_schema() and s.tablename = 'task' and s.attname = 'state'`,
    )
    if (rows.length > 0) {
      return new Map(rows.map(({ state, share }) => [state, Math.round(share * total)]))
    }
  }
  // Never analysed although it is large: what there is of it is read as a sample.
  const { rows } = await db.query<{ state: string; n: number }>(
    'select state, count(*) as n from (select state from task limit $1) as sample group by state',
    [mostCounted + 1],
  )
  const counted = rows.reduce((sum, { n }) => sum + n, 0)
  const scale = counted > mostCounted ? Math.max(total, counted) / counted : 1
  return new Map(rows.map(({ state, n }) => [state, Math.round(n * scale)]))
}

/** Estimate of a table's rows: as last analysed, or as counted since then, whichever is more. */
async function rowsOf(db: Queryable, table: 'task' | 'record'): Promise<number> {
  const { rows } = await db.query<{ n: number }>(
    `select greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::int8 as n
     from pg_class c where c.oid = $1::regclass`,
    [table],
  )
  return rows[0]?.n ?? 0
}
