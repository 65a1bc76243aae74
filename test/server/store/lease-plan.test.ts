import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { drawObservers, takeTasksWithNews } from '../../../server/store/facts.ts'
import { askForRobots, pagesToDecide, revisitPages } from '../../../server/store/frontier.ts'
import { endLeases, expireLeases, grantLeases } from '../../../server/store/leases.ts'
import { acceptObservations, type SignedObservation } from '../../../server/store/observations.ts'
import type { Queryable } from '../../../server/store/queryable.ts'
import { campaignOver } from '../../lib/runner/operator.ts'
import { openTestDatabase, type TestDatabase } from './test-database.ts'

// How PostgreSQL goes about the statements that run for every lease, on tables that have grown:
// what is asked of it are the statements that the code sends, each explained just before it runs.

const tasks = 50_000
const tasksPerHost = 2
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
  async function plansOf(work: Work) {
    const plans: Plan[] = []
    // Taken back: each test finds what the last one found.
    await database
      .transaction(async (tx) => {
        await work(explaining(tx, plans), tx)
        throw new TakenBack()
      })
      .catch((error: unknown) => {
        if (!(error instanceof TakenBack)) throw error
      })
    return plans
  }
  test.each<[string, Work, string[]]>([
    [
      'a lease call looks up ready hosts, and the open tasks of those',
      (tx) => grantTo(tx, 1),
      ['queue_due', 'host_pkey', 'task_open', 'task_fresh', 'lease_task'],
    ],
    [
      'observations are taken lease by lease',
      async (tx, aside) => acceptObservations(tx, nodeId(5), await observationsOf(aside, 5)),
      ['lease_pkey', 'task_pkey', 'host_pkey'],
    ],
    [
      'leases are given back one by one',
      async (tx, aside) => endLeases(tx, await liveLeases(aside, 9), 'refused'),
      ['lease_pkey', 'task_pkey', 'host_pkey'],
    ],
    ['the oldest leases run out', (tx) => expireLeases(tx, 32), ['lease_live', 'task_pkey']],
    [
      'tasks with news are found by their mark, and their facts by task',
      (tx) => takeTasksWithNews(tx, 64),
      ['task_news', 'lease_task', 'observation_task'],
    ],
    ['pages to decide are found by their mark', (tx) => pagesToDecide(tx, 500), ['task_found']],
    ['pages are visited again when they are due', (tx) => revisitPages(tx, 500), ['page_due']],
    [
      'robots.txt is asked for where it is due',
      (tx) => askForRobots(tx, 100, sha256),
      ['host_robots_due', 'host_pkey'],
    ],
    [
      'nodes to ring are drawn without looking at every lease',
      async (tx, aside) => drawObservers(tx, await openTasks(aside)),
      ['lease_task', 'task_pkey'],
    ],
  ])('%s', async (_, work, intended) => {
    const plans = await plansOf(work)
    expect(plans.flatMap((plan) => faults(plan, analyse))).toEqual([])
    expect([...new Set(plans.flatMap(indexesOf))]).toEqual(expect.arrayContaining(intended))
  })
})

class TakenBack extends Error {}

const nodeId = (node: number) => sha256(`node ${node}`)

/** What is done, explained, and beside it the same transaction for what the test itself wants to know. */
type Work = (tx: Queryable, aside: Queryable) => Promise<unknown>

async function openTasks(aside: Queryable) {
  const { rows } = await aside.query<{ id: number }>(
    `select id from task where state = 'open' and granted > 0 limit 32`,
  )
  return rows.map(({ id }) => id)
}

/** Some live leases of a node. */
async function liveLeases(aside: Queryable, node: number) {
  const { rows } = await aside.query<{ id: Buffer }>(
    `select id from lease where node_id = $1 and state = 'live' and expires_at > now() limit 32`,
    [nodeId(node)],
  )
  if (rows.length === 0) throw new Error(`node ${node} has no live lease`)
  return rows.map(({ id }) => ({ id, reason: 'paused' }))
}

async function observationsOf(aside: Queryable, node: number) {
  const leases = await liveLeases(aside, node)
  return leases.map(({ id }): SignedObservation => {
    const observation = {
      version: 1 as const,
      outcome: 'failed' as const,
      lease: id.toString('base64url'),
      reason: 'unsupported-type' as const,
      totalMs: 20,
      wireBytes: 0,
    }
    const key = randomBytes(32)
    const statement = JSON.stringify(observation)
    return { leaseId: id, statement, key, signature: randomBytes(64), observation }
  })
}

/** Leases for a node, as its call would get them. */
function grantTo(tx: Queryable, node: number) {
  return grantLeases(tx, {
    nodeId: nodeId(node),
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
function faults({ statement, root }: Plan, analysed: boolean): string[] {
  // One row a host: in the minute before autovacuum first counts it, reading it costs milliseconds.
  const judged = [...growing].filter((table) => analysed || table !== 'queue')
  return nodesOf(root).flatMap((node) => {
    const table = node['Relation Name']
    const index = node['Index Name']
    if (node['Node Type'] === 'Seq Scan' && table !== undefined && judged.includes(table)) {
      return [`all of ${table}: ${statement}`]
    }
    if (index === undefined || node['Index Cond'] !== undefined || readWhole.has(index)) return []
    // Indexes are named after their table.
    if (!judged.some((one) => index.startsWith(`${one}_`))) return []
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

const statement = JSON.stringify({
  version: 1,
  outcome: 'failed',
  lease: 'AAAAAAAAAAAAAAAAAAAAAA',
  reason: 'unsupported-type',
  totalMs: 20,
  wireBytes: 0,
})

/** A lease of most open tasks: the first of some hosts live, of some run out, all others observed. */
async function putLeases(database: TestDatabase) {
  await database.pool.query(
    `with leased as (
       select id, host_id, host_id % 4 = 0 and row_number() over (partition by host_id order by id) = 1 as live
       from task where state = 'open' and id % 11 <> 3
     ), written as (
       insert into lease (id, task_id, host_id, node_id, account_id, block, nonce, state, issued_at, expires_at)
       select substr(sha256(convert_to('lease ' || l.id, 'UTF8')), 1, 16), l.id, l.host_id, n.id, n.account_id,
              'elsewhere', '\\x00', case when l.live then 'live' else 'answered' end,
              now() - interval '2 minutes',
              now() + case when l.host_id % 8 = 0 then interval '-1 second' else interval '1 minute' end
       from leased l join node n on n.id = sha256(convert_to('node ' || 1 + l.host_id % $1, 'UTF8'))
       returning id, task_id, host_id, state
     ), observed as (
       insert into observation (lease_id, task_id, statement, key, signature)
       select id, task_id, $2, sha256(id), '\\x00' from written where state = 'answered'
     ), counted as (
       update task t set granted = 1 from written w where t.id = w.task_id
     )
     update host h set in_flight = 1 from written w where h.id = w.host_id and w.state = 'live'`,
    [nodes, statement],
  )
}
