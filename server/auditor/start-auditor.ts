import { type ChildProcess, fork } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type pg from 'pg'
import type { Logger } from 'pino'
import type { AuditorSettings, ToAuditor } from './child.ts'
import type { AuditorOptions } from './run-auditor.ts'

/** JavaScript values of one process; a sitemap needs some ten. Hostile files end it and not the server. */
const heapMegabytes = 256
const firstBackoffMs = 500
const mostBackoffMs = 60_000
/** Whoever lived so long did not die of its start. */
const healthyMs = 60_000
/** A little more than the child takes to give its tasks back. */
const stopMs = 5_000

/**
 * Runs the auditor as a process of its own, and starts it again when it dies: at once, then after
 * ever longer pauses of up to a minute. It ends with this process, however that ends.
 */
export function startAuditor(
  config: { connection: pg.PoolConfig; logLevel: string },
  log: Logger,
  options: AuditorOptions,
): { stop(): Promise<void>; readonly pid: number | undefined } {
  const settings: AuditorSettings = { ...options, ...config }
  const stopping = new AbortController()
  let child: ChildProcess | null = null

  const kept = (async () => {
    let deaths = 0
    while (!stopping.signal.aborted) {
      const bornMs = performance.now()
      child = forked(settings)
      const exit = await ended(child)
      child = null
      if (stopping.signal.aborted) return
      deaths = performance.now() - bornMs > healthyMs ? 1 : deaths + 1
      const waitMs = Math.min(firstBackoffMs * 2 ** Math.min(deaths - 1, 20), mostBackoffMs)
      log.error({ ...exit, waitMs }, 'the auditor ended; it is started again')
      // Cut short when the server stops.
      await sleep(waitMs, undefined, { signal: stopping.signal }).catch(() => undefined)
    }
  })()

  return {
    get pid() {
      return child?.pid
    },
    async stop() {
      stopping.abort()
      const last = child
      if (last) {
        if (last.connected) last.send('stop' satisfies ToAuditor, () => {})
        const kill = setTimeout(() => last.kill('SIGKILL'), stopMs)
        await ended(last)
        clearTimeout(kill)
      }
      await kept
    },
  }
}

function forked(settings: AuditorSettings): ChildProcess {
  const program = fileURLToPath(new URL('./auditor-process.mjs', import.meta.url))
  const child = fork(program, [], {
    // Not the parent's: it may have a loader or an inspector of its own.
    execArgv: [`--max-old-space-size=${heapMegabytes}`],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  // Failing to start and failing to be told are both seen as its end.
  child.on('error', () => child.kill('SIGKILL'))
  child.once('message', () => child.send(settings satisfies ToAuditor, () => {}))
  return child
}

function ended(child: ChildProcess): Promise<{ code: number | null; signal: string | null }> {
  const { exitCode: code, signalCode: signal } = child
  if (code !== null || signal !== null) return Promise.resolve({ code, signal })
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }))
    // Could not be started at all: there is no exit.
    child.once('error', () => {
      if (child.pid === undefined) resolve({ code: null, signal: null })
    })
  })
}
