import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { canonicalUrl } from '../../../lib/capture/canonical-url.ts'
import { defaultLimits } from '../../../lib/consent/limits.ts'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import { createNodeHop } from '../../../server/node/hop.ts'
import { runNode } from '../../../server/node/run-node.ts'
import { type Child, startChild } from './child.ts'
import type { ServerAsk, ServerReady } from './server-process.ts'
import type { SiteAsk, Visits } from './site-process.ts'

/** Manuals that Debian ships as plain folders of HTML. */
const corpora = [
  {
    name: 'postgresql-doc-15',
    folder: '/usr/share/doc/postgresql-doc-15/html',
    host: 'postgresql.gleaner.test',
  },
  {
    name: 'python3.11-doc',
    folder: '/usr/share/doc/python3.11/html',
    host: 'python.gleaner.test',
  },
] as const
type Corpus = (typeof corpora)[number]

/** One more than the quorum, so that somebody is there when two differ. */
const observers = ['127.0.21.1', '127.0.22.1', '127.0.23.1'] as const
/** Both manuals under quorum took 3 to 5 minutes on two cores that others used too. */
const politeWithinMs = 7 * 60_000
const quickWithinMs = 120_000
/** Scrapy's own bound on requests to one domain, and here ours. */
const inFlight = 8

export interface BesideScrapy {
  corpora: CorpusFigures[]
  observers: number
  quorum: number
  delayMs: number
  scrapyVersion: string
}

export interface CorpusFigures {
  corpus: string
  scrapyPages: number
  pages: number
  /** Canonical addresses of pages that only one of the two found. */
  onlyScrapy: string[]
  onlyOurs: string[]
  scrapyRequests: number
  /** Of the observer that made the most. */
  requestsPerObserver: number
  requestsByObserver: number[]
  /** From other addresses: the auditor. */
  otherRequests: number
  finished: boolean
  /** What pages came to. */
  verdicts: Record<string, number>
  /** Requests that arrived sooner after another than the delay, and the shortest gap. */
  ourGaps: Gaps
  scrapyGaps: Gaps
  mostInFlight: number
  politeSeconds: number
  scrapyPoliteSeconds: number
  /** With delay zero, over the first pages of the manual. */
  pagesPerSecond: number
  scrapyPagesPerSecond: number
  pagesPerSecondVsScrapy: number
  quickPages: number
}

interface Gaps {
  sooner: number
  shortestMs: number | null
}

/** Why this part cannot run here; null when it can. Nothing is installed. */
export async function missingForScrapy(): Promise<string | null> {
  const missing: string[] = corpora
    .filter(({ folder }) => !existsSync(folder))
    .map(({ name }) => name)
  if ((await pythonWithScrapy()) === null) missing.unshift('python3-scrapy')
  if (missing.length === 0) return null
  return `Debian packages are missing; install them with: apt-get install --no-install-recommends ${missing.join(' ')}`
}

/**
 * The same two manuals, crawled by Scrapy and by us: first politely and whole, both manuals at
 * once; then without delay, one after another, as far as `quickPages`.
 */
export async function besideScrapy(options: {
  folder: string
  delayMs: number
  quickPages: number
  say: (text: string) => void
  /** What to end when the bench is stopped. */
  onStop: (stop: () => Promise<unknown>) => void
}): Promise<BesideScrapy> {
  const { folder, delayMs, quickPages, say, onStop } = options
  const python = await pythonWithScrapy()
  if (python === null) throw new Error('no python3 with Scrapy')
  const sites: Site[] = []
  for (const corpus of corpora) {
    const process = await startChild<SiteAsk>('./site-process.ts', [corpus.folder])
    onStop(() => process.stop())
    sites.push({ ...corpus, process, port: process.ready as number })
  }

  say(`Scrapy ${python.version}, one request each ${delayMs} ms, both manuals …`)
  const polite = await Promise.all(
    sites.map((site) =>
      scrapy({ python: python.command, site, folder, delayMs, pages: null, onStop }),
    ),
  )
  say(`${polite.map((one) => `${one.pages.size} pages, ${one.requests} requests`).join('; ')}`)
  const scrapyQuick: ScrapyCrawl[] = []
  for (const site of sites) {
    scrapyQuick.push(
      await scrapy({
        python: python.command,
        site,
        folder,
        delayMs: 0,
        pages: quickPages,
        onStop,
      }),
    )
  }

  const server = await startChild<ServerAsk>('./server-process.ts', [join(folder, 'crawler')])
  onStop(() => server.stop())
  const { joinLink, postgres } = server.ready as ServerReady
  const database = new pg.Pool({ ...postgres?.connection, max: 2 })
  // Told by the query that fails; without a listener it would end the bench.
  database.on('error', () => {})
  onStop(() => database.end())
  const network = { server, joinLink, database, folder, say, onStop }

  say('Ours, with the same delay, both manuals …')
  const whole = await crawl(network, {
    id: 'polite',
    sites,
    hostOf: (site) => site.host,
    requestsPerSecond: 1000 / delayMs,
    pages: 100_000,
    withinMs: politeWithinMs,
  })
  const quick: Crawl[] = []
  for (const site of sites) {
    say(`Ours, without delay, ${quickPages} addresses of ${site.name} …`)
    quick.push(
      await crawl(network, {
        id: `quick-${site.host.split('.')[0]}`,
        sites: [site],
        // A host of its own: the first campaign's clock holds for that one's.
        hostOf: ({ host }) => `quick-${host}`,
        requestsPerSecond: 100,
        pages: quickPages,
        withinMs: quickWithinMs,
      }),
    )
  }

  return {
    corpora: sites.map((site, i) => {
      const theirs = polite[i] as ScrapyCrawl
      const theirQuick = scrapyQuick[i] as ScrapyCrawl
      const ourQuick = quick[i] as Crawl
      const visits = whole.visits[i] as Visits
      const prefix = `http://${site.host}/`
      const ours = new Set([...whole.pages].filter((url) => url.startsWith(prefix)))
      const byObserver = observers.map((address) => visits.byAddress[address] ?? 0)
      const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0)
      return {
        corpus: site.name,
        scrapyPages: theirs.pages.size,
        pages: ours.size,
        onlyScrapy: [...theirs.pages].filter((url) => !ours.has(url)),
        onlyOurs: [...ours].filter((url) => !theirs.pages.has(url)),
        scrapyRequests: theirs.requests,
        requestsPerObserver: Math.max(...byObserver),
        requestsByObserver: byObserver,
        otherRequests: sum(Object.values(visits.byAddress)) - sum(byObserver),
        finished: whole.finished,
        verdicts: whole.verdicts.get(site.host) ?? {},
        ourGaps: gaps(visits.arrivalsMs, delayMs),
        scrapyGaps: gaps(theirs.visits.arrivalsMs, delayMs),
        mostInFlight: visits.mostInFlight,
        politeSeconds: round(whole.seconds),
        scrapyPoliteSeconds: round(theirs.seconds),
        pagesPerSecond: round(ourQuick.pages.size / ourQuick.seconds),
        scrapyPagesPerSecond: round(theirQuick.pages.size / theirQuick.seconds),
        pagesPerSecondVsScrapy: round(
          ourQuick.pages.size / ourQuick.seconds / (theirQuick.pages.size / theirQuick.seconds),
        ),
        quickPages: ourQuick.pages.size,
      }
    }),
    observers: observers.length,
    quorum: 2,
    delayMs,
    scrapyVersion: python.version,
  }
}

type Site = Corpus & { process: Child<SiteAsk>; port: number }

interface ScrapyCrawl {
  /** Canonical, under the name that the site has for us. */
  pages: Set<string>
  requests: number
  visits: Visits
  /** From the first request to the last page. */
  seconds: number
}

async function scrapy(about: {
  python: string
  site: Site
  folder: string
  delayMs: number
  pages: number | null
  onStop: (stop: () => Promise<unknown>) => void
}): Promise<ScrapyCrawl> {
  const { site, delayMs, pages } = about
  await site.process.ask({ kind: 'visits' })
  const file = join(about.folder, `scrapy-${site.name}-${delayMs}.jsonl`)
  const origin = `http://127.0.0.1:${site.port}`
  const settings = [
    'ROBOTSTXT_OBEY=True',
    `DOWNLOAD_DELAY=${delayMs / 1000}`,
    // Quiet, and no port of its own: nothing of how it crawls.
    'LOG_LEVEL=ERROR',
    'TELNETCONSOLE_ENABLED=0',
    ...(pages === null ? [] : [`CLOSESPIDER_ITEMCOUNT=${pages}`]),
  ]
  const spider = fileURLToPath(new URL('./spider.py', import.meta.url))
  const child = spawn(
    about.python,
    [
      ...['-m', 'scrapy', 'runspider', spider, '-a', `start=${origin}/index.html`, '-o', file],
      ...settings.flatMap((setting) => ['-s', setting]),
    ],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
      cwd: about.folder,
      // Else it leaves a __pycache__ beside the spider.
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' },
    },
  )
  about.onStop(async () => child.kill('SIGKILL'))
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', resolve)
  })
  if (code !== 0) throw new Error(`Scrapy ended with ${code}`)
  const visits = await site.process.ask<Visits>({ kind: 'visits' })
  const items = (await readFile(file, 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { url: string; at: number })
  const lastMs = Math.max(...items.map(({ at }) => at * 1000))
  return {
    pages: new Set(items.map(({ url }) => canonical(url.replace(origin, `http://${site.host}`)))),
    requests: visits.arrivalsMs.length,
    visits,
    seconds: (lastMs - (visits.arrivalsMs[0] ?? lastMs)) / 1000,
  }
}

interface Crawl {
  /** Addresses that answered with a page, canonical. */
  pages: Set<string>
  /** By host. */
  verdicts: Map<string, Record<string, number>>
  /** In the order of the sites. */
  visits: Visits[]
  finished: boolean
  /** From the first lease to the last decision, by the database's clock. */
  seconds: number
}

async function crawl(
  network: {
    server: Child<ServerAsk>
    joinLink: string
    database: pg.Pool
    folder: string
    say: (text: string) => void
    onStop: (stop: () => Promise<unknown>) => void
  },
  about: {
    id: string
    sites: readonly Site[]
    hostOf: (site: Site) => string
    requestsPerSecond: number
    pages: number
    withinMs: number
  },
): Promise<Crawl> {
  const { database, say } = network
  const { id, sites, hostOf } = about
  for (const site of sites) await site.process.ask({ kind: 'visits' })
  const manifest = manifestOf(about)
  const digest = Buffer.from(
    await network.server.ask<string>({ kind: 'open', manifest }),
    'base64url',
  )
  const hostMap = Object.fromEntries(
    sites.map((site) => [hostOf(site), `127.0.0.1:${site.port}`] as const),
  )
  const fleet = await Promise.all(
    observers.map(async (localAddress) => {
      const hop = createNodeHop({
        userAgent: 'Gleaner/0.1.0 (bench)',
        localAddress,
        hostMap,
        loopbackAllowed: true,
      })
      const folder = join(network.folder, `${id}-${localAddress}`)
      await mkdir(folder)
      const node = await runNode({
        joinLink: network.joinLink,
        folder,
        campaigns: [id],
        act: 'bench',
        hop: hop.hop,
        scope: { loopbackAllowed: true },
        // The caps of a day would end a crawl of two manuals; eight at once as a browser bears.
        limits: { ...defaultLimits, bytesPerDay: 1e12, bytesPerMonth: 1e12, fetchesAtOnce: 8 },
        client: 'Gleaner/0.1.0 (bench)',
        localAddress,
        log: (event) => {
          if (event.kind === 'problem') console.error(`${localAddress}, ${event.where}:`, event)
        },
      })
      const stop = async () => {
        await node.stop()
        await hop.close()
      }
      network.onStop(stop)
      return stop
    }),
  )
  const deadline = Date.now() + about.withinMs
  let finished = false
  let saidMs = 0
  while (!finished && Date.now() < deadline) {
    await sleep(500)
    const { rows } = await database.query<{ open: string; closed: string }>(
      `select count(*) filter (where state = 'closed' and kind = 'page') as closed,
              count(*) filter (where state <> 'closed') as open from task where campaign = $1`,
      [digest],
    )
    const { open, closed } = rows[0] ?? { open: '1', closed: '0' }
    finished = Number(open) === 0 && Number(closed) > 0
    if (Date.now() - saidMs > 15_000) {
      say(`  ${closed} closed, ${open} open`)
      saidMs = Date.now()
    }
  }
  await Promise.all(fleet.map((stop) => stop()))
  const found = await database.query<{ url: string }>(
    `select distinct o.statement::jsonb->>'url' as url from task t
     join observation o on o.task_id = t.id
     where t.campaign = $1 and t.kind = 'page' and t.state = 'closed'
       and o.statement::jsonb->>'outcome' = 'fetched' and o.statement::jsonb->>'status' = '200'
       and o.statement::jsonb->>'type' in ('text/html', 'application/xhtml+xml')`,
    [digest],
  )
  const verdicts = await database.query<{ host: string; verdict: string; pages: string }>(
    `select split_part(url, '/', 3) as host,
            coalesce(verdict || coalesce(': ' || reason, ''), 'unfinished') as verdict,
            count(*) as pages
     from task where campaign = $1 and kind = 'page' group by 1, 2 order by 1, 2`,
    [digest],
  )
  const took = await database.query<{ seconds: number }>(
    `select extract(epoch from
       (select max(closed_at) from task where campaign = $1) -
       (select min(l.issued_at) from lease l join task t on t.id = l.task_id where t.campaign = $1)
     )::float8 as seconds`,
    [digest],
  )
  const byHost = new Map<string, Record<string, number>>()
  for (const { host, verdict, pages } of verdicts.rows) {
    byHost.set(host, { ...byHost.get(host), [verdict]: Number(pages) })
  }
  return {
    pages: new Set(found.rows.map(({ url }) => canonical(url))),
    verdicts: byHost,
    visits: await Promise.all(sites.map((site) => site.process.ask<Visits>({ kind: 'visits' }))),
    finished,
    seconds: took.rows[0]?.seconds ?? Number.NaN,
  }
}

function manifestOf(about: {
  id: string
  sites: readonly Site[]
  hostOf: (site: Site) => string
  requestsPerSecond: number
  pages: number
}): Campaign {
  const nowMs = Date.now()
  return {
    version: 1,
    id: about.id,
    title: `Bench ${about.id}`,
    purpose: 'Finds the pages of a manual, beside another crawler.',
    operator: { name: 'Bench', contact: 'operator@example.org' },
    use: 'research',
    sites: about.sites.map((site) => ({
      host: about.hostOf(site),
      scheme: 'http',
      pathPrefixes: ['/'],
      requestsPerSecond: about.requestsPerSecond,
      requestsInFlight: inFlight,
    })),
    types: ['html'],
    canaryHosts: [],
    seeds: about.sites.map((site) => `http://${about.hostOf(site)}/index.html`),
    // An index of a manual is several megabytes; Scrapy follows links without a limit of depth.
    limits: { pageBytes: 16 * 1024 * 1024, pageMs: 20_000, pages: about.pages, depth: 1000 },
    retentionDays: 1,
    quorum: 2,
    points: { perPage: 10, perDuplicate: 1, perPayload: 2, budget: 10_000_000, funding: 'subsidy' },
    validFrom: new Date(nowMs - 60_000).toISOString(),
    validUntil: new Date(nowMs + 86_400_000).toISOString(),
  }
}

/** The first python3 that has Scrapy: the one in the path may be another than Debian's. */
async function pythonWithScrapy(): Promise<{ command: string; version: string } | null> {
  for (const command of ['python3', '/usr/bin/python3']) {
    const asked = await promisify(execFile)(command, ['-m', 'scrapy', 'version']).catch(() => null)
    const version = /^Scrapy (\S+)/.exec(asked?.stdout ?? '')?.[1]
    if (version !== undefined) return { command, version }
  }
  return null
}

function canonical(url: string): string {
  const read = canonicalUrl(url)
  if (!read.ok) throw new Error(`${url} was crawled and has no canonical form: ${read.reason}`)
  return read.url
}

function gaps(arrivalsMs: readonly number[], delayMs: number): Gaps {
  const between = arrivalsMs.slice(1).map((atMs, i) => atMs - (arrivalsMs[i] ?? atMs))
  return {
    sooner: between.filter((gapMs) => gapMs < delayMs).length,
    shortestMs: between.length === 0 ? null : round(Math.min(...between)),
  }
}

function round(value: number): number {
  return Number(value.toFixed(2))
}
