// A process that owns a database folder until it is killed or told "stop" on its standard input.
// Says what happened in one line of JSON.
import { once } from 'node:events'
import { pino } from 'pino'
import { startEmbeddedPostgres } from '../../../server/store/embedded-postgres.ts'

const [dataFolder = '', binaries] = process.argv.slice(2)
try {
  const log = pino({ level: 'silent' })
  const postgres = await startEmbeddedPostgres({ dataFolder, log, binaries })
  const { pid, adopted, connection } = postgres
  process.stdout.write(`${JSON.stringify({ pid, adopted, connection })}\n`)
  await once(process.stdin, 'data')
  await postgres.stop()
} catch (error) {
  const { name, message } = error as Error
  process.stdout.write(`${JSON.stringify({ error: name, message })}\n`)
}
process.exit()
