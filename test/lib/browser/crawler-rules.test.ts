import { describe, expect, test } from 'vitest'
import { type Contact, crawlerRules } from '../../../lib/browser/crawler-rules.ts'

const identity = { self: 'abc', client: 'Browser/1 Gleaner/1', servers: ['server.example'] }

/** What a request to this host carries, by the browsers' rules: domains match with those below. */
function headersTo(host: string, contacts: readonly Contact[]): Record<string, string> {
  const below = (domain: string) => host === domain || host.endsWith(`.${domain}`)
  const matching = crawlerRules(contacts, identity)
    .filter(({ condition: { requestDomains, excludedRequestDomains } }) => {
      const included = requestDomains === undefined || requestDomains.some(below)
      return included && !excludedRequestDomains?.some(below)
    })
    .sort((a, b) => b.priority - a.priority)
  const headers: Record<string, string> = {}
  for (const { action } of matching) {
    for (const change of action.requestHeaders) {
      // The first, of the highest priority, stays.
      if (change.operation === 'set') headers[change.header] ??= change.value
    }
  }
  return headers
}

const named: Contact = { hosts: ['barley.example'], wide: false, contact: 'crawl@barley.example' }
const wide: Contact = { hosts: [], wide: true, contact: 'crawl@wide.example' }
const plain = { 'User-Agent': 'Browser/1 Gleaner/1' }
const signedBy = (contact: string) => ({
  'User-Agent': `Browser/1 Gleaner/1 (+${contact})`,
  From: contact,
})

describe('a request', () => {
  test.each<[string, string, Contact[], Record<string, string>]>([
    ['to a named site names its campaign', 'barley.example', [named], signedBy(named.contact)],
    ['to any other host names only the crawler', 'x.example', [named], plain],
    ['of a wide campaign names it at every site', 'x.example', [wide], signedBy(wide.contact)],
    [
      'to a named site names that campaign beside a wide one',
      'barley.example',
      [wide, named],
      signedBy(named.contact),
    ],
    ['to a task server names nobody', 'server.example', [wide, named], plain],
    [
      'to a named site without a mailbox carries no other campaign’s From',
      'barley.example',
      [wide, { ...named, contact: 'https://barley.example/crawler' }],
      { 'User-Agent': 'Browser/1 Gleaner/1 (+https://barley.example/crawler)' },
    ],
    [
      'that may be of one of two wide campaigns names both, and From neither',
      'x.example',
      [wide, { ...wide, contact: 'crawl@other.example' }],
      { 'User-Agent': 'Browser/1 Gleaner/1 (+crawl@wide.example; +crawl@other.example)' },
    ],
    [
      'of two wide campaigns of one operator names that operator',
      'x.example',
      [wide, wide],
      signedBy(wide.contact),
    ],
    [
      'carries no contact that would break the header',
      'barley.example',
      [{ ...named, contact: 'a)\r\n(b@c' }],
      { 'User-Agent': 'Browser/1 Gleaner/1 (+ab@c)' },
    ],
  ])('%s', (_, host, contacts, expected) => {
    expect(headersTo(host, contacts)).toEqual(expected)
  })

  test('of a page that the person visits is not touched', () => {
    for (const { condition } of crawlerRules([wide, named], identity)) {
      expect(condition.initiatorDomains).toEqual(['abc'])
    }
  })

  test('never carries cookies', () => {
    const [first] = crawlerRules([wide], identity)
    expect(first?.condition).not.toHaveProperty('requestDomains')
    expect(first?.action.requestHeaders).toContainEqual({ header: 'Cookie', operation: 'remove' })
  })
})

test('every rule has an id of its own', () => {
  const ids = crawlerRules([wide, named, { ...named, hosts: ['rye.example'] }], identity).map(
    ({ id }) => id,
  )
  expect(new Set(ids).size).toBe(4)
})
