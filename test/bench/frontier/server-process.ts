/** The real task server in a process of its own. With a DATABASE_URL it joins another's database. */
import { pino } from 'pino'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import { readConfig } from '../../../server/config.ts'
import { startServer } from '../../../server/main.ts'
import { openCampaign, signCampaign } from '../../../server/operator.ts'
import type { PostgresConnection } from '../../../server/store/embedded-postgres.ts'
import { answerParent } from './child.ts'

export type ServerAsk =
  /** Opens a campaign; answers its digest, base64url. */
  { kind: 'open'; manifest: Campaign }

export interface ServerReady {
  joinLink: string
  origin: string
  /** Of the embedded database, when it is this process's. */
  postgres: { pid: number; connection: PostgresConnection } | null
}

const [dataFolder = '', databaseUrl] = process.argv.slice(2)
const flags = { data: dataFolder, port: '0', name: 'Bench', contact: 'operator@example.org' }
const config = readConfig(databaseUrl === undefined ? flags : { ...flags, databaseUrl }, {})
const log = pino({ level: 'error' }, pino.destination({ fd: 2, sync: true }))
const server = await startServer(config, log, { scopeRules: { loopbackAllowed: false } })
const { keys, postgres } = server.workspace
const ready: ServerReady = {
  joinLink: server.joinLink,
  origin: server.origin,
  postgres: postgres && { pid: postgres.pid, connection: postgres.connection },
}

answerParent<ServerAsk>({
  ready,
  answer: async ({ manifest }) => {
    const envelope = await signCampaign(manifest, keys.campaign)
    return (await openCampaign(server.workspace, envelope)).digest
  },
  stop: () => server.stop(),
})
