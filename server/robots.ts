import { crawlDelayMs, parseRobots, robotsSignals } from '../lib/capture/robots.ts'
import { robotsRefreshMs, robotsRetryMs } from './frontier/politeness.ts'
import { addAuditorTasks } from './store/auditor-tasks.ts'
import { type HostRobots, putRobots, workOnHost } from './store/frontier.ts'
import type { Queryable } from './store/queryable.ts'

/** Sitemaps that a robots.txt may name: sites that need more have an index. */
const mostSitemaps = 20

/**
 * A host's robots.txt is known, whoever read it: its rules, its crawl delay,
 * and where its sitemaps and licence are. Sitemaps and files about
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
  const sitemaps = [...new Set([...named.filter(isAddress), `${origin}/sitemap.xml`])]
  const licences = signals.filter(({ name }) => name === 'license').map(({ value }) => value)
  await addAuditorTasks(tx, [
    ...campaigns.flatMap((campaign) =>
      sitemaps
        .slice(0, mostSitemaps)
        .map((target) => ({ kind: 'sitemap' as const, hostId, campaign, target })),
    ),
    ...[
      `${origin}/.well-known/tdmrep.json`,
      `${origin}/ai.txt`,
      ...licences.filter(isAddress).slice(0, 1),
    ].map((target) => ({ kind: 'use-file' as const, hostId, target })),
  ])
}

function isAddress(given: string): boolean {
  return URL.canParse(given) && /^https?:/.test(given)
}
