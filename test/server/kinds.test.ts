import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
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

const running = 'This is a paragraph about barley that is long enough to be read as running text. '
const document = (version: string) => `%PDF-${version}\n${'stream\n'.repeat(100)}%%EOF\n`
const html = (body: string) => `<!doctype html><html lang=en><title>Barley</title>${body}`

/** What the site serves, by path: media type and body. */
const served: Readonly<Record<string, readonly [type: string, body: string]>> = {
  '/robots.txt': [
    'text/plain',
    `User-agent: *\nDisallow: /barn/\n${'# a comment\n'.repeat(450_000)}Disallow: /\n`,
  ],
  '/': [
    'text/html',
    html(`<link rel=alternate type=application/rss+xml href=/feed.xml><meta http-equiv=refresh content="9;url=/moved">
      <p>${running.repeat(5)}</p><a href=/manual.pdf>1</a><a href=/other.pdf>2</a>
      <a href=/data.json>3</a><a href=/picture.png>4</a><a href=/barn/secret>5</a>`),
  ],
  '/moved': ['text/html', html(`<p>${running.repeat(4)}</p>`)],
  '/feed.xml': [
    'application/rss+xml',
    `<rss version="2.0"><channel><title>News of barley</title><link>/</link>
     <item><title>Malt</title><link>/malt</link><description>It germinates.</description></item></channel></rss>`,
  ],
  '/malt': ['text/html', html(`<h1>Malt</h1><p>${running.repeat(6)}</p>`)],
  '/manual.pdf': ['application/pdf', document('1.4')],
  '/other.pdf': ['application/pdf', document('1.7')],
  '/data.json': ['application/json', '{"barley":1}'],
  '/picture.png': ['image/png', 'PNG'],
}

test('a campaign for pages, feeds and PDFs gets these, found where they are named, and nothing else', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-kinds-'))
  stops.push(() => rm(folder, { recursive: true, force: true }))
  // As root, PostgreSQL runs as nobody and must pass through.
  await chmod(folder, 0o711)
  const asked = new Set<string>()
  const site = createServer((request, response) => {
    const path = request.url ?? ''
    asked.add(path)
    const [type, body] = served[path] ?? ['text/html', html('<h1>Not found</h1>')]
    response.writeHead(path in served ? 200 : 404, { 'content-type': type }).end(body)
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
  // Pages of at most 64 KiB: robots.txt has its 500 all the same.
  const manifest = {
    ...smallCampaign(Date.now()),
    types: ['html' as const, 'feed' as const, 'pdf' as const],
  }
  await openCampaign(server.workspace, await signCampaign(manifest, keys.campaign))
  for (const address of ['127.0.61.1', '127.0.62.1']) {
    const sitePort = (site.address() as AddressInfo).port
    const node = await startContributor({ joinLink: server.joinLink, folder, address, sitePort })
    stops.push(() => node.stop())
  }
  for (const deadline = Date.now() + 60_000; ; await sleep(50)) {
    // What a page links is open before the page is closed. The auditor is not here: its errands stay.
    const { rows } = await database.pool.query<{ pages: number; open: number }>(
      `select count(*) filter (where kind = 'page') as pages,
              count(*) filter (where state <> 'closed') as open from task`,
    )
    const [counts] = rows
    if (counts && counts.pages > 0 && counts.open === 0) break
    if (Date.now() > deadline) throw new Error(`still crawling: ${JSON.stringify(counts)}`)
  }

  const { rows: records } = await database.pool.query<{ row_json: string }>(
    'select row_json from record',
  )
  const rows = records.map(({ row_json }) => JSON.parse(row_json) as Row)
  const pathOf = ({ url }: { url: string }) => new URL(url).pathname
  const published = ['/', '/feed.xml', '/malt', '/manual.pdf', '/moved', '/other.pdf']
  expect(rows.map(pathOf).sort()).toEqual(published)
  for (const path of ['/manual.pdf', '/other.pdf']) {
    expect(rows.find((row) => pathOf(row) === path)).toMatchObject({
      type: 'application/pdf',
      grade: 'exact',
      payload: toBase64Url(sha256(served[path]?.[1] ?? '')),
      text: toBase64Url(sha256('')),
    })
  }
  const { rows: tasks } = await database.pool.query<{ url: string; reason: string }>(
    `select url, reason from task where verdict = 'unpublished' order by url`,
  )
  expect(tasks.map((task) => [pathOf(task), task.reason])).toEqual([
    ['/data.json', 'unsupported-type'],
    ['/picture.png', 'unsupported-type'],
  ])
  expect(asked.has('/barn/secret')).toBe(false)
  expect([...asked].every((path) => path in served)).toBe(true)
}, 90_000)
