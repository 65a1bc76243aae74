import { parseRobots, robotsVerdict } from '../../lib/capture/robots.ts'
import { robotsFreshMs } from '../frontier/politeness.ts'
import { robotsOfOrigin } from '../store/auditor-tasks.ts'
import type { Database } from '../store/database.ts'
import type { HostRobots } from '../store/frontier.ts'
import { optOutsCovering } from '../store/opt-outs.ts'
import type { FetchAsAuditor } from './fetch-as-auditor.ts'
import { readRobots } from './read-robots.ts'

/** Origins of which a robots.txt is remembered, up to 500 KiB each: hosts that only hold sitemaps are few. */
const mostRemembered = 100
/** What could not be read is asked for again soon. */
const unreadMs = 15 * 60_000

/**
 * Says whether an owner's opt-out or robots.txt keeps the auditor from an address, null when neither
 * does. Of hosts in the
 * table by what is known there; of others, as of one that keeps somebody's sitemaps, by the auditor's
 * own reading, remembered for as long as RFC 9309 §2.4 allows. What is not known forbids.
 */
export function createRobotsPermit(options: {
  database: Database
  fetch: FetchAsAuditor
  agent: string
  now: () => number
}) {
  const remembered = new Map<string, { robots: HostRobots; untilMs: number }>()

  async function robotsOf(origin: string, signal: AbortSignal) {
    const known = await robotsOfOrigin(options.database.pool, origin)
    if (known) return known
    const nowMs = options.now()
    const before = remembered.get(origin)
    if (before && before.untilMs > nowMs) return before.robots
    remembered.delete(origin)
    const { robots, wasAborted } = await readRobots(options.fetch, `${origin}/robots.txt`, signal)
    if (wasAborted) return robots
    const [oldest] = remembered.keys()
    if (remembered.size >= mostRemembered && oldest !== undefined) remembered.delete(oldest)
    const freshMs = robots.state === 'disallow-all' ? unreadMs : robotsFreshMs
    remembered.set(origin, { robots, untilMs: nowMs + freshMs })
    return robots
  }

  return async (url: URL, signal: AbortSignal): Promise<string | null> => {
    const refusal = await optedOut(options.database, url.href)
    if (refusal !== null) return refusal
    const robots = await robotsOf(url.origin, signal)
    switch (robots.state) {
      case 'allow-all':
        return null
      case 'unknown':
        return `robots.txt of ${url.host} is not known yet.`
      case 'disallow-all':
        return `robots.txt of ${url.host} cannot be read, which forbids all.`
      case 'rules': {
        const verdict = robotsVerdict(parseRobots(robots.text), options.agent, url.href)
        return verdict.allowed
          ? null
          : `robots.txt of ${url.host} forbids it in line ${verdict.line}: ${verdict.rule}`
      }
    }
  }
}

/** Why an address is not fetched whatever robots.txt says, or null: its owner has said no. */
export async function optedOut(database: Database, url: string): Promise<string | null> {
  const covering = await database.transaction((tx) => optOutsCovering(tx, [{ url }]))
  return covering.size === 0 ? null : 'Its owner has opted out.'
}
