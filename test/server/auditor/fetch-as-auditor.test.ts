import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, test } from 'vitest'
import {
  type AuditorFetchOptions,
  createAuditorFetch,
  type FetchLimits,
  wholeBody,
} from '../../../server/auditor/fetch-as-auditor.ts'
import { HostBusy, type TakeTurn } from '../../../server/auditor/host-turns.ts'
import { createNames } from '../../../server/auditor/names.ts'
import { crawlerHeaders } from '../../../server/auditor/run-auditor.ts'
import { type NameServer, type RecordType, startNameServer } from './name-server.ts'

const servers: Server[] = []
const nameServers: NameServer[] = []
afterAll(async () => {
  for (const server of servers) {
    server.closeAllConnections()
    server.close()
  }
  for (const one of nameServers) await one.close()
})

async function site(listener: RequestListener): Promise<number> {
  const server = createServer(listener)
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

/** Every host may be spoken to at once. */
const freeTurn: TakeTurn = async ({ origin }) => ({
  origin,
  lost: new AbortController().signal,
  begin: () => {},
  answered: () => {},
  restMs: () => 0,
  end: async () => {},
})

async function withNames(answer: Parameters<typeof startNameServer>[0]) {
  const server = await startNameServer(answer)
  nameServers.push(server)
  return { server, lookup: createNames([server.address]).lookup }
}

function fetchText(
  url: string,
  options: Partial<AuditorFetchOptions>,
  limits: Partial<FetchLimits> = {},
) {
  const fetch = createAuditorFetch({
    ...crawlerHeaders('crawl@barley.example'),
    takeTurn: freeTurn,
    loopbackAllowed: true,
    ...options,
  })
  return fetch(
    url,
    {
      maxBytes: 10_000,
      maxMs: 5_000,
      maxRedirects: 5,
      signal: new AbortController().signal,
      ...limits,
    },
    async (answer) => ({
      url: answer.url,
      status: answer.status,
      text: (await wholeBody(answer.body)).toString(),
      isCut: answer.isCut(),
    }),
  )
}

test('names itself and whom to complain to, and sends nothing else about itself', async () => {
  let headers: unknown
  const port = await site((request, response) => {
    headers = request.headers
    response.setHeader('set-cookie', 'a=b')
    if (request.url === '/') response.writeHead(302, { location: '/next' }).end()
    else response.end('hello')
  })
  const fetched = await fetchText(`http://site.example:${port}/`, {
    hostMap: { 'site.example': `127.0.0.1:${port}` },
  })
  expect(fetched).toMatchObject({ kind: 'answered', value: { text: 'hello', isCut: false } })
  expect(headers).toEqual({
    host: `site.example:${port}`,
    connection: 'keep-alive',
    'user-agent': 'Gleaner/0.1.0 (auditor; +crawl@barley.example)',
    from: 'crawl@barley.example',
    accept: '*/*',
    'accept-language': '*',
    'accept-encoding': 'gzip, deflate, br',
  })
  expect(crawlerHeaders('https://barley.example/crawler')).toEqual({
    userAgent: 'Gleaner/0.1.0 (auditor; +https://barley.example/crawler)',
    from: null,
  })
  expect(crawlerHeaders('Ährenfeld\r\nX: y').userAgent).toBe(
    'Gleaner/0.1.0 (auditor; +?hrenfeld??X: y)',
  )
})

describe('an address that is not public gets no connection', () => {
  test.each([
    'http://169.254.169.254/latest/meta-data/',
    'http://2852039166/',
    'http://0xa9fea9fe/',
    'http://0251.0376.0251.0376/',
    'http://0xa9.254.0251.254/',
    'http://169.254.43518/',
    'http://[::ffff:169.254.169.254]/',
    'http://[::ffff:a9fe:a9fe]/',
    'http://[64:ff9b::169.254.169.254]/',
    'http://[64:ff9b:1::a9fe:a9fe]/',
    'http://[::169.254.169.254]/',
    'http://[2002:a9fe:a9fe::]/',
    'http://[fd00:ec2::254]/',
    'http://[fe80::1]/',
    'http://metadata.google.internal/',
    'http://metadata/',
    'http://169.254.169.254./',
    'http://localhost/',
    'http://127.1/',
    'http://10.0.0.1/',
    'http://192.168.0.1/',
    // Public, and still no name that a site's owner could speak for.
    'http://203.0.113.7/',
  ])('%s', async (url) => {
    // With loopback allowed names are not looked at: there the address alone must refuse.
    for (const loopbackAllowed of [false, true]) {
      if (loopbackAllowed && /metadata|localhost|127\.1|203\.0|254\.\//.test(url)) continue
      expect(await fetchText(url, { loopbackAllowed })).toMatchObject({
        kind: 'failed',
        reason: 'not-public',
      })
    }
  })

  test.each([
    ['169.254.169.254', 'A'],
    ['10.1.2.3', 'A'],
    ['172.31.255.255', 'A'],
    ['100.64.0.1', 'A'],
    ['198.18.0.1', 'A'],
    ['0.0.0.0', 'A'],
    ['127.0.0.1', 'A'],
    ['::1', 'AAAA'],
    ['::ffff:169.254.169.254', 'AAAA'],
    ['64:ff9b::a9fe:a9fe', 'AAAA'],
    ['64:ff9b:1::a00:1', 'AAAA'],
    ['fd00:ec2::254', 'AAAA'],
    ['fe80::1', 'AAAA'],
    ['2002:a00:1::', 'AAAA'],
  ] as [string, RecordType][])('a public name for %s', async (address, type) => {
    const { lookup, server } = await withNames((_, asked) => (asked === type ? [address] : []))
    expect(
      await fetchText('http://public.example/', { lookup, loopbackAllowed: false }),
    ).toMatchObject({ kind: 'failed', reason: 'not-public' })
    expect(server.asked.sort()).toEqual(['A public.example', 'AAAA public.example'])
  })

  test('one private address among several refuses them all, even where something listens', async () => {
    let requests = 0
    const port = await site((_, response) => {
      requests += 1
      response.end()
    })
    const { lookup } = await withNames((_, type) => (type === 'A' ? ['127.0.0.1', '10.0.0.1'] : []))
    expect(await fetchText(`http://mixed.example:${port}/`, { lookup })).toMatchObject({
      kind: 'failed',
      reason: 'not-public',
    })
    expect(requests).toBe(0)
  })

  test('a redirect to one is not followed', async () => {
    const targets = ['http://169.254.169.254/', 'http://inside.example/', '//[::ffff:10.0.0.1]/']
    const port = await site((request, response) => {
      response.writeHead(302, { location: targets[Number(request.url?.slice(1))] }).end()
    })
    const { lookup } = await withNames((name, type) =>
      type !== 'A' ? [] : name === 'inside.example' ? ['192.168.7.7'] : ['127.0.0.1'],
    )
    for (const at of targets.keys()) {
      expect(await fetchText(`http://site.example:${port}/${at}`, { lookup })).toMatchObject({
        kind: 'failed',
        reason: 'not-public',
      })
    }
  })

  test('the address that was checked is the one that is connected to, whatever the name says later', async () => {
    let requests = 0
    const port = await site((_, response) => {
      requests += 1
      response.end('checked')
    })
    let looks = 0
    const { lookup, server } = await withNames((_, type) => {
      if (type !== 'A') return []
      looks += 1
      return [looks === 1 ? '127.0.0.1' : '169.254.169.254']
    })
    const url = `http://rebind.example:${port}/`
    expect(await fetchText(url, { lookup })).toMatchObject({ value: { text: 'checked' } })
    expect(server.asked.filter((one) => one.startsWith('A '))).toEqual(['A rebind.example'])
    // A connection is never kept for a name that may mean something else by now.
    expect(await fetchText(url, { lookup })).toMatchObject({ reason: 'not-public' })
    expect(requests).toBe(1)
  })
})

describe('only the web on its own ports', () => {
  test.each([
    ['ftp://site.example/', 'not of the web'],
    ['file:///etc/passwd', 'not of the web'],
    ['gopher://site.example/', 'not of the web'],
    ['http://site.example:8080/', 'another port'],
    ['https://site.example:22/', 'another port'],
    ['http://user:secret@site.example/', 'password'],
    ['nonsense', 'does not parse'],
  ])('%s', async (url, why) => {
    const fetched = await fetchText(url, { loopbackAllowed: false })
    expect(fetched).toMatchObject({ kind: 'failed', reason: 'not-web' })
    expect(fetched).toHaveProperty('sentence', expect.stringContaining(why))
    expect(fetched).toHaveProperty('sentence', expect.not.stringContaining('secret'))
  })

  test('a redirect to another port or scheme is refused like the first address', async () => {
    const port = await site((request, response) => {
      response.writeHead(301, { location: decodeURIComponent(request.url?.slice(1) ?? '') }).end()
    })
    // Loopback is not allowed, so what is public in form is mapped to what would be.
    const { lookup } = await withNames(() => [])
    for (const location of ['ftp://site.example/', 'data:text/plain,x', 'http://']) {
      expect(
        await fetchText(`http://site.example:${port}/${encodeURIComponent(location)}`, {
          lookup,
          hostMap: { 'site.example': `127.0.0.1:${port}` },
        }),
      ).toMatchObject({ kind: 'failed', reason: 'not-web' })
    }
  })
})

describe('bounds', () => {
  test('a gzip bomb stops at the most bytes that are read', async () => {
    const bomb = gzipSync(Buffer.alloc(200 * 1024 * 1024), { level: 9 })
    let sent = 0
    const port = await site((_, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' })
      sent = bomb.length
      response.end(bomb)
    })
    const before = process.memoryUsage().arrayBuffers
    const fetched = await fetchText(`http://localhost:${port}/`, {}, { maxBytes: 1_000 })
    expect(fetched).toMatchObject({ kind: 'answered', value: { isCut: true } })
    expect(fetched.kind === 'answered' && fetched.value.text.length).toBe(1_000)
    expect(sent).toBeLessThan(300_000)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20 * 1024 * 1024)
  })

  test('a body that is labelled gzip and is not is read as it stands', async () => {
    const port = await site((_, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' }).end('<urlset/>')
    })
    expect(await fetchText(`http://localhost:${port}/`, {})).toMatchObject({
      value: { text: '<urlset/>' },
    })
  })

  test('a broken gzip body is undecodable', async () => {
    const port = await site((_, response) => {
      const broken = gzipSync('x'.repeat(1000))
      broken.fill(0xff, 12)
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(broken)
    })
    expect(await fetchText(`http://localhost:${port}/`, {})).toMatchObject({
      kind: 'failed',
      reason: 'undecodable',
    })
  })

  test.each(['never answers', 'drips for ever'])(
    'a site that %s is given up in time',
    async (how) => {
      const port = await site((_, response) => {
        if (how === 'never answers') return
        const timer = setInterval(() => response.write('.'), 20)
        response.once('close', () => clearInterval(timer))
      })
      expect(await fetchText(`http://localhost:${port}/`, {}, { maxMs: 300 })).toMatchObject({
        kind: 'failed',
        reason: 'timeout',
      })
    },
  )

  test('a redirect in a circle, and one too many, are the end', async () => {
    const port = await site((request, response) => {
      const { pathname } = new URL(request.url ?? '', 'http://x')
      const at = Number(pathname.slice(1))
      if (at === 0) response.end('there')
      else response.writeHead(302, { location: at === 99 ? '/99' : `/${at - 1}` }).end()
    })
    const from = (at: number) => fetchText(`http://localhost:${port}/${at}`, {})
    expect(await from(5)).toMatchObject({ kind: 'answered', value: { text: 'there' } })
    expect(await from(6)).toMatchObject({ kind: 'failed', reason: 'redirect-limit' })
    expect(await from(99)).toMatchObject({ kind: 'failed', reason: 'redirect-limit' })
  })

  test('an abort ends it', async () => {
    const abort = new AbortController()
    const port = await site(() => abort.abort())
    expect(
      await fetchText(`http://localhost:${port}/`, {}, { signal: abort.signal }),
    ).toMatchObject({ kind: 'failed', reason: 'aborted' })
  })
})

describe('turns', () => {
  test('a host that is busy at first gets nothing, and one behind a redirect ends the fetch', async () => {
    let requests = 0
    const port = await site((_, response) => {
      requests += 1
      response.writeHead(302, { location: `http://busy.localhost:${port}/` }).end()
    })
    const takeTurn: TakeTurn = async (url, signal) => {
      if (url.hostname.startsWith('busy')) throw new HostBusy(url.origin, 7, 9_000)
      return freeTurn(url, signal)
    }
    await expect(fetchText(`http://busy.localhost:${port}/`, { takeTurn })).rejects.toThrow(
      HostBusy,
    )
    expect(requests).toBe(0)
    expect(await fetchText(`http://localhost:${port}/`, { takeTurn })).toMatchObject({
      kind: 'failed',
      reason: 'busy',
    })
  })

  test('a turn that is lost ends the fetch, and every turn ends', async () => {
    const lost = new AbortController()
    const port = await site(() => lost.abort())
    let ends = 0
    const takeTurn: TakeTurn = async (url, signal) => ({
      ...(await freeTurn(url, signal)),
      lost: lost.signal,
      end: async () => {
        ends += 1
      },
    })
    expect(await fetchText(`http://localhost:${port}/`, { takeTurn })).toMatchObject({
      reason: 'busy',
    })
    expect(ends).toBe(1)
  })
})

test('what the reader throws by itself is thrown on', async () => {
  const port = await site((_, response) => response.end('x'))
  const fetch = createAuditorFetch({
    ...crawlerHeaders('x'),
    takeTurn: freeTurn,
    loopbackAllowed: true,
  })
  const limits = {
    maxBytes: 9,
    maxMs: 5_000,
    maxRedirects: 0,
    signal: new AbortController().signal,
  }
  await expect(
    fetch(`http://localhost:${port}/`, limits, async () => {
      throw new RangeError('ours')
    }),
  ).rejects.toThrow(RangeError)
})
