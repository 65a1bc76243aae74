import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { domainLeaf } from '../../../lib/consent/domain-list.ts'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { concatBytes } from '../../../lib/crypto/digest.ts'
import type { Lease } from '../../../lib/protocol/lease.ts'
import { fetchPage } from '../../../lib/runner/fetch-page.ts'
import { judgeLease } from '../../../lib/runner/judge-lease.ts'
import { inclusionProof, rootHash } from '../../../lib/tlog/merkle.ts'
import { createNodeHop, type NodeHop } from '../../../server/node/hop.ts'
import { campaignOver } from './operator.ts'

const names = ['barley.example', 'oat.example', 'rye.example']
const leaves = names.map(domainLeaf)
const campaign = campaignOver('named.example', {
  wide: {
    root: toBase64Url(rootHash(leaves)),
    size: names.length,
    category: 'about grain',
    scheme: 'http',
    requestsPerSecond: 2,
    requestsInFlight: 1,
  },
})
const proofOf = (name: string) => {
  const index = names.indexOf(name)
  return { name, index, proof: toBase64Url(concatBytes(...inclusionProof(leaves, index))) }
}
const lease: Lease = {
  version: 1,
  id: 'AAECAwQFBgcICQoLDA0ODw',
  campaign: 'c1',
  kind: 'page',
  url: 'http://www.barley.example/page',
  nonce: 'EBESExQVFhcYGRobHB0eHw',
  validForMs: 60_000,
  maxBytes: 1_000_000,
  maxMs: 10_000,
  maxRedirects: 5,
  domain: proofOf('barley.example'),
}

describe('a lease of a wide campaign', () => {
  const judge = (changes: Partial<Lease>) =>
    judgeLease({ ...lease, ...changes }, new Map([['c1', campaign]]), Date.now(), {
      loopbackAllowed: false,
    })
  const without = ({ domain: _, ...rest }: Lease) => rest

  test('that proves its domain is taken, at the pace that the list says for each host', () => {
    expect(judge({})).toMatchObject({
      ok: true,
      site: { host: 'www.barley.example', requestsPerSecond: 2, requestsInFlight: 1 },
    })
    expect(judge({ kind: 'robots', url: 'http://barley.example/robots.txt' }).ok).toBe(true)
  })

  test('that proves nothing is taken only for a named site', () => {
    const consented = new Map([['c1', campaign]])
    const scope = { loopbackAllowed: false }
    expect(judgeLease(without(lease), consented, Date.now(), scope)).toEqual({
      ok: false,
      reason: 'out-of-scope',
    })
    const named = { ...without(lease), url: 'http://named.example/' }
    expect(judgeLease(named, consented, Date.now(), scope).ok).toBe(true)
  })

  test.each<[string, Partial<Lease>, string]>([
    ['with the proof of another domain', { domain: proofOf('rye.example') }, 'out-of-scope'],
    [
      'with another domain’s name on the proof',
      { domain: { ...proofOf('rye.example'), name: 'barley.example' } },
      'out-of-scope',
    ],
    ['for a name that only ends alike', { url: 'http://evilbarley.example/' }, 'out-of-scope'],
    ['by another scheme', { url: 'https://barley.example/' }, 'scheme-not-allowed'],
    ['on another port', { url: 'http://barley.example:8080/' }, 'port-not-allowed'],
    ['for a name with a dot behind', { url: 'http://barley.example./' }, 'host-not-public'],
  ])('%s is refused', (_, changes, reason) => {
    expect(judge(changes)).toEqual({ ok: false, reason })
  })
})

describe('a redirect in a wide campaign', () => {
  const servers: Server[] = []
  const hops: NodeHop[] = []
  afterEach(async () => {
    await Promise.all(hops.splice(0).map((hop) => hop.close()))
    for (const server of servers.splice(0)) server.close().closeAllConnections()
  })

  async function fetchOver(location: string) {
    const asked: string[] = []
    const answer: RequestListener = (request, response) => {
      asked.push(request.headers.host ?? '')
      if (request.url === '/page') response.writeHead(302, { location }).end()
      else response.writeHead(200, { 'content-type': 'text/html' }).end('<p>Grain.')
    }
    const server = createServer(answer)
    servers.push(server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
    const hosts = ['www.barley.example', 'barley.example', 'rye.example', 'named.example']
    const node = createNodeHop({
      userAgent: 'gleaner-test',
      hostMap: Object.fromEntries([...hosts, 'evilbarley.example'].map((host) => [host, address])),
      loopbackAllowed: true,
    })
    hops.push(node)
    const page = await fetchPage(
      {
        lease,
        campaign,
        scope: { loopbackAllowed: false },
        signal: new AbortController().signal,
      },
      {
        hop: node.hop,
        now: () => performance.now(),
        sleep: (ms, stop) => sleep(ms, undefined, stop ? { signal: stop } : {}),
      },
    )
    return { page, asked }
  }

  test.each(['http://barley.example/there', '/there', 'http://named.example/there'])(
    'to %s is followed: the same listed domain, or a named site',
    async (location) => {
      const { page } = await fetchOver(location)
      expect(page).toMatchObject({ kind: 'fetched', hops: [302], status: 200 })
    },
  )

  test.each([
    // Listed, but this lease does not show it.
    'http://rye.example/there',
    'http://evilbarley.example/there',
    'https://www.barley.example/there',
  ])('to %s is refused, and nothing is sent there', async (location) => {
    const { page, asked } = await fetchOver(location)
    expect(page).toMatchObject({ kind: 'failed', reason: 'redirect-refused', hops: 1 })
    expect(asked).toEqual(['www.barley.example'])
  })
})
