import type { Logger } from 'pino'
import type { ScopeRules } from '../../lib/consent/scope.ts'
import type { HostMap } from '../node/host-map.ts'
import {
  type AuditorTask,
  finishAuditorTask,
  mostAttempts,
  retryAuditorTask,
  returnAuditorTask,
  spreadHostTasks,
  takeAuditorTasks,
} from '../store/auditor-tasks.ts'
import { type Database, isAway } from '../store/database.ts'
import { haltInForce } from '../store/halt.ts'
import type { AuditorTools, Outcome } from './errand.ts'
import { createAuditorFetch } from './fetch-as-auditor.ts'
import { createHostTurns, HostBusy } from './host-turns.ts'
import { createNames } from './names.ts'
import { optOutDnsErrand, optOutFileErrand } from './opt-out-errand.ts'
import { robotsErrand } from './robots-errand.ts'
import { createRobotsPermit } from './robots-permit.ts'
import { sitemapErrand } from './sitemap-errand.ts'
import { useFileErrand } from './use-file-errand.ts'

export interface AuditorOptions {
  /** Name by which robots.txt addresses us. */
  agent: string
  /** How a site's owner reaches the operator: a mailbox or an address. */
  contact: string
  scopeRules: ScopeRules
  /** For tests and the demo only. */
  hostMap?: HostMap | undefined
  /** `address:port` each; those of the machine without it. */
  nameServers?: readonly string[] | undefined
}

export interface RunningAuditor {
  /** Aborts what is under way and gives it back. */
  stop(): Promise<void>
}

/** Fetches at once. More would only hold more memory: a site is asked once at a time anyway. */
const mostAtOnce = 8
const idleMs = 500
/** Well below the two minutes after which a taken task is taken again. */
export const taskMs = 100_000
/** Halted is halted within five seconds: looked at each second, and running fetches are aborted. */
const haltLookMs = 1_000
const mostBackoffMs = 5_000

/** Works off the auditor's tasks until stopped. Several may work beside each other. */
export function runAuditor(
  database: Database,
  options: AuditorOptions,
  log: Logger,
): RunningAuditor {
  const names = createNames(options.nameServers)
  const fetch = createAuditorFetch({
    ...crawlerHeaders(options.contact),
    takeTurn: createHostTurns(database),
    hostMap: options.hostMap,
    loopbackAllowed: options.scopeRules.loopbackAllowed,
    lookup: names.lookup,
  })
  const { agent, scopeRules } = options
  const now = Date.now
  const permit = createRobotsPermit({ database, fetch, agent, now })
  const tools: AuditorTools = { database, fetch, names, agent, scopeRules, now, permit }

  const running = new Map<AuditorTask, { abort: AbortController; ended: Promise<void> }>()
  let isStopped = false
  let wake = () => {}
  const pause = (ms: number) =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })

  function start(task: AuditorTask) {
    const abort = new AbortController()
    const ended = runTask(task, tools, abort.signal, log).finally(() => {
      running.delete(task)
      wake()
    })
    running.set(task, { abort, ended })
  }

  async function take(): Promise<boolean> {
    if (running.size >= mostAtOnce) return false
    const origins = [...running.keys()].map(({ target }) => originOf(target))
    const tasks = await takeAuditorTasks(database.pool, mostAtOnce - running.size, origins)
    for (const task of tasks) start(task)
    return tasks.length > 0
  }

  async function obeyHalt() {
    if (running.size === 0 || (await haltInForce(database.pool)) === null) return
    for (const [task, { abort }] of running) if (task.optOut === null) abort.abort()
  }

  const loop = (async () => {
    let failures = 0
    let haltLookedMs = 0
    while (!isStopped) {
      try {
        if (performance.now() - haltLookedMs >= haltLookMs) {
          haltLookedMs = performance.now()
          await obeyHalt()
        }
        const took = await take()
        failures = 0
        if (!took) await pause(idleMs)
      } catch (error) {
        failures += 1
        if (isAway(error)) log.warn({ err: error }, 'the auditor waits for its database')
        else log.error({ err: error }, 'the auditor could not take its tasks; it tries again')
        await pause(Math.min(mostBackoffMs, 100 * 2 ** Math.min(failures, 6)))
      }
    }
  })()

  return {
    async stop() {
      isStopped = true
      wake()
      await loop
      for (const { abort } of running.values()) abort.abort()
      await Promise.all([...running.values()].map(({ ended }) => ended))
      names.close()
    },
  }
}

/** Never throws: what fails is written to the task or, when that fails too, found again after two minutes. */
async function runTask(
  task: AuditorTask,
  tools: AuditorTools,
  stop: AbortSignal,
  log: Logger,
): Promise<void> {
  const { database } = tools
  try {
    await end(task, tools, await outcomeOf(task, tools, stop), stop)
  } catch (error) {
    if (error instanceof HostBusy) {
      await returnAuditorTask(database.pool, task, error.waitMs).catch(leave)
      // Others for this host would come and go in the same way.
      if (error.hostId !== null) {
        await spreadHostTasks(database.pool, error.hostId, error.waitMs).catch(leave)
      }
    } else {
      log.error({ err: error, task }, 'an errand of the auditor failed; it is tried again')
      await retryAuditorTask(database.pool, task, `An error of ours: ${error}`).catch(leave)
    }
  }

  function leave(error: unknown) {
    log.warn(
      { err: error, task: task.id },
      'a task could not be given back; it comes back by itself',
    )
  }
}

async function outcomeOf(
  task: AuditorTask,
  tools: AuditorTools,
  stop: AbortSignal,
): Promise<Outcome> {
  const isProof = task.kind === 'opt-out-file' || task.kind === 'opt-out-dns'
  if (!isProof && task.attempts > mostAttempts) {
    return { kind: 'failed', reason: `The auditor died ${task.attempts - 1} times at it.` }
  }
  const signal = AbortSignal.any([stop, AbortSignal.timeout(taskMs)])
  switch (task.kind) {
    case 'robots':
      return robotsErrand(task, tools, signal)
    case 'sitemap':
      return sitemapErrand(task, tools, signal)
    case 'use-file':
      return useFileErrand(task, tools, signal)
    case 'opt-out-file':
      return optOutFileErrand(task, tools, signal)
    case 'opt-out-dns':
      return optOutDnsErrand(task, tools)
  }
}

async function end(task: AuditorTask, tools: AuditorTools, outcome: Outcome, stop: AbortSignal) {
  const { database } = tools
  // What was aborted says nothing about the site.
  if (stop.aborted) return returnAuditorTask(database.pool, task, 0)
  if (outcome.kind === 'retry') return retryAuditorTask(database.pool, task, outcome.reason)
  const { kind: state, reason, apply } = outcome
  try {
    await database.transaction(async (tx) => {
      await apply?.(tx)
      if (!(await finishAuditorTask(tx, task, { state, reason }))) throw new CalledOff()
    })
    // Committed. Killed before, the task is taken again and its effects are the same.
  } catch (error) {
    if (!(error instanceof CalledOff)) throw error
  }
}

/** The task was called off, or somebody else has it: what was done with it is rolled back. */
class CalledOff extends Error {}

function originOf(target: string): string {
  return /^[a-z]+:\/\/[^/?#]+/.exec(target)?.[0] ?? target
}

/** Who asks, and whom to complain to (RFC 9110 §10.1.2 and §10.1.5). Header fields are ASCII. */
export function crawlerHeaders(contact: string): { userAgent: string; from: string | null } {
  const ascii = contact.replace(/[^\x20-\x7e]/g, '?')
  const isMailbox = /^[^\s@<>()]+@[^\s@<>()]+$/.test(ascii)
  return { userAgent: `Gleaner/0.1.0 (auditor; +${ascii})`, from: isMailbox ? ascii : null }
}
