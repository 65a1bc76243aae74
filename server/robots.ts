import { crawlDelayMs, parseRobots, robotsSignals } from '../lib/capture/robots.ts'
import { isOfLicence } from '../lib/capture/use-files.ts'
import { robotsRefreshMs, robotsRetryMs } from './frontier/politeness.ts'
import { addAuditorTasks, hostSignalsOf } from './store/auditor-tasks.ts'
import { type HostRobots, putHostSignals, putRobots, workOnHost } from './store/frontier.ts'
import type { Queryable } from './store/queryable.ts'

/** Sitemaps that a robots.txt may name: sites that need more have an index. */
const mostSitemaps = 20

/** Licences that are read: sites have one, some one for each kind of reader. What is not read is a no. */
const mostLicences = 5

/**
 * A host's robots.txt is known, whoever read it: its rules, its crawl delay,
 * and where its sitemaps and licences are. Sitemaps and files about
 * use are hints that are never published, so one fetch by the auditor is
 * enough, and spares the site a quorum of them.
 */
export async function applyRobots(
  tx: Queryable,
  hostId: number,
  robots: HostRobots,
  agent: string,
) {
  const parsed = robots.state === 'rules' ? parseRobots(robots.text) : null
  await putRobots(tx, hostId, robots, parsed && crawlDelayMs(parsed, agent), (failures) =>
    failures === 0 ? robotsRefreshMs : robotsRetryMs(failures - 1),
  )
  if (robots.state === 'disallow-all') return
  const signals = parsed === null ? [] : robotsSignals(parsed, agent)
  const { origin, campaigns } = await workOnHost(tx, hostId)
  const named = signals.filter(({ name }) => name === 'sitemap').map(({ value }) => value)
  const sitemaps = [
    ...new Set([
      ...named.filter(isAddress).map((value) => new URL(value).href),
      `${origin}/sitemap.xml`,
    ]),
  ]
  const licences = signals
    .filter(({ name, value }) => name === 'license' && isAddress(value) && !/\s/.test(value))
    .map(({ value }) => value)
    .filter((value, at, all) => all.indexOf(value) === at)
    .slice(0, mostLicences)
  await forgetLicences(tx, hostId, licences)
  await addAuditorTasks(tx, [
    ...campaigns.flatMap((campaign) =>
      sitemaps
        .slice(0, mostSitemaps)
        .map((target) => ({ kind: 'sitemap' as const, hostId, campaign, target })),
    ),
    ...[`${origin}/.well-known/tdmrep.json`, `${origin}/ai.txt`, ...licences].map((target) => ({
      kind: 'use-file' as const,
      hostId,
      target,
    })),
  ])
}

/** What is known of licences that robots.txt does not name any more. */
async function forgetLicences(tx: Queryable, hostId: number, named: readonly string[]) {
  const read = await hostSignalsOf(tx, hostId, 'rsl')
  const kept = read.filter((signal) => named.some((url) => isOfLicence(signal, url)))
  if (kept.length < read.length) await putHostSignals(tx, hostId, 'rsl', kept)
}

function isAddress(given: string): boolean {
  return URL.canParse(given) && /^https?:/.test(given)
}
