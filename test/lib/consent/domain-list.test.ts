import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { domainLeaf, domainRefusal, ListedDomain } from '../../../lib/consent/domain-list.ts'
import { covers } from '../../../lib/consent/scope.ts'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { concatBytes } from '../../../lib/crypto/digest.ts'
import type { Site } from '../../../lib/protocol/campaign.ts'
import { inclusionProof, rootHash } from '../../../lib/tlog/merkle.ts'

const production = { loopbackAllowed: false }

function listed(names: readonly string[]) {
  const leaves = names.map(domainLeaf)
  const wide = {
    root: toBase64Url(rootHash(leaves)),
    size: names.length,
    category: 'grain',
    scheme: 'https' as const,
    requestsPerSecond: 0.5,
    requestsInFlight: 1,
  }
  const claim = (index: number, name = names[index] as string) => ({
    name,
    index,
    proof: toBase64Url(concatBytes(...inclusionProof(leaves, index))),
  })
  return { wide, claim }
}

const names = [
  'barley.example',
  'oat.example',
  'rye.example',
  'wheat.example',
  'xn--mller-kva.example',
]
const { wide, claim } = listed(names)
const campaign = { sites: [], wide }

describe('a proof', () => {
  test.each([1, 2, 3, 255, 256, 257])('in a list of %i shows each domain', (size) => {
    const list = listed(Array.from({ length: size }, (_, at) => `d${at}.example`))
    for (const index of new Set([0, size >> 1, size - 1])) {
      const proven = ListedDomain.proven(list, list.claim(index))
      expect(proven).toMatchObject({ name: `d${index}.example`, root: list.wide.root })
    }
  })

  const good = claim(1)
  const other = listed([
    'barley.example',
    'evil.example',
    'rye.example',
    'wheat.example',
    'x.example',
  ])
  test.each([
    ['nothing', undefined],
    ['another domain’s proof', { ...good, name: 'rye.example' }],
    ['a domain that is not listed', { ...good, name: 'evil.example' }],
    ['another index', { ...good, index: 2 }],
    ['an index outside the list', { ...good, index: 5 }],
    ['another list’s proof', other.claim(1)],
    ['no siblings', { ...good, proof: '' }],
    ['a sibling too few', { ...good, proof: good.proof.slice(0, 86) }],
    ['half a hash', { ...good, proof: good.proof.slice(0, 60) }],
    ['what is not base64url', { ...good, proof: `${good.proof.slice(0, -1)}=` }],
    ['the name in capitals', { ...good, name: 'OAT.EXAMPLE' }],
    ['the name with a dot behind', { ...good, name: 'oat.example.' }],
    ['a name below the listed one', { ...good, name: 'www.oat.example' }],
  ])('with %s shows nothing', (_, wrong) => {
    expect(ListedDomain.proven(campaign, good)).not.toBeNull()
    expect(ListedDomain.proven(campaign, wrong)).toBeNull()
  })

  test('of a campaign that is not wide shows nothing', () => {
    expect(ListedDomain.proven({}, good)).toBeNull()
  })

  test.each(['com', 'co', '10.0.0.1', 'printer.local'])(
    'of %s is refused even if the list holds it',
    (name) => {
      const list = listed([name])
      expect(ListedDomain.proven(list, list.claim(0))).toBeNull()
    },
  )
})

describe('a wide campaign covers', () => {
  const barley = ListedDomain.proven(campaign, claim(0))
  const mueller = ListedDomain.proven(campaign, claim(4))
  test.each([
    ['https://barley.example/', 'ok'],
    ['https://barley.example/any/path?q=1', 'ok'],
    ['https://www.barley.example/', 'ok'],
    ['https://a.b.barley.example/robots.txt', 'ok'],
    ['https://BARLEY.Example/', 'ok'],
    ['https://barley.example:443/', 'ok'],
    ['https://evilbarley.example/', 'out-of-scope'],
    ['https://barley.example.evil.example/', 'out-of-scope'],
    ['https://example/', 'host-not-public'],
    ['https://barley.example./', 'host-not-public'],
    ['https://rye.example/', 'out-of-scope'],
    ['https://user:word@barley.example/', 'out-of-scope'],
    ['http://barley.example/', 'scheme-not-allowed'],
    ['https://barley.example:8443/', 'port-not-allowed'],
    ['https://10.0.0.1/', 'host-not-public'],
  ])('%s with the proof of barley.example: %s', (url, expected) => {
    const covered = covers(campaign, 'page', url, production, barley)
    expect(covered.ok ? 'ok' : covered.reason).toBe(expected)
  })

  test('an international name in either spelling, as it is the same host', () => {
    for (const url of ['https://m\u00fcller.example/', 'https://www.xn--mller-kva.example/']) {
      expect(covers(campaign, 'page', url, production, mueller).ok).toBe(true)
    }
  })

  test('nothing without a proof', () => {
    const covered = covers(campaign, 'page', 'https://barley.example/', production, null)
    expect(covered).toEqual({ ok: false, reason: 'out-of-scope' })
  })

  test('nothing with the proof for another campaign’s list', () => {
    const another = listed(['barley.example'])
    const proven = ListedDomain.proven(another, another.claim(0))
    expect(proven).not.toBeNull()
    const covered = covers(campaign, 'page', 'https://barley.example/', production, proven)
    expect(covered).toEqual({ ok: false, reason: 'out-of-scope' })
  })

  test('each host at the pace of the list, and of the slower where it is also named', () => {
    const url = 'https://www.barley.example/x'
    const pace = { requestsPerSecond: 0.5, requestsInFlight: 1 }
    expect(covers(campaign, 'page', url, production, barley)).toEqual({
      ok: true,
      site: { host: 'www.barley.example', scheme: 'https', pathPrefixes: ['/'], ...pace },
    })
    const named: Site = {
      host: 'www.barley.example',
      scheme: 'https',
      pathPrefixes: ['/docs/'],
      requestsPerSecond: 0.1,
      requestsInFlight: 2,
    }
    const both = { sites: [named], wide }
    expect(covers(both, 'page', url, production, barley)).toMatchObject({
      site: { requestsPerSecond: 0.1, requestsInFlight: 1 },
    })
    // What is named needs no proof, and goes at its own pace.
    const docs = 'https://www.barley.example/docs/'
    expect(covers(both, 'page', docs, production, null)).toEqual({ ok: true, site: named })
    expect(covers(both, 'page', url, production, null).ok).toBe(false)
  })
})

test('a name on the list is spelt as in a URL’s host', () => {
  for (const name of names) expect(domainRefusal(name)).toBeNull()
  expect(domainRefusal('Barley.example')).toBe('not-canonical')
  expect(domainRefusal('barley.example/')).toBe('not-canonical')
  expect(domainRefusal('')).toBe('unparsable')
})

test('only the server takes its own word for a domain', () => {
  const folders = ['lib/runner', 'lib/browser', 'lib/ui', 'server/node']
  const users = folders.flatMap((folder) =>
    readdirSync(folder)
      .filter((name) => readFileSync(`${folder}/${name}`, 'utf8').includes('ListedDomain.held'))
      .map((name) => `${folder}/${name}`),
  )
  expect(users).toEqual([])
})
