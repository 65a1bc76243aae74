import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { fromBase64Url, toBase64, toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { verifyEnvelope } from '../../../lib/crypto/dsse.ts'
import { generateKeyPair } from '../../../lib/crypto/ed25519.ts'
import { batchReply } from '../../../lib/protocol/attestation-batch.ts'
import type { Lease } from '../../../lib/protocol/lease.ts'
import { observationReply, receipt } from '../../../lib/protocol/observation.ts'
import { payloadType } from '../../../lib/protocol/payload-type.ts'
import { problem, problemStatus } from '../../../lib/protocol/problem.ts'
import { readConfig } from '../../../server/config.ts'
import { createApp } from '../../../server/http/app.ts'
import { type RunningServer, startServer } from '../../../server/main.ts'
import { openCampaign, signCampaign } from '../../../server/operator.ts'
import { campaignOver, seal } from '../../lib/runner/operator.ts'
import { teaPage } from '../verify/tea-page.ts'
import { type Answer, call, HandNode, signStatement, type Told } from './hand-node.ts'

const site = 'barley.example'
let folder: string
let server: RunningServer
let campaign: string
let ada: HandNode
let bob: HandNode

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gleaner-routes-'))
  // PostgreSQL may run as another user, who has to pass through.
  await chmod(folder, 0o711)
  const config = readConfig(
    { data: folder, port: '0', trustedProxies: '1' },
    { GLEANER_POSTGRES: process.env.GLEANER_POSTGRES },
  )
  server = await startServer(config, pino({ level: 'silent' }), {
    scopeRules: { loopbackAllowed: false },
  })
  const { pool } = server.workspace.database
  // Nobody fetches anything here: robots.txt is resolved before anybody asks.
  await pool.query(
    `insert into host (origin, interval_ms, max_in_flight, robots_state, robots_at, robots_due_at)
     values ($1, 1, 32, 'allow-all', now(), null)`,
    [`http://${site}`],
  )
  const [asSigned] = campaignOver(site).sites
  if (!asSigned) throw new Error('no site')
  const manifest = campaignOver(site, {
    seeds: Array.from({ length: 100 }, (_, n) => `http://${site}/page-${n}`),
    sites: [{ ...asSigned, requestsInFlight: 32 }],
    limits: { pageBytes: 1_000_000, pageMs: 10_000, pages: 1000, depth: 0 },
  })
  const { workspace } = server
  const opened = await openCampaign(
    workspace,
    await signCampaign(manifest, workspace.keys.campaign),
  )
  campaign = opened.digest
  // Leases pile up in these tests; the other limits are tested with the store.
  await pool.query('update host set max_in_flight = 1000')
  ada = await HandNode.join(server.joinLink, '192.0.2.1')
  bob = await HandNode.join(server.joinLink, '203.0.113.1')
  for (const node of [ada, bob]) {
    const answer = await node.call('/v1/consents', { body: await node.consent(campaign) })
    expect(answer.status).toBe(204)
  }
}, 120_000)

afterAll(async () => {
  await server?.stop()
  await rm(folder, { recursive: true, force: true })
})

/** Everything that a call of a node may record. Questions that the pipeline asks by itself are not. */
async function recorded(): Promise<unknown> {
  const { rows } = await server.workspace.database.pool.query(
    `select (select count(*) from node) as nodes,
            (select count(*) from session) as sessions,
            (select count(*) from consent) as consents,
            (select count(*) from lease where state in ('answered', 'refused')) as leases,
            (select count(*) from observation) as observations,
            (select count(*) from sentence_list) as lists,
            (select count(*) from payload) as payloads,
            (select count(*) from attestation) as attestations,
            (select count(*) from follow_up where state in ('answered', 'refused')) as answers,
            (select count(*) from transfer) as transfers`,
  )
  return rows[0]
}

/** The call is refused with this problem, and nothing was recorded. */
async function refused(
  reason: keyof typeof problemStatus,
  makeCall: () => Promise<Answer>,
): Promise<Answer> {
  const before = await recorded()
  const answer = await makeCall()
  expect(answer).toMatchObject({
    status: problemStatus[reason],
    problem: reason,
    type: expect.stringMatching(/^application\/problem\+json/),
  })
  expect(problem.parse(answer.body)).toEqual(answer.body)
  expect(await recorded()).toEqual(before)
  return answer
}

/** One item of a batch is refused with this problem, and nothing was recorded. */
async function itemRefused(
  reason: keyof typeof problemStatus,
  node: HandNode,
  told: Pick<Told, 'item'>,
) {
  const before = await recorded()
  const answer = await node.observe(told)
  expect(answer.status).toBe(200)
  const reply = observationReply.parse(answer.body)
  expect(reply.results).toMatchObject([
    {
      ok: false,
      problem: { type: `urn:gleaner:problem:${reason}`, status: problemStatus[reason] },
    },
  ])
  expect(await recorded()).toEqual(before)
}

const takeLease = (node = ada) => node.takeLease(campaign)
const database = () => server.workspace.database.pool
const leaseId = (lease: Lease) => Buffer.from(lease.id, 'base64url')

describe('bodies', () => {
  const leases = (sent: Parameters<HandNode['call']>[1]) => () => ada.call('/v1/leases', sent)
  const good = () => ({ campaigns: [campaign], max: 1 })

  test.each([
    ['what is not JSON', '{"campaigns":'],
    ['an empty body', ''],
    ['JSON that is not an object', '[]'],
    ['a member of the wrong type', '{"campaigns":"all","max":1}'],
    ['a missing member', '{"max":1}'],
    ['bytes that are no digest', '{"campaigns":["AAAA"],"max":1}'],
  ])('%s is malformed', async (_what, raw) => {
    await refused('malformed', leases({ raw, method: 'POST' }))
  })

  test('a member that the protocol does not name is refused, and named', async () => {
    const answer = await refused('malformed', leases({ body: { ...good(), please: true } }))
    expect(JSON.stringify(answer.body)).toContain('please')
  })

  test('__proto__ is refused at any depth', async () => {
    const { campaigns } = good()
    await refused(
      'malformed',
      leases({ raw: `{"campaigns":["${campaigns[0]}"],"max":1,"__proto__":{"max":32}}` }),
    )
    await refused('malformed', () =>
      ada.call('/v1/observations', { raw: '{"observations":[{"__proto__":{"statement":"x"}}]}' }),
    )
  })

  test('a body of another type is refused', async () => {
    await refused('malformed', leases({ raw: 'max=1', headers: { 'content-type': 'text/plain' } }))
    await refused(
      'malformed',
      leases({ raw: '{}', headers: { 'content-type': 'application/octet-stream' } }),
    )
  })

  test('an encoding other than gzip, and gzip that is broken, are refused', async () => {
    await refused('malformed', leases({ raw: '{}', headers: { 'content-encoding': 'br' } }))
    const gzip = { 'content-encoding': 'gzip' }
    await refused('malformed', leases({ raw: 'not gzip', headers: gzip }))
    const cut = gzipSync(JSON.stringify(good())).subarray(0, -9)
    await refused('malformed', leases({ raw: cut, headers: gzip }))
  })

  test('JSON above 256 KiB is too large', async () => {
    await refused('too-large', leases({ raw: JSON.stringify({ pad: ' '.repeat(300_000) }) }))
  })

  test('a gzip bomb stops at the limit', async () => {
    const bomb = gzipSync(Buffer.alloc(200 * 1024 * 1024))
    expect(bomb.length).toBeLessThan(256 * 1024)
    const before = process.memoryUsage().rss
    await refused('too-large', leases({ raw: bomb, headers: { 'content-encoding': 'gzip' } }))
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024)
  })

  test('octets above 16 MiB are too large, announced or unpacked', async () => {
    const path = `/v1/follow-ups/${'A'.repeat(21)}A/payload`
    const headers = { 'content-type': 'application/octet-stream' }
    const large = Buffer.alloc(17 * 1024 * 1024)
    await refused('too-large', () => ada.call(path, { raw: large, headers }))
    await refused('too-large', () =>
      ada.call(path, {
        raw: gzipSync(large),
        headers: { ...headers, 'content-encoding': 'gzip' },
      }),
    )
  })

  test('a path or method that is not there is a problem too', async () => {
    await refused('not-found', () => ada.call('/v1/nothing'))
    await refused('not-found', () => ada.call('/v1/leases', { method: 'DELETE' }))
  })

  test('a sender who stops halfway holds up nobody, and leaves nothing', async () => {
    const before = await recorded()
    const { hostname, port } = new URL(server.origin)
    const stalled = await Promise.all(
      Array.from({ length: 50 }, async () => {
        const socket = connect(Number(port), hostname)
        socket.on('error', () => {})
        await new Promise((resolve) => socket.once('connect', resolve))
        socket.write(
          `POST /v1/observations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer ${ada.token}\r\nX-Forwarded-For: ${ada.address}\r\nContent-Length: 5000\r\n\r\n{"observations":[`,
        )
        return socket
      }),
    )
    const begun = Date.now()
    expect((await ada.call('/v1/account')).status).toBe(200)
    expect(Date.now() - begun).toBeLessThan(3000)
    for (const socket of stalled) socket.destroy()
    expect((await ada.call('/v1/account')).status).toBe(200)
    expect(await recorded()).toEqual(before)
  })

  test('a sender who stops halfway is cut off', async () => {
    const app = createApp({ log: pino({ level: 'silent' }), trustedProxies: 0 })
    let handled = 0
    app.post('/', async () => {
      handled += 1
      return {}
    })
    await app.listen({ host: '127.0.0.1', port: 0 })
    expect(app.server.timeout).toBe(30_000)
    expect(app.server.requestTimeout).toBe(60_000)
    // The same wait, shorter.
    app.server.timeout = 300
    const { port } = app.server.address() as { port: number }
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    socket.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n')
    socket.write('Content-Length: 50\r\n\r\n{"half":')
    await new Promise((resolve) => socket.once('close', resolve))
    expect(handled).toBe(0)
    await app.close()
  })
})

describe('sessions', () => {
  const open = (body: unknown) => () => call(server.origin, '/v1/sessions', { body })

  test('a signature of another key is refused', async () => {
    const stranger = await generateKeyPair({ extractable: false })
    await refused(
      'bad-signature',
      open({ certificate: await ada.certificate(), session: await ada.session({}, stranger) }),
    )
    const certificate = await ada.certificate(stranger)
    const [own] = (await ada.certificate()).signatures
    const [theirs] = certificate.signatures
    await refused(
      'bad-signature',
      open({
        // The stranger's signature under the account's name.
        certificate: { ...certificate, signatures: [{ ...theirs, keyid: own?.keyid }] },
        session: await ada.session(),
      }),
    )
  })

  test('a changed statement is refused', async () => {
    const session = await ada.session()
    const said = Buffer.from(session.payload, 'base64').toString().replace('hand/1', 'hand/2')
    await refused(
      'bad-signature',
      open({
        certificate: await ada.certificate(),
        session: { ...session, payload: toBase64(Buffer.from(said)) },
      }),
    )
  })

  test('an envelope of another type is refused', async () => {
    await refused(
      'bad-signature',
      open({ certificate: await ada.session(), session: await ada.session() }),
    )
  })

  test('a key of small order, under which anybody can sign, is refused', async () => {
    // The neutral element: with R the same and S zero, the equation holds for every message.
    const neutral = Uint8Array.of(1, ...new Uint8Array(31))
    const keyid = toBase64Url(neutral)
    const sig = toBase64(Uint8Array.of(...neutral, ...new Uint8Array(32)))
    const certificate = await ada.certificate()
    await refused(
      'bad-signature',
      open({
        certificate: { ...certificate, signatures: [{ keyid, sig }] },
        session: await ada.session(),
      }),
    )
    const nodeKey = { version: 1, nodeKey: keyid, createdAt: '2026-11-22T16:00:00Z' }
    const session = await ada.session()
    await refused(
      'bad-signature',
      open({
        certificate: await seal('certificate', ada.account, nodeKey),
        session: { ...session, signatures: [{ keyid, sig }] },
      }),
    )
  })

  test('another network’s fingerprint is refused', async () => {
    const fingerprint = toBase64Url(sha256('another network'))
    await refused(
      'wrong-network',
      open({ certificate: await ada.certificate(), session: await ada.session({ fingerprint }) }),
    )
  })

  test('a challenge is good once, for two minutes, and only if it was given', async () => {
    const session = async (challenge: string) =>
      open({ certificate: await ada.certificate(), session: await ada.session({ challenge }) })
    const used = await ada.challenge()
    expect((await (await session(used))()).status).toBe(200)
    await refused('unknown-challenge', await session(used))
    await refused('unknown-challenge', await session('AAAAAAAAAAAAAAAAAAAAAA'))
    const late = await ada.challenge()
    await database().query(
      `update challenge set expires_at = now() - interval '1 second' where id = $1`,
      [Buffer.from(late, 'base64url')],
    )
    await refused('unknown-challenge', await session(late))
  })

  test('of two that use one challenge at once, one gets a session', async () => {
    const challenge = await ada.challenge()
    const body = { certificate: await ada.certificate(), session: await ada.session({ challenge }) }
    const answers = await Promise.all([1, 2, 3, 4].map(open(body)))
    expect(answers.map((one) => one.status).sort()).toEqual([200, 401, 401, 401])
  })

  test.each([
    ['GET', '/v1/follow-ups'],
    ['GET', '/v1/outcomes'],
    ['GET', '/v1/account'],
    ['POST', '/v1/leases'],
    ['POST', '/v1/observations'],
    ['POST', '/v1/attestations'],
    ['POST', '/v1/refusals'],
    ['POST', '/v1/consents'],
    ['POST', '/v1/follow-ups/AAAAAAAAAAAAAAAAAAAAAA/sentences'],
    ['POST', '/v1/follow-ups/AAAAAAAAAAAAAAAAAAAAAA/payload'],
  ])('%s %s needs a session', async (method, path) => {
    const body = method === 'POST' ? { body: {} } : {}
    for (const authorization of ['', 'Bearer ', `Bearer ${toBase64Url(sha256('x'))}`, 'Basic x']) {
      await refused('no-session', () => ada.call(path, { ...body, headers: { authorization } }))
    }
  })

  test('a session that has run out is none', async () => {
    const eve = await HandNode.join(server.joinLink, '198.51.100.9')
    expect((await eve.call('/v1/account')).status).toBe(200)
    await database().query(
      `update session set expires_at = now() - interval '1 second' where token_digest = $1`,
      [sha256(fromBase64Url(eve.token))],
    )
    await refused('no-session', () => eve.call('/v1/account'))
  })
})

describe('consent', () => {
  const send = (body: unknown) => () => ada.call('/v1/consents', { body })

  test('to a campaign that is not here is refused', async () => {
    await refused('unknown-campaign', send(await ada.consent(toBase64Url(sha256('no such')))))
  })

  test('that the node did not sign is refused', async () => {
    await refused('bad-signature', send(await bob.consent(campaign)))
    await refused('bad-signature', send(await ada.session()))
  })

  test('that is no envelope, or one with more members than an envelope has, is malformed', async () => {
    const envelope = await ada.consent(campaign)
    await refused('malformed', send({}))
    await refused('malformed', send([envelope]))
    await refused('malformed', send({ ...envelope, more: 1 }))
    await refused('malformed', send({ ...envelope, signatures: 'mine' }))
    await refused('malformed', send(await seal('consent', ada.key, { version: 1, campaign })))
  })

  test('withdrawn ends the node’s leases, and given again it works again', async () => {
    const cyd = await HandNode.join(server.joinLink, '198.51.100.1')
    await cyd.call('/v1/consents', { body: await cyd.consent(campaign) })
    const lease = await cyd.takeLease(campaign)
    const withdrawn = await cyd.call('/v1/consents', {
      body: await cyd.consent(campaign, 'withdrawn'),
    })
    expect(withdrawn.status).toBe(204)
    await itemRefused('lease-expired', cyd, await cyd.tell(lease, teaPage()))
    const answer = await cyd.call('/v1/leases', { body: { campaigns: [campaign], max: 1 } })
    expect(answer.body).toMatchObject({ leases: [] })
  })
})

describe('observations', () => {
  test('one that fits is recorded, with a receipt that verifies', async () => {
    const told = await ada.tell(await takeLease(), teaPage())
    const answer = observationReply.parse((await ada.observe(told)).body)
    const [result] = answer.results
    if (!result?.ok) throw new Error('refused')
    const { publicKey } = server.workspace.keys.receipt
    const verdict = await verifyEnvelope(result.receipt, payloadType.receipt, publicKey)
    if (!verdict.ok) throw new Error(verdict.reason)
    expect(receipt.parse(JSON.parse(new TextDecoder().decode(verdict.payload)))).toEqual({
      version: 1,
      lease: told.lease.id,
      statement: toBase64Url(sha256(told.item.statement)),
    })
  })

  test('the same statement again gets the same receipt and is recorded once', async () => {
    const told = await ada.tell(await takeLease(), teaPage())
    const first = await ada.observe(told)
    const before = await recorded()
    expect((await ada.observe(told)).body).toEqual(first.body)
    const twice = observationReply.parse((await ada.observe(told, told)).body)
    expect(twice.results.map((one) => one.ok)).toEqual([true, true])
    expect(await recorded()).toEqual(before)
  })

  test('sent twice at once it is recorded once', async () => {
    const told = await ada.tell(await takeLease(), teaPage())
    const answers = await Promise.all([1, 2, 3, 4].map(() => ada.observe(told)))
    for (const answer of answers) {
      expect(answer.body).toMatchObject({ results: [{ ok: true }] })
    }
    const { rows } = await database().query('select 1 from observation where lease_id = $1', [
      leaseId(told.lease),
    ])
    expect(rows).toHaveLength(1)
  })

  test('another statement for an answered lease is refused, and the first one stays', async () => {
    const lease = await takeLease()
    const told = await ada.tell(lease, teaPage())
    await ada.observe(told)
    await itemRefused('lease-used', ada, await ada.tell(lease, teaPage({ promotion: 'Else' })))
    // The same key does not help.
    await itemRefused(
      'lease-used',
      ada,
      await ada.tell(lease, teaPage({ promotion: 'Else' }), { key: told.key }),
    )
    const { rows } = await database().query<{ statement: string }>(
      'select statement from observation where lease_id = $1',
      [leaseId(lease)],
    )
    expect(rows).toEqual([{ statement: told.item.statement }])
  })

  test('a one-use key is used once', async () => {
    const told = await ada.tell(await takeLease(), teaPage())
    await ada.observe(told)
    const again = await ada.tell(await takeLease(), teaPage(), { key: told.key })
    await itemRefused('key-reused', ada, again)
    const both = [
      await ada.tell(await takeLease(), teaPage()),
      await ada.tell(again.lease, teaPage()),
    ] as const
    const same = { ...both[1], item: await signStatement(both[0].key, both[1].item.statement) }
    const reply = observationReply.parse((await ada.observe(both[0], same)).body)
    expect(reply.results).toMatchObject([
      { ok: true },
      { ok: false, problem: { type: 'urn:gleaner:problem:key-reused' } },
    ])
  })

  test('another node’s lease, and one that nobody gave, are refused', async () => {
    const lease = await takeLease(ada)
    await itemRefused('not-your-lease', bob, await bob.tell(lease, teaPage()))
    await itemRefused(
      'unknown-lease',
      ada,
      await ada.tell({ ...lease, id: 'AAAAAAAAAAAAAAAAAAAAAA' }, teaPage()),
    )
    expect((await ada.observe(await ada.tell(lease, teaPage()))).body).toMatchObject({
      results: [{ ok: true }],
    })
  })

  test('an expired lease is refused, also before the server noticed', async () => {
    const lease = await takeLease()
    await database().query(
      `update lease set expires_at = now() - interval '1 second' where id = $1`,
      [leaseId(lease)],
    )
    await itemRefused('lease-expired', ada, await ada.tell(lease, teaPage()))
  })

  test('a signature that does not fit statement and key is refused', async () => {
    const told = await ada.tell(await takeLease(), teaPage())
    const { item } = told
    const changed = item.statement.replace('"status":200', '"status":404')
    await itemRefused('bad-signature', ada, { item: { ...item, statement: changed } })
    const stranger = await signStatement(await generateKeyPair({ extractable: false }), 'x')
    await itemRefused('bad-signature', ada, { item: { ...item, key: stranger.key } })
    await itemRefused('bad-signature', ada, { item: { ...item, sig: stranger.sig } })
  })

  test('a one-use key of small order is refused', async () => {
    const { item } = await ada.tell(await takeLease(), teaPage())
    const neutral = Uint8Array.of(1, ...new Uint8Array(31))
    await itemRefused('bad-signature', ada, {
      item: {
        ...item,
        key: toBase64Url(neutral),
        sig: toBase64Url(Uint8Array.of(...neutral, ...new Uint8Array(32))),
      },
    })
  })

  test('a signed statement that is no observation is malformed', async () => {
    const lease = await takeLease()
    const { item } = await ada.tell(lease, teaPage())
    const said = JSON.parse(item.statement) as Record<string, unknown>
    for (const statement of [
      'not JSON',
      'null',
      JSON.stringify({ ...said, more: 1 }),
      JSON.stringify({ ...said, status: 99 }),
      JSON.stringify({ ...said, headers: { cookie: 'x' } }),
      JSON.stringify({ ...said, outcome: 'failed' }),
    ]) {
      await itemRefused('malformed', ada, await ada.tell(lease, teaPage(), { statement }))
    }
  })

  test('one bad item changes nothing for the others of its batch', async () => {
    const good = [
      await ada.tell(await takeLease(), teaPage()),
      await ada.tell(await takeLease(), teaPage()),
    ] as const
    const lost = await ada.tell({ ...good[0].lease, id: 'AAAAAAAAAAAAAAAAAAAAAA' }, teaPage())
    const forged = { item: { ...good[0].item, sig: good[1].item.sig } }
    const before = (await recorded()) as { observations: number }
    const answer = await ada.observe(good[0], lost, forged, good[1])
    expect(observationReply.parse(answer.body).results).toMatchObject([
      { ok: true },
      { ok: false, problem: { type: 'urn:gleaner:problem:unknown-lease' } },
      { ok: false, problem: { type: 'urn:gleaner:problem:bad-signature' } },
      { ok: true },
    ])
    expect(await recorded()).toMatchObject({ observations: before.observations + 2 })
  })

  test('a batch that is empty or too long is malformed as a whole', async () => {
    const { item } = await ada.tell(await takeLease(), teaPage())
    await refused('malformed', () => ada.observe())
    await refused('malformed', () => ada.observe(...Array.from({ length: 33 }, () => ({ item }))))
  })
})

describe('follow-ups', () => {
  /** Two observations of one page whose payloads differ: lists are asked of both. */
  async function differing(wrong: { freshness?: string } = {}) {
    const first = await takeLease(ada)
    const second = await leaseOfBob(first.url)
    const a = await ada.tell(first, teaPage({ promotion: `For ${first.id}` }), wrong)
    const b = await bob.tell(second, teaPage({ promotion: `For ${second.id}` }), wrong)
    await ada.observe(a)
    await bob.observe(b)
    return { a, b }
  }

  const kept = new Map<string, Lease>()
  /** Bob's lease of that very page; he keeps the others that he gets meanwhile. */
  async function leaseOfBob(url: string): Promise<Lease> {
    for (;;) {
      const lease = kept.get(url) ?? (await bob.takeLease(campaign))
      kept.set(lease.url, lease)
      if (lease.url === url) return lease
    }
  }

  test('a list whose digest was not observed, or that does not decode, is refused', async () => {
    const { a, b } = await differing()
    const asked = await ada.asked(a.lease, 'sentences')
    await refused('digest-mismatch', () => ada.sendOctets(asked, 'sentences', b.read.sentenceList))
    await refused('malformed', () =>
      ada.sendOctets(asked, 'sentences', a.read.sentenceList.slice(0, -1)),
    )
    await refused('malformed', () =>
      ada.call(`/v1/follow-ups/${asked.id}/sentences`, { body: { list: 'x' } }),
    )
    // Another kind of answer, another node, and an id that nobody gave.
    await refused('unknown-follow-up', () => ada.sendOctets(asked, 'payload', a.payload))
    await refused('unknown-follow-up', () =>
      bob.sendOctets(asked, 'sentences', a.read.sentenceList),
    )
    for (const id of ['AAAAAAAAAAAAAAAAAAAAAA', 'x', '%00']) {
      await refused('unknown-follow-up', () =>
        ada.sendOctets({ id }, 'sentences', a.read.sentenceList),
      )
    }
    expect((await ada.sendOctets(asked, 'sentences', a.read.sentenceList)).status).toBe(204)
    // Answered: it is not open any more.
    await refused('unknown-follow-up', () =>
      ada.sendOctets(asked, 'sentences', a.read.sentenceList),
    )
  })

  /** Answers both lists, and finds out who is asked for the payload. */
  async function askedForPayload(wrong: { freshness?: string } = {}) {
    const { a, b } = await differing(wrong)
    for (const [node, told] of [
      [ada, a],
      [bob, b],
    ] as const) {
      const asked = await node.asked(told.lease, 'sentences')
      await node.sendOctets(asked, 'sentences', told.read.sentenceList)
    }
    const [node, told] = await Promise.any([
      ada.asked(a.lease, 'payload').then(() => [ada, a] as const),
      bob.asked(b.lease, 'payload').then(() => [bob, b] as const),
    ])
    const other = node === ada ? ([bob, b] as const) : ([ada, a] as const)
    return { node, told, asked: await node.asked(told.lease, 'payload'), other }
  }

  test('a payload that was not observed is refused; then attestations that do not fit are', async () => {
    const { node, told, asked, other } = await askedForPayload()
    await refused('digest-mismatch', () =>
      node.sendOctets(asked, 'payload', Buffer.concat([told.payload, Buffer.from(' ')])),
    )
    await refused('digest-mismatch', () => node.sendOctets(asked, 'payload', other[1].payload))
    await refused('unknown-follow-up', () => other[0].sendOctets(asked, 'payload', told.payload))
    expect((await node.sendOctets(asked, 'payload', told.payload)).status).toBe(204)

    const attest = await node.asked(told.lease, 'attest')
    const right = await node.attest(told, attest, campaign)
    const send = (from: HandNode, ...attestations: unknown[]) =>
      from.call('/v1/attestations', { body: { attestations } })
    const itemFails = async (from: HandNode, item: unknown, reason: string) => {
      const before = await recorded()
      const answer = await send(from, item)
      expect(batchReply.parse(answer.body).results).toMatchObject([
        { ok: false, problem: { type: `urn:gleaner:problem:${reason}` } },
      ])
      expect(await recorded()).toEqual(before)
    }
    // Other gaps than were signed, a signature for other gaps, and one of another key.
    await itemFails(node, { ...right, gaps: right.gaps + 1 }, 'attestation-mismatch')
    await itemFails(
      node,
      await node.attest(told, attest, campaign, { gaps: 7, saidGaps: right.gaps }),
      'attestation-mismatch',
    )
    await itemFails(
      node,
      await node.attest(told, attest, campaign, { key: node.key }),
      'attestation-mismatch',
    )
    // Another node, and a question of another kind.
    await itemFails(other[0], right, 'unknown-follow-up')
    await itemFails(node, { ...right, followUp: asked.id }, 'unknown-follow-up')
    await refused('malformed', () => send(node))
    await refused('malformed', () => send(node, { ...right, text: 'x' }))

    // A batch with a bad item: the good one is recorded, and twice the same counts once.
    const before = (await recorded()) as { attestations: number }
    const mixed = await send(node, { ...right, followUp: 'AAAAAAAAAAAAAAAAAAAAAA' }, right, right)
    expect(batchReply.parse(mixed.body).results.map((one) => one.ok)).toEqual([false, true, false])
    expect(await recorded()).toMatchObject({ attestations: before.attestations + 1 })
    await itemFails(node, right, 'unknown-follow-up')
  })

  test('a payload that was not bound to the lease’s nonce is refused', async () => {
    const { node, told, asked } = await askedForPayload({
      freshness: toBase64Url(sha256('prepared before the lease was given')),
    })
    await refused('nonce-mismatch', () => node.sendOctets(asked, 'payload', told.payload))
  })

  test('refusing what is another node’s changes nothing', async () => {
    const { a } = await differing()
    const asked = await ada.asked(a.lease, 'sentences')
    const lease = await takeLease(ada)
    const before = await recorded()
    const answer = await bob.call('/v1/refusals', {
      body: {
        leases: [{ lease: lease.id, reason: 'paused' }],
        followUps: [{ followUp: asked.id, reason: 'body-gone' }],
      },
    })
    expect(answer.status).toBe(204)
    expect(await recorded()).toEqual(before)
    expect(await ada.asked(a.lease, 'sentences')).toMatchObject({ id: asked.id })
    await refused('malformed', () =>
      ada.call('/v1/refusals', {
        body: { leases: [{ lease: lease.id, reason: 'no fun' }], followUps: [] },
      }),
    )
  })
})

describe('the doorbell', () => {
  const ring = (first?: string | Buffer, binary = false) =>
    new Promise<{ code: number; heard: string[] }>((resolve, reject) => {
      const socket = new WebSocket(`${server.origin.replace('http', 'ws')}/v1/socket`)
      const heard: string[] = []
      socket.on('open', () => first !== undefined && socket.send(first, { binary }))
      socket.on('message', (data) => heard.push(data.toString()))
      socket.on('error', reject)
      socket.on('close', (code) => resolve({ code, heard }))
    })
  const authenticate = (token: string) => JSON.stringify({ type: 'authenticate', token })

  test('closes on whoever says nothing for five seconds', async () => {
    const begun = Date.now()
    expect(await ring()).toEqual({ code: 4401, heard: [] })
    expect(Date.now() - begun).toBeGreaterThan(4500)
  })

  test('pings do not stand in for a token', async () => {
    expect(await ring('{"type":"ping"}')).toEqual({ code: 4401, heard: ['{"type":"pong"}'] })
  })

  test('closes on a token of nobody', async () => {
    expect(await ring(authenticate(toBase64Url(sha256('nobody'))))).toEqual({
      code: 4401,
      heard: [],
    })
  })

  test('closes on a message above 64 KiB', async () => {
    expect(await ring(`"${'x'.repeat(65 * 1024)}"`)).toMatchObject({ code: 1009 })
  })

  test('closes on a binary message, even one that would do as text', async () => {
    expect(await ring(Buffer.from(authenticate(ada.token)), true)).toEqual({
      code: 4400,
      heard: [],
    })
  })

  test.each(['not JSON', '{}', '{"type":"authenticate"}', '{"type":"ping","more":1}', '[]'])(
    'closes on %s',
    async (message) => {
      expect(await ring(message)).toEqual({ code: 4400, heard: [] })
    },
  )

  test('tells a node with a session that it is ready, and rings it', async () => {
    const socket = new WebSocket(`${server.origin.replace('http', 'ws')}/v1/socket`, {
      headers: { 'x-forwarded-for': bob.address },
    })
    const heard: string[] = []
    socket.on('message', (data) =>
      heard.push((JSON.parse(data.toString()) as { type: string }).type),
    )
    socket.on('open', () => socket.send(authenticate(bob.token)))
    await expect.poll(() => heard, { timeout: 5000 }).toContain('ready')
    await database().query(`select pg_notify('gleaner_doorbell', $1)`, [
      JSON.stringify({ node: null, notice: 'work' }),
    ])
    await expect.poll(() => heard, { timeout: 5000 }).toContain('work')
    socket.close()
  })

  test('another path is not upgraded', async () => {
    const socket = new WebSocket(`${server.origin.replace('http', 'ws')}/v1/other`)
    const error = await new Promise<Error>((resolve) => socket.once('error', resolve))
    expect(error.message).toContain('404')
  })
})
