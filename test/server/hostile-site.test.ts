import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { defaultLimits } from '../../lib/consent/limits.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import type { Row } from '../../lib/protocol/release.ts'
import { readConfig } from '../../server/config.ts'
import { explain } from '../../server/explain.ts'
import { agent, type RunningServer, startServer } from '../../server/main.ts'
import { createNodeHop } from '../../server/node/hop.ts'
import { runNode } from '../../server/node/run-node.ts'
import { checkLedger, openCampaign, signCampaign } from '../../server/operator.ts'
import { ring } from '../../server/store/doorbell.ts'
import { at, type HostileSite, hostOf, type SeenRequest, startHostileSite } from './hostile-site.ts'
import { smallCampaign } from './small-site.ts'

const scopeRules = { loopbackAllowed: false }
const nodeAddresses = ['127.0.71.1', '127.0.72.1', '127.0.73.1']

// One crawl of everything, for all tests together: each waits for its own hosts.
let site: HostileSite
let server: RunningServer
/** Bytes of JavaScript values before the crawl. */
let heapBefore = 0
/** What the server or a node complained of. */
const troubles: string[] = []
const stops: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-hostile-'))
  stops.push(() => rm(folder, { recursive: true, force: true }))
  // As root, PostgreSQL runs as nobody and must pass through.
  await chmod(folder, 0o711)
  site = await startHostileSite()
  stops.push(() => site.close())
  const lines = new Writable({
    write(line, _, done) {
      troubles.push(String(line))
      done()
    },
  })
  server = await startServer(
    readConfig({ data: folder, port: '0', postgres: process.env.GLEANER_POSTGRES }, {}),
    pino({ level: 'warn' }, lines),
    { scopeRules, auditor: { scopeRules: { loopbackAllowed: true }, hostMap: site.hostMap } },
  )
  stops.push(() => server.stop())
  for (const manifest of campaigns()) {
    await openCampaign(
      server.workspace,
      await signCampaign(manifest, server.workspace.keys.campaign),
    )
  }
  for (const address of nodeAddresses) {
    const { hop, close } = createNodeHop({
      userAgent: 'gleaner-test',
      localAddress: address,
      hostMap: site.hostMap,
      loopbackAllowed: true,
    })
    const node = await runNode({
      joinLink: server.joinLink,
      folder: join(folder, address),
      campaigns: 'all',
      act: 'test',
      hop,
      scope: { loopbackAllowed: true },
      limits: { ...defaultLimits, bytesPerDay: 1e10, bytesPerMonth: 1e10, fetchesAtOnce: 8 },
      client: 'gleaner-test',
      localAddress: address,
      log: (event) => {
        if (event.kind === 'problem') troubles.push(`${event.where}: ${event.error}`)
      },
    })
    stops.push(async () => {
      await node.stop()
      await close()
    })
  }
  heapBefore = heapUsed()
}, 120_000)

afterAll(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
}, 60_000)

/** One for each theme, so that budgets and times of one do not bear on another. */
function campaigns(): Campaign[] {
  const campaign = (
    id: string,
    seeds: readonly string[],
    limits: Partial<Campaign['limits']> = {},
  ): Campaign => ({
    ...smallCampaign(Date.now()),
    id,
    sites: [...new Set(seeds.map((seed) => new URL(seed).hostname))].map((host) => ({
      host,
      scheme: 'http',
      pathPrefixes: ['/'],
      requestsPerSecond: 100,
      requestsInFlight: id === 'busy' ? 1 : 8,
    })),
    seeds: [...seeds],
    limits: { pageBytes: 1024 * 1024, pageMs: 20_000, pages: 600, depth: 60, ...limits },
  })
  const homes = (...names: string[]) => names.map((name) => at(name, '/'))
  const robots = ['large', 'line', 'silent', 'sick', 'forbidden', 'moved']
  return [
    campaign('endless', [
      ...homes('calendar', 'deeper', 'session', 'orders'),
      at('session', '/fresh/'),
    ]),
    campaign('crowd', homes('crowd', 'same')),
    campaign('redirects', [...homes('redirects'), at('secrets', '/latest/meta-data/')]),
    campaign(
      'sitemaps',
      [...homes('sitemaps', 'big'), at('sitemaps', '/bomb'), at('feed', '/feed.xml')],
      { pagesPerHost: 12 },
    ),
    campaign(
      'robots',
      [
        ...homes('binary-robots', ...robots.map((name) => `${name}-robots`)),
        ...robots.map((name) => at(`${name}-robots`, '/private/secret')),
      ],
      // What a host that never answers costs.
      { pageMs: 5_000 },
    ),
    campaign('busy', [
      ...homes('busy', 'closed', 'tired'),
      at('busy', '/second'),
      at('tired', '/second'),
    ]),
    campaign('bytes', homes('bytes', 'links')),
    campaign('wishes', [...homes('wishes', 'reserved'), at('reserved', '/reserved/seed')]),
  ]
}

/** Everything that is not done on these hosts, but for what waits for another day. */
async function unfinished(names: readonly string[]): Promise<string[]> {
  const { rows } = await server.workspace.database.pool.query<{ what: string }>(
    `select h.origin || ' has not begun' as what from host h
     where h.origin = any($1::text[]) and not exists (select 1 from task t where t.host_id = h.id)
     union all
     select t.kind || ' ' || t.url || ' is ' || t.state from task t join host h on h.id = t.host_id
     where h.origin = any($1::text[]) and t.state not in ('closed', 'held')
       and not coalesce(h.hold_until > now() and h.in_flight = 0, false)
     union all
     select 'a lease is out for ' || h.origin from lease l join host h on h.id = l.host_id
     where h.origin = any($1::text[]) and l.state = 'live'
     union all
     select a.kind || ' ' || a.target || ' is ' || a.state from auditor_task a
     join host h on h.id = a.host_id
     where h.origin = any($1::text[])
       and (a.state = 'taken' or a.state = 'due' and a.due_at < now() + interval '10 seconds')
       and not coalesce(h.hold_until > now(), false)`,
    [names.map((name) => `http://${hostOf(name)}`)],
  )
  return rows.map(({ what }) => what)
}

/** Generous: all hosts together take less than a minute on two cores with nothing else to do. */
const patienceMs = 150_000

async function atRest(...names: string[]): Promise<void> {
  await eventually(async () => {
    const left = await unfinished(names)
    return left.length === 0 ? null : `still to do: ${left.slice(0, 10).join('; ')}`
  })
}

/** Until nothing is missing. */
async function eventually(missing: () => Promise<string | null>): Promise<void> {
  for (const deadline = Date.now() + patienceMs; ; await sleep(100)) {
    const what = await missing()
    if (what === null) return
    if (Date.now() > deadline) throw new Error(what)
  }
}

interface SeenPage {
  path: string
  state: string
  verdict: string | null
  reason: string | null
}

/** Pages of a host in the frontier, in the order of their paths. */
async function pagesOf(name: string): Promise<SeenPage[]> {
  const { rows } = await server.workspace.database.pool.query<SeenPage>(
    `select substr(t.url, length(h.origin) + 1) as path, t.state, t.verdict, t.reason
     from task t join host h on h.id = t.host_id
     where h.origin = $1 and t.kind = 'page' order by t.url collate "C", t.visit`,
    [`http://${hostOf(name)}`],
  )
  return rows
}

async function hostRow(name: string) {
  const { rows } = await server.workspace.database.pool.query<{
    robots_state: string
    robots_reason: string | null
    robots_failures: number
    holds: number
    hold_reason: string | null
    hold_seconds: number
    pages: number
    refused: number
  }>(
    `select h.robots_state, h.robots_reason, h.robots_failures, h.holds, h.hold_reason,
            extract(epoch from h.hold_until - now())::float8 as hold_seconds, q.pages, q.refused
     from host h join queue q on q.host_id = h.id where h.origin = $1`,
    [`http://${hostOf(name)}`],
  )
  const [row] = rows
  if (!row) throw new Error(`no host ${name}`)
  return row
}

/** Rows in the dataset, by path. */
async function published(name: string): Promise<Map<string, Row>> {
  const { rows } = await server.workspace.database.pool.query<{ row_json: string }>(
    `select row_json from record where starts_with(row_json::jsonb->>'url', $1)
     order by row_json::jsonb->>'url' collate "C"`,
    [at(name, '/')],
  )
  return new Map(
    rows.map(({ row_json }) => {
      const row = JSON.parse(row_json) as Row
      return [row.url.slice(at(name, '').length), row]
    }),
  )
}

const reasons = (pages: readonly SeenPage[]) =>
  Object.fromEntries(pages.map(({ path, reason }) => [path, reason]))

/** Requests for pages, by whomever. */
const asked = (name: string, path?: string) =>
  site.requests.filter(
    (one) => one.host === name && (path === undefined ? isPage(one) : one.path === path),
  )
const isPage = ({ path }: SeenRequest) => !/\.(txt|xml|json|gz)(\?|$)/.test(path)

/** What an operator reads about an address with `gleaner frontier explain`. */
async function verdictOn(name: string, path: string, campaignId: string): Promise<string> {
  const explained = await explain(
    server.workspace.database.pool,
    { url: at(name, path), campaignId },
    { scopeRules, agent, nowMs: Date.now() },
  )
  return explained.campaigns[0]?.verdict ?? ''
}

/** The host's clock stands where it would after its hold; with `robots`, when robots.txt is due. */
async function letTimePass(name: string, { robots }: { robots: boolean }): Promise<void> {
  const { pool } = server.workspace.database
  const origin = `http://${hostOf(name)}`
  await pool.query(
    `update host set next_at = now(), hold_until = least(hold_until, now()),
            robots_due_at = case when $2 then now() else robots_due_at end,
            robots_at = case when $2 then now() - interval '1 day' else robots_at end
     where origin = $1`,
    [origin, robots],
  )
  await pool.query(
    'update queue set due_at = now() from host h where h.id = queue.host_id and h.origin = $1',
    [origin],
  )
  // Nodes were told another time.
  await ring(pool, [{ node: null, notice: 'work' }])
}

function heapUsed(): number {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  gc()
  return process.memoryUsage().heapUsed
}

test('folders in folders, sessions and orders of parameters end, and each page is fetched once', async () => {
  await atRest('deeper', 'session', 'orders')

  const folders = ['/', '/again/', '/again/again/', '/left/right/', '/left/right/left/right/']
  expect([...(await published('deeper')).keys()]).toEqual(folders)
  const refused = (await pagesOf('deeper')).filter(({ verdict }) => verdict === 'refused')
  expect(reasons(refused)).toEqual({
    '/again/again/again/': expect.stringMatching(
      /^trap: repeating-segments: Its path has "again" 3 times in a row/,
    ),
    '/left/right/left/right/left/right/': expect.stringMatching(
      /^trap: repeating-segments: Its path has "left\/right" 3 times in a row/,
    ),
  })
  expect(await verdictOn('deeper', '/again/again/again/', 'endless')).toMatch(
    /^Not fetched: trap: repeating-segments/,
  )

  const sessions = ['/', '/fresh/', '/fresh/times', '/prices', '/times']
  expect([...(await published('session')).keys()]).toEqual(sessions)
  expect(asked('session').filter(({ path }) => /sid|sess|;/i.test(path))).toEqual([])
  expect((await pagesOf('orders')).map(({ verdict }) => verdict)).toEqual(['valid', 'valid'])
  // A quorum of two, and a third where one of them was too slow.
  for (const [name, paths] of [
    ['deeper', folders],
    ['session', sessions],
    ['orders', ['/']],
  ] as const) {
    for (const path of paths) expect(asked(name, path).length, path).toBeLessThanOrEqual(3)
  }
  const lists = asked('orders').filter(({ path }) => path.startsWith('/list?'))
  expect(lists.length).toBeGreaterThanOrEqual(2)
  expect(lists.length).toBeLessThanOrEqual(3)
}, 160_000)

test('of ten thousand links two thousand are read, and of one shape as many as a budget allows', async () => {
  await atRest('crowd')
  const { pages, refused } = await hostRow('crowd')
  // The page itself, and what MAX_LINKS lets in.
  expect(pages + refused).toBe(1 + 2_000)
  expect(pages).toBe(1 + 500)
  const items = (await pagesOf('crowd')).filter(({ path }) => path !== '/')
  const because = (pattern: RegExp) => items.filter(({ reason }) => pattern.test(reason ?? ''))
  expect(because(/^robots line 2: Disallow: \/item\/$/)).toHaveLength(500)
  expect(because(/^trap: shape-budget: 500 addresses like it are known/)).toHaveLength(1_500)
  expect(asked('crowd').every(({ path }) => path === '/')).toBe(true)
}, 160_000)

test('a site that answers everything with one page is found out', async () => {
  await atRest('same')
  const pages = await pagesOf('same')
  const unpublished = (folder: string) =>
    pages.filter((one) => one.path.startsWith(folder) && one.verdict === 'unpublished')
  const gone = unpublished('/gone/')
  const welcome = unpublished('/welcome/')
  // Five addresses with a text that says so are enough, without words twenty.
  expect(gone).toHaveLength(12 - 5)
  expect(welcome).toHaveLength(26 - 20)
  for (const { reason } of gone) expect(reason).toMatch(/^soft 404: It begins with "not found"/)
  for (const { reason } of welcome) expect(reason).toMatch(/^soft 404: 20 other addresses/)
}, 160_000)

test('redirects end, and nothing leads out of the campaign or to an address that is not public', async () => {
  await atRest('redirects', 'secrets')
  expect(reasons(await pagesOf('redirects'))).toEqual({
    '/': null,
    '/at-home': null,
    '/away': 'redirect-refused',
    '/bad': 'redirect-refused',
    '/based': null,
    '/chain/0': 'redirect-limit',
    '/loop/a': 'redirect-limit',
    '/metadata': 'private-address',
    '/refresh': null,
    '/refreshed': null,
    '/secret': 'private-address',
    '/short': at('redirects', '/target'),
    '/target': null,
  })
  expect([...(await published('redirects')).keys()]).toEqual([
    ...['/', '/at-home', '/based', '/refresh', '/refreshed', '/target'],
  ])
  // The address and five redirects.
  expect(asked('redirects', '/chain/5').length).toBeGreaterThan(0)
  expect(asked('redirects', '/chain/6')).toEqual([])
  expect(await verdictOn('outside', '/from-base', 'redirects')).toBe('Not fetched: out-of-scope.')

  // A public name for the address where clouds keep their secrets.
  expect(await hostRow('secrets')).toMatchObject({
    robots_state: 'disallow-all',
    robots_reason: 'private-address',
  })
  expect(await verdictOn('secrets', '/latest/meta-data/', 'redirects')).toBe(
    'Waits for robots.txt (disallow-all, private-address).',
  )
}, 160_000)

test('sitemaps that name themselves, burst or never end are read as far as they are good', async () => {
  await atRest('sitemaps', 'big', 'feed')
  expect([...(await published('sitemaps')).keys()]).toEqual(['/', '/hidden'])
  expect(reasons(await pagesOf('sitemaps'))['/bomb']).toBe('too-large')
  const { rows } = await server.workspace.database.pool.query<{ target: string; reason: string }>(
    `select target, reason from auditor_task where kind = 'sitemap' and state = 'done'`,
  )
  const said = new Map(rows.map(({ target, reason }) => [target, reason]))
  expect(said.get(at('sitemaps', '/index.xml'))).toBe('index of 4 sitemaps')
  expect(said.get(at('sitemaps', '/second.xml'))).toBe('index of 2 sitemaps')
  expect(said.get(at('sitemaps', '/pages.xml.gz'))).toBe('2 addresses, 1 of them new')
  expect(said.get(at('sitemaps', '/bomb.xml.gz'))).toMatch(/only its first 50 MB are read/)
  for (const path of ['/index.xml', '/second.xml', '/pages.xml.gz', '/bomb.xml.gz']) {
    expect(asked('sitemaps', path), path).toHaveLength(1)
  }

  expect(said.get(at('big', '/sitemap.xml'))).toMatch(
    /^50000 addresses, 11 of them new; only the first 50,000 addresses count/,
  )
  expect(asked('big', '/sitemap.xml')).toHaveLength(1)
  const big = await hostRow('big')
  expect(big.pages).toBe(12)
  expect(big.pages + big.refused).toBe(1 + 50_000)
  expect(await verdictOn('big', '/entry/700', 'sitemaps')).toMatch(
    /^Not fetched: budget: the campaign takes 12 pages of a host/,
  )

  expect([...(await published('feed')).keys()].filter((path) => path !== '/')).toEqual([
    ...['/feed.xml', '/one', '/two'],
  ])
  const peak = await auditorPeakBytes()
  // Its process before any work has some 100 MB; the two sitemaps unpacked have 306 MiB.
  if (peak !== null) expect(peak).toBeLessThan(280e6)
}, 160_000)

/** The most memory that the auditor ever had, as Linux counts it; null elsewhere. */
async function auditorPeakBytes(): Promise<number | null> {
  if (process.platform !== 'linux') return null
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    try {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8')
      const status = await readFile(`/proc/${pid}/status`, 'utf8')
      const isOurs = status.includes(`\nPPid:\t${process.pid}\n`)
      const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]
      if (isOurs && command.includes('auditor-process')) return 1024 * Number(kilobytes)
    } catch {
      // A process that has ended meanwhile.
    }
  }
  throw new Error('no auditor runs')
}

test('robots.txt of any size and kind rules its host, and what cannot be read forbids', async () => {
  const readable = ['large-robots', 'line-robots', 'moved-robots']
  await atRest('binary-robots', 'forbidden-robots', 'silent-robots', ...readable)
  for (const name of readable) {
    expect([...(await published(name)).keys()], name).toEqual(['/'])
    expect(reasons(await pagesOf(name)), name).toEqual({
      '/': null,
      '/private/secret': 'robots line 2: Disallow: /private/',
    })
  }
  expect([...(await published('binary-robots')).keys()]).toEqual(['/'])
  // Nodes leave it to the auditor: it lies on a host that nobody has agreed to.
  expect((await hostRow('moved-robots')).robots_reason).toMatch(
    /^status 200, redirected to .*rules-of-another.txt, as the auditor saw$/,
  )
  for (const [name, reason] of [
    ['forbidden-robots', 'status 403'],
    ['silent-robots', 'timeout'],
  ] as const) {
    expect(await hostRow(name)).toMatchObject({
      robots_state: 'disallow-all',
      robots_reason: reason,
    })
    expect(await verdictOn(name, '/', 'robots')).toBe(
      `Waits for robots.txt (disallow-all, ${reason}).`,
    )
    expect(site.requests.filter((one) => one.host === name && one.path !== '/robots.txt')).toEqual(
      [],
    )
  }
}, 160_000)

test('a robots.txt that says 503 for a day keeps everybody out, and is obeyed when it comes back', async () => {
  const name = 'sick-robots'
  // Time is moved in the database: holds end, and robots.txt is due again, as often as in a day.
  for (let failures = 1; failures <= 3; failures++) {
    await eventually(async () => {
      await letTimePass(name, { robots: false })
      const host = await hostRow(name)
      return host.robots_failures >= failures ? null : `it failed ${host.robots_failures} times`
    })
    expect(await hostRow(name)).toMatchObject({
      robots_state: 'disallow-all',
      robots_reason: 'status 503',
    })
    expect(await verdictOn(name, '/', 'robots')).toBe(
      'Waits for robots.txt (disallow-all, status 503).',
    )
    await letTimePass(name, { robots: true })
  }
  expect(asked(name)).toEqual([])
  site.changed.add(name)
  await eventually(async () => {
    await letTimePass(name, { robots: false })
    const { robots_state: state } = await hostRow(name)
    if (state === 'rules') return null
    const { rows } = await server.workspace.database.pool.query(
      `update host set robots_due_at = now()
       where origin = $1 and robots_due_at > now() returning id`,
      [`http://${hostOf(name)}`],
    )
    return `robots.txt is ${state}${rows.length > 0 ? ', and asked for again' : ''}`
  })
  await atRest(name)
  expect([...(await published(name)).keys()]).toEqual(['/'])
  expect(reasons(await pagesOf(name))['/private/secret']).toBe('robots line 2: Disallow: /private/')
}, 160_000)

test('whoever says “too many requests” is asked once, and nothing is lost', async () => {
  await atRest('busy', 'closed')
  expect(site.requests.filter(({ host }) => host === 'closed')).toHaveLength(1)
  const refusals = asked('busy')
  expect(refusals).toHaveLength(1)
  for (const name of ['busy', 'closed']) {
    const host = await hostRow(name)
    expect(host).toMatchObject({ holds: 1, hold_reason: 'status 429, Retry-After: 3600' })
    expect(host.hold_seconds).toBeGreaterThan(3_000)
  }
  const [first] = refusals
  const other = first?.path === '/' ? '/second' : '/'
  expect(await verdictOn('busy', first?.path ?? '', 'busy')).toMatch(
    /^Fetched, postponed \(status 429\)\. It is visited again after /,
  )
  expect(await verdictOn('busy', other, 'busy')).toMatch(
    /^Waits: the host is left alone until .* \(status 429, Retry-After: 3600\)\.$/,
  )
  expect(await published('busy')).toEqual(new Map())
}, 160_000)

test('wrong charsets are read alike by node and server, and what is no page by its header is not read', async () => {
  await atRest('bytes')
  const rows = await published('bytes')
  expect(reasons(await pagesOf('bytes'))).toEqual({
    '/': null,
    '/as-1251': null,
    '/as-sjis': 'undecodable',
    '/cut': null,
    '/film': 'unsupported-type',
    '/image': 'undecodable',
    '/no-such-label': 'undecodable',
    '/picture.png': 'unsupported-type',
    '/with-mark': null,
  })
  // Two nodes and the server found the same sentences: nothing was taken for a lie.
  for (const [path, row] of rows) expect(row.grade, path).toBe('exact')
  const { rows: outcomes } = await server.workspace.database.pool.query(
    `select o.verdict from outcome o join lease l on l.id = o.lease_id join host h on h.id = l.host_id
     where h.origin = $1 and o.verdict in ('invalid', 'divergent')`,
    [`http://${hostOf('bytes')}`],
  )
  expect(outcomes).toEqual([])
  // A byte order mark says more than a label.
  expect(rows.get('/with-mark')?.title).toBe('Поле')
  // UTF-8's octets, read by the table of windows-1251.
  expect(rows.get('/as-1251')?.title).toBe('РџРѕР»Рµ')
  expect(rows.get('/cut')?.title).toBe('M\ufffdller')

  const films = asked('bytes', '/film')
  expect(films.length).toBeGreaterThanOrEqual(2)
  for (const { isWhole, sentBytes } of films) {
    expect(isWhole).toBe(false)
    // Of 256: as much as sockets took before the other side had read the header.
    expect(sentBytes).toBeLessThan(32 * 1024 * 1024)
  }
}, 160_000)

test('links as real pages have them do no harm', async () => {
  await atRest('links')
  const pages = await pagesOf('links')
  expect(pages.map(({ path }) => path)).toEqual([
    ...['/', '/backslash', '/caf%C3%A9?q=a%20b', '/good', '/with%20spaces'],
  ])
  expect(pages.map(({ verdict }) => verdict)).toEqual(pages.map(() => 'valid'))
  expect(await verdictOn('links', '/good', 'bytes')).toMatch(/^Fetched, valid\./)
}, 160_000)

test('what a site wishes is heeded: in no index, no further, and no mining', async () => {
  await atRest('wishes', 'reserved')
  expect(reasons(await pagesOf('wishes'))).toEqual({
    '/': null,
    '/meta-nofollow': null,
    '/nofollow': null,
    '/noindex': 'use: noindex in header x-robots-tag',
    '/said-to-us': 'use: noindex in header x-robots-tag',
  })
  expect([...(await published('wishes')).keys()]).toEqual(['/', '/meta-nofollow', '/nofollow'])

  // A seed may be fetched before the auditor has read the reservation. It is not published.
  const reservation = 'use: tdm-reservation=1 in /.well-known/tdmrep.json'
  expect(reasons(await pagesOf('reserved'))['/reserved/seed']).toBe(reservation)
  expect([...(await published('reserved')).keys()]).toEqual(['/'])
  // The front page is visited again, today instead of next week, and has grown.
  site.changed.add('reserved')
  await server.workspace.database.pool.query('update page set due_at = now() where url = $1', [
    at('reserved', '/'),
  ])
  await eventually(async () =>
    reasons(await pagesOf('reserved'))['/free'] === undefined ? 'the new link is not found' : null,
  )
  await atRest('reserved')
  expect(reasons(await pagesOf('reserved'))['/reserved/new']).toBe(reservation)
  expect(asked('reserved', '/reserved/new')).toEqual([])
  expect((await published('reserved')).has('/free')).toBe(true)
}, 160_000)

test('calendars end two years ahead or two dozen months along, whichever comes first', async () => {
  await atRest('calendar')
  const refused = (await pagesOf('calendar')).filter(({ verdict }) => verdict === 'refused')
  // One at the end of each way: back, forth, and forth by days.
  expect(refused).toHaveLength(3)
  for (const { reason } of refused) expect(reason).toMatch(/^trap: calendar: It names \d{4}-\d\d/)
  expect(await verdictOn('calendar', refused[0]?.path ?? '', 'endless')).toMatch(
    /^Not fetched: trap: calendar: /,
  )
  // Three ways of at most 25 pages and the front page, each fetched twice.
  expect(asked('calendar').length).toBeLessThanOrEqual(2 * (3 * 25 + 1) + 5)
}, 160_000)

test('a host that says 503 is left alone for half a minute, by everybody, and asked again then', async () => {
  await eventually(async () => {
    const pages = await pagesOf('tired')
    const isDone = pages.length === 2 && pages.every(({ verdict }) => verdict === 'postponed')
    return isDone ? null : `pages: ${JSON.stringify(pages)}`
  })
  expect(reasons(await pagesOf('tired'))).toEqual({ '/': 'status 503', '/second': 'status 503' })
  expect((await hostRow('tired')).hold_reason).toBe('status 503')
  const requests = site.requests.filter(({ host }) => host === 'tired')
  const first = requests.findIndex(({ status }) => status === 503)
  const [said, next] = requests.slice(first)
  // From the moment on that the server heard of it: the first backoff of politeness.ts.
  expect((next?.askedMs ?? 0) - (said?.endedMs ?? 0)).toBeGreaterThan(29_000)
}, 160_000)

test('the crawl ends, with a reason for everything, nothing asked that was forbidden, and no heap grown', async () => {
  const { database } = server.workspace
  const { rows: hosts } = await database.pool.query<{ origin: string }>('select origin from host')
  const names = hosts.map(({ origin }) => new URL(origin).hostname.replace('.hostile.test', ''))
  await atRest(...names)
  const { rows: silent } = await database.pool.query(
    `select url, verdict from task
     where state = 'closed' and verdict <> 'valid' and coalesce(reason, '') = ''`,
  )
  expect(silent).toEqual([])
  const { rows: errands } = await database.pool.query(
    `select target from auditor_task where state in ('done', 'failed') and coalesce(reason, '') = ''`,
  )
  expect(errands).toEqual([])
  expect(await checkLedger(database)).toMatchObject({ balanced: true })
  expect(troubles).toEqual([])

  expect(site.requests.filter(({ path }) => path.startsWith('/private/'))).toEqual([])
  const strangers = site.requests.filter(({ host }) => host === 'outside')
  expect(strangers.map(({ path }) => path)).toEqual(['/rules-of-another.txt'])
  for (const name of names) {
    const all = site.requests.filter(({ host }) => host === name)
    const [fromElsewhere] = name === 'moved-robots' ? strangers : []
    const ruled =
      fromElsewhere ?? all.find(({ path, status }) => path === '/robots.txt' && status === 200)
    const early = all.filter(
      ({ path, askedMs }) =>
        path !== '/robots.txt' && askedMs < (ruled?.endedMs ?? Number.POSITIVE_INFINITY),
    )
    expect(early, name).toEqual([])
  }
  // What was read has a hundred times as many bytes; the log of requests and the pools stay.
  expect(heapUsed() - heapBefore).toBeLessThan(60e6)
}, 160_000)
