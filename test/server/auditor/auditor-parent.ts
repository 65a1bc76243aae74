// A server as far as the auditor is concerned: starts one, says its process id, and lives on.
import { pino } from 'pino'
import { startAuditor } from '../../../server/auditor/start-auditor.ts'

const [connection = '{}'] = process.argv.slice(2)
const auditor = startAuditor(
  { connection: JSON.parse(connection), logLevel: 'silent' },
  pino({ level: 'silent' }),
  { agent: 'gleaner', contact: 'crawl@barley.example', scopeRules: { loopbackAllowed: true } },
)
process.stdout.write(`${auditor.pid}\n`)
setInterval(() => {}, 60_000)
