import { expect, test } from 'vitest'
import { sha256 } from '../../lib/crypto/digest.ts'
import { explain, explanationText } from '../../server/explain.ts'
import { takeIn } from '../../server/intake.ts'
import { addCampaign } from '../../server/store/campaigns.ts'
import { openTasks, putRobots } from '../../server/store/frontier.ts'
import { campaignOver } from '../lib/runner/operator.ts'
import { openTestDatabase } from './store/test-database.ts'

const nowMs = Date.parse('2026-11-22T12:00:00Z')
const scopeRules = { loopbackAllowed: false }
const about = { scopeRules, agent: 'gleaner', nowMs }

test('an operator reads why each address waits, is kept out, or was never found', async () => {
  const database = await openTestDatabase()
  const digest = sha256('campaign')
  const [site] = campaignOver('farm.example').sites
  if (!site) throw new Error('a campaign without a site')
  const manifest = campaignOver('farm.example', {
    id: 'farm',
    sites: [{ ...site, scheme: 'https', pathPrefixes: ['/'] }],
    limits: { pageBytes: 1_000_000, pageMs: 10_000, pages: 5, depth: 9 },
  })
  const envelope = { payloadType: 'none', payload: '', signatures: [] }
  await addCampaign(database.pool, { digest, manifest, envelope, leafIndex: 1 })
  const page = (path: string) => `https://farm.example${path}`
  const take = (...paths: string[]) =>
    database.transaction((tx) =>
      takeIn(
        tx,
        { campaign: digest, manifest },
        paths.map((path) => ({ url: page(path), as: 'link' as const, depth: 1 })),
        scopeRules,
        nowMs,
      ),
    )
  const verdict = async (path: string) =>
    (await explain(database.pool, { url: page(path) }, about)).campaigns[0]?.verdict

  expect(await take('/barley?b=2&a=1', '/x/y/x/y/x/y', '/barley?a=1&b=2')).toBe(1)
  expect(await verdict('/rye')).toBe(
    'Not found yet: no seed, attested link, sitemap or feed has named it.',
  )
  expect(await verdict('/barley?a=1&b=2')).toBe('Waits for robots.txt (unknown).')
  expect(await verdict('/x/y/x/y/x/y')).toMatch(/^Not fetched: trap: repeating-segments: /)
  expect(
    (await explain(database.pool, { url: 'https://other.example/' }, about)).campaigns[0]?.verdict,
  ).toBe('Not fetched: out-of-scope.')

  const { rows } = await database.pool.query<{ id: number; host_id: number }>(
    `select id, host_id from task where state = 'found'`,
  )
  await putRobots(
    database.pool,
    rows[0]?.host_id ?? 0,
    { state: 'rules', text: 'User-agent: *\nDisallow: /barn', digest: sha256('r'), reason: 'q' },
    2000,
    () => 1000,
  )
  await openTasks(
    database.pool,
    rows.map((row) => row.id),
  )
  expect(await verdict('/barley?a=1&b=2')).toBe('Waits for 2 more of 2 observers.')
  expect(await take('/1', '/2', '/3', '/4', '/5')).toBe(4)
  expect(await verdict('/5')).toBe('Not fetched: budget: the campaign takes 5 pages.')

  const explained = await explain(database.pool, { url: page('/barn?PHPSESSID=x1') }, about)
  expect(explained.robots).toEqual({ allowed: false, line: 2, rule: '/barn' })
  const text = explanationText(explained)
  expect(text).toContain('disallows this address: line 2: /barn')
  expect(text).toContain('one request every 2000 ms (campaigns')
  await expect(explain(database.pool, { url: 'farm' }, about)).rejects.toThrow(/canonical form/)
  await expect(explain(database.pool, { url: page('/'), campaignId: 'no' }, about)).rejects.toThrow(
    /gleaner campaign list/,
  )
})
