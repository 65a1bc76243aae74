import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { drawObservers, takeTasksWithNews } from '../../../server/store/facts.ts'
import { askForRobots, pagesToDecide, revisitPages } from '../../../server/store/frontier.ts'
import { endLeases, expireLeases, grantLeases } from '../../../server/store/leases.ts'
import { acceptObservations } from '../../../server/store/observations.ts'
import type { Queryable } from '../../../server/store/queryable.ts'
import { campaignOver } from '../../lib/runner/operator.ts'
import { openTestDatabase, type TestDatabase } from './test-database.ts'

// How PostgreSQL goes about the statements that run for every lease, on tables that have grown:
// what is asked of it are the statements that the code sends, each explained just before it runs.

const tasks = 50_000
const tasksPerHost = 20
const nodes = 60
const hosts = tasks / tasksPerHost

/** Tables whose size grows with the crawl: none of them is ever read from end to end. */
const growing = new Set(['task', 'lease', 'host', 'queue', 'observation', 'page', 'url_shape'])
/** Small by what they hold, and read whole: what has news, what is to be decided, what is due. */
const readWhole = new Set(['task_news', 'task_found'])

describe.each([
  ['never analysed', { analyse: false, leases: 'after' }],
  ['analysed when nothing was leased', { analyse: true, leases: 'after' }],
  ['analysed with leases', { analyse: true, leases: 'before' }],
] as const)('%s', (_, { analyse, leases }) => {
  let database: TestDatabase
  beforeAll(async () => {
    database = await openTestDatabase()
    await load(database)
    if (leases === 'before') await putLeases(database)
    if (analyse) await database.pool.query('analyze')
    if (leases === 'after') await putLeases(database)
  })
  afterAll(() => database.close())

  /** Everything that a piece of work reads, by statement, and what is wrong with it. */
  async function plansOf(work: (tx: Queryable) => Promise<unknown>) {
    const plans: Plan[] = []
    await database.transaction((tx) => work(explaining(tx, plans)))
    return plans
  }
  const wrong = (plans: readonly Plan[]) => plans.flatMap(faults)
  const indexes = (plans: readonly Plan[]) => [...new Set(plans.flatMap(indexesOf))]

  test('a lease call looks up ready hosts, and the open tasks of those', async () => {
    const plans = await plansOf((tx) => grantTo(tx, 1))
    expect(wrong(plans)).toEqual([])
    expect(indexes(plans)).toEqual(
      expect.arrayContaining(['queue_due', 'host_pkey', 'task_open', 'lease_task']),
    )
  })
})

/** Leases for a node, as its call would get them. */
function grantTo(tx: Queryable, node: number) {
  return grantLeases(tx, {
    nodeId: sha256(`node ${node}`),
    accountId: sha256(`account ${node}`),
    block: `10.0.${node}.0/24`,
    campaigns: [campaign],
    max: 32,
    validForMs: 60_000,
    newLease: () => ({ id: randomBytes(16), nonce: randomBytes(16) }),
  })
}

// Plans ---------------------------------------------------------------------------

interface Plan {
  statement: string
  root: PlanNode
}

interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Index Name'?: string
  'Index Cond'?: string
  Plans?: PlanNode[]
}

/** Explains each statement, with the values it is about to run with, and then runs it. */
function explaining(tx: Queryable, plans: Plan[]): Queryable {
  return {
    query: async (text, values) => {
      if (/^\s*(with|select|insert|update|delete)\b/i.test(text)) {
        const { rows } = await tx.query<{ 'QUERY PLAN': [{ Plan: PlanNode }] }>(
          `explain (format json) ${text}`,
          values,
        )
        const root = rows[0]?.['QUERY PLAN'][0].Plan
        if (root) plans.push({ statement: text.replace(/\s+/g, ' ').trim().slice(0, 100), root })
      }
      return tx.query(text, values)
    },
  }
}

function nodesOf(root: PlanNode): PlanNode[] {
  return [root, ...(root.Plans ?? []).flatMap(nodesOf)]
}

function indexesOf({ root }: Plan): string[] {
  return nodesOf(root).flatMap((node) => node['Index Name'] ?? [])
}

/** Scans of growing tables that read all of them, or all of an index. */
function faults({ statement, root }: Plan): string[] {
  return nodesOf(root).flatMap((node) => {
    const table = node['Relation Name']
    const index = node['Index Name']
    if (node['Node Type'] === 'Seq Scan' && table !== undefined && growing.has(table)) {
      return [`all of ${table}: ${statement}`]
    }
    if (index === undefined || node['Index Cond'] !== undefined || readWhole.has(index)) return []
    return [`all of ${index}: ${statement}`]
  })
}

// What there is -------------------------------------------------------------------

const campaign = sha256('plans')
const envelope = JSON.stringify({ payloadType: 'none', payload: '', signatures: [] })

async function load(database: TestDatabase) {
  const db = database.pool
  // Statistics are what the test says they are.
  for (const table of ['task', 'lease', 'host', 'queue', 'page', 'observation']) {
    await db.query(`alter table ${table} set (autovacuum_enabled = false)`)
  }
  const manifest = JSON.stringify(campaignOver('h1.example'))
  await db.query(
    `insert into campaign (digest, id, envelope, manifest, seeded_at) values ($1, 'plans', $2, $3, now())`,
    [campaign, envelope, manifest],
  )
  await db.query(
    `insert into host (origin, interval_ms, max_in_flight, robots_state, robots_at, robots_due_at)
     select 'http://h' || n || '.example', 1000, 1, 'allow-all', now(),
            now() + (random() * 20 - 0.1) * interval '1 hour'
     from generate_series(1, $1::int) as n`,
    [hosts],
  )
  await db.query(
    `insert into task (campaign, host_id, kind, url, url_digest, depth, state, wanted, news)
     select $1, h.id, 'page', u, sha256(convert_to(u, 'UTF8')), 1,
            case when n % 100 = 0 then 'found' when n % 5 = 0 then 'closed' else 'open' end, 2,
            n % 200 = 1
     from generate_series(1, $3::int) as n
     join host h on h.origin = 'http://h' || 1 + n % $2 || '.example'
     cross join lateral (select h.origin || '/' || n as u) as u`,
    [campaign, hosts, tasks],
  )
  await db.query(
    `insert into queue (campaign, host_id, ready, due_at)
     select $1, id, true, now() - random() * interval '1 second' from host`,
    [campaign],
  )
  await db.query(
    `insert into page (campaign, url_digest, host_id, url, depth, priority, visit, due_at)
     select campaign, url_digest, host_id, url, depth, priority, visit,
            now() + (random() * 100 - 0.1) * interval '1 hour'
     from task where state = 'closed'`,
  )
  await db.query(
    `insert into node (id, account_id, public_key, client)
     select sha256(convert_to('node ' || n, 'UTF8')), sha256(convert_to('account ' || n, 'UTF8')),
            sha256(convert_to('key ' || n, 'UTF8')), 'test'
     from generate_series(1, $1::int) as n`,
    [nodes],
  )
  await db.query(
    `insert into node_block (node_id, block, block_wide)
     select sha256(convert_to('node ' || n, 'UTF8')), '10.0.' || n || '.0/24', '10.0.0.0/16'
     from generate_series(1, $1::int) as n`,
    [nodes],
  )
  await db.query(
    `insert into consent (node_id, campaign, act, envelope) select id, $1, 'given', $2 from node`,
    [campaign, envelope],
  )
}

/** One lease on each of half of the hosts: some live, some run out, most answered. */
async function putLeases(database: TestDatabase) {
  await database.pool.query(
    `with leased as (
       select distinct on (host_id) id, host_id from task where state = 'open' order by host_id, id
     ), written as (
       insert into lease (id, task_id, host_id, node_id, account_id, block, nonce, state, issued_at, expires_at)
       select substr(sha256(convert_to('lease ' || l.id, 'UTF8')), 1, 16), l.id, l.host_id, n.id, n.account_id,
              'elsewhere', '\\x00', case when l.host_id % 4 = 0 then 'live' else 'answered' end,
              now() - interval '2 minutes',
              now() + case when l.host_id % 8 = 0 then interval '-1 second' else interval '1 minute' end
       from leased l join node n on n.id = sha256(convert_to('node ' || 1 + l.host_id % $1, 'UTF8'))
       where l.host_id % 2 = 0
       returning task_id, host_id, state
     ), counted as (
       update task t set granted = 1 from written w where t.id = w.task_id
     )
     update host h set in_flight = 1 from written w where h.id = w.host_id and w.state = 'live'`,
    [nodes],
  )
}
