import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { beforeEach, describe, expect, test } from 'vitest'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { logEntry } from '../../../lib/protocol/log-entry.ts'
import type { OptOutScope } from '../../../lib/protocol/opt-out.ts'
import { socketNotice } from '../../../lib/protocol/socket.ts'
import { readTarget } from '../../../server/frontier/opt-out.ts'
import { addAuditorTasks } from '../../../server/store/auditor-tasks.ts'
import { addCampaign } from '../../../server/store/campaigns.ts'
import { openSession, putConsent } from '../../../server/store/contributors.ts'
import { addRecord, hasText } from '../../../server/store/decisions.ts'
import { listenForRings, type Ring } from '../../../server/store/doorbell.ts'
import { addPages, openTasks } from '../../../server/store/frontier.ts'
import { grantLeases } from '../../../server/store/leases.ts'
import { appendToLog } from '../../../server/store/log.ts'
import { acceptObservations } from '../../../server/store/observations.ts'
import {
  askForLook,
  keepOptOuts,
  looksFor,
  optOutById,
  optOutOfHost,
  optOutsCovering,
  requestOptOut,
  settleProof,
} from '../../../server/store/opt-outs.ts'
import { carryOutOptOuts } from '../../../server/store/opted-out.ts'
import { recordsAfter } from '../../../server/store/releases.ts'
import { campaignOver } from '../../lib/runner/operator.ts'
import { allowEverywhere, foundPage } from './found-page.ts'
import { openTestDatabase, type TestDatabase } from './test-database.ts'

let database: TestDatabase
beforeEach(async () => {
  database = await openTestDatabase()
})

const envelope = { payloadType: 'none', payload: '', signatures: [] }
const signCheckpoint = async () => 'note'
const campaign = sha256('campaign')

/** A campaign over these addresses, all found; or open to whoever asks. */
async function crawl(urls: readonly string[], state: 'found' | 'open' = 'open') {
  const hosts = [...new Set(urls.map((url) => new URL(url).hostname))]
  const [site] = campaignOver('x.example').sites
  if (!site) throw new Error('no site')
  const sites = hosts.map((host) => ({
    ...site,
    host,
    scheme: 'https' as const,
    requestsPerSecond: 100,
    requestsInFlight: 32,
  }))
  const manifest = campaignOver(hosts[0] ?? '', { sites })
  await addCampaign(database.pool, { digest: campaign, manifest, envelope, leafIndex: 1 })
  await addPages(
    database.pool,
    campaign,
    2,
    urls.map((url) => foundPage(url, new URL(url).origin)),
  )
  await allowEverywhere(database.pool)
  if (state === 'found') return
  const { rows } = await database.pool.query<{ id: number }>('select id from task')
  await openTasks(
    database.pool,
    rows.map(({ id }) => id),
  )
}

async function request(scope: OptOutScope, given: string) {
  const read = readTarget(scope, given)
  if (!read.ok) throw new Error(read.problem)
  return database.transaction((tx) =>
    requestOptOut(tx, read.target, { id: randomBytes(16), token: 'AAECAwQFBgcICQoLDA0ODw' }),
  )
}

/** Asked for and waiting; its id. */
async function asked(scope: OptOutScope, given: string): Promise<Buffer> {
  const made = await request(scope, given)
  if (made.kind !== 'new') throw new Error(made.kind)
  return made.optOut.id
}

const prove = (id: Uint8Array) =>
  database.transaction((tx) => settleProof(tx, id, { found: true, reason: 'TXT' }))
const carryOut = () => carryOutOptOuts({ database, signCheckpoint })

/** Asked for, proven, and carried out; the row as it then is. */
async function optOut(scope: OptOutScope, given: string) {
  const id = await asked(scope, given)
  expect(await prove(id)).toBe(true)
  expect(await carryOut()).toBe(1)
  const row = await optOutById(database.pool, id)
  if (!row) throw new Error('it is gone')
  return row
}

async function join(
  name: string,
): Promise<{ nodeId: Uint8Array; accountId: Uint8Array; block: string }> {
  const node = {
    nodeId: sha256(`node ${name}`),
    accountId: sha256(`account ${name}`),
    block: `block of ${name}`,
  }
  await openSession(database.pool, {
    ...node,
    tokenDigest: sha256(`token ${name}`),
    publicKey: sha256(`key ${name}`),
    client: 'test',
    blockWide: 'wide',
    validForMs: 60_000,
  })
  await putConsent(database.pool, { nodeId: node.nodeId, campaign, act: 'given', envelope })
  return node
}

function lease(node: Awaited<ReturnType<typeof join>>, max = 32) {
  return database.transaction((tx) =>
    grantLeases(tx, {
      ...node,
      campaigns: [campaign],
      max,
      validForMs: 60_000,
      newLease: () => ({ id: randomBytes(16), nonce: randomBytes(16) }),
    }),
  )
}

const tasks = async (where: string) =>
  (
    await database.pool.query<{ url: string }>(`select url from task where ${where} order by url`)
  ).rows.map(({ url }) => url)

/** The task of an address is closed with a record of this text, in the log at `leaf`. */
async function record(url: string, text: string, leaf: number, published = url) {
  const { rows } = await database.pool.query<{ id: number }>(
    `update task set state = 'closed', verdict = 'valid' where url = $1 returning id`,
    [url],
  )
  const textDigest = sha256(text)
  await database.transaction(async (tx) =>
    addRecord(tx, {
      taskId: rows[0]?.id ?? 0,
      campaign,
      rowJson: JSON.stringify({ title: 'see example.org', url: published }),
      salt: randomBytes(32),
      textDigest,
      identity: textDigest,
      textBlob: 'blob',
      duplicate: await hasText(tx, campaign, textDigest),
      payloadLease: null,
    }),
  )
  await database.pool.query('update record set leaf_index = $2 where task_id = $1', [
    rows[0]?.id,
    leaf,
  ])
}
const releasable = async () =>
  (await recordsAfter(database.pool, campaign, -1, 100)).map(
    ({ rowJson }) => (JSON.parse(rowJson) as { url: string }).url,
  )

describe('asking', () => {
  test('asking again is answered with what there is', async () => {
    const first = await request('host', 'www.example.org')
    const again = await request('host', 'HTTPS://WWW.example.org/page')
    expect(first.kind).toBe('new')
    expect(again).toEqual({ ...first, kind: 'known' })
    expect((await request('domain', 'www.example.org')).kind).toBe('new')
    const { rows } = await database.pool.query('select 1 from opt_out')
    expect(rows).toHaveLength(2)
  })

  test('two who ask for one target at once get one request', async () => {
    const both = await Promise.all([
      request('domain', 'example.org'),
      request('domain', 'example.org'),
    ])
    expect(both.map(({ kind }) => kind).sort()).toEqual(['known', 'new'])
  })

  test('an opt-out that holds is answered with itself', async () => {
    const { id } = await optOut('host', 'example.org')
    expect(await request('host', 'example.org')).toMatchObject({
      kind: 'known',
      optOut: { id, state: 'verified' },
    })
  })

  test('the auditor looks at every place, at once', async () => {
    await asked('domain', 'a.example.org')
    const { rows } = await database.pool.query(
      `select kind, target from auditor_task where state = 'due' and due_at <= now() order by 1, 2`,
    )
    expect(rows).toEqual([
      { kind: 'opt-out-dns', target: '_gleaner.a.example.org' },
      { kind: 'opt-out-dns', target: '_gleaner.example.org' },
      { kind: 'opt-out-file', target: 'https://a.example.org/.well-known/gleaner-opt-out.txt' },
      { kind: 'opt-out-file', target: 'https://example.org/.well-known/gleaner-opt-out.txt' },
    ])
  })

  test('twenty are new in a minute; who asked before still finds the request', async () => {
    for (let n = 0; n < 20; n += 1) await asked('host', `h${n}.example.org`)
    const refused = await request('host', 'h20.example.org')
    if (refused.kind !== 'too-many') throw new Error(refused.kind)
    expect(refused.retryAfterSeconds).toBeGreaterThan(0)
    expect(refused.retryAfterSeconds).toBeLessThanOrEqual(60)
    expect((await request('host', 'h3.example.org')).kind).toBe('known')
    await database.pool.query(`update opt_out set requested_at = now() - interval '61 s'`)
    expect((await request('host', 'h20.example.org')).kind).toBe('new')
  })

  test('a thousand wait at most, and one that fails makes room', async () => {
    await database.pool.query(
      `insert into opt_out (id, scope, host, token, requested_at)
       select decode(lpad(to_hex(n), 32, '0'), 'hex'), 'host', 'h' || n || '.example', 't',
              now() - interval '6 days'
       from generate_series(1, 1000) as n`,
    )
    expect((await request('host', 'example.org')).kind).toBe('full')
    await database.pool.query(
      `update opt_out set requested_at = now() - interval '8 days' where host = 'h7.example'`,
    )
    expect((await request('host', 'example.org')).kind).toBe('new')
  })
})

describe('looking for the proof', () => {
  const look = (id: Uint8Array) => database.transaction((tx) => askForLook(tx, id))
  /** The auditor found nothing anywhere, so long ago. */
  const lookedAgo = (id: Uint8Array, ago: string) =>
    database.pool.query(
      `update auditor_task set state = 'failed', reason = 'no TXT record', taken_at = now() - $2::interval,
              done_at = now() - $2::interval, due_at = now() - $2::interval where opt_out = $1`,
      [id, ago],
    )

  test('what was found instead stands beside each place', async () => {
    const id = await asked('host', 'example.org')
    await lookedAgo(id, '1 s')
    await database.transaction((tx) =>
      settleProof(tx, id, { found: false, reason: 'no TXT record' }),
    )
    const row = await optOutById(database.pool, id)
    if (!row) throw new Error('it is gone')
    expect(row).toMatchObject({ state: 'waiting', reason: 'no TXT record', verifiedAt: null })
    expect(await looksFor(database.pool, row)).toMatchObject([
      { kind: 'dns', at: '_gleaner.example.org', found: 'no TXT record' },
      { kind: 'file', found: 'no TXT record' },
    ])
  })

  test('an owner may have it looked for again every ten seconds', async () => {
    const id = await asked('host', 'example.org')
    expect(await look(id)).toMatchObject({ kind: 'too-soon' })
    await lookedAgo(id, '9 s')
    expect(await look(id)).toMatchObject({ kind: 'too-soon' })
    await lookedAgo(id, '11 s')
    expect(await look(id)).toEqual({ kind: 'asked' })
    expect(await look(id)).toMatchObject({ kind: 'too-soon' })
    await prove(id)
    expect(await look(id)).toEqual({ kind: 'settled' })
    expect(await look(randomBytes(16))).toEqual({ kind: 'unknown' })
  })

  test('a look that found nothing is repeated after a minute, later after an hour', async () => {
    const id = await asked('host', 'example.org')
    const waits = async () => {
      await lookedAgo(id, '0 s')
      await database.transaction(keepOptOuts)
      const { rows } = await database.pool.query<{ wait: number }>(
        `select distinct round(extract(epoch from due_at - done_at))::int8 as wait
         from auditor_task where opt_out = $1 and state = 'due'`,
        [id],
      )
      return rows.map(({ wait }) => wait)
    }
    expect(await waits()).toEqual([60])
    await database.pool.query(`update opt_out set requested_at = now() - interval '11 minutes'`)
    expect(await waits()).toEqual([3600])
  })

  test('without a proof a request fails after seven days, and may be asked for anew', async () => {
    const id = await asked('host', 'example.org')
    const age = async (days: number) => {
      await database.pool.query(`update opt_out set requested_at = now() - $1 * interval '1 day'`, [
        days,
      ])
      await database.transaction(keepOptOuts)
      return optOutById(database.pool, id)
    }
    expect(await age(6.9)).toMatchObject({ state: 'waiting' })
    expect(await age(7.1)).toMatchObject({
      state: 'failed',
      reason: expect.stringMatching(/seven days/) as string,
    })
    expect(await prove(id)).toBe(false)
    const { rows } = await database.pool.query(`select 1 from auditor_task where state = 'due'`)
    expect(rows).toEqual([])
    expect((await request('host', 'example.org')).kind).toBe('new')
  })
})

describe('what a verified opt-out ends', () => {
  test('covered tasks close in every state, the others stay', async () => {
    await crawl(['a', 'b', 'c'].map((name) => `https://example.org/${name}`))
    await addPages(
      database.pool,
      campaign,
      2,
      ['https://example.org/found', 'https://example.org/waiting'].map((url) =>
        foundPage(url, 'https://example.org'),
      ),
    )
    await database.pool.query(`update task set state = 'waiting' where url like '%/waiting'`)
    await database.pool.query(
      `insert into host (origin, interval_ms, max_in_flight)
       values ('https://other.example', 1, 1)`,
    )
    await addPages(database.pool, campaign, 2, [
      foundPage('https://other.example/?from=example.org', 'https://other.example'),
    ])
    const row = await optOut('host', 'example.org')
    expect(row).toMatchObject({ tasks: 5, leases: 0, records: 0, leafIndex: 0 })
    expect(
      await tasks(`state = 'closed' and verdict = 'refused' and reason = 'opted-out'`),
    ).toHaveLength(5)
    expect(await tasks(`state <> 'closed'`)).toEqual(['https://other.example/?from=example.org'])
  })

  test('a prefix ends nothing beside it', async () => {
    await crawl([
      'https://example.org/blog',
      'https://example.org/blog/a',
      'https://example.org/blogger',
      'https://example.org/',
    ])
    expect(await optOut('prefix', 'example.org/blog')).toMatchObject({ tasks: 2 })
    expect(await tasks(`state = 'open'`)).toEqual([
      'https://example.org/',
      'https://example.org/blogger',
    ])
  })

  test('a domain of many hosts and pages ends in bounded steps', async () => {
    await crawl(['https://example.org/'], 'found')
    await database.pool.query(
      `insert into host (origin, interval_ms, max_in_flight)
       select 'https://h' || n || case when n % 10 = 0 then '.other.example' else '.example.org' end, 1, 1
       from generate_series(1, 1200) as n`,
    )
    await database.pool.query(
      `insert into task (campaign, host_id, kind, url, url_digest, depth, state, wanted)
       select $1, h.id, 'page', h.origin || '/' || n, sha256((h.origin || '/' || n)::bytea), 0, 'open', 2
       from host h cross join generate_series(1, 5) as n where h.origin <> 'https://example.org'`,
      [campaign],
    )
    // And one of them with more pages than a step takes.
    await database.pool.query(
      `insert into task (campaign, host_id, kind, url, url_digest, depth, state, wanted)
       select $1, h.id, 'page', h.origin || '/deep/' || n, sha256((h.origin || '/deep/' || n)::bytea), 0, 'open', 2
       from host h cross join generate_series(1, 4500) as n where h.origin = 'https://h7.example.org'`,
      [campaign],
    )
    expect(await optOut('domain', 'example.org')).toMatchObject({ tasks: 1 + 1080 * 5 + 4500 })
    expect(await tasks(`state <> 'closed'`)).toHaveLength(120 * 5)
    expect(await tasks(`state <> 'closed' and url not like '%.other.example/%'`)).toEqual([])
  })

  test('running leases end, their hosts are free, and their nodes are told which', async () => {
    await crawl(
      Array.from({ length: 70 }, (_, n) => `https://example.org/${n}`).concat(
        'https://other.example/',
      ),
    )
    await database.pool.query('update host set max_in_flight = 1000, interval_ms = 1')
    const node = await join('ada')
    const held: Awaited<ReturnType<typeof lease>> = []
    while (held.length < 71) {
      await database.pool.query('update host set next_at = now()')
      await database.pool.query('update queue set ready = true, due_at = now()')
      const more = await lease(node)
      if (more.length === 0) throw new Error(`only ${held.length} leases`)
      held.push(...more)
    }
    const rung: Ring[] = []
    const doorbell = await listenForRings({
      connection: database.connection,
      onRing: (ring) => rung.push(ring),
      log: pino({ level: 'silent' }),
    })
    try {
      expect(await optOut('domain', 'example.org')).toMatchObject({ tasks: 70, leases: 70 })
      await database.pool.query(`select pg_notify('gleaner_doorbell', '{"notice":"last"}')`)
      while (!rung.some((ring) => (ring.notice as string) === 'last')) await sleep(5)
    } finally {
      await doorbell.close()
    }
    const recalls = rung.filter((ring) => ring.notice === 'recall')
    expect(recalls.map(({ leases }) => leases?.length)).toEqual([64, 6])
    for (const { node: rungNode, leases } of recalls) {
      expect(rungNode).toBe(Buffer.from(node.nodeId).toString('hex'))
      expect(socketNotice.safeParse({ type: 'recall', leases }).success).toBe(true)
    }
    const covered = held.filter(({ url }) => url.startsWith('https://example.org/'))
    expect(recalls.flatMap(({ leases }) => leases ?? []).sort()).toEqual(
      covered.map(({ id }) => Buffer.from(id).toString('base64url')).sort(),
    )
    const { rows } = await database.pool.query(
      'select origin, in_flight from host order by origin desc',
    )
    expect(rows).toEqual([
      { origin: 'https://other.example', in_flight: 1 },
      { origin: 'https://example.org', in_flight: 0 },
    ])
    const { rows: live } = await database.pool.query(`select 1 from lease where state = 'live'`)
    expect(live).toHaveLength(1)
  })

  test('a node that had answered hears that the page came to nothing', async () => {
    await crawl(['https://example.org/'])
    const node = await join('ada')
    const [held] = await lease(node)
    if (!held) throw new Error('no lease')
    await database.transaction((tx) =>
      acceptObservations(tx, node.nodeId, [
        {
          leaseId: held.id,
          statement: '{}',
          key: randomBytes(32),
          signature: randomBytes(64),
          observation: {
            version: 1,
            outcome: 'failed',
            lease: Buffer.from(held.id).toString('base64url'),
            reason: 'timeout',
            totalMs: 1,
            wireBytes: 0,
          },
        },
      ]),
    )
    expect(await optOut('host', 'example.org')).toMatchObject({ tasks: 1, leases: 0 })
    const { rows } = await database.pool.query('select lease_id, verdict, points from outcome')
    expect(rows).toEqual([{ lease_id: Buffer.from(held.id), verdict: 'unresolved', points: 0 }])
    const { rows: news } = await database.pool.query('select 1 from task where news')
    expect(news).toEqual([])
  })

  test('records are in no release any more, whether leased there or ended there', async () => {
    const urls = ['https://example.org/1', 'https://other.example/1', 'https://other.example/2']
    await crawl(urls)
    await record('https://example.org/1', 'one', 10)
    await record('https://other.example/1', 'two', 11)
    await record('https://other.example/2', 'three', 12, 'https://www.example.org/landed')
    expect(await releasable()).toHaveLength(3)
    expect(await optOut('domain', 'example.org')).toMatchObject({ records: 2, tasks: 0 })
    expect(await releasable()).toEqual(['https://other.example/1'])
  })

  test('what repeats a removed text goes with it, and the text is new where it is found again', async () => {
    const urls = ['https://example.org/1', 'https://other.example/1', 'https://other.example/2']
    await crawl(urls)
    await record('https://example.org/1', 'same', 10)
    await record('https://other.example/1', 'same', 11)
    expect(await releasable()).toHaveLength(2)
    await optOut('host', 'example.org')
    expect(await releasable()).toEqual([])
    await record('https://other.example/2', 'same', 12)
    expect(await releasable()).toEqual(['https://other.example/2'])
  })

  test('the auditor’s errands to a host end; for a prefix only those inside it', async () => {
    await crawl(['https://example.org/', 'https://other.example/'])
    const { rows } = await database.pool.query<{ id: number; origin: string }>(
      'select id, origin from host',
    )
    await addAuditorTasks(
      database.pool,
      rows.flatMap(({ id, origin }) =>
        (['robots', 'sitemap', 'use-file'] as const).map((kind) => ({
          kind,
          target: `${origin}/${kind === 'sitemap' ? 'blog/sitemap.xml' : 'file'}`,
          hostId: id,
        })),
      ),
    )
    const due = async () => {
      const left = await database.pool.query<{ target: string }>(
        `select target from auditor_task where state = 'due' and opt_out is null order by 1`,
      )
      return left.rows.map(({ target }) => target)
    }
    await optOut('prefix', 'example.org/blog')
    expect((await due()).filter((target) => target.startsWith('https://example.org'))).toEqual([
      'https://example.org/file',
      'https://example.org/file',
    ])
    await optOut('host', 'example.org')
    expect(await due()).toHaveLength(3)
  })

  test('the log has it once, however often and by whomever it is carried out', async () => {
    await crawl(['https://example.org/', 'https://example.org/2'])
    await database.transaction((tx) => appendToLog(tx, ['first'], signCheckpoint))
    await prove(await asked('prefix', 'example.org/2'))
    const finished = await Promise.all([carryOut(), carryOut(), carryOut()])
    expect(finished.reduce((a, b) => a + b)).toBe(1)
    expect(await carryOut()).toBe(0)
    const { rows } = await database.pool.query<{ index: number; entry: string }>(
      'select index, entry from log_leaf where index > 0',
    )
    expect(rows).toHaveLength(1)
    expect(logEntry.parse(JSON.parse(rows[0]?.entry ?? ''))).toEqual({
      type: 'opt-out',
      scope: 'prefix',
      target: 'example.org/2',
      day: expect.stringMatching(/^\d{4}-/) as string,
    })
    const { rows: counts } = await database.pool.query('select tasks, leaf_index from opt_out')
    expect(counts).toEqual([{ tasks: 1, leaf_index: 1 }])
  })

  test('a host that was never met can opt out', async () => {
    expect(await optOut('domain', 'never.example')).toMatchObject({ tasks: 0, leafIndex: 0 })
    expect(await optOutOfHost(database.pool, 'www.never.example')).toMatchObject({
      host: 'never.example',
    })
    expect(await optOutOfHost(database.pool, 'ever.example')).toBeNull()
  })
})

describe('tasks that would open', () => {
  const covering = (urls: readonly string[]) =>
    database.transaction((tx) =>
      optOutsCovering(
        tx,
        urls.map((url) => ({ url })),
      ),
    )

  test('addresses under any verified opt-out are named with it, others and waiting ones are not', async () => {
    const { id: domain } = await optOut('domain', 'example.org')
    const { id: prefix } = await optOut('prefix', 'other.example/a')
    await asked('host', 'waiting.example')
    const covered = await covering([
      'https://example.org/',
      'http://deep.www.example.org/x',
      'https://other.example/a/b',
      'https://other.example/ab',
      'https://www.other.example/a',
      'https://waiting.example/',
      'https://org/',
    ])
    expect([...covered]).toEqual([
      ['https://example.org/', domain],
      ['http://deep.www.example.org/x', domain],
      ['https://other.example/a/b', prefix],
    ])
    expect(await covering([])).toEqual(new Map())
  })

  test('the question costs index look-ups among ten thousand opt-outs', async () => {
    await database.pool.query(
      `insert into opt_out (id, scope, host, token, state, verified_at, leaf_index)
       select decode(lpad(to_hex(n), 32, '0'), 'hex'), 'host', 'h' || n || '.example', 't', 'verified', now(), 1
       from generate_series(1, 10000) as n`,
    )
    await database.pool.query('analyze opt_out')
    const { rows } = await database.pool.query<{ 'QUERY PLAN': string }>(
      `explain select id, scope, host, path from opt_out
       where state = 'verified' and host = any($1::text[])`,
      [['h1.example', 'h2.example', 'example']],
    )
    expect(rows.map((row) => row['QUERY PLAN']).join('\n')).toMatch(/opt_out_verified/)
  })

  test('a task that opens while the proof is found is either refused or closed', async () => {
    await crawl(
      Array.from({ length: 40 }, (_, n) => `https://example.org/${n}`),
      'found',
    )
    const id = await asked('host', 'example.org')
    /** As schedule does it: asks, then opens what is not covered. */
    const openSome = () =>
      database.transaction(async (tx) => {
        const { rows } = await tx.query<{ id: number; url: string }>(
          `select id, url from task where state = 'found' order by id limit 2
           for no key update skip locked`,
        )
        const covered = await optOutsCovering(tx, rows)
        // Whatever comes between is where a look before would go stale.
        await sleep(2)
        await openTasks(
          tx,
          rows.filter(({ url }) => !covered.has(url)).map((row) => row.id),
        )
        return { asked: rows.length, refused: covered.size }
      })
    let isProven = false
    const openAll = async () => {
      let refused = 0
      while (refused === 0) {
        const one = await openSome()
        refused += one.refused
        if (one.asked === 0) break
      }
      return refused
    }
    const proving = (async () => {
      await sleep(10)
      isProven = await prove(id)
      await carryOut()
    })()
    await Promise.all([openAll(), openAll(), proving])
    expect(isProven).toBe(true)
    while ((await carryOut()) > 0);
    expect(await tasks(`state = 'open'`)).toEqual([])
  })

  test('the proof waits for whoever has asked and not opened yet', async () => {
    await crawl(['https://example.org/'], 'found')
    const id = await asked('host', 'example.org')
    const order: string[] = []
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    let hasAsked = () => {}
    const isAsked = new Promise<void>((resolve) => {
      hasAsked = resolve
    })
    const opening = database.transaction(async (tx) => {
      expect(await optOutsCovering(tx, [{ url: 'https://example.org/' }])).toEqual(new Map())
      hasAsked()
      await held
      const { rows } = await tx.query<{ id: number }>('select id from task')
      await openTasks(
        tx,
        rows.map((row) => row.id),
      )
      order.push('opened')
    })
    await isAsked
    const proving = prove(id).then(() => order.push('proven'))
    // It waits in the database: seen there, not guessed from the clock.
    for (;;) {
      const { rows } = await database.pool.query(
        `select 1 from pg_locks where locktype = 'advisory' and not granted`,
      )
      if (rows.length > 0) break
      await sleep(5)
    }
    release()
    await Promise.all([opening, proving])
    expect(order).toEqual(['opened', 'proven'])
    await carryOut()
    expect(await tasks(`state = 'open'`)).toEqual([])
  })
})
