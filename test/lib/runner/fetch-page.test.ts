import { createServer, type RequestListener, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleepFor } from 'node:timers/promises'
import { createGzip, gzipSync } from 'node:zlib'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { parseRobots, robotsVerdict } from '../../../lib/capture/robots.ts'
import { generateKeyPair } from '../../../lib/crypto/ed25519.ts'
import { fetchPage, type PageRequest } from '../../../lib/runner/fetch-page.ts'
import { observePage } from '../../../lib/runner/observe.ts'
import { createNodeHop, type NodeHop } from '../../../server/node/hop.ts'
import { campaignOver } from './operator.ts'

// Twenty times real time, so that the idle rule of 5 s is seen in 250 ms.
const FASTER = 20
const MEGABYTE = 1_000_000

const servers: Server[] = []
const hops: NodeHop[] = []

async function fetchFrom(
  listener: RequestListener,
  changes: Partial<PageRequest['lease']> = {},
  signal = new AbortController().signal,
  {
    types,
    slept = () => {},
  }: { types?: PageRequest['campaign']['types']; slept?: (ms: number) => void } = {},
) {
  const server = createServer(listener)
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const node = createNodeHop({
    userAgent: 'gleaner-test',
    hostMap: {
      'site.example': address,
      'other.example': address,
      'second.example': address,
      'private.example': '10.0.0.1:80',
    },
    loopbackAllowed: true,
  })
  hops.push(node)
  const { sites } = campaignOver('site.example')
  const [site] = sites
  if (!site) throw new Error('no site')
  return fetchPage(
    {
      lease: {
        kind: 'page',
        url: 'http://site.example/page#part',
        maxBytes: MEGABYTE,
        maxMs: 20_000,
        maxRedirects: 5,
        ...changes,
      },
      campaign: {
        sites: [
          { ...site, pathPrefixes: ['/page'] },
          { ...site, host: 'private.example' },
          { ...site, host: 'second.example' },
        ],
        ...(types ? { types } : {}),
      },
      scope: { loopbackAllowed: true },
      signal,
    },
    {
      hop: node.hop,
      now: () => performance.now() * FASTER,
      sleep: async (ms, stop) => {
        slept(ms)
        await sleepFor(ms / FASTER, undefined, stop ? { signal: stop } : {})
      },
    },
  )
}

const html = { 'content-type': 'text/html; charset=utf-8' }

/** Writes until the reader goes away; resolves with the bytes written. */
function flood(response: ServerResponse, chunk: Buffer, total: number): Promise<number> {
  let written = 0
  return new Promise((resolve) => {
    const more = () => {
      while (written < total && !response.destroyed) {
        written += chunk.length
        if (!response.write(chunk)) return void response.once('drain', more)
      }
      response.end()
    }
    response.on('close', () => resolve(written))
    more()
  })
}

afterEach(async () => {
  for (const hop of hops.splice(0)) await hop.close()
})
afterAll(() => {
  for (const server of servers) {
    server.closeAllConnections()
    server.close()
  }
})

test('a page comes with its bytes, type, headers and measures', async () => {
  const body = '<p>Malt is germinated grain.</p>'
  const compressed = gzipSync(body)
  const page = await fetchFrom((_, response) => {
    response.writeHead(200, { ...html, 'content-encoding': 'gzip', etag: '"1"' }).end(compressed)
  })
  if (page.kind !== 'fetched') throw new Error(page.kind)
  expect(page).toMatchObject({
    url: 'http://site.example/page',
    hops: [],
    status: 200,
    type: 'text/html',
  })
  expect(new TextDecoder().decode(page.payload)).toBe(body)
  expect(page.headers.get('etag')).toBe('"1"')
  expect(page.wireBytes).toBe(compressed.length)
  expect(page.firstByteMs).toBeLessThanOrEqual(page.totalMs)
})

test('redirects are followed one by one, without fragment', async () => {
  const asked: string[] = []
  const page = await fetchFrom((request, response) => {
    asked.push(request.url ?? '')
    const next = { '/page': '/page/2#x', '/page/2': 'http://site.example/page/3' }[
      request.url ?? ''
    ]
    if (next) response.writeHead(301, { location: next }).end()
    else response.writeHead(200, html).end('there')
  })
  expect(page).toMatchObject({
    kind: 'fetched',
    url: 'http://site.example/page/3',
    hops: [301, 301],
  })
  expect(asked).toEqual(['/page', '/page/2', '/page/3'])
})

describe('ends as a typed failure', () => {
  test('a page of 20 MB, by its stated length, unread', async () => {
    let written = Promise.resolve(0)
    const page = await fetchFrom((_, response) => {
      response.writeHead(200, { ...html, 'content-length': 20 * MEGABYTE })
      written = flood(response, Buffer.alloc(65_536, 'a'), 20 * MEGABYTE)
    })
    expect(page).toMatchObject({ kind: 'failed', reason: 'too-large' })
    expect(await written).toBeLessThan(10 * MEGABYTE)
  })

  test('a page of 20 MB that states no length, at the cap', async () => {
    const page = await fetchFrom((_, response) => {
      response.writeHead(200, html)
      void flood(response, Buffer.alloc(65_536, 'a'), 20 * MEGABYTE)
    })
    expect(page).toMatchObject({ kind: 'failed', reason: 'too-large' })
    if (page.kind === 'failed') expect(page.wireBytes).toBeLessThan(2 * MEGABYTE)
  })

  test('a gzip bomb, by its decoded bytes', async () => {
    const page = await fetchFrom((_, response) => {
      response.writeHead(200, { ...html, 'content-encoding': 'gzip' })
      const zip = createGzip({ level: 9 })
      zip.pipe(response)
      const zeros = Buffer.alloc(MEGABYTE)
      for (let i = 0; i < 50; i++) zip.write(zeros)
      zip.end()
    })
    expect(page).toMatchObject({ kind: 'failed', reason: 'too-large' })
    if (page.kind === 'failed') expect(page.wireBytes).toBeLessThan(100_000)
  })

  test('a site that never answers, at maxMs', async () => {
    const page = await fetchFrom(() => {}, { maxMs: 2_000 })
    expect(page).toMatchObject({ kind: 'failed', reason: 'timeout', wireBytes: 0 })
    if (page.kind === 'failed') expect(page.totalMs).toBeGreaterThanOrEqual(1_900)
  })

  test('a body that stops, after 5 s of silence', async () => {
    const page = await fetchFrom((_, response) => void response.writeHead(200, html).write('begin'))
    expect(page).toMatchObject({ kind: 'failed', reason: 'timeout', wireBytes: 5 })
    if (page.kind === 'failed') expect(page.totalMs).toBeLessThan(10_000)
  })

  test('a byte a second, at maxMs', async () => {
    const page = await fetchFrom(
      (_, response) => {
        response.writeHead(200, html)
        const timer = setInterval(() => response.write('a'), 1_000 / FASTER)
        response.on('close', () => clearInterval(timer))
      },
      { maxMs: 8_000 },
    )
    expect(page).toMatchObject({ kind: 'failed', reason: 'timeout' })
    if (page.kind === 'failed') expect(page.wireBytes).toBeGreaterThan(3)
  })

  test('a redirect to itself', async () => {
    let requests = 0
    const page = await fetchFrom((_, response) => {
      requests += 1
      response.writeHead(302, { location: '/page#again' }).end()
    })
    expect(page).toMatchObject({ kind: 'failed', reason: 'redirect-limit' })
    expect(requests).toBe(1)
  })

  test('a redirect loop over two pages', async () => {
    const page = await fetchFrom((request, response) => {
      response.writeHead(302, { location: request.url === '/page' ? '/page/2' : '/page' }).end()
    })
    expect(page).toMatchObject({ kind: 'failed', reason: 'redirect-limit', hops: 2 })
  })

  test('ever more redirects, at the lease’s limit', async () => {
    let requests = 0
    const page = await fetchFrom((_, response) => {
      requests += 1
      response.writeHead(307, { location: `/page/${requests}` }).end()
    })
    expect(page).toMatchObject({ kind: 'failed', reason: 'redirect-limit' })
    expect(requests).toBe(6)
  })

  test('ever more redirects, at ten whatever the lease says', async () => {
    let requests = 0
    const page = await fetchFrom(
      (_, response) => {
        requests += 1
        response.writeHead(307, { location: `/page/${requests}` }).end()
      },
      { maxRedirects: 1_000_000 },
    )
    expect(page).toMatchObject({ kind: 'failed', reason: 'redirect-limit' })
    expect(requests).toBe(11)
  })

  test.each([
    ['http://10.0.0.1/page', 'private-address'],
    ['http://169.254.169.254/latest/', 'private-address'],
    ['http://printer.local/page', 'private-address'],
    // The name is in the campaign and public in form; its address is not.
    ['http://private.example/page', 'private-address'],
    ['http://other.example/page', 'redirect-refused'],
    ['/elsewhere', 'redirect-refused'],
    ['https://site.example/page', 'redirect-refused'],
    ['http://site.example:8080/page', 'redirect-refused'],
    ['http://user:word@site.example/page', 'redirect-refused'],
    ['javascript:alert(1)', 'redirect-refused'],
    ['http://', 'redirect-refused'],
  ])('a redirect to %s: %s', async (location, reason) => {
    const asked: string[] = []
    const page = await fetchFrom((request, response) => {
      asked.push(request.url ?? '')
      response.writeHead(302, { location }).end()
    })
    expect(page).toMatchObject({ kind: 'failed', reason })
    expect(asked).toEqual(['/page'])
  })

  test.each(['image/png', 'application/json', 'application/pdf', 'text/css', ''])(
    'the type "%s", before its body is read',
    async (type) => {
      let written = Promise.resolve(0)
      const page = await fetchFrom((_, response) => {
        response.writeHead(200, type === '' ? {} : { 'content-type': type })
        written = flood(response, Buffer.alloc(65_536), 50 * MEGABYTE)
      })
      expect(page).toMatchObject({ kind: 'failed', reason: 'unsupported-type', wireBytes: 0 })
      expect(await written).toBeLessThan(20 * MEGABYTE)
    },
  )

  test('a connection that is cut in the body', async () => {
    const page = await fetchFrom((request, response) => {
      response.writeHead(200, { ...html, 'content-length': 100 })
      response.write('half')
      setTimeout(() => request.socket.destroy(), 10)
    })
    expect(page).toMatchObject({ kind: 'failed', reason: 'connection' })
  })

  test('a gzip stream that is none', async () => {
    const page = await fetchFrom((_, response) => {
      response.writeHead(200, { ...html, 'content-encoding': 'gzip' }).end('plain')
    })
    expect(page).toMatchObject({ kind: 'failed', reason: 'undecodable' })
  })
})

test.each([
  'text/html',
  'TEXT/HTML; charset=x',
  'application/xhtml+xml',
  'text/plain',
  'application/rss+xml',
  'application/atom+xml; charset=utf-8',
  'application/rdf+xml',
  'application/xml',
  'text/xml',
])('%s is read', async (type) => {
  const page = await fetchFrom((_, response) => {
    response.writeHead(404, { 'content-type': type }).end('gone')
  })
  expect(page).toMatchObject({ kind: 'fetched', status: 404 })
})

test.each([
  ['application/json', ['json']],
  ['application/ld+json', ['html', 'json']],
  ['application/pdf', ['pdf']],
] as const)('%s is read for a campaign that wants %j', async (type, types) => {
  const page = await fetchFrom(
    (_, response) => void response.writeHead(200, { 'content-type': type }).end('{}'),
    {},
    undefined,
    { types: [...types] },
  )
  expect(page).toMatchObject({ kind: 'fetched', type })
})

test('a page is not read for a campaign that wants other kinds', async () => {
  const page = await fetchFrom(
    (_, response) => void response.writeHead(200, html).end('<p>x'),
    {},
    undefined,
    { types: ['pdf', 'feed'] },
  )
  expect(page).toMatchObject({ kind: 'failed', reason: 'unsupported-type', wireBytes: 0 })
})

describe('a redirect', () => {
  /** What was asked and how long was waited in between. */
  async function walk(targets: readonly string[], lease: Partial<PageRequest['lease']> = {}) {
    const events: string[] = []
    const page = await fetchFrom(
      (request, response) => {
        const asked = `http://${request.headers.host}${request.url}`
        events.push(asked)
        const target = targets[events.filter((event) => event.startsWith('http')).length - 1]
        if (target) response.writeHead(302, { location: target }).end()
        else response.writeHead(200, html).end('there')
      },
      { paceMs: 777, ...lease },
      undefined,
      // The wall clock and the idle time are sleeps as well.
      { slept: (ms) => void (ms === (lease.paceMs ?? 777) && events.push(`waits ${ms}`)) },
    )
    return { page, events }
  }

  test('within one host keeps the pace of the host', async () => {
    const { page, events } = await walk(['/page/2', 'http://site.example/page/3'])
    expect(page).toMatchObject({ kind: 'fetched', hops: [302, 302] })
    expect(events).toEqual([
      'http://site.example/page',
      'waits 777',
      'http://site.example/page/2',
      'waits 777',
      'http://site.example/page/3',
    ])
  })

  test('to another host does not wait, but one that comes back does', async () => {
    const { events } = await walk(['http://second.example/page', 'http://site.example/page/2'])
    expect(events).toEqual([
      'http://site.example/page',
      'http://second.example/page',
      'waits 777',
      'http://site.example/page/2',
    ])
  })

  test('that would have to wait for longer than the page may take is a timeout, unasked', async () => {
    const { page, events } = await walk(['/page/2'], { paceMs: 60_000, maxMs: 2_000 })
    expect(page).toMatchObject({ kind: 'failed', reason: 'timeout', hops: 1 })
    expect(events).toEqual(['http://site.example/page', 'waits 60000'])
  })
})

describe('robots.txt', () => {
  const robots = {
    kind: 'robots',
    url: 'http://site.example/robots.txt',
    maxBytes: 512_000,
  } as const
  const rules = Buffer.from('User-agent: *\nDisallow: /private\n'.repeat(200_000))

  test('is read whatever its type', async () => {
    const page = await fetchFrom(
      (_, response) => void response.writeHead(200).end('User-agent: *'),
      robots,
    )
    expect(page).toMatchObject({ kind: 'fetched', type: '' })
  })

  test.each([true, false])(
    'of 6 MB is read to its first 512,000 bytes, and the rest is not waited for (length stated: %s)',
    async (stated) => {
      let written = Promise.resolve(0)
      const page = await fetchFrom((_, response) => {
        response.writeHead(200, {
          'content-type': 'text/plain',
          ...(stated ? { 'content-length': 100 * rules.length } : {}),
        })
        written = flood(response, rules, 100 * rules.length)
      }, robots)
      if (page.kind !== 'fetched') throw new Error(page.kind)
      expect(Buffer.from(page.payload).equals(rules.subarray(0, 512_000))).toBe(true)
      expect(await written).toBeLessThan(50 * rules.length)
    },
  )

  test('that never ends counts as soon as it has so many bytes', async () => {
    const page = await fetchFrom((_, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' }).write(rules.subarray(0, 512_000))
    }, robots)
    expect(page).toMatchObject({ kind: 'fetched' })
  })

  test('in gzip is counted by its decoded bytes', async () => {
    const page = await fetchFrom((_, response) => {
      response.writeHead(200, { 'content-type': 'text/plain', 'content-encoding': 'gzip' })
      response.end(gzipSync(rules))
    }, robots)
    if (page.kind !== 'fetched') throw new Error(page.kind)
    expect(page.payload).toHaveLength(512_000)
    expect(page.wireBytes).toBeLessThan(512_000)
  })

  test.each([
    ['of binary', Buffer.from(Uint8Array.from({ length: 65_536 }, (_, i) => (i * 31) % 256))],
    ['of one line of a million bytes', Buffer.from(`Disallow: /${'a'.repeat(1_000_000)}`)],
    ['of nothing', Buffer.alloc(0)],
  ])('%s is fetched, observed and says nothing that stops us', async (_, body) => {
    const page = await fetchFrom(
      (_, response) => void response.writeHead(200, { 'content-type': 'text/plain' }).end(body),
      robots,
    )
    if (page.kind !== 'fetched') throw new Error(page.kind)
    expect(page.payload).toHaveLength(Math.min(512_000, body.length))
    const lease = { id: 'AAAAAAAAAAAAAAAAAAAAAA', nonce: 'AAAAAAAAAAAAAAAAAAAAAA' }
    const key = await generateKeyPair({ extractable: false })
    const { statement } = await observePage(lease, page, key)
    expect(JSON.parse(statement.statement)).toMatchObject({
      outcome: 'fetched',
      type: 'text/plain',
    })
    const parsed = parseRobots(page.payload)
    expect(robotsVerdict(parsed, 'gleaner', 'http://site.example/page').allowed).toBe(true)
  })

  test('that stops in the middle is a timeout', async () => {
    const page = await fetchFrom((_, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' }).write('User-agent: *\n')
    }, robots)
    expect(page).toMatchObject({ kind: 'failed', reason: 'timeout' })
  })
})

test('a charset that nobody knows is undecodable when it is observed', async () => {
  const page = await fetchFrom((_, response) => {
    response.writeHead(200, { 'content-type': 'text/html; charset=klingon' }).end('<p>x')
  })
  if (page.kind !== 'fetched') throw new Error(page.kind)
  const lease = { id: 'AAAAAAAAAAAAAAAAAAAAAA', nonce: 'AAAAAAAAAAAAAAAAAAAAAA' }
  const key = await generateKeyPair({ extractable: false })
  const { statement, body } = await observePage(lease, page, key)
  expect(JSON.parse(statement.statement)).toMatchObject({
    outcome: 'failed',
    reason: 'undecodable',
  })
  expect(body).toBeUndefined()
})

test.each([
  ['http://other.example/page', 'out-of-scope'],
  ['http://10.0.0.1/page', 'host-not-public'],
  ['https://site.example/page', 'scheme-not-allowed'],
  ['http://site.example:81/page', 'port-not-allowed'],
])('an address outside the consent is refused, and nothing sent: %s', async (url, reason) => {
  let requests = 0
  const page = await fetchFrom(
    () => {
      requests += 1
    },
    { url },
  )
  expect(page).toEqual({ kind: 'refused', reason })
  expect(requests).toBe(0)
})

test('an abort ends it at once', async () => {
  const aborter = new AbortController()
  setTimeout(() => aborter.abort(), 30)
  const startedMs = performance.now()
  const page = await fetchFrom(
    (_, response) => void response.writeHead(200, html).write('begin'),
    {},
    aborter.signal,
  )
  expect(page).toMatchObject({ kind: 'aborted', wireBytes: 5 })
  expect(performance.now() - startedMs).toBeLessThan(200)
})

test('what was aborted before it began sends nothing', async () => {
  let requests = 0
  const page = await fetchFrom(
    () => {
      requests += 1
    },
    {},
    AbortSignal.abort(),
  )
  expect(page).toMatchObject({ kind: 'aborted' })
  expect(requests).toBe(0)
})
