// A task server in a process of its own, which kills itself where it is told to. Takes commands and
// gives answers as lines of JSON. Everything is loaded before the first command, so that a test can
// keep the next one ready.
import { createInterface } from 'node:readline'
import { pino } from 'pino'
import { readConfig } from '../../server/config.ts'
import { type RunningServer, startServer } from '../../server/main.ts'
import { openCampaign, publishRelease, signCampaign } from '../../server/operator.ts'
import { campaigns } from '../../server/store/campaigns.ts'
import { smallCampaign } from './small-site.ts'
import { armStrikes, type Strike } from './strikes.ts'

export type Command =
  | { do: 'start'; data: string; port: string; strikes: Strike[]; leaseMs: number }
  | { do: 'open'; nowMs: number }
  | { do: 'publish'; name: string; folder: string }
  | { do: 'stop' }

let server: RunningServer | null = null

async function perform(command: Command): Promise<object> {
  if (command.do === 'start') {
    armStrikes(command.strikes)
    const { data, port } = command
    const config = readConfig(
      // Only the server's own port is known to be free.
      { data, port, metrics: 'off', postgres: process.env.GLEANER_POSTGRES },
      {},
    )
    const log = pino({ level: 'warn' }, pino.destination({ fd: 2, sync: true }))
    server = await startServer(config, log, {
      scopeRules: { loopbackAllowed: false },
      leaseMs: command.leaseMs,
      followUpMs: 60_000,
    })
    const { joinLink, verifierKey, workspace } = server
    return { joinLink, verifierKey, connection: workspace.connection }
  }
  if (!server) throw new Error('start comes first')
  const { workspace } = server
  switch (command.do) {
    case 'open': {
      const manifest = smallCampaign(command.nowMs)
      const known = (await campaigns(workspace.database.pool)).some(
        (one) => one.manifest.id === manifest.id,
      )
      if (!known)
        await openCampaign(workspace, await signCampaign(manifest, workspace.keys.campaign))
      return { opened: manifest.id }
    }
    case 'publish': {
      const { name, folder } = command
      return publishRelease(workspace, { campaignId: 'fields', name, folder, nowMs: Date.now() })
    }
    case 'stop':
      await server.stop()
      return { stopped: true }
  }
}

for await (const line of createInterface(process.stdin)) {
  const command = JSON.parse(line) as Command
  try {
    const answer = await perform(command)
    process.stdout.write(`${JSON.stringify({ answer })}\n`)
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ error: (error as Error).stack })}\n`)
  }
  if (command.do === 'stop') break
}
process.exit()
