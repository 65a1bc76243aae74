import type { AddressInfo } from 'node:net'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { fromBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { type OptOut, optOut, siteReport } from '../../../lib/protocol/opt-out.ts'
import { problem } from '../../../lib/protocol/problem.ts'
import { createApp } from '../../../server/http/app.ts'
import { registerOptOutRoutes } from '../../../server/http/opt-out-routes.ts'
import { addCampaign } from '../../../server/store/campaigns.ts'
import { addPages } from '../../../server/store/frontier.ts'
import { settleProof } from '../../../server/store/opt-outs.ts'
import { carryOutOptOuts } from '../../../server/store/opted-out.ts'
import { campaignOver } from '../../lib/runner/operator.ts'
import { foundPage } from '../store/found-page.ts'
import { openTestDatabase, type TestDatabase } from '../store/test-database.ts'
import { call } from './hand-node.ts'

let database: TestDatabase
let app: ReturnType<typeof createApp>
let origin: string
const publicOrigin = 'https://gleaner.example'

beforeAll(async () => {
  database = await openTestDatabase()
  app = createApp({ log: pino({ level: 'silent' }), trustedProxies: 0 })
  registerOptOutRoutes(app, {
    database,
    networkName: 'Barley <b>',
    operatorContact: 'crawl@barley.example',
    publicOrigin,
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  origin = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
})
afterAll(() => app?.close())
// What was asked before counts for what may be asked now.
beforeEach(() =>
  database.pool.query(`update opt_out set requested_at = requested_at - interval '2 minutes'`),
)

const ask = (scope: unknown, target: unknown) =>
  call(origin, '/v1/opt-outs', { body: { scope, target } })
const read = async (path: string, from = origin) => {
  const response = await fetch(from + path, { redirect: 'manual' })
  return { response, text: await response.text() }
}
const sendForm = async (path: string, fields: Record<string, string> | string) => {
  const response = await fetch(origin + path, {
    method: 'POST',
    redirect: 'manual',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: typeof fields === 'string' ? fields : new URLSearchParams(fields).toString(),
  })
  return { response, text: await response.text() }
}
/** As the auditor does when it finds the proof, and the pipeline after it. */
async function prove(id: string) {
  await database.transaction((tx) =>
    settleProof(tx, fromBase64Url(id), { found: true, reason: 'The token is in <TXT>.' }),
  )
  await carryOutOptOuts({ database, signCheckpoint: async () => 'note' })
}
/** The auditor looked everywhere, so long ago, and found nothing. */
const foundNothing = (id: string, seconds: number) =>
  database.pool.query(
    `update auditor_task set state = 'failed', reason = $2,
            taken_at = now() - $3 * interval '1 s', due_at = now() - $3 * interval '1 s',
            done_at = now() - $3 * interval '1 s' where opt_out = $1`,
    [fromBase64Url(id), 'found <script>alert(1)</script>', seconds],
  )

describe('the calls', () => {
  test('a request says how to prove it and where to read of it', async () => {
    const { status, body, headers } = await ask('host', 'https://WWW.one.example/some/page')
    expect(status).toBe(201)
    const made = optOut.parse(body)
    expect(made).toMatchObject({
      scope: 'host',
      target: 'www.one.example',
      state: 'waiting',
      proofs: {
        dns: {
          name: '_gleaner.www.one.example',
          type: 'TXT',
          value: `gleaner-opt-out=${made.token}`,
        },
        file: {
          url: 'https://www.one.example/.well-known/gleaner-opt-out.txt',
          body: made.token,
        },
      },
      status: `${publicOrigin}/opt-out/${made.id}`,
      looks: [
        { kind: 'dns', at: '_gleaner.www.one.example', lookedAt: null, found: null },
        { kind: 'dns', at: '_gleaner.one.example' },
        { kind: 'file' },
      ],
    })
    expect(Date.parse(made.expiresAt) - Date.parse(made.requestedAt)).toBe(7 * 86_400_000)
    expect(headers.get('location')).toBe(`/v1/opt-outs/${made.id}`)
    const again = await ask('host', 'www.one.example.')
    expect(again).toMatchObject({ status: 200, body: made })
    expect(await call(origin, `/v1/opt-outs/${made.id}`, { method: 'GET' })).toMatchObject({
      status: 200,
      body: made,
    })
  })

  test('it can be followed from the request to the log', async () => {
    const { id } = (await ask('domain', 'two.example')).body as OptOut
    await foundNothing(id, 11)
    const checked = await call(origin, `/v1/opt-outs/${id}/check`, { method: 'POST' })
    expect(checked).toMatchObject({ status: 202, body: { state: 'waiting' } })
    const soon = await call(origin, `/v1/opt-outs/${id}/check`, { method: 'POST' })
    expect(soon).toMatchObject({ status: 429, problem: 'too-many-requests' })
    expect(Number(soon.headers.get('retry-after'))).toBeGreaterThan(0)
    const { rows } = await database.pool.query(
      `select distinct state from auditor_task where opt_out = $1`,
      [fromBase64Url(id)],
    )
    expect(rows).toEqual([{ state: 'due' }])
    await prove(id)
    const { body } = await call(origin, `/v1/opt-outs/${id}`, { method: 'GET' })
    expect(optOut.parse(body)).toMatchObject({
      state: 'verified',
      verifiedAt: expect.any(String) as string,
      leafIndex: expect.any(Number) as number,
      stopped: { tasks: 0, leases: 0, records: 0 },
    })
  })

  test.each([
    ['host', 'not a name', /“not a name” is no host name/],
    ['domain', 'co.uk', /public suffix/],
    ['prefix', 'example.org/?q=1', /has a query/],
    ['everything', 'example.org', /^scope: /],
    ['host', 7, /^target: /],
    ['host', 'x'.repeat(5000), /^target: /],
  ])('%s of %s is refused, saying what is wrong', async (scope, target, detail) => {
    const refused = await ask(scope, target)
    expect(refused).toMatchObject({ status: 400, problem: 'malformed' })
    expect(problem.parse(refused.body).detail).toMatch(detail)
  })

  test.each(['AAECAwQFBgcICQoLDA0ODw', 'short', '..%2f..%2fetc'])(
    'no opt-out has the id %s',
    async (id) => {
      const got = await call(origin, `/v1/opt-outs/${id}`, { method: 'GET' })
      expect(got).toMatchObject({ status: 404, problem: 'not-found' })
      const checked = await call(origin, `/v1/opt-outs/${id}/check`, { method: 'POST' })
      expect(checked).toMatchObject({ status: 404, problem: 'not-found' })
      const { response, text } = await read(`/opt-out/${id}`)
      expect(response.status).toBe(404)
      expect(text).toMatch(/No opt-out has this id.*<form action="\/opt-out"/s)
    },
  )

  test('the twenty-first new request of a minute is told when to come again', async () => {
    const answers = []
    for (let n = 0; n < 21; n += 1) answers.push(await ask('host', `flood-${n}.example`))
    expect(answers.map(({ status }) => status)).toEqual([...Array(20).fill(201), 429])
    expect(Number(answers[20]?.headers.get('retry-after'))).toBeGreaterThan(0)
    const form = await sendForm('/opt-out', { scope: 'host', target: 'flood-21.example' })
    expect(form.response.status).toBe(429)
    expect(form.response.headers.get('retry-after')).not.toBeNull()
    expect(form.text).toMatch(/Try again in \d+ s/)
  })
})

describe('what is known of a host', () => {
  beforeAll(async () => {
    const digest = sha256('campaign')
    const host = 'known.example'
    const [site] = campaignOver(host).sites
    if (!site) throw new Error('no site')
    const manifest = campaignOver(host, {
      id: 'grain',
      title: 'Grain & <i>more</i>',
      sites: [{ ...site, host, scheme: 'https', requestsPerSecond: 0.5 }],
    })
    const envelope = { payloadType: 'none', payload: '', signatures: [] }
    await addCampaign(database.pool, { digest, manifest, envelope, leafIndex: 1 })
    await addPages(database.pool, digest, 2, [
      foundPage('https://known.example/', 'https://known.example'),
    ])
    await database.pool.query(
      `update host set robots_state = 'rules', robots_reason = 'status 200', robots_at = now(),
              robots_digest = $1, hold_until = now() + interval '1 hour', hold_reason = '429 <b>'`,
      [sha256('robots')],
    )
  })

  test('a call says robots.txt, pace, hold and campaigns', async () => {
    const { status, body } = await call(origin, '/v1/sites?host=HTTPS%3A%2F%2FKnown.Example%2Fx', {
      method: 'GET',
    })
    expect(status).toBe(200)
    expect(siteReport.parse(body)).toMatchObject({
      host: 'known.example',
      origins: [
        {
          origin: 'https://known.example',
          robots: { state: 'rules', reason: 'status 200' },
          paceMs: 2000,
          holdReason: '429 <b>',
        },
      ],
      campaigns: [{ id: 'grain', use: 'search', state: 'running', pages: 1 }],
      optedOut: null,
    })
  })

  test('a hold that is over is none', async () => {
    await database.pool.query(
      `insert into host (origin, interval_ms, max_in_flight, hold_until, hold_reason)
       values ('http://rested.example', 1, 1, now() - interval '1 s', '503')`,
    )
    const { body } = await call(origin, '/v1/sites?host=rested.example', { method: 'GET' })
    expect(siteReport.parse(body).origins).toMatchObject([{ holdUntil: null, holdReason: null }])
  })

  test('an opt-out above the host is named', async () => {
    const { id } = (await ask('domain', 'farm.example')).body as OptOut
    await prove(id)
    const { body } = await call(origin, '/v1/sites?host=www.farm.example', { method: 'GET' })
    expect(siteReport.parse(body)).toMatchObject({
      origins: [],
      campaigns: [],
      optedOut: { id, scope: 'domain', target: 'farm.example' },
    })
    expect((await read('/site?host=www.farm.example')).text).toContain(`href="/opt-out/${id}"`)
  })

  test('no host is refused', async () => {
    for (const query of ['', '?host=', '?host=localhost', '?host=a&host=b']) {
      const got = await call(origin, `/v1/sites${query}`, { method: 'GET' })
      expect(got).toMatchObject({ status: 400, problem: 'malformed' })
    }
    expect((await read('/site')).response.status).toBe(200)
    const wrong = await read('/site?host=%3Cscript%3E')
    expect(wrong.response.status).toBe(400)
    expect(wrong.text).not.toMatch(/<script/)
  })

  test('pages show it with every foreign word escaped', async () => {
    const site = (await read('/site?host=known.example')).text
    expect(site).toContain('429 &lt;b&gt;')
    expect(site).toContain('Grain &amp; &lt;i&gt;more&lt;/i&gt;')
    const { text: crawler } = await read('/crawler')
    expect(crawler).toContain('Barley &lt;b&gt;')
    expect(crawler).toContain('Grain &amp; &lt;i&gt;more&lt;/i&gt;')
    expect(crawler).toContain('at most one request every 2 s')
    expect(crawler).toContain('From: crawl@barley.example')
    for (const text of [site, crawler]) expect(text).not.toMatch(/<i>|<b>/)
  })
})

describe('the pages, without any script', () => {
  test('a form leads to the request’s page, and its button to a look', async () => {
    const { text: form } = await read('/opt-out?target=three.example')
    expect(form).toContain('<form action="/opt-out" method="post">')
    expect(form).toContain('value="three.example"')
    const sent = await sendForm('/opt-out', { scope: 'domain', target: ' *.Three.Example ' })
    expect(sent.response.status).toBe(303)
    const page = sent.response.headers.get('location') ?? ''
    const shown = await read(page)
    expect(shown.response.status).toBe(200)
    expect(shown.text).toContain('_gleaner.three.example')
    expect(shown.text).toContain('https://three.example/.well-known/gleaner-opt-out.txt')
    const id = page.slice('/opt-out/'.length)
    await foundNothing(id, 11)
    // Twice: what was pressed twice shows the same page.
    for (let n = 0; n < 2; n += 1) {
      const checked = await sendForm(`${page}/check`, '')
      expect(checked.response.status).toBe(303)
      expect(checked.response.headers.get('location')).toBe(page)
    }
    await foundNothing(id, 0)
    const looked = (await read(page)).text
    expect(looked).toContain('found &lt;script&gt;alert(1)&lt;/script&gt;')
    await prove(id)
    const done = (await read(page)).text
    expect(done).toContain('Nothing of it is fetched any more')
    expect(done).toContain('The token is in &lt;TXT&gt;.')
    expect(done).not.toMatch(/<script|Check now/)
  })

  test.each([
    [{ scope: 'host', target: '"><script>alert(1)</script>' }, /no host name/],
    [{ scope: 'domain', target: 'co.uk' }, /public suffix/],
    [{ target: 'example.org' }, /Choose one of the three/],
    [{ scope: 'host' }, /Give the name of your host/],
  ])('%j comes back with what was wrong and what was typed', async (fields, words) => {
    const { response, text } = await sendForm('/opt-out', fields as Record<string, string>)
    expect(response.status).toBe(400)
    expect(response.headers.get('content-type')).toMatch(/^text\/html/)
    expect(text).toMatch(words)
    expect(text).toContain('role="alert"')
    expect(text).not.toMatch(/<script/)
    if ('target' in fields) {
      const typed = String(fields.target).replaceAll('"', '&quot;').replaceAll('<', '&lt;')
      expect(text).toContain(`value="${typed.replaceAll('>', '&gt;')}"`)
    }
  })

  test('a form of more than 4 KiB is refused', async () => {
    const { response } = await sendForm('/opt-out', `scope=host&target=${'x'.repeat(5000)}`)
    expect(response.status).toBe(413)
  })

  test('nothing may be loaded, framed or sent elsewhere', async () => {
    for (const path of ['/crawler', '/opt-out', '/site', '/site?host=known.example']) {
      const { response, text } = await read(path)
      expect(response.headers.get('content-security-policy')).toMatch(
        /default-src 'none'.*form-action 'self'.*frame-ancestors 'none'/,
      )
      expect(text).not.toMatch(/<script|<img|<link|@import|url\(/)
    }
  })
})
