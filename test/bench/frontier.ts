/**
 * The frontier: how many tasks it bears, whether it keeps its promises under load, and whether it
 * finds what Scrapy finds without asking more. Some twelve minutes on two cores; prints what it does
 * as it goes, and with --json one object on the last line.
 *
 * npm run bench -- frontier [--json] [--only scale|scrapy] [--tasks N] [--callers N]
 *                           [--delay MS] [--quick-pages N]
 *
 * Scale: two server processes on one embedded PostgreSQL; tasks loaded by SQL, 20 a host, each host
 * at one request a second and one in flight; nodes with sessions, each asking from a network block
 * of its own (127.x.y.z; Linux), 32 addresses a call, and refusing them (POST /v1/refusals, which
 * puts them straight back) after 50 to 500 ms.
 *
 * - leaseP95Ms: POST /v1/leases at a caller, from the call to the end of its answer, with four
 *   callers that each ask twice a second, over all tasks. leaseP95MsAt10K: the same over the first
 *   10,000. leaseP95MsAt1000Callers: all nodes at once without a pause, so mostly waiting for the
 *   callers before; this bench and both servers share the machine.
 * - costRatio1MTo10K: CPU of both servers and of PostgreSQL for each lease granted (the call, its
 *   ending, what the pipeline does about it, and its idle loops) in the four callers' run over all
 *   tasks, to the same over the first 10,000. Null where the system does not tell (Linux does).
 * - doubleLeases, earlyRequests: faults in the log of all runs together, judged by
 *   frontier/politeness-model.ts. Two witnesses: triggers in the database (byDatabase) and the
 *   callers' own clocks (byCallers, where only what is certain counts); the larger number is told.
 *
 * Beside Scrapy: Debian's python3-scrapy with its defaults but robots on, frontier/spider.py, and
 * three of our nodes with a quorum of 2, on the manuals of postgresql-doc-15 and python3.11-doc,
 * each served by a process that writes down who asks. Nothing is installed: what is missing is
 * named in `scrapySkipped`.
 *
 * - scrapyPages, pages: addresses answered 200 with HTML, canonical, both manuals together; politely,
 *   with the same delay (Scrapy's DOWNLOAD_DELAY, which it varies by half; our requests a second).
 *   symmetricDifference should be empty.
 * - scrapyRequests: all requests. requestsPerObserver: those of the node that made the most. Both of
 *   the manual where the second comes nearest to the first. The auditor's are in `otherRequests`.
 * - ourGaps, scrapyGaps: requests that reached the site sooner than the delay after another.
 * - pagesPerSecondVsScrapy: with no delay, 8 in flight and 100 requests a second at most (Scrapy: no
 *   delay, its 8 a domain), over the first addresses of each manual: pages decided a second, from the
 *   first lease to the last decision, over Scrapy's from its first request to its last page. The
 *   worse of both manuals; nodes, server, database and site share the machine.
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type BesideScrapy, besideScrapy, missingForScrapy } from './frontier/beside-scrapy.ts'
import { type ScaleFigures, scale } from './frontier/scale.ts'

const { values: flags } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    only: { type: 'string' },
    tasks: { type: 'string', default: '1000000' },
    callers: { type: 'string', default: '1000' },
    // 20 requests a second: Scrapy needs a minute for the larger manual.
    delay: { type: 'string', default: '50' },
    'quick-pages': { type: 'string', default: '150' },
  },
})

const stops: (() => Promise<unknown>)[] = []
process.exitCode = (await bench()) ? 0 : 1

/** True when every promise was kept, as far as it was measured. */
async function bench(): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-bench-'))
  // As root, PostgreSQL runs as nobody and must pass through here.
  await chmod(folder, 0o711)
  const cleanUp = async () => {
    for (const stop of stops.splice(0).reverse()) {
      await stop().catch((error: unknown) => console.error(error))
    }
    await rm(folder, { recursive: true, force: true })
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void cleanUp().finally(() => process.exit(1)))
  }
  const about = {
    folder,
    say: (text: string) => void process.stderr.write(`${text}\n`),
    onStop: (stop: () => Promise<unknown>) => void stops.push(stop),
  }
  try {
    const scrapySkipped =
      flags.only === 'scale' ? 'not asked for (--only scale)' : await missingForScrapy()
    if (scrapySkipped !== null) about.say(scrapySkipped)
    const beside =
      scrapySkipped === null
        ? await besideScrapy({
            ...about,
            delayMs: wholeNumber('delay', 1, 60_000),
            quickPages: wholeNumber('quick-pages', 10, 100_000),
          })
        : null
    // Neither part sees the other's processes.
    for (const stop of stops.splice(0).reverse()) await stop()
    const scaled =
      flags.only === 'scrapy'
        ? null
        : await scale({
            ...about,
            tasks: wholeNumber('tasks', 1000, 10_000_000),
            callers: wholeNumber('callers', 100, 5000),
          })
    const summary = {
      ...(scaled ?? {}),
      ...(beside === null ? { scrapySkipped } : besideSummary(beside)),
      cores: cpus().length,
    }
    if (flags.json) console.log(JSON.stringify(summary))
    else console.log(summaryText(summary))
    return (scaled === null || kept(scaled)) && (beside === null || complete(beside))
  } finally {
    await cleanUp()
  }
}

function kept(figures: ScaleFigures): boolean {
  return figures.doubleLeases === 0 && figures.earlyRequests === 0
}

function complete({ corpora }: BesideScrapy): boolean {
  return corpora.every(
    (one) =>
      one.finished &&
      one.onlyOurs.length + one.onlyScrapy.length === 0 &&
      one.requestsPerObserver <= one.scrapyRequests,
  )
}

function besideSummary({ corpora, ...rest }: BesideScrapy) {
  const sum = (of: (one: BesideScrapy['corpora'][number]) => number) =>
    corpora.reduce((all, one) => all + of(one), 0)
  const tightest = corpora.reduce((worst, one) =>
    one.requestsPerObserver / one.scrapyRequests > worst.requestsPerObserver / worst.scrapyRequests
      ? one
      : worst,
  )
  return {
    scrapyPages: sum((one) => one.scrapyPages),
    pages: sum((one) => one.pages),
    symmetricDifference: sum((one) => one.onlyOurs.length + one.onlyScrapy.length),
    scrapyRequests: tightest.scrapyRequests,
    requestsPerObserver: tightest.requestsPerObserver,
    pagesPerSecondVsScrapy: Math.min(...corpora.map((one) => one.pagesPerSecondVsScrapy)),
    ...rest,
    corpora: corpora.map((one) => ({
      ...one,
      // Enough to see what they have in common.
      onlyOurs: one.onlyOurs.slice(0, 20),
      onlyScrapy: one.onlyScrapy.slice(0, 20),
    })),
  }
}

function wholeNumber(
  name: 'delay' | 'quick-pages' | 'tasks' | 'callers',
  least: number,
  most: number,
) {
  const value = Number(flags[name])
  if (Number.isInteger(value) && value >= least && value <= most) return value
  throw new Error(`--${name} is "${flags[name]}"; give a whole number from ${least} to ${most}.`)
}

function summaryText(summary: Record<string, unknown>): string {
  return Object.entries(summary)
    .map(([name, value]) =>
      typeof value === 'object' && value !== null
        ? `${name}\n${JSON.stringify(value, null, 2)}`
        : `${name.padEnd(26)} ${value}`,
    )
    .join('\n')
}
