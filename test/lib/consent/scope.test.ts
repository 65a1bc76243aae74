import { describe, expect, test } from 'vitest'
import { covers } from '../../../lib/consent/scope.ts'
import type { Site } from '../../../lib/protocol/campaign.ts'

const site = (host: string, scheme: Site['scheme'], ...pathPrefixes: string[]): Site => ({
  host,
  scheme,
  pathPrefixes,
  requestsPerSecond: 1,
  requestsInFlight: 1,
})

const campaign = {
  sites: [
    site('www.barley.example', 'https', '/docs/', '/blog'),
    site('old.barley.example', 'http', '/'),
    site('localhost', 'http', '/'),
    site('127.0.0.1', 'http', '/docs/'),
    site('site.localhost', 'http', '/'),
    site('10.0.0.1', 'http', '/'),
    site('printer.local', 'http', '/'),
  ],
}
const production = { loopbackAllowed: false }
const lab = { loopbackAllowed: true }

describe('a page', () => {
  test.each([
    ['https://www.barley.example/docs/', 'ok'],
    ['https://www.barley.example/docs/a/b?q=1#part', 'ok'],
    ['https://www.barley.example:443/blog', 'ok'],
    ['https://WWW.Barley.Example/blog/2026', 'ok'],
    ['https://www.barley.example/docs/../blog/x', 'ok'],
    ['http://old.barley.example/', 'ok'],
    ['https://www.barley.example/', 'out-of-scope'],
    ['https://www.barley.example/docs', 'out-of-scope'],
    ['https://www.barley.example/docs/../secret', 'out-of-scope'],
    ['https://www.barley.example/docs/%2e%2e/secret', 'out-of-scope'],
    ['https://www.barley.example/Docs/', 'out-of-scope'],
    ['https://www.barley.example/robots.txt', 'out-of-scope'],
    ['https://barley.example/docs/', 'out-of-scope'],
    ['https://x.www.barley.example/docs/', 'out-of-scope'],
    ['https://www.barley.example.evil.example/docs/', 'out-of-scope'],
    ['https://user:word@www.barley.example/docs/', 'out-of-scope'],
    ['not an address', 'out-of-scope'],
    ['http://www.barley.example/docs/', 'scheme-not-allowed'],
    ['https://old.barley.example/', 'scheme-not-allowed'],
    ['ftp://www.barley.example/docs/', 'scheme-not-allowed'],
    ['file:///docs/', 'scheme-not-allowed'],
    ['javascript:alert(1)', 'scheme-not-allowed'],
    ['https://www.barley.example:8443/docs/', 'port-not-allowed'],
    ['http://old.barley.example:443/', 'port-not-allowed'],
    // The manifest names these hosts, and still nothing is sent to them.
    ['http://localhost/', 'host-not-public'],
    ['http://127.0.0.1/docs/', 'host-not-public'],
    ['http://127.1/docs/', 'host-not-public'],
    ['http://0x7f000001/docs/', 'host-not-public'],
    ['http://2130706433/docs/', 'host-not-public'],
    ['http://[::1]/docs/', 'host-not-public'],
    ['http://10.0.0.1/', 'host-not-public'],
    ['http://printer.local/', 'host-not-public'],
    ['http://printer/', 'host-not-public'],
    ['https://www.barley.example./docs/', 'host-not-public'],
  ])('%s is %s', (url, expected) => {
    const covered = covers(campaign, 'page', url, production, null)
    expect(covered.ok ? 'ok' : covered.reason).toBe(expected)
  })

  test('is told the site that covers it', () => {
    const covered = covers(campaign, 'page', 'https://www.barley.example/blog', production, null)
    expect(covered).toEqual({ ok: true, site: campaign.sites[0] })
  })
})

describe('robots.txt', () => {
  test.each([
    ['https://www.barley.example/robots.txt', 'ok'],
    // Where a redirect of robots.txt may lead: to what the campaign covers anyway.
    ['https://www.barley.example/docs/robots.txt', 'ok'],
    ['https://www.barley.example/robots.txt?x=1', 'out-of-scope'],
    ['https://www.barley.example/Robots.txt', 'out-of-scope'],
    ['http://www.barley.example/robots.txt', 'scheme-not-allowed'],
    ['https://other.example/robots.txt', 'out-of-scope'],
  ])('%s is %s', (url, expected) => {
    const covered = covers(campaign, 'robots', url, production, null)
    expect(covered.ok ? 'ok' : covered.reason).toBe(expected)
  })
})

describe('the lab', () => {
  test.each([
    ['http://localhost:8080/', 'ok'],
    ['http://127.0.0.1:8080/docs/', 'ok'],
    ['http://site.localhost:8080/', 'ok'],
    ['http://127.0.0.1:8080/other/', 'out-of-scope'],
    ['http://127.0.0.2:8080/docs/', 'out-of-scope'],
    ['https://127.0.0.1:8080/docs/', 'scheme-not-allowed'],
    ['https://www.barley.example:8443/docs/', 'port-not-allowed'],
    ['http://10.0.0.1/', 'host-not-public'],
    ['http://printer.local/', 'host-not-public'],
  ])('%s is %s', (url, expected) => {
    const covered = covers(campaign, 'page', url, lab, null)
    expect(covered.ok ? 'ok' : covered.reason).toBe(expected)
  })
})
