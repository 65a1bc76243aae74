import { expect, test } from 'vitest'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import { type Lease, robotsBytes } from '../../../lib/protocol/lease.ts'
import { judgeLease } from '../../../lib/runner/judge-lease.ts'
import { campaignOver } from './operator.ts'

const nowMs = Date.parse('2026-11-22T16:00:00Z')
const campaign = campaignOver('www.barley.example')
const lease: Lease = {
  version: 1,
  id: 'AAECAwQFBgcICQoLDA0ODw',
  campaign: 'c1',
  kind: 'page',
  url: 'http://www.barley.example/docs/malt',
  nonce: 'EBESExQVFhcYGRobHB0eHw',
  validForMs: 60_000,
  maxBytes: campaign.limits.pageBytes,
  maxMs: campaign.limits.pageMs,
  maxRedirects: 5,
}

const judge = (changes: Partial<Lease>, terms: Campaign = campaign) =>
  judgeLease({ ...lease, ...changes }, new Map([['c1', terms]]), nowMs, { loopbackAllowed: false })

test('a lease inside what was agreed is taken', () => {
  expect(judge({})).toEqual({ ok: true, site: campaign.sites[0] })
  expect(judge({ kind: 'robots', url: 'http://www.barley.example/robots.txt' }).ok).toBe(true)
})

test.each<[string, Partial<Lease>, string]>([
  ['for a campaign that was not agreed to', { campaign: 'c2' }, 'not-consented'],
  ['for another host', { url: 'http://www.rye.example/' }, 'out-of-scope'],
  ['for another scheme', { url: 'https://www.barley.example/' }, 'scheme-not-allowed'],
  ['for another port', { url: 'http://www.barley.example:8080/' }, 'port-not-allowed'],
  ['for an address literal', { url: 'http://10.0.0.1/' }, 'host-not-public'],
  ['for more bytes than agreed', { maxBytes: campaign.limits.pageBytes + 1 }, 'over-limit'],
  ['for more time than agreed', { maxMs: campaign.limits.pageMs + 1 }, 'over-limit'],
  ['that is over', { validForMs: 0 }, 'expired'],
])('a lease %s is refused', (_, changes, reason) => {
  expect(judge(changes)).toEqual({ ok: false, reason })
})

test('a lease of a campaign whose time is over, or has not come, is refused', () => {
  for (const dates of [
    { validUntil: '2026-11-22T16:00:00Z' },
    { validFrom: '2026-11-23T00:00:00Z' },
  ]) {
    expect(judge({}, { ...campaign, ...dates })).toEqual({ ok: false, reason: 'not-consented' })
  }
})

test('a robots.txt may take 500 KiB of a campaign whose pages are smaller, and no more', () => {
  const small = { ...campaign, limits: { ...campaign.limits, pageBytes: 1024 } }
  const robots = { kind: 'robots', url: 'http://www.barley.example/robots.txt' } as const
  expect(judge({ ...robots, maxBytes: robotsBytes }, small).ok).toBe(true)
  const refused = { ok: false, reason: 'over-limit' }
  expect(judge({ ...robots, maxBytes: robotsBytes + 1 }, small)).toEqual(refused)
  expect(judge({ maxBytes: robotsBytes }, small)).toEqual(refused)
})
