import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { HopFailure } from '../../../lib/runner/hop-failure.ts'
import { createNodeHop, type NodeHop, type NodeHopOptions } from '../../../server/node/hop.ts'
import { resolveHost } from '../../../server/node/host-map.ts'

const servers: Server[] = []
const hops: NodeHop[] = []

async function site(listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

function hopTo(address: string, options: Partial<NodeHopOptions> = {}) {
  const made = createNodeHop({
    userAgent: 'gleaner-test',
    hostMap: { 'site.example': address },
    loopbackAllowed: true,
    ...options,
  })
  hops.push(made)
  return made.hop
}

async function read(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

const signal = () => new AbortController().signal

afterEach(async () => {
  for (const hop of hops.splice(0)) await hop.close()
})
afterAll(() => {
  for (const server of servers) server.close()
})

test('sends a plain GET that names the crawler, from the given address', async () => {
  let seen: unknown
  const address = await site((request, response) => {
    seen = {
      method: request.method,
      headers: request.headers,
      from: request.socket.remoteAddress,
    }
    response.end('hello')
  })
  const hop = hopTo(address, { from: 'crawl@barley.example', localAddress: '127.0.9.1' })
  const answer = await hop({ url: 'http://site.example/x', signal: signal() })
  if (answer.kind !== 'response') throw new Error(answer.kind)
  expect(await read(answer.body)).toBe('hello')
  expect(answer.wireBytes()).toBe(5)
  expect(seen).toEqual({
    method: 'GET',
    from: '127.0.9.1',
    headers: {
      host: 'site.example',
      connection: 'keep-alive',
      'user-agent': 'gleaner-test',
      from: 'crawl@barley.example',
      accept: '*/*',
      'accept-encoding': 'gzip, deflate, br',
      'accept-language': '*',
    },
  })
})

test.each([
  ['gzip', gzipSync],
  ['deflate', deflateSync],
  ['br', brotliCompressSync],
] as const)('decodes %s and says how many bytes crossed the wire', async (coding, compress) => {
  const text = 'barley '.repeat(1000)
  const compressed = compress(text)
  const address = await site((_, response) => {
    response.writeHead(200, { 'content-encoding': coding }).end(compressed)
  })
  const answer = await hopTo(address)({ url: 'http://site.example/', signal: signal() })
  if (answer.kind !== 'response') throw new Error(answer.kind)
  expect(await read(answer.body)).toBe(text)
  expect(answer.wireBytes()).toBe(compressed.length)
})

test.each([
  ['a broken gzip stream', 'gzip', Buffer.from('not gzip at all')],
  ['a gzip stream that is cut', 'gzip', gzipSync('barley '.repeat(1000)).subarray(0, 40)],
])('%s fails as undecodable', async (_, coding, bytes) => {
  const address = await site((_request, response) => {
    response.writeHead(200, { 'content-encoding': coding }).end(bytes)
  })
  const answer = await hopTo(address)({ url: 'http://site.example/', signal: signal() })
  if (answer.kind !== 'response') throw new Error(answer.kind)
  await expect(read(answer.body)).rejects.toSatisfy(
    (error) => error instanceof HopFailure && error.reason === 'undecodable',
  )
})

test('a coding that was not asked for is undecodable', async () => {
  const address = await site((_, response) => {
    response.writeHead(200, { 'content-encoding': 'zstd' }).end('x')
  })
  const answer = await hopTo(address)({ url: 'http://site.example/', signal: signal() })
  expect(answer).toEqual({ kind: 'failed', reason: 'undecodable' })
})

test('does not follow redirects', async () => {
  let requests = 0
  const address = await site((_, response) => {
    requests += 1
    response.writeHead(302, { location: '/next' }).end('moved')
  })
  const answer = await hopTo(address)({ url: 'http://site.example/', signal: signal() })
  expect(answer).toEqual({ kind: 'redirect', status: 302, location: '/next' })
  expect(requests).toBe(1)
})

test('a connection that is refused, and one that is cut, are failures', async () => {
  const address = await site((request) => request.socket.destroy())
  const cut = await hopTo(address)({ url: 'http://site.example/', signal: signal() })
  expect(cut).toEqual({ kind: 'failed', reason: 'connection' })
  const closed = await hopTo('127.0.0.1:1')({ url: 'http://site.example/', signal: signal() })
  expect(closed).toEqual({ kind: 'failed', reason: 'connection' })
})

test('an abort ends a body that is being read', async () => {
  const address = await site((_, response) => {
    response.write('beginning')
  })
  const aborter = new AbortController()
  const answer = await hopTo(address)({ url: 'http://site.example/', signal: aborter.signal })
  if (answer.kind !== 'response') throw new Error(answer.kind)
  setTimeout(() => aborter.abort(), 20)
  await expect(read(answer.body)).rejects.toThrow()
})

describe('an address that is not public', () => {
  test.each([
    ['http://site.example/', { 'site.example': '127.0.0.1:80' }],
    ['http://site.example/', { 'site.example': '10.0.0.1:80' }],
    ['http://site.example/', { 'site.example': '[fd00::1]:80' }],
    ['http://localhost/', {}],
    ['http://127.0.0.1/', {}],
    ['http://[::1]/', {}],
    ['http://169.254.169.254/latest/meta-data', {}],
    ['http://198.18.0.1/', {}],
  ])('%s with %o gets no connection', async (url, hostMap) => {
    const hop = hopTo('', { hostMap, loopbackAllowed: false })
    expect(await hop({ url, signal: signal() })).toEqual({
      kind: 'failed',
      reason: 'private-address',
    })
  })

  test('gets no request even where something listens', async () => {
    let requests = 0
    const address = await site((_, response) => {
      requests += 1
      response.end()
    })
    const hop = hopTo(address, { loopbackAllowed: false })
    expect(await hop({ url: 'http://site.example/', signal: signal() })).toEqual({
      kind: 'failed',
      reason: 'private-address',
    })
    expect(requests).toBe(0)
  })

  test('stays refused in the lab unless it is loopback', async () => {
    const options = { loopbackAllowed: true, hostMap: { 'site.example': '192.168.0.1:80' } }
    await expect(resolveHost('site.example', 80, options)).rejects.toThrow('not public: private')
  })
})

test('a host map may be for one port only', async () => {
  const hostMap = { 'site.example:8080': '203.0.113.7:9' }
  const rules = { hostMap, loopbackAllowed: false }
  expect(await resolveHost('site.example', 8080, rules)).toEqual([
    { address: '203.0.113.7', port: 9 },
  ])
  await expect(
    resolveHost('site.example', 80, {
      hostMap: { 'site.example': 'nonsense' },
      loopbackAllowed: true,
    }),
  ).rejects.toThrow('host map')
})
