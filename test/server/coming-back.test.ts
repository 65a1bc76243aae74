import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import { readConfig } from '../../server/config.ts'
import { crawlCounts } from '../../server/demo/progress.ts'
import { startServer } from '../../server/main.ts'
import { openCampaign, publishRelease, signCampaign } from '../../server/operator.ts'
import { verifyRelease } from '../../server/publish/verify-release.ts'
import type { Queryable } from '../../server/store/queryable.ts'
import { startContributor } from './contributor.ts'
import { smallCampaign } from './small-site.ts'

const stops: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

/** A site whose owner changes a page and robots.txt, and is busy for a while. */
async function startChangingSite() {
  const state = {
    news: 'barley',
    robots: 'User-agent: *\nDisallow: /barn',
    busy: new Set<string>(),
  }
  const asked: string[] = []
  const server = createServer((request, response) => {
    const path = request.url ?? '/'
    asked.push(path)
    const send = (status: number, type: string, body: string, headers = {}) => {
      response.writeHead(status, { 'content-type': type, ...headers })
      response.end(body)
    }
    if (path === '/robots.txt') return send(200, 'text/plain', state.robots)
    if (state.busy.has(path)) return send(429, 'text/html', 'busy', { 'retry-after': '1' })
    const told = (subject: string) =>
      Array.from(
        { length: 6 },
        (
          _,
          n,
        ) => `<p>In week ${n + 9} the ${subject} of field ${n} was sown by hand, and stood there until the harvest.
It gave ${n * 7 + 11} sacks after so many days of rain, and the miller paid ${n * 5 + 3} coins for the ${subject}.</p>`,
      )
    const links = ['/still', '/news', '/barn'].map((to) => `<li><a href="${to}">${to}</a></li>`)
    const body =
      path === '/'
        ? [...told('index'), ...links]
        : told(path === '/news' ? state.news : path.slice(1))
    send(200, 'text/html; charset=utf-8', `<title>${path}</title>${body.join('\n')}`)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  stops.push(
    () =>
      new Promise((done) => {
        server.closeAllConnections()
        server.close(done)
      }),
  )
  return { state, asked, port: (server.address() as AddressInfo).port }
}

async function start() {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-return-'))
  stops.push(() => rm(folder, { recursive: true, force: true }))
  await chmod(folder, 0o711)
  const site = await startChangingSite()
  const server = await startServer(
    readConfig({ data: folder, port: '0', postgres: process.env.GLEANER_POSTGRES }, {}),
    pino({ level: 'silent' }),
    { scopeRules: { loopbackAllowed: false } },
  )
  stops.push(() => server.stop())
  const validUntil = new Date(Date.now() + 30 * 86_400_000).toISOString()
  const manifest = { ...smallCampaign(Date.now()), validUntil }
  await openCampaign(server.workspace, await signCampaign(manifest, server.workspace.keys.campaign))
  for (const address of ['127.0.61.1', '127.0.62.1']) {
    const node = await startContributor({
      joinLink: server.joinLink,
      folder,
      address,
      sitePort: site.port,
    })
    stops.push(() => node.stop())
  }
  return { site, server, folder, db: server.workspace.database.pool }
}

async function until(what: string, is: () => Promise<boolean>) {
  for (let tries = 0; tries < 1200; tries += 1) {
    if (await is()) return
    await sleep(50)
  }
  throw new Error(`never: ${what}`)
}
const crawled = (db: Queryable) => until('the crawl ends', async () => (await crawlCounts(db)).done)

/** robots.txt is nearly a day old and is read again; then each page's next visit is due. */
async function aDayLater(db: Queryable) {
  await db.query(
    `update host set robots_due_at = now(), robots_at = robots_at - interval '21 hours'`,
  )
  await db.query(`update page set due_at = now() where url like '%/news'`)
  await until('robots.txt is read again', async () => {
    const { rows } = await db.query(
      `select 1 from host where robots_at > now() - interval '1 hour'`,
    )
    return rows.length === 1
  })
  await db.query('update page set due_at = now() where visit = 0 and due_at is not null')
}

test('a page is visited again: unchanged it is a revisit in the archive, changed it is a new row', async () => {
  const { site, server, folder, db } = await start()
  await crawled(db)
  const records = async () =>
    (
      await db.query<{ url: string; duplicate: boolean }>(
        `select row_json::jsonb->>'url' as url, duplicate_of is not null as duplicate
         from record order by url, id`,
      )
    ).rows.map(({ url, duplicate }) => `${new URL(url).pathname}${duplicate ? ' again' : ''}`)
  expect(await records()).toEqual(['/', '/news', '/still'])
  expect(site.asked.filter((path) => path === '/barn')).toEqual([])

  site.state.news = 'rye'
  site.state.robots = 'User-agent: *\nDisallow: /still'
  await aDayLater(db)
  await until('everything is visited twice', async () => {
    const { rows } = await db.query<{ n: number }>(
      `select count(*) as n from task where visit = 1 and kind = 'page' and state = 'closed'`,
    )
    return rows[0]?.n === 3
  })
  await crawled(db)
  // The new robots.txt opens the barn and closes the rest.
  expect(await records()).toEqual(['/', '/ again', '/barn', '/news', '/news', '/still'])
  const { rows: refused } = await db.query<{ reason: string }>(
    `select reason from task where verdict = 'refused'`,
  )
  expect(refused).toEqual([{ reason: 'robots line 2: Disallow: /still' }])
  const { rows: pages } = await db.query(
    `select regexp_replace(url, '.*/', '/') as path, visits, changes, due_at > now() + interval '23 hours' as later
     from page order by path`,
  )
  expect(pages).toEqual([
    { path: '/', visits: 2, changes: 0, later: true },
    { path: '/barn', visits: 1, changes: 0, later: true },
    { path: '/news', visits: 2, changes: 1, later: true },
    { path: '/still', visits: 1, changes: 0, later: null },
  ])

  const published = await publishRelease(server.workspace, {
    campaignId: 'fields',
    folder: join(folder, 'release'),
    name: 'return',
    nowMs: Date.now(),
  })
  expect(published).toMatchObject({ rows: 6, duplicates: 1 })
  const report = await verifyRelease(published.folder, published.verifierKey)
  expect(report.ok).toBe(true)
  const index = await readFile(join(published.folder, 'warc', 'index.cdxj'), 'utf8')
  const revisits = index.split('\n').filter((line) => line.includes('"warc/revisit"'))
  expect(revisits).toHaveLength(1)
  expect(revisits[0]).toContain(`http://fields.gleaner.test/"`)
}, 120_000)

test('a page that answers 429 is left alone for as long as the site asks, and comes back', async () => {
  const { site, db } = await start()
  site.state.busy = new Set(['/still'])
  await until('the page is postponed', async () => {
    const { rows } = await db.query(`select 1 from task where verdict = 'postponed'`)
    return rows.length > 0
  })
  const { rows: hosts } = await db.query(
    `select hold_reason, hold_until > robots_at as held from host`,
  )
  expect(hosts).toEqual([{ hold_reason: 'status 429, Retry-After: 1', held: true }])
  const { rows: page } = await db.query(
    `select failures, due_at > now() + interval '3 minutes' as later from page where url like '%/still'`,
  )
  expect(page).toEqual([{ failures: 1, later: true }])

  site.state.busy.clear()
  await aDayLater(db)
  await until('the page is published', async () => {
    const { rows } = await db.query(`select 1 from record where row_json like '%/still%'`)
    return rows.length > 0
  })
  const { rows: after } = await db.query(
    `select failures, visits from page where url like '%/still'`,
  )
  expect(after).toEqual([{ failures: 0, visits: 1 }])
}, 120_000)
