import { describe, expect, test } from 'vitest'
import { campaignOrigins, everySite, returnable } from '../../../lib/browser/site-access.ts'
import type { Campaign, Site } from '../../../lib/protocol/campaign.ts'

const site = (host: string, scheme: Site['scheme'] = 'https'): Site => ({
  host,
  scheme,
  pathPrefixes: ['/'],
  requestsPerSecond: 1,
  requestsInFlight: 1,
})
const wide = (scheme: Site['scheme']): NonNullable<Campaign['wide']> => ({
  root: 'A'.repeat(43),
  size: 2,
  category: 'about grain',
  scheme,
  requestsPerSecond: 1,
  requestsInFlight: 1,
})

test('a campaign asks for exactly its named sites', () => {
  expect(campaignOrigins({ sites: [site('barley.example'), site('old.example', 'http')] })).toEqual(
    ['https://barley.example/*', 'http://old.example/*'],
  )
})

test('a wide campaign asks for all sites of its scheme beside those it names, and of no other', () => {
  expect(campaignOrigins({ sites: [site('barley.example')], wide: wide('https') })).toEqual([
    'https://barley.example/*',
    'https://*/*',
  ])
  expect(campaignOrigins({ sites: [], wide: wide('http') })).toEqual(['http://*/*'])
})

describe('access that is given back', () => {
  const named = 'https://barley.example/*'
  const server = 'https://server.example/*'
  const all = 'https://*/*'
  test.each<[string, string[], string[], string[], string[]]>([
    ['what nobody needs', [named, server], [named, ...everySite], [server], [named]],
    ['nothing that is needed elsewhere', [named], [named, ...everySite], [named], []],
    ['nothing that was not held', [server], [named, ...everySite], [server], []],
    ['all sites, when the rest is held apart', [all, named], [all], [named], [all]],
    ['not all sites while they carry a narrower need', [all], [all], [named], []],
    [
      'all sites, when what they carry is of the other scheme',
      [all],
      [all],
      ['http://a.example/*'],
      [all],
    ],
    [
      'all sites, left over from an earlier withdrawal',
      [all, named],
      [named, ...everySite],
      [],
      [named, all],
    ],
    [
      'not all sites while another wide campaign needs them',
      [all, named],
      [named, all],
      [all],
      [named],
    ],
  ])('is %s', (_, held, unwanted, needed, expected) => {
    expect(returnable(held, unwanted, needed)).toEqual(expected)
  })
})
