import { applyRobots } from '../robots.ts'
import type { AuditorTask } from '../store/auditor-tasks.ts'
import type { AuditorTools, Outcome } from './errand.ts'
import { readRobots } from './read-robots.ts'
import { optedOut } from './robots-permit.ts'

/** A host's robots.txt that lies outside of contributors' consent. */
export async function robotsErrand(
  task: AuditorTask,
  tools: AuditorTools,
  signal: AbortSignal,
): Promise<Outcome> {
  const { hostId } = task
  if (hostId === null) return { kind: 'failed', reason: 'It is not said for which host.' }
  const refusal = await optedOut(tools.database, task.target)
  if (refusal !== null) return { kind: 'failed', reason: refusal }
  const { robots, wasAborted } = await readRobots(tools.fetch, task.target, signal)
  // Says nothing about the site. Anything else does, and the host's own backoff asks again.
  if (wasAborted) return { kind: 'retry', reason: robots.reason }
  return {
    kind: 'done',
    reason: `${robots.state}: ${robots.reason}`,
    apply: (tx) => applyRobots(tx, hostId, robots, tools.agent),
  }
}
