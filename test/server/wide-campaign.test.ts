import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import { readConfig } from '../../server/config.ts'
import { domainList } from '../../server/frontier/domain-list.ts'
import { startServer } from '../../server/main.ts'
import { openCampaign, signCampaign } from '../../server/operator.ts'
import { addDomainList } from '../../server/store/domain-list.ts'
import { startContributor } from './contributor.ts'
import { smallCampaign, startSmallSite } from './small-site.ts'

const stops: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

test('a site that is only on the list is crawled by real nodes, each lease with its proof', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-wide-'))
  stops.push(() => rm(folder, { recursive: true, force: true }))
  // As root, PostgreSQL runs as nobody and must pass through.
  await chmod(folder, 0o711)
  const site = await startSmallSite()
  stops.push(() => site.close())
  const server = await startServer(
    readConfig({ data: folder, port: '0', postgres: process.env.GLEANER_POSTGRES }, {}),
    pino({ level: 'silent' }),
    { scopeRules: { loopbackAllowed: false } },
  )
  stops.push(() => server.stop())
  const { database, keys } = server.workspace
  // The site's host lies below a listed domain, far from the edges of the list.
  const others = Array.from({ length: 300 }, (_, n) => `d${String(n).padStart(3, '0')}.example`)
  const list = domainList([...others, 'gleaner.test', 'zoo.example'])
  await database.transaction((tx) => addDomainList(tx, list))
  const terms = smallCampaign(Date.now())
  const manifest = {
    ...terms,
    sites: [],
    wide: {
      root: toBase64Url(list.root),
      size: list.domains.length,
      category: 'fields',
      scheme: 'http' as const,
      requestsPerSecond: 100,
      requestsInFlight: 8,
    },
  }
  await openCampaign(server.workspace, await signCampaign(manifest, keys.campaign))
  const nodes = await Promise.all(
    ['127.0.1.1', '127.0.2.1'].map((address) =>
      startContributor({ joinLink: server.joinLink, folder, address, sitePort: site.port }),
    ),
  )
  for (const node of nodes) stops.push(() => node.stop())

  const urls = async () => {
    const { rows } = await database.pool.query<{ url: string }>(
      `select row_json::jsonb->>'url' as url from record`,
    )
    return rows.map(({ url }) => url).sort()
  }
  await expect.poll(urls, { timeout: 60_000, interval: 100 }).toEqual([...site.published].sort())
  const refused = nodes.flatMap((node) =>
    node.journal().filter(({ result }) => result.kind === 'refused'),
  )
  expect(refused).toEqual([])
  expect(nodes.flatMap(({ problems }) => problems)).toEqual([])
}, 90_000)
