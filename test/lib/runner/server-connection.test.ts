import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { generateKeyPair } from '../../../lib/crypto/ed25519.ts'
import { askCampaigns, askNetwork } from '../../../lib/runner/join.ts'
import type { NodeIdentity, ServerConnection } from '../../../lib/runner/ports.ts'
import {
  createServerConnection,
  ServerProblem,
  ServerUnreachable,
} from '../../../lib/runner/server-connection.ts'
import { campaignOver, Operator } from './operator.ts'
import { ScriptedServer } from './scripted-server.ts'

let operator: Operator
let server: ScriptedServer
let identity: NodeIdentity

beforeEach(async () => {
  operator = await Operator.make()
  server = await ScriptedServer.start(operator)
  const pair = () => generateKeyPair({ extractable: false })
  identity = { accountId: '', nodeId: '', accountKey: await pair(), nodeKey: await pair() }
})
afterEach(() => server.stop())

function connect(origin = server.origin, fingerprint = operator.fingerprint): ServerConnection {
  return createServerConnection({
    origin,
    fingerprint,
    identity: async () => identity,
    client: 'gleaner-test/1',
    fetch: asBrowsersDo,
    now: Date.now,
  })
}

/** A browser's fetch throws when it is called as a method of anything but the global object. */
function asBrowsersDo(this: unknown, ...given: Parameters<typeof fetch>): Promise<Response> {
  if (this !== undefined) throw new TypeError('Illegal invocation')
  return fetch(...given)
}

const count = (call: string) => server.calls.filter((made) => made === call).length

test('opens one session for all calls that wait for it', async () => {
  const connection = connect()
  const answers = await Promise.all([
    connection.get('/v1/follow-ups'),
    connection.get('/v1/outcomes?after=0'),
    connection.token(),
  ])
  expect(answers[0]).toEqual({ followUps: [], released: [] })
  expect(answers[2]).toMatch(/^[A-Za-z0-9_-]{43}$/)
  expect(count('POST /v1/sessions')).toBe(1)
})

test('opens a new session when the old one has ended, once for all calls', async () => {
  const connection = connect()
  await connection.get('/v1/follow-ups')
  server.endSessions()
  await Promise.all([connection.get('/v1/follow-ups'), connection.get('/v1/outcomes?after=0')])
  expect(count('POST /v1/sessions')).toBe(2)
})

test('does not open sessions for ever', async () => {
  server.fail('/v1/follow-ups', 'no-session', {}, 9)
  await expect(connect().get('/v1/follow-ups')).rejects.toMatchObject({ reason: 'no-session' })
  expect(count('POST /v1/sessions')).toBe(2)
})

test('cannot be relayed to another network', async () => {
  const other = await Operator.make()
  const relayed = connect(server.origin, other.fingerprint)
  await expect(relayed.get('/v1/follow-ups')).rejects.toMatchObject({ reason: 'wrong-network' })
})

test('a refusal carries reason, detail and when to come back', async () => {
  server.fail('/v1/leases', 'overloaded', { 'retry-after': '7' })
  const refused = connect().postJson('/v1/leases', { campaigns: ['x'], max: 1 })
  await expect(refused).rejects.toBeInstanceOf(ServerProblem)
  await expect(refused).rejects.toMatchObject({
    reason: 'overloaded',
    detail: 'Because: overloaded.',
    retryAfterMs: 7_000,
  })
})

test('an answer without a body is undefined', async () => {
  const body = { leases: [], followUps: [] }
  expect(await connect().postJson('/v1/refusals', body)).toBeUndefined()
})

test('asks without a session who the network is and what it offers', async () => {
  const offered = await operator.offer(campaignOver('www.barley.example'))
  server.campaigns.push(offered)
  const link = { origin: server.origin, fingerprint: operator.fingerprint }
  const network = await askNetwork(link, fetch)
  expect(network).toEqual({ ok: true, joined: operator.joined(server.origin) })
  if (!network.ok) return
  const campaigns = await askCampaigns(network.joined, fetch, Date.now())
  expect(campaigns).toMatchObject({ ok: true, campaigns: [{ ok: true, digest: offered.digest }] })
  expect(count('POST /v1/sessions')).toBe(0)
})

describe('a server that is not one of ours', () => {
  const servers: Server[] = []
  afterEach(() => {
    for (const other of servers.splice(0)) other.close()
  })
  async function other(listener: RequestListener): Promise<string> {
    const made = createServer(listener)
    servers.push(made)
    await new Promise<void>((resolve) => made.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(made.address() as AddressInfo).port}`
  }

  test.each<[string, RequestListener]>([
    ['closes the connection', (request) => void request.socket.destroy()],
    ['answers HTML', (_, response) => void response.end('<h1>It works</h1>')],
    ['answers other JSON', (_, response) => void response.end('{"hello":1}')],
    ['answers an error page', (_, response) => void response.writeHead(502).end('<h1>Bad</h1>')],
    [
      'answers another kind of problem',
      (_, response) => void response.writeHead(400).end('{"type":"about:blank"}'),
    ],
    ['redirects', (_, response) => void response.writeHead(302, { location: '/elsewhere' }).end()],
    [
      'answers without end',
      (_, response) => {
        const chunk = Buffer.alloc(1_000_000, 'a')
        const more = () => {
          while (!response.destroyed && response.write(chunk)) {}
          if (!response.destroyed) response.once('drain', more)
        }
        more()
      },
    ],
  ])('%s: unreachable', async (_, listener) => {
    const connection = connect(await other(listener))
    await expect(connection.get('/v1/follow-ups')).rejects.toBeInstanceOf(ServerUnreachable)
  })

  test.each([
    [429, 'too-many-requests'],
    [503, 'overloaded'],
  ])('a proxy that answers %i speaks for the server', async (status, reason) => {
    const origin = await other((_, response) => {
      response.writeHead(status, { 'retry-after': '5' }).end('<h1>Later</h1>')
    })
    await expect(connect(origin).get('/v1/follow-ups')).rejects.toMatchObject({
      reason,
      retryAfterMs: 5_000,
    })
  })

  test('a port where nobody listens: unreachable', async () => {
    await expect(connect('http://127.0.0.1:1').get('/v1/x')).rejects.toBeInstanceOf(
      ServerUnreachable,
    )
  })

  test('an aborted call ends', async () => {
    const aborter = new AbortController()
    const origin = await other(() => setTimeout(() => aborter.abort(), 10))
    const call = connect(origin).getWithoutSession('/v1/network', aborter.signal)
    await expect(call).rejects.toBeInstanceOf(ServerUnreachable)
  })

  test('sends gzip where it helps, no cookies and no referrer, and counts bytes', async () => {
    const seen: { headers: NodeJS.Dict<string | string[]>; body: Buffer }[] = []
    const origin = await other(async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk)
      seen.push({ headers: request.headers, body: Buffer.concat(chunks) })
      response.end(
        request.url === '/v1/challenges'
          ? '{"challenge":"AAAAAAAAAAAAAAAAAAAAAA","validForMs":1}'
          : `{"token":"${'A'.repeat(43)}","nodeId":"${'A'.repeat(43)}","validForMs":1}`,
      )
    })
    const connection = connect(origin)
    await connection.token()
    await connection.postBytes('/v1/follow-ups/x/payload', new Uint8Array([1, 2, 3]))
    const [small, large, bytes] = seen
    expect(small?.headers['content-encoding']).toBeUndefined()
    expect(small?.body.toString()).toBe('{}')
    expect(large?.headers).toMatchObject({
      'content-type': 'application/json',
      'content-encoding': 'gzip',
    })
    expect(JSON.parse(gunzipSync(large?.body ?? '').toString())).toHaveProperty('certificate')
    expect(bytes?.headers).toMatchObject({
      'content-type': 'application/octet-stream',
      'content-encoding': 'gzip',
      authorization: `Bearer ${'A'.repeat(43)}`,
    })
    for (const { headers } of seen) {
      expect(headers.cookie).toBeUndefined()
      expect(headers.referer).toBeUndefined()
    }
    const { bytesUp, bytesDown } = connection.traffic()
    expect(bytesUp).toBe(seen.reduce((sum, { body }) => sum + body.length, 0))
    expect(bytesDown).toBeGreaterThan(100)
  })
})
