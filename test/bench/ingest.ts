/**
 * The task server under simulated nodes: the real server in a process of its own on the embedded
 * database, the real runner through server/node/run-node.ts in this process, six nodes on network
 * blocks of their own (127.0.n.1), loopback between them, and sites in memory so that no fetch waits.
 * Three crawls one after another on one server: static pages with a quorum of 2, noisy pages with 2,
 * noisy pages with 3. Politeness is at its maxima (100 requests/s, 32 in flight) on four hosts, each
 * with a robots.txt that is crawled too.
 *
 * npm run bench -- ingest [--json] [--pages N] [--seed TEXT] [--static FOLDER] [--corpus FOLDER]
 *
 * - verifiedPagesPerSecond: pages published as verified in all three crawls, over the seconds from
 *   each crawl's first lease to its last decision, by the database's clock.
 * - leaseP95Ms, observeP95Ms: POST /v1/leases and POST /v1/observations, from the call to the end of
 *   its answer, at the node, over all calls of all three crawls.
 * - serverCpuMsPerPage: process.cpuUsage() of the server, with its worker threads, and user and system
 *   time of PostgreSQL's processes, from the opening of each campaign to its last decision, over the
 *   verified pages. The first crawl includes the warming up. Null where the system does not tell.
 * - uplinkBytesPerPage: bytes of every request body, as compressed as it is sent (its Content-Length),
 *   of lease, observation, sentences, payload, attestation, refusal, follow-ups and outcomes, of the
 *   whole crawl with robots.txt, third observers and pages that came to nothing, over the verified
 *   pages. uplinkHeaderBytesPerPage: heads of the same requests. What is sent once in a session or
 *   campaign (challenge, session, consent) is apart in uplinkSetupBytes. Not counted: the doorbell,
 *   some 40 bytes of WebSocket a minute.
 * - uplinkRatio…: uplinkBytesPerPage / (quorum × payloadGzipBytes), where payloadGzipBytes is the mean
 *   of gzip -6 over the verified pages, one fetch each: sending every compressed replica whole.
 *
 * Pages that say they may not be published (noindex, noarchive) are left out of the sites.
 * The smaller the pages, the more the fixed parts of a verified page weigh (some 1,000 bytes at quorum
 * 2): npm's manual, 4.5 kB a page compressed, is a hard case. Compare figures of one source only.
 *
 * Noise is in ingest/noise.ts: a third of the pages each has H1, H2 and H3, fresh for each fetch, drawn
 * from the seed. `machineBusyShare` is how much of all cores other processes than server, database and
 * bench took meanwhile (Linux), to judge the times by.
 */
import { execFileSync, fork } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { readPage } from '../../lib/capture/page.ts'
import { usePolicy } from '../../lib/capture/use-policy.ts'
import { parseSignal } from '../../lib/capture/use-signals.ts'
import { defaultLimits } from '../../lib/consent/limits.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import { runNode } from '../../server/node/run-node.ts'
import { type CallFigures, type CallName, countCalls } from './ingest/calls.ts'
import {
  type BenchSites,
  benchSites,
  corpusFolder,
  htmlFolder,
  type SourcePage,
} from './ingest/pages.ts'
import type { Ask, Cpu, CrawlOutcome } from './ingest/server-process.ts'

/** One more than a page ever has observers. */
const nodes = 6
/** As few as never make a node wait: six nodes hold at most 72 pages, four hosts allow 128. */
const hosts = 4
/** Three crawls and what is around them end within four minutes, also on a machine under load. */
const crawlWithinMs = 70_000

const { values: flags } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    pages: { type: 'string', default: '100' },
    seed: { type: 'string', default: 'gleaner' },
    static: { type: 'string' },
    corpus: { type: 'string' },
  },
})

process.exitCode = (await bench()) ? 0 : 1

function mayBePublished({ html }: SourcePage): boolean {
  const { signals } = readPage(html, 'https://bench.gleaner.test/')
  const said = signals.map(([source, name, value]) => parseSignal({ source, name, value }))
  return usePolicy('research', said).kind === 'allowed'
}

async function bench(): Promise<boolean> {
  const mostPages = Math.min(1000, Math.max(1, Math.floor(Number(flags.pages)) || 1))
  const manual = flags.static ?? npmManual()
  const still = (await htmlFolder(manual, mostPages)).filter(mayBePublished)
  const corpus = flags.corpus ?? besideCheckout()
  const articles = corpus === null ? null : await corpusFolder(corpus, mostPages)
  const noisy = articles?.pages.filter(mayBePublished) ?? still
  if (still.length === 0 || noisy.length === 0) {
    throw new Error('No pages: name folders with --static FOLDER and --corpus FOLDER.')
  }
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-bench-'))
  // As root, PostgreSQL runs as nobody and must pass through here.
  await chmod(folder, 0o711)
  const server = await startServerProcess(join(folder, 'server'))
  const cleanUp = async () => {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void cleanUp().finally(() => process.exit(1)))
  }
  try {
    const plans = [
      { name: 'static2', pages: still, noise: false, quorum: 2 },
      { name: 'noisy2', pages: noisy, noise: true, quorum: 2 },
      { name: 'noisy3', pages: noisy, noise: true, quorum: 3 },
    ]
    const crawls: Crawl[] = []
    for (const [number, { name, pages, noise, quorum }] of plans.entries()) {
      const seed = `${flags.seed} ${name}`
      const sites = benchSites(pages, { name, hosts, noise, seed, fetchesAhead: quorum + 1 })
      const crawl = await runCrawl({ name, number, quorum, sites, server, folder })
      crawls.push(crawl)
      if (!flags.json) console.log(crawlText(crawl))
    }
    const { latenciesMs: leases } = together(crawls, 'lease')
    const { latenciesMs: observations } = together(crawls, 'observe')
    const ratioOf = (name: string) => crawls.find((crawl) => crawl.name === name)?.uplinkRatio
    const sum = (of: (crawl: Crawl) => number) => crawls.reduce((all, one) => all + of(one), 0)
    const pages = sum((crawl) => crawl.verifiedPages)
    const summary = {
      verifiedPagesPerSecond: round(pages / sum((crawl) => crawl.seconds), 2),
      leaseP95Ms: round(percentile(leases, 0.95), 1),
      observeP95Ms: round(percentile(observations, 0.95), 1),
      serverCpuMsPerPage: crawls.some(({ cpu }) => cpu.databaseMs === null)
        ? null
        : round(sum(({ cpu }) => cpu.serverMs + (cpu.databaseMs ?? 0)) / pages, 1),
      uplinkRatioStatic2: ratioOf('static2'),
      uplinkRatioNoisy2: ratioOf('noisy2'),
      uplinkRatioNoisy3: ratioOf('noisy3'),
      staticSource: `${still.length} pages of ${flags.static === undefined ? 'npm’s manual' : flags.static}`,
      noisySource:
        articles === null
          ? 'the static pages, with noise H1-H3 (no corpus was found)'
          : `${noisy.length} pages of ${flags.corpus ?? 'the article corpus'}, with noise H1-H3; the article is marked in ${articles.marked}, else guessed`,
      nodes,
      hosts,
      cores: cpus().length,
      finished: crawls.every((crawl) => crawl.finished),
      crawls: crawls.map(({ calls, ...crawl }) => ({ ...crawl, calls: callTable(calls, crawl) })),
    }
    if (flags.json) console.log(JSON.stringify(summary))
    else console.log(summaryText(summary))
    return summary.finished
  } finally {
    await cleanUp()
  }
}

interface Crawl {
  name: string
  quorum: number
  pages: number
  verifiedPages: number
  exactPages: number
  verdicts: Record<string, number>
  observations: number
  /** Observations beyond the quorum. */
  thirdObservers: number
  finished: boolean
  seconds: number
  verifiedPagesPerSecond: number
  uplinkRatio: number
  uplinkBytesPerPage: number
  uplinkHeaderBytesPerPage: number
  uplinkSetupBytes: number
  payloadGzipBytes: number
  /** By the level of noise: pages, and how many of them were verified. */
  noiseLevels: Record<string, { pages: number; verified: number }>
  cpu: Cpu
  machineBusyShare: number | null
  calls: ReadonlyMap<CallName, CallFigures>
}

async function runCrawl(options: {
  name: string
  number: number
  quorum: number
  sites: BenchSites
  server: ServerProcess
  folder: string
}): Promise<Crawl> {
  const { name, number, quorum, sites, server, folder } = options
  const counted = countCalls()
  const cpuBefore = await server.ask<Cpu>({ kind: 'cpu' })
  const machineBefore = machineTicks()
  const bench = process.cpuUsage()
  const campaign = await server.ask<string>({
    kind: 'open',
    manifest: manifestOf(name, quorum, sites),
  })
  const fleet = await Promise.all(
    Array.from({ length: nodes }, (_, i) => {
      const block = 16 + number * nodes + i
      return runNode({
        joinLink: server.joinLink,
        folder: join(folder, `node-${block}`),
        campaigns: [name],
        act: 'bench',
        hop: sites.hop,
        scope: { loopbackAllowed: false },
        // Careful defaults but for the caps, which a crawl of this size would reach.
        limits: { ...defaultLimits, bytesPerDay: 1e12, bytesPerMonth: 1e12 },
        client: 'Gleaner/0.1.0 (bench)',
        localAddress: `127.0.${block}.1`,
        log: (event) => {
          if (event.kind === 'problem') console.error(`node ${i}, ${event.where}:`, event.error)
        },
      })
    }),
  )
  const deadline = Date.now() + crawlWithinMs
  let finished = false
  while (!finished && Date.now() < deadline) {
    await sleep(250)
    const { open, closed } = await server.ask<{ open: number; closed: number }>({
      kind: 'progress',
      campaign,
    })
    // What links name beyond the budget is closed as well.
    finished = open === 0 && closed >= sites.seeds.length
  }
  const cpuAfter = await server.ask<Cpu>({ kind: 'cpu' })
  const machineAfter = machineTicks()
  const benchMs = (({ user, system }) => (user + system) / 1000)(process.cpuUsage(bench))
  await Promise.all(fleet.map((node) => node.stop()))
  counted.stop()

  const outcome = await server.ask<CrawlOutcome>({ kind: 'outcome', campaign })
  const cpu: Cpu = {
    serverMs: round(cpuAfter.serverMs - cpuBefore.serverMs, 0),
    databaseMs:
      cpuAfter.databaseMs === null || cpuBefore.databaseMs === null
        ? null
        : cpuAfter.databaseMs - cpuBefore.databaseMs,
  }
  const work = [...counted.figures].filter(([call]) => call !== 'setup').map(([, one]) => one)
  const verified = outcome.verified.length
  const perPage = (of: (call: CallFigures) => number) =>
    work.reduce((all, call) => all + of(call), 0) / verified
  const payloadGzipBytes =
    outcome.verified.reduce((all, { url }) => all + (sites.gzipBytes.get(url) ?? 0), 0) / verified
  const uplinkBytesPerPage = perPage((call) => call.bodyBytes)
  return {
    name,
    quorum,
    pages: sites.seeds.length,
    verifiedPages: verified,
    exactPages: outcome.verified.filter(({ grade }) => grade === 'exact').length,
    verdicts: outcome.verdicts,
    observations: outcome.observations,
    thirdObservers: outcome.thirdObservers,
    finished,
    seconds: round(outcome.seconds, 1),
    verifiedPagesPerSecond: round(verified / outcome.seconds, 2),
    uplinkRatio: round(uplinkBytesPerPage / (quorum * payloadGzipBytes), 3),
    uplinkBytesPerPage: round(uplinkBytesPerPage, 0),
    uplinkHeaderBytesPerPage: round(
      perPage((call) => call.headerBytes),
      0,
    ),
    uplinkSetupBytes: counted.figures.get('setup')?.bodyBytes ?? 0,
    payloadGzipBytes: round(payloadGzipBytes, 0),
    noiseLevels: byLevel(sites, outcome),
    cpu,
    machineBusyShare: busyShare(
      machineBefore,
      machineAfter,
      cpu.serverMs + (cpu.databaseMs ?? 0) + benchMs,
    ),
    calls: counted.figures,
  }
}

function manifestOf(name: string, quorum: number, sites: BenchSites): Campaign {
  const nowMs = Date.now()
  return {
    version: 1,
    id: name,
    title: `Bench ${name}`,
    purpose: 'Measures what a verified page costs.',
    operator: { name: 'Bench', contact: 'operator@example.org' },
    use: 'research',
    sites: sites.hosts.map((host) => ({
      host,
      scheme: 'http',
      pathPrefixes: ['/'],
      // The most that a manifest may say: politeness is not what is measured.
      requestsPerSecond: 100,
      requestsInFlight: 32,
    })),
    canaryHosts: [],
    seeds: [...sites.seeds],
    // Links are read and compared as in any crawl; none leads to a page beyond the seeds.
    limits: { pageBytes: 4 * 1024 * 1024, pageMs: 20_000, pages: sites.seeds.length, depth: 1 },
    retentionDays: 1,
    quorum,
    points: { perPage: 10, perDuplicate: 1, perPayload: 2, budget: 10_000_000, funding: 'subsidy' },
    validFrom: new Date(nowMs - 60_000).toISOString(),
    validUntil: new Date(nowMs + 86_400_000).toISOString(),
  }
}

interface ServerProcess {
  joinLink: string
  ask<Answer>(ask: Ask): Promise<Answer>
  stop(): Promise<void>
}

async function startServerProcess(dataFolder: string): Promise<ServerProcess> {
  const script = fileURLToPath(new URL('./ingest/server-process.ts', import.meta.url))
  const child = fork(script, [dataFolder], { execArgv: ['--import', import.meta.resolve('tsx')] })
  const waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: Error) => void }
  >()
  let asked = 0
  const answerTo = (id: number) =>
    new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }))
  child.on('message', ({ id, value, error }: { id: number; value?: unknown; error?: string }) => {
    const asker = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) asker?.resolve(value)
    else asker?.reject(new Error(error))
  })
  const ended = new Promise<void>((resolve) => {
    child.once('exit', (code, signal) => {
      const failure = new Error(`the server's process ended (${code ?? signal})`)
      for (const { reject } of waiting.values()) reject(failure)
      resolve()
    })
  })
  const joinLink = (await answerTo(0)) as string
  const ask = async <Answer>(what: Ask): Promise<Answer> => {
    asked += 1
    const answer = answerTo(asked)
    child.send({ id: asked, ask: what })
    return (await answer) as Answer
  }
  return {
    joinLink,
    ask,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return
      await ask({ kind: 'stop' })
      child.disconnect()
      await ended
    },
  }
}

function npmManual(): string {
  const root = execFileSync('npm', ['root', '-g'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    shell: process.platform === 'win32',
  }).trim()
  const folder = join(root, 'npm', 'docs', 'output')
  if (existsSync(folder)) return folder
  throw new Error('npm’s manual is not installed. Name a folder of HTML with --static FOLDER.')
}

function besideCheckout(): string | null {
  const beside = '../../../shared/corpora/article-extraction-benchmark/html'
  const folder = fileURLToPath(new URL(beside, import.meta.url))
  return existsSync(folder) ? folder : null
}

function byLevel(sites: BenchSites, outcome: CrawlOutcome): Crawl['noiseLevels'] {
  const verified = new Set(outcome.verified.map(({ url }) => url))
  const levels: Crawl['noiseLevels'] = {}
  for (const [url, level] of sites.noiseLevel) {
    levels[`H${level}`] ??= { pages: 0, verified: 0 }
    const counts = levels[`H${level}`] as { pages: number; verified: number }
    counts.pages += 1
    if (verified.has(url)) counts.verified += 1
  }
  return levels
}

function together(crawls: readonly Crawl[], call: CallName): Pick<CallFigures, 'latenciesMs'> {
  return { latenciesMs: crawls.flatMap(({ calls }) => calls.get(call)?.latenciesMs ?? []) }
}

function callTable(
  calls: ReadonlyMap<CallName, CallFigures>,
  { verifiedPages }: Pick<Crawl, 'verifiedPages'>,
) {
  return Object.fromEntries(
    [...calls].map(([name, { calls, bodyBytes, failed, latenciesMs }]) => [
      name,
      {
        calls,
        failed,
        bodyBytesPerPage: round(bodyBytes / verifiedPages, 0),
        p50Ms: round(percentile(latenciesMs, 0.5), 1),
        p95Ms: round(percentile(latenciesMs, 0.95), 1),
      },
    ]),
  )
}

/** The smallest value that this share of all does not exceed. */
function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
}

/** Busy and all ticks of the whole machine; null where the system does not tell. */
function machineTicks(): { busy: number; all: number } | null {
  if (process.platform !== 'linux') return null
  const fields = readFileSync('/proc/stat', 'utf8').split('\n')[0]?.trim().split(/\s+/).slice(1, 9)
  const ticks = (fields ?? []).map(Number)
  const all = ticks.reduce((sum, one) => sum + one, 0)
  // idle and iowait
  return { busy: all - (ticks[3] ?? 0) - (ticks[4] ?? 0), all }
}

function busyShare(
  before: ReturnType<typeof machineTicks>,
  after: ReturnType<typeof machineTicks>,
  oursMs: number,
): number | null {
  if (before === null || after === null) return null
  return round((after.busy - before.busy - oursMs / 10) / (after.all - before.all), 2)
}

function crawlText(crawl: Crawl): string {
  const calls = Object.entries(callTable(crawl.calls, crawl)).map(
    ([name, one]) =>
      `  ${name.padEnd(11)} ${String(one.calls).padStart(5)} calls ${String(one.bodyBytesPerPage).padStart(7)} B/page  p50 ${one.p50Ms} ms, p95 ${one.p95Ms} ms${one.failed > 0 ? `, ${one.failed} failed` : ''}`,
  )
  const verdicts = Object.entries(crawl.verdicts).map(([verdict, pages]) => `${pages} ${verdict}`)
  const levels = Object.entries(crawl.noiseLevels)
    .filter(([level]) => level !== 'H0')
    .map(([level, { pages, verified }]) => `${level} ${verified}/${pages}`)
  return `
${crawl.name}: ${crawl.verifiedPages} of ${crawl.pages} pages verified (${verdicts.join(', ')}${levels.length > 0 ? `; ${levels.join(', ')}` : ''}) in ${crawl.seconds} s, ${crawl.verifiedPagesPerSecond}/s${crawl.finished ? '' : ', NOT FINISHED'}
  ${crawl.observations} observations, ${crawl.thirdObservers} beyond the quorum
  uplink ${crawl.uplinkBytesPerPage} B/page (heads ${crawl.uplinkHeaderBytesPerPage}), payload ${crawl.payloadGzipBytes} B: ratio ${crawl.uplinkRatio}
  CPU ms/page: server ${round(crawl.cpu.serverMs / crawl.verifiedPages, 1)}, database ${crawl.cpu.databaseMs === null ? '?' : round(crawl.cpu.databaseMs / crawl.verifiedPages, 1)}; others took ${crawl.machineBusyShare === null ? '?' : Math.round(crawl.machineBusyShare * 100)} % of the machine
${calls.join('\n')}`
}

function summaryText(summary: Record<string, unknown>): string {
  const lines = Object.entries(summary).filter(([, value]) => typeof value !== 'object')
  return `\n${lines.map(([name, value]) => `${name.padEnd(24)} ${value}`).join('\n')}`
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
