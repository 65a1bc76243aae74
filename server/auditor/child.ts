import type pg from 'pg'
import { pino } from 'pino'
import { openDatabase } from '../store/database.ts'
import { type AuditorOptions, type RunningAuditor, runAuditor } from './run-auditor.ts'

/** What the server tells its auditor: by message, since arguments and environment are seen by others. */
export interface AuditorSettings extends AuditorOptions {
  connection: pg.PoolConfig
  logLevel: string
}

/** The first message is the settings, the second says to stop. */
export type ToAuditor = AuditorSettings | 'stop'

/** To give tasks back; a database that does not answer is not waited for. */
const stopMs = 3_000

/** Works for the parent process until it says stop, or is gone in whatever way. */
export function serveParent() {
  let stop: () => Promise<void> = async () => {}
  let isEnding = false
  const end = () => {
    if (isEnding) return
    isEnding = true
    setTimeout(() => process.exit(1), stopMs).unref()
    void stop().then(
      () => process.exit(0),
      () => process.exit(1),
    )
  }
  // The kernel closes the channel when the parent dies, SIGKILL included.
  process.once('disconnect', end)
  // It died while this process was still loading.
  if (!process.connected) return end()
  process.on('message', (message: ToAuditor) => {
    if (message === 'stop') end()
    else if (!isEnding) stop = start(message)
  })
  // Ctrl-C reaches the whole group; the parent says when.
  process.on('SIGINT', () => {})
  process.once('SIGTERM', end)
  process.send?.('ready')
}

function start({ connection, logLevel, ...options }: AuditorSettings): () => Promise<void> {
  const log = pino({ level: logLevel, name: 'auditor' }, pino.destination({ fd: 2, sync: true }))
  const database = openDatabase({ connection, log, maxConnections: 10 })
  const auditor: RunningAuditor = runAuditor(database, options, log)
  return async () => {
    await auditor.stop()
    await database.close()
  }
}
