import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import type { Row } from '../../lib/protocol/release.ts'
import { readConfig } from '../../server/config.ts'
import { startServer } from '../../server/main.ts'
import { openCampaign, signCampaign } from '../../server/operator.ts'
import { startContributor } from './contributor.ts'
import { smallCampaign } from './small-site.ts'

const stops: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

const robots = `User-agent: *
Allow: /
Content-Usage: search=y
Content-Usage: /kept/ train-ai=n
Content-Signal: ai-input=no
`
type Headers = Record<string, string>
/** What the site says of each page: in its head, and in headers by how often it was asked for. */
const said: Readonly<Record<string, { head?: string; headers?: (asked: number) => Headers }>> = {
  '/': {},
  '/meta': { head: '<meta name=robots content=noai>' },
  '/header': { headers: () => ({ 'content-usage': 'train-ai=n' }) },
  '/once': {
    headers: (asked): Headers => (asked === 1 ? { 'content-signal': 'ai-train=no' } : {}),
  },
  '/hidden': { headers: () => ({ 'x-robots-tag': 'gleaner: noindex' }) },
  '/others': { head: '<meta name=otherbot content=noai>' },
  '/reserved': { headers: () => ({ 'tdm-reservation': '1' }) },
  '/lifted': {
    head: '<meta name=tdm-reservation content=0>',
    headers: () => ({ 'tdm-reservation': '1' }),
  },
  '/kept/for-people': {},
}

test('pages that may not train models are not fetched for it, or not published, and rows say what was said', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-use-'))
  stops.push(() => rm(folder, { recursive: true, force: true }))
  // As root, PostgreSQL runs as nobody and must pass through.
  await chmod(folder, 0o711)
  const asked = new Map<string, number>()
  const site = createServer((request, response) => {
    const path = request.url ?? ''
    const times = (asked.get(path) ?? 0) + 1
    asked.set(path, times)
    if (path === '/robots.txt') {
      response.writeHead(200, { 'content-type': 'text/plain' }).end(robots)
      return
    }
    const page = said[path]
    const headers = { 'content-type': 'text/html', ...page?.headers?.(times) }
    response.writeHead(page ? 200 : 404, headers).end(htmlOf(path, page?.head))
  })
  await new Promise<void>((done) => site.listen(0, '127.0.0.1', done))
  stops.push(async () => {
    site.closeAllConnections()
    site.close()
  })
  const server = await startServer(
    readConfig({ data: folder, port: '0', postgres: process.env.GLEANER_POSTGRES }, {}),
    pino({ level: 'silent' }),
    { scopeRules: { loopbackAllowed: false } },
  )
  stops.push(() => server.stop())
  const { database, keys } = server.workspace
  const manifest = { ...smallCampaign(Date.now()), use: 'ai-training' as const }
  await openCampaign(server.workspace, await signCampaign(manifest, keys.campaign))
  for (const address of ['127.0.61.1', '127.0.62.1']) {
    const sitePort = (site.address() as AddressInfo).port
    const node = await startContributor({ joinLink: server.joinLink, folder, address, sitePort })
    stops.push(() => node.stop())
  }
  for (const deadline = Date.now() + 60_000; ; await sleep(50)) {
    const { rows } = await database.pool.query<{ pages: number; open: number }>(
      `select count(*) filter (where kind = 'page') as pages,
              count(*) filter (where state <> 'closed') as open from task`,
    )
    const [counts] = rows
    if (counts && counts.pages > 0 && counts.open === 0) break
    if (Date.now() > deadline) throw new Error(`still crawling: ${JSON.stringify(counts)}`)
  }

  const pathOf = ({ url }: { url: string }) => new URL(url).pathname
  const { rows: tasks } = await database.pool.query<{ url: string; reason: string }>(
    `select url, reason from task where kind = 'page' and verdict <> 'valid' order by url`,
  )
  expect(Object.fromEntries(tasks.map((task) => [pathOf(task), task.reason]))).toEqual({
    '/header': 'use: train-ai=n in header content-usage',
    '/hidden': 'use: noindex in header x-robots-tag',
    '/kept/for-people': 'use: train-ai=n in robots.txt line 4',
    '/meta': 'use: noai in meta robots',
    '/once': 'use: ai-train=no in header content-signal',
    '/reserved': 'use: tdm-reservation=1 in header tdm-reservation',
  })
  expect(asked.has('/kept/for-people')).toBe(false)

  const { rows: records } = await database.pool.query<{ row_json: string }>(
    'select row_json from record',
  )
  const rows = records.map(({ row_json }) => JSON.parse(row_json) as Row)
  const silent = { aiInput: 'n', search: 'y', tdm: 'unknown', train: 'unknown' }
  expect(Object.fromEntries(rows.map((row) => [pathOf(row), row.use]))).toEqual({
    '/': silent,
    '/others': silent,
    '/lifted': { ...silent, tdm: 'y' },
  })
  expect(rows.find((row) => pathOf(row) === '/lifted')?.signals).toEqual([
    { source: 'header', name: 'tdm-reservation', value: '1' },
    { source: 'meta', name: 'tdm-reservation', value: '0' },
    { source: 'robots', name: 'content-usage', value: 'search=y' },
    { source: 'robots', name: 'content-signal', value: 'ai-input=no' },
  ])
  // Whoever saw what is not to be published was not wrong.
  const { rows: outcomes } = await database.pool.query<{ verdict: string }>(
    `select distinct o.verdict from outcome o join lease l on l.id = o.lease_id
     join task t on t.id = l.task_id where t.verdict = 'unpublished'`,
  )
  expect(outcomes).toEqual([{ verdict: 'unpublished' }])
}, 90_000)

function htmlOf(path: string, head = ''): string {
  const text = `The page ${path} is about barley, and long enough to be read as running text. `
  const links = Object.keys(said).map((to) => `<a href="${to}">${to}</a>`)
  return `<!doctype html><html lang=en><head><title>Barley</title>${head}</head><body>
    <main><p>${text.repeat(5)}</p></main><nav>${links.join(' ')}</nav></body></html>`
}
