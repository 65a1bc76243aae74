import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createLogUpdate } from 'log-update'
import { pino } from 'pino'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import { readConfig } from '../config.ts'
import { type RunningServer, startServer } from '../main.ts'
import { createNodeHop } from '../node/hop.ts'
import { runNode } from '../node/run-node.ts'
import { checkLedger, openCampaign, publishRelease, signCampaign } from '../operator.ts'
import { verifyRelease } from '../publish/verify-release.ts'
import { buildLabExtension, joinByHand, openContributor } from './browser.ts'
import { findChrome } from './chrome.ts'
import { forgeDigits } from './forger.ts'
import { startForwarder } from './forwarder.ts'
import { type CrawlCounts, crawlCounts } from './progress.ts'
import { stringsFound } from './scan.ts'
import { SiteFolderProblem, startSite } from './site.ts'

export interface DemoOptions {
  site?: string | undefined
  json?: true | undefined
  keep?: true | undefined
  headed?: true | undefined
}

const siteHost = 'manual.gleaner.test'
/** The crawl itself takes half a minute; a machine under load gets more, and then the demo says what is missing. */
const crawlWithinMs = 90_000

/** The three people with browsers, and the one who cheats. */
const honestAddresses = ['127.0.11.1', '127.0.12.1', '127.0.13.1'] as const
const forgerAddress = '127.0.14.1'

/**
 * The whole way on one machine. Returns whether everything that should be
 * there was there. Everything it starts ends with it, but for --keep.
 */
export async function runDemo(options: DemoOptions): Promise<boolean> {
  const startedMs = Date.now()
  const stops: (() => Promise<unknown>)[] = []
  const say = progressPrinter()
  const stopEverything = async () => {
    for (const stop of stops.splice(0).reverse()) {
      await stop().catch((error: unknown) => console.error(error))
    }
  }
  const interrupt = () => {
    say.done()
    say.line('Stopping.')
    void stopEverything().finally(() => process.exit(130))
  }
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  try {
    const folder = options.site ?? npmManual()
    const dataFolder = await mkdtemp(join(tmpdir(), 'gleaner-demo-'))
    // As root, PostgreSQL runs as nobody and must pass through here; keys have a closed folder inside.
    await chmod(dataFolder, 0o711)
    const site = await startSite(folder)
    stops.push(() => site.close())
    say.line(
      `Site: ${site.pages} pages of ${folder} on 127.0.0.1:${site.port}, as http://${siteHost}/`,
    )

    const log = pino(
      { level: process.env.GLEANER_LOG_LEVEL ?? 'error' },
      pino.destination({ fd: 2, sync: true }),
    )
    const config = readConfig(
      {
        data: dataFolder,
        port: '0',
        name: 'Demo network',
        contact: 'operator@example.org',
        logOrigin: 'demo.gleaner.test/log',
      },
      {},
    )
    const [server, executable, extension] = await Promise.all([
      startServer(config, log, {
        scopeRules: { loopbackAllowed: false },
        auditor: {
          scopeRules: { loopbackAllowed: true },
          hostMap: { [siteHost]: `127.0.0.1:${site.port}` },
        },
      }),
      findChrome(say.line),
      buildLabExtension(),
    ])
    stops.push(() => server.stop())
    say.line(`Task server: ${server.origin}, embedded PostgreSQL, data in ${dataFolder}`)
    const manifest = demoCampaign(startedMs)
    const { database, keys } = server.workspace
    await openCampaign(server.workspace, await signCampaign(manifest, keys.campaign))
    const { requestsPerSecond, requestsInFlight } = manifest.sites[0] ?? {}
    say.line(
      `Campaign "${manifest.title}": ${requestsPerSecond} requests/s, ${requestsInFlight} in flight, quorum ${manifest.quorum}`,
    )

    await Promise.all(
      honestAddresses.map((address) =>
        openHonest({
          address,
          executable,
          extension,
          server,
          sitePort: site.port,
          headed: options.headed === true,
          stops,
        }),
      ),
    )
    say.line('Three browsers joined by the consent page, each from an address of its own.')

    const honestHop = createNodeHop({
      userAgent: 'Gleaner/0.1.0 (demo forger)',
      localAddress: forgerAddress,
      hostMap: { [siteHost]: `127.0.0.1:${site.port}` },
      loopbackAllowed: true,
    })
    const forgery = forgeDigits(honestHop.hop)
    const forger = await runNode({
      joinLink: server.joinLink,
      folder: join(dataFolder, 'forger'),
      campaigns: 'all',
      act: 'demo',
      hop: forgery.hop,
      scope: { loopbackAllowed: true },
      client: 'Gleaner/0.1.0 (demo forger)',
      localAddress: forgerAddress,
    })
    stops.push(async () => {
      await forger.stop()
      await honestHop.close()
    })
    say.line('A fourth contributor joined: a modified node that changes a digit on every page.')

    const counts = await crawl(server, say)
    say.line('Publishing and verifying.')
    const published = await publishRelease(server.workspace, {
      campaignId: manifest.id,
      folder: join(dataFolder, 'releases', 'demo'),
      name: 'demo',
      nowMs: Date.now(),
    })
    const report = await verifyRelease(published.folder, published.verifierKey)
    const ledger = await checkLedger(database)
    const forged = await stringsFound(published.folder, forgery.sentences)
    const addresses = await stringsFound(published.folder, [...honestAddresses, forgerAddress])
    const { done, isAuditorAtRest: _, pages, closed, ...told } = counts
    const summary = {
      verifyKey: published.verifierKey,
      site: folder,
      requestsPerSecond,
      requestsInFlight,
      pagesVerified: counts.exactPages + counts.sentencePages,
      ...told,
      pagesFound: pages,
      pagesClosed: closed,
      crawlFinished: done,
      rows: published.rows,
      ...server.traffic(),
      forgedSentencesOffered: forgery.sentences.size,
      forgedSentencesPublished: forged.length,
      contributorAddressesPublished: addresses.length,
      requestsIntoDisallowedFolder: site.trespasses.length,
      ledgerBalanced: ledger.balanced,
      verifyOk: report.ok,
      releasePath: published.folder,
      seconds: Math.round((Date.now() - startedMs) / 100) / 10,
    }
    const faults = whatIsWrong(summary)
    say.line(summaryText(summary, faults))
    if (options.keep) {
      say.line(`Everything keeps running. Join link: ${server.joinLink}\nStop with Ctrl-C.`)
      process.off('SIGINT', interrupt)
      process.off('SIGTERM', interrupt)
      await new Promise<void>((resolve) => {
        process.once('SIGINT', resolve)
        process.once('SIGTERM', resolve)
      })
    }
    if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`)
    return faults.length === 0
  } catch (error) {
    if (!(error instanceof SiteFolderProblem) && (error as Error).name !== 'NoBrowser') throw error
    say.line((error as Error).message)
    return false
  } finally {
    say.done()
    process.off('SIGINT', interrupt)
    process.off('SIGTERM', interrupt)
    await stopEverything()
  }
}

async function openHonest(options: {
  address: string
  executable: string
  extension: string
  server: RunningServer
  sitePort: number
  headed: boolean
  /** What was opened is closed by these, also when a later step fails. */
  stops: (() => Promise<unknown>)[]
}): Promise<void> {
  const { address, server, stops } = options
  const toServer = await startForwarder(address, Number(new URL(server.origin).port))
  stops.push(() => toServer.close())
  const toSite = await startForwarder(address, options.sitePort)
  stops.push(() => toSite.close())
  const contributor = await openContributor({
    ...options,
    hostRules: `MAP ${siteHost} ${address}:${toSite.port}`,
  })
  stops.push(() => contributor.close())
  const [, fingerprint] = server.joinLink.split('#')
  await joinByHand(contributor, `http://${address}:${toServer.port}/join#${fingerprint}`)
}

/** Watches until nothing is left to do, or the time is up. */
async function crawl(
  server: RunningServer,
  say: ReturnType<typeof progressPrinter>,
): Promise<CrawlCounts> {
  const deadline = Date.now() + crawlWithinMs
  for (;;) {
    const counts = await crawlCounts(server.workspace.database.pool)
    say.progress(
      `${counts.closed}/${counts.pages} pages done: ${counts.exactPages} exact, ${counts.sentencePages} by sentences, ${counts.divergentPages} divergent, ${counts.duplicatePages} duplicate, ${counts.pagesRefusedByRobots} refused by robots.txt; ${counts.observations} observations`,
    )
    if ((counts.done && counts.isAuditorAtRest) || Date.now() > deadline) return counts
    await sleep(500)
  }
}

function demoCampaign(nowMs: number): Campaign {
  return {
    version: 1,
    id: 'manual',
    title: 'The manual, as it is today',
    purpose:
      'Shows the whole way of a page from a site to a dataset in which every row can be checked.',
    operator: { name: 'Demo network', contact: 'operator@example.org' },
    use: 'research',
    sites: [
      {
        host: siteHost,
        scheme: 'http',
        pathPrefixes: ['/'],
        requestsPerSecond: 20,
        requestsInFlight: 3,
      },
    ],
    canaryHosts: [],
    seeds: [`http://${siteHost}/`],
    limits: { pageBytes: 2 * 1024 * 1024, pageMs: 20_000, pages: 1000, depth: 10 },
    retentionDays: 30,
    quorum: 2,
    points: { perPage: 10, perDuplicate: 1, perPayload: 2, budget: 100_000, funding: 'subsidy' },
    validFrom: new Date(nowMs - 60_000).toISOString(),
    validUntil: new Date(nowMs + 86_400_000).toISOString(),
  }
}

function npmManual(): string {
  const root = execFileSync('npm', ['root', '-g'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    shell: process.platform === 'win32',
  }).trim()
  const folder = join(root, 'npm', 'docs', 'output')
  if (!existsSync(folder)) {
    throw new SiteFolderProblem(
      `npm's manual is not at ${folder}. Name a folder of HTML pages with --site FOLDER, for example that of Debian's git-doc: /usr/share/doc/git-doc`,
    )
  }
  return folder
}

type Summary = Record<string, unknown>

/** What should be there and is not, or the other way round. */
function whatIsWrong(summary: Summary): string[] {
  const mustBe = [
    'exactPages',
    'sentencePages',
    'divergentPages',
    'duplicatePages',
    'pagesRefusedByRobots',
    'forgedSentencesOffered',
  ].filter((name) => !(Number(summary[name]) > 0))
  const mustNotBe = [
    'forgedSentencesPublished',
    'contributorAddressesPublished',
    'requestsIntoDisallowedFolder',
  ].filter((name) => summary[name] !== 0)
  const mustHold = ['crawlFinished', 'ledgerBalanced', 'verifyOk'].filter(
    (name) => summary[name] !== true,
  )
  return [
    ...mustBe.map((name) => `${name} is ${summary[name]}, and should be more than 0`),
    ...mustNotBe.map((name) => `${name} is ${summary[name]}, and should be 0`),
    ...mustHold.map((name) => `${name} is ${summary[name]}`),
  ]
}

function summaryText(summary: Summary, faults: readonly string[]): string {
  const width = Math.max(...Object.keys(summary).map((name) => name.length))
  const lines = Object.entries(summary).map(([name, value]) => `  ${name.padEnd(width)}  ${value}`)
  const verdict =
    faults.length === 0
      ? `The forger offered ${summary.forgedSentencesOffered} forged sentences; none was published. Check the release yourself, offline:
  npx gleaner verify ${summary.releasePath} --key ${summary.verifyKey}`
      : `NOT AS IT SHOULD BE:\n${faults.map((fault) => `  ${fault}`).join('\n')}`
  return `\n${lines.join('\n')}\n\n${verdict}`
}

/** One live line on a terminal; plain lines, a few seconds apart, anywhere else. */
function progressPrinter() {
  const live = process.stdout.isTTY ? createLogUpdate(process.stdout) : null
  let saidAtMs = 0
  return {
    line(text: string) {
      live?.clear()
      process.stdout.write(`${text}\n`)
    },
    progress(text: string) {
      if (live) return live(text)
      if (Date.now() - saidAtMs < 5000) return
      saidAtMs = Date.now()
      process.stdout.write(`${text}\n`)
    },
    done() {
      live?.done()
    },
  }
}
