import { randomBytes } from 'node:crypto'
import { pino } from 'pino'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import type { Site } from '../../../lib/protocol/campaign.ts'
import { addCampaign } from '../../../server/store/campaigns.ts'
import { openSession, putConsent, useSession } from '../../../server/store/contributors.ts'
import { listenForRings, type Ring, ring } from '../../../server/store/doorbell.ts'
import {
  addPages,
  closeUnfetched,
  type HostRobots,
  openTasks,
  putRobots,
} from '../../../server/store/frontier.ts'
import { endLeases, expireLeases, grantLeases } from '../../../server/store/leases.ts'
import { acceptObservations } from '../../../server/store/observations.ts'
import type { Queryable } from '../../../server/store/queryable.ts'
import { campaignOver } from '../../lib/runner/operator.ts'
import { allowAll, allowEverywhere, foundPage } from './found-page.ts'
import { openTestDatabase, type TestDatabase } from './test-database.ts'

let database: TestDatabase
beforeEach(async () => {
  database = await openTestDatabase()
})

const envelope = { payloadType: 'none', payload: '', signatures: [] }

/** A campaign over these hosts with so many pages on each, all open. */
async function openCampaign(about: {
  hosts: readonly string[]
  pages: number
  quorum?: number
  site?: Partial<Site>
}): Promise<Uint8Array> {
  const { hosts, pages, quorum = 2 } = about
  const digest = sha256(hosts.join())
  const [site] = campaignOver('x.example').sites
  if (!site) throw new Error('no site')
  const manifest = campaignOver(hosts[0] ?? '', {
    id: `campaign-${toBase64Url(digest.slice(0, 4))
      .toLowerCase()
      .replace(/[^a-z]/g, 'x')}`,
    quorum,
    sites: hosts.map((host) => ({ ...site, host, ...about.site })),
  })
  await addCampaign(database.pool, { digest, manifest, envelope, leafIndex: 1 })
  const found = hosts.flatMap((host) =>
    Array.from({ length: pages }, (_, n) => {
      const url = `http://${host}/page-${n}`
      return foundPage(url, `http://${host}`)
    }),
  )
  await addPages(database.pool, digest, quorum, found)
  const { rows } = await database.pool.query<{ id: number }>(
    'select id from task where campaign = $1',
    [digest],
  )
  await openTasks(
    database.pool,
    rows.map((row) => row.id),
  )
  await allowEverywhere(database.pool)
  return digest
}

interface TestNode {
  nodeId: Uint8Array
  accountId: Uint8Array
  block: string
  token: Uint8Array
}

/** A node with a session from this block, consenting to the campaign. */
async function join(
  campaign: Uint8Array,
  name: string,
  from: { account?: string; block?: string } = {},
): Promise<TestNode> {
  const node = {
    nodeId: sha256(`node ${name}`),
    accountId: sha256(from.account ?? `account ${name}`),
    block: from.block ?? `block of ${name}`,
    token: sha256(`token ${name}`),
  }
  await openSession(database.pool, {
    ...node,
    tokenDigest: node.token,
    publicKey: sha256(`key ${name}`),
    client: 'test',
    blockWide: 'wide',
    validForMs: 60_000,
  })
  await putConsent(database.pool, { nodeId: node.nodeId, campaign, act: 'given', envelope })
  return node
}

const ask = (tx: Queryable, node: TestNode, campaign: Uint8Array, max = 32) =>
  grantLeases(tx, {
    ...node,
    campaigns: [campaign],
    max,
    validForMs: 60_000,
    newLease: () => ({ id: randomBytes(16), nonce: randomBytes(16) }),
  })
const askNow = (node: TestNode, campaign: Uint8Array, max = 32) =>
  database.transaction((tx) => ask(tx, node, campaign, max))
const urls = (picks: readonly { url: string }[]) => picks.map((pick) => pick.url).sort()

/** The host may be spoken to again: time has passed. */
async function letTimePass() {
  await database.pool.query('update host set next_at = now()')
  await database.pool.query('update queue set due_at = now()')
}

/** How busy a host is, and for how long after the last lease it rests. */
async function hostOf(origin: string) {
  const { rows } = await database.pool.query<{ in_flight: number; wait_ms: number }>(
    `select in_flight, (extract(epoch from next_at - (select max(issued_at) from lease)) * 1000)::int8 as wait_ms
     from host where origin = $1`,
    [origin],
  )
  if (!rows[0]) throw new Error(`no host ${origin}`)
  return rows[0]
}

describe('who observes what', () => {
  const wide = { requestsPerSecond: 100, requestsInFlight: 32 }

  test('no task goes to two nodes of one account', async () => {
    const campaign = await openCampaign({ hosts: ['a.example'], pages: 3, site: wide })
    const one = await join(campaign, 'one', { account: 'ada' })
    const other = await join(campaign, 'other', { account: 'ada' })
    expect(await askNow(one, campaign)).toHaveLength(3)
    await letTimePass()
    expect(await askNow(other, campaign)).toEqual([])
    expect(await askNow(one, campaign)).toEqual([])
    expect(await askNow(await join(campaign, 'stranger'), campaign)).toHaveLength(3)
  })

  test('no task goes to two nodes of one network block', async () => {
    const campaign = await openCampaign({ hosts: ['a.example'], pages: 3, site: wide })
    const one = await join(campaign, 'one', { block: '192.0.2.0/24' })
    const neighbour = await join(campaign, 'neighbour', { block: '192.0.2.0/24' })
    expect(await askNow(one, campaign)).toHaveLength(3)
    await letTimePass()
    expect(await askNow(neighbour, campaign)).toEqual([])
  })

  test('a node’s blocks are all that it was ever seen from', async () => {
    const campaign = await openCampaign({ hosts: ['a.example'], pages: 3, site: wide })
    const one = await join(campaign, 'one', { block: '192.0.2.0/24' })
    const traveller = await join(campaign, 'traveller', { block: '203.0.113.0/24' })
    // Once seen from the neighbour's block, and gone from there since.
    await useSession(database.pool, traveller.token, '192.0.2.0/24', 'wide')
    await useSession(database.pool, traveller.token, '203.0.113.0/24', 'wide')
    expect(await askNow(one, campaign)).toHaveLength(3)
    await letTimePass()
    expect(await askNow(traveller, campaign)).toEqual([])
  })

  test('a task has as many observers as it wants, and no more', async () => {
    const campaign = await openCampaign({ hosts: ['a.example'], pages: 4, site: wide })
    for (const name of ['one', 'two', 'three']) {
      const node = await join(campaign, name)
      await letTimePass()
      expect(await askNow(node, campaign)).toHaveLength(name === 'three' ? 0 : 4)
    }
  })

  test('nothing is given without consent, after withdrawal, or of a stopped campaign', async () => {
    const campaign = await openCampaign({ hosts: ['a.example'], pages: 3, site: wide })
    const node = await join(campaign, 'one')
    const choose = (act: 'given' | 'withdrawn') =>
      putConsent(database.pool, { nodeId: node.nodeId, campaign, act, envelope })
    await choose('withdrawn')
    expect(await askNow(node, campaign)).toEqual([])
    await choose('given')
    expect(await askNow(node, sha256('another campaign'))).toEqual([])
    await database.pool.query(`update campaign set state = 'stopped'`)
    expect(await askNow(node, campaign)).toEqual([])
    await database.pool.query(`update campaign set state = 'running'`)
    expect(await askNow(node, campaign, 2)).toHaveLength(2)
  })
})

test('a page that one has seen is not asked for again while robots.txt cannot be read, or forbids it since', async () => {
  const campaign = await openCampaign({ hosts: ['a.example'], pages: 1 })
  const [one, two] = [await join(campaign, 'one'), await join(campaign, 'two')]
  const [seen] = await askNow(one, campaign)
  await database.pool.query(`update lease set state = 'answered'`)
  const { rows } = await database.pool.query<{ id: number }>('select id from host')
  const hostId = rows[0]?.id ?? 0
  const resolve = (robots: HostRobots) =>
    database.transaction((tx) => putRobots(tx, hostId, robots, null, () => 1000))
  await resolve({ state: 'disallow-all', reason: 'status 503' })
  await letTimePass()
  expect(await askNow(two, campaign)).toEqual([])
  await resolve({ state: 'rules', text: 'x', digest: sha256('x'), reason: 'read' })
  await letTimePass()
  expect(await askNow(two, campaign)).toEqual([])
  const { rows: tasks } = await database.pool.query('select state from task')
  expect(tasks).toEqual([{ state: 'found' }])
  await closeUnfetched(database.pool, [{ taskId: seen?.taskId ?? 0, reason: 'robots line 1' }])
  const { rows: outcomes } = await database.pool.query('select lease_id, verdict from outcome')
  expect(outcomes).toEqual([{ lease_id: Buffer.from(seen?.id ?? []), verdict: 'unresolved' }])
})

describe('what others began', () => {
  test('is found by a node far behind what it has begun itself, also when they are gone', async () => {
    const campaign = await openCampaign({
      hosts: ['a.example'],
      pages: 80,
      site: { requestsPerSecond: 100, requestsInFlight: 32 },
    })
    const [gone, left] = [await join(campaign, 'gone'), await join(campaign, 'left')]
    const answerAll = async () => {
      await database.pool.query(`update lease set state = 'answered'`)
      await database.pool.query('update host set in_flight = 0')
      await letTimePass()
    }
    for (let rounds = 0; rounds < 20; rounds += 1) {
      await askNow(gone, campaign)
      await answerAll()
    }
    // The first forty are the other's, whose first window they fill.
    await database.pool.query(
      `update lease set node_id = $1, account_id = $2, block = $3
       where task_id in (select id from task where kind = 'page' order by priority, id limit 40)`,
      [left.nodeId, left.accountId, left.block],
    )
    let found = 0
    for (let rounds = 0; rounds < 200 && found < 40; rounds += 1) {
      found += (await askNow(left, campaign)).length
      await answerAll()
    }
    expect(found).toBe(40)
  }, 60_000)
})

describe('politeness', () => {
  test('a host never has more in flight than its site allows', async () => {
    const campaign = await openCampaign({
      hosts: ['a.example'],
      pages: 10,
      site: { requestsPerSecond: 100, requestsInFlight: 3 },
    })
    const [one, two] = [await join(campaign, 'one'), await join(campaign, 'two')]
    expect(await askNow(one, campaign)).toHaveLength(3)
    await letTimePass()
    expect(await askNow(two, campaign)).toEqual([])
    expect(await hostOf('http://a.example')).toMatchObject({ in_flight: 3 })
  })

  test('an answer frees the host’s slot', async () => {
    const campaign = await openCampaign({
      hosts: ['a.example'],
      pages: 10,
      site: { requestsPerSecond: 100, requestsInFlight: 1 },
    })
    const one = await join(campaign, 'one')
    const [lease] = await askNow(one, campaign)
    if (!lease) throw new Error('no lease')
    await database.transaction((tx) =>
      acceptObservations(tx, one.nodeId, [
        {
          leaseId: lease.id,
          statement: '{}',
          key: randomBytes(32),
          signature: randomBytes(64),
          observation: {
            version: 1,
            outcome: 'failed',
            lease: toBase64Url(lease.id),
            reason: 'timeout',
            totalMs: 1,
            wireBytes: 0,
          },
        },
      ]),
    )
    expect(await hostOf('http://a.example')).toMatchObject({ in_flight: 0 })
    await letTimePass()
    expect(await askNow(one, campaign)).toHaveLength(1)
  })

  test('a host is never spoken to early', async () => {
    const campaign = await openCampaign({
      hosts: ['a.example'],
      pages: 10,
      site: { requestsPerSecond: 2, requestsInFlight: 32 },
    })
    const [one, two] = [await join(campaign, 'one'), await join(campaign, 'two')]
    // More may be in flight, but not begin within half a second.
    expect(await askNow(one, campaign)).toHaveLength(1)
    expect(await hostOf('http://a.example')).toMatchObject({ wait_ms: 500 })
    await database.pool.query(`update host set next_at = now() + interval '10 seconds'`)
    expect(await askNow(two, campaign)).toEqual([])
    await letTimePass()
    expect(await askNow(two, campaign)).toHaveLength(1)
  })

  test('a crawl delay is kept between two requests, however many may be in flight', async () => {
    const campaign = await openCampaign({
      hosts: ['a.example'],
      pages: 10,
      site: { requestsPerSecond: 100, requestsInFlight: 8 },
    })
    const { rows } = await database.pool.query<{ id: number }>('select id from host')
    await allowAll(database.pool, rows[0]?.id ?? 0, 10_000)
    expect(await askNow(await join(campaign, 'one'), campaign)).toHaveLength(1)
    expect(await hostOf('http://a.example')).toMatchObject({ wait_ms: 10_000 })
    expect(await askNow(await join(campaign, 'two'), campaign)).toEqual([])
  })

  test('each host has its own clock', async () => {
    const campaign = await openCampaign({
      hosts: ['a.example', 'b.example'],
      pages: 10,
      site: { requestsPerSecond: 1, requestsInFlight: 1 },
    })
    const picks = await askNow(await join(campaign, 'one'), campaign)
    expect(picks.map((pick) => new URL(pick.url).host).sort()).toEqual(['a.example', 'b.example'])
  })

  test('twenty callers at once get no task twice too often, and no host too many', async () => {
    const hosts = ['a.example', 'b.example', 'c.example']
    const campaign = await openCampaign({
      hosts,
      pages: 12,
      quorum: 2,
      site: { requestsPerSecond: 100, requestsInFlight: 5 },
    })
    // Some share an account, some a block.
    const nodes = await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        join(campaign, `n${n}`, {
          ...(n < 6 ? { account: `shared ${n % 2}` } : {}),
          ...(n >= 14 ? { block: `shared ${n % 3}` } : {}),
        }),
      ),
    )
    let given = 0
    for (let round = 0; round < 200 && given < 72; round += 1) {
      await letTimePass()
      const picks = await Promise.all(nodes.map((node) => askNow(node, campaign, 4)))
      given += picks.flat().length
      const { rows: busy } = await database.pool.query<{ in_flight: number; live: number }>(
        `select h.in_flight, count(l.id) as live from host h
         left join lease l on l.host_id = h.id and l.state = 'live' group by h.id`,
      )
      for (const host of busy) {
        expect(host.in_flight).toBe(host.live)
        expect(host.in_flight).toBeLessThanOrEqual(5)
      }
      await database.pool.query(`update lease set state = 'answered'`)
      await database.pool.query('update host set in_flight = 0')
    }
    expect(given).toBe(72)
    const { rows } = await database.pool.query<{
      leases: number
      granted: number
      accounts: number
      blocks: number
    }>(
      `select count(*) as leases, t.granted, count(distinct l.account_id) as accounts,
              count(distinct l.block) as blocks
       from task t join lease l on l.task_id = t.id group by t.id`,
    )
    expect(rows).toHaveLength(36)
    for (const task of rows) {
      expect(task).toEqual({ leases: 2, granted: 2, accounts: 2, blocks: 2 })
    }
  }, 60_000)
})

describe('leases that end without an answer', () => {
  const narrow = { requestsPerSecond: 100, requestsInFlight: 2 }
  const expireNow = () =>
    database.pool.query(`update lease set expires_at = now() - interval '1 s'`)

  test('an expired lease gives back its task and its slot, also to the same node', async () => {
    const campaign = await openCampaign({ hosts: ['a.example'], pages: 2, site: narrow })
    const one = await join(campaign, 'one')
    const first = await askNow(one, campaign)
    expect(await expireLeases(database.pool, 10)).toBe(0)
    await expireNow()
    expect(await expireLeases(database.pool, 10)).toBe(2)
    expect(await expireLeases(database.pool, 10)).toBe(0)
    expect(await hostOf('http://a.example')).toMatchObject({ in_flight: 0 })
    await letTimePass()
    expect(urls(await askNow(one, campaign))).toEqual(urls(first))
  })

  test('a refused lease gives back task and slot, and not to the same node', async () => {
    const campaign = await openCampaign({ hosts: ['a.example'], pages: 2, quorum: 2, site: narrow })
    const one = await join(campaign, 'one')
    const first = await askNow(one, campaign)
    const ends = first.map(({ id }) => ({ id, reason: 'over-limit' }))
    expect(await database.transaction((tx) => endLeases(tx, ends, 'refused'))).toBe(2)
    // Refused again: already over.
    expect(await database.transaction((tx) => endLeases(tx, ends, 'refused'))).toBe(0)
    expect(await hostOf('http://a.example')).toMatchObject({ in_flight: 0 })
    await letTimePass()
    expect(await askNow(one, campaign)).toEqual([])
    expect(urls(await askNow(await join(campaign, 'two'), campaign))).toEqual(urls(first))
  })

  test('nodes that could take the task are rung, and none that has it', async () => {
    const campaign = await openCampaign({ hosts: ['a.example'], pages: 1 })
    const one = await join(campaign, 'one')
    const other = await join(campaign, 'other')
    const third = await join(campaign, 'third')
    const [lease] = await askNow(one, campaign)
    await letTimePass()
    expect(await askNow(other, campaign)).toHaveLength(1)
    const heard: Ring[] = []
    const rings = await listenForRings({
      connection: database.connection,
      onRing: (ring) => heard.push(ring),
      log: pino({ level: 'silent' }),
    })
    await database.transaction((tx) =>
      endLeases(tx, [{ id: lease?.id ?? one.nodeId, reason: 'host-not-public' }], 'refused'),
    )
    // In order, so whatever was rung before this is here when it is.
    await ring(database.pool, [{ node: null, notice: 'halt' }])
    await vi.waitUntil(() => heard.some(({ notice }) => notice === 'halt'))
    await rings.close()
    const node = Buffer.from(third.nodeId).toString('hex')
    expect(heard[0]).toEqual({ node, notice: 'work' })
    expect(heard).toHaveLength(2)
  })

  test('leases that expire while twenty callers look are given back once', async () => {
    const campaign = await openCampaign({ hosts: ['a.example'], pages: 2, site: narrow })
    await askNow(await join(campaign, 'one'), campaign)
    await expireNow()
    const ended = await Promise.all(
      Array.from({ length: 20 }, () => database.transaction((tx) => expireLeases(tx, 10))),
    )
    expect(ended.reduce((sum, n) => sum + n, 0)).toBe(2)
    const { rows } = await database.pool.query<{ granted: number }>('select granted from task')
    expect(rows.map((row) => row.granted)).toEqual([0, 0])
    expect(await hostOf('http://a.example')).toMatchObject({ in_flight: 0 })
  })
})

describe('the plan', () => {
  test('the pick reads open tasks by the partial index task_open, never the whole table', async () => {
    const hosts = Array.from({ length: 20 }, (_, n) => `h${n}.example`)
    const campaign = await openCampaign({ hosts, pages: 400 })
    // A crawl under way: nearly everything is closed, a few tasks a host are open.
    await database.pool.query(`update task set state = 'closed' where id % 40 <> 0`)
    await database.pool.query('vacuum analyze task')
    const node = await join(campaign, 'one')
    const asked: { text: string; values: readonly unknown[] }[] = []
    await database.transaction((tx) =>
      ask(
        {
          query: (text, values) => {
            asked.push({ text, values: values ?? [] })
            return tx.query(text, values)
          },
        },
        node,
        campaign,
      ),
    )
    const reads = asked.filter(({ text }) => /from task t/.test(text))
    expect(reads.length).toBeGreaterThanOrEqual(2)
    for (const { text, values } of reads) {
      const { rows } = await database.pool.query<{ 'QUERY PLAN': string }>(`explain ${text}`, [
        ...values,
      ])
      const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
      expect(plan).toMatch(/task_(open|fresh)/)
      expect(plan).not.toContain('Seq Scan on task')
    }
  })
})
