/** The real task server in a process of its own, for the bench: opens campaigns and tells its figures. */
import { pino } from 'pino'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import { readConfig } from '../../../server/config.ts'
import { startServer } from '../../../server/main.ts'
import { openCampaign, signCampaign } from '../../../server/operator.ts'
import { cpuMs } from '../frontier/process-cpu.ts'

export type Ask =
  | { kind: 'open'; manifest: Campaign }
  | { kind: 'progress'; campaign: string }
  | { kind: 'outcome'; campaign: string }
  | { kind: 'cpu' }
  | { kind: 'stop' }

export interface Cpu {
  serverMs: number
  /** Of PostgreSQL's processes; null where the system does not tell. */
  databaseMs: number | null
}

export interface CrawlOutcome {
  verified: { url: string; grade: 'exact' | 'sentences' }[]
  /** Pages by verdict, the verified too. */
  verdicts: Record<string, number>
  observations: number
  thirdObservers: number
  /** From the first lease to the last decision. */
  seconds: number
}

const [dataFolder = ''] = process.argv.slice(2)
const config = readConfig({ data: dataFolder, port: '0', name: 'Bench' }, {})
const log = pino({ level: 'error' }, pino.destination({ fd: 2, sync: true }))
const server = await startServer(config, log, { scopeRules: { loopbackAllowed: false } })
const { database, keys, postgres } = server.workspace

async function answer(ask: Ask): Promise<unknown> {
  switch (ask.kind) {
    case 'open': {
      const envelope = await signCampaign(ask.manifest, keys.campaign)
      return (await openCampaign(server.workspace, envelope)).digest
    }
    case 'progress': {
      const { rows } = await database.pool.query<{ closed: number; open: number }>(
        `select count(*) filter (where state = 'closed' and kind = 'page') as closed,
                count(*) filter (where state <> 'closed') as open
         from task where campaign = $1`,
        [Buffer.from(ask.campaign, 'base64url')],
      )
      return rows[0]
    }
    case 'outcome':
      return outcomeOf(Buffer.from(ask.campaign, 'base64url'))
    case 'cpu':
      return cpu()
    case 'stop':
      await server.stop()
      return null
  }
}

async function outcomeOf(campaign: Buffer): Promise<CrawlOutcome> {
  const { rows: verified } = await database.pool.query<CrawlOutcome['verified'][number]>(
    `select t.url, r.row_json::jsonb->>'grade' as grade
     from record r join task t on t.id = r.task_id where r.campaign = $1`,
    [campaign],
  )
  const { rows: verdicts } = await database.pool.query<{ verdict: string; pages: number }>(
    `select coalesce(verdict || coalesce(': ' || reason, ''), 'unfinished') as verdict, count(*) as pages
     from task where campaign = $1 and kind = 'page' group by 1 order by 1`,
    [campaign],
  )
  const { rows } = await database.pool.query<{
    observations: number
    third: number
    seconds: number
  }>(
    `select (select count(*) from observation o join task t on t.id = o.task_id where t.campaign = $1) as observations,
            (select coalesce(sum(greatest(0, n - quorum)), 0)::int8 from (
               select count(*) as n, (c.manifest->>'quorum')::int as quorum
               from observation o join task t on t.id = o.task_id join campaign c on c.digest = t.campaign
               where t.campaign = $1 group by t.id, quorum) as heard) as third,
            extract(epoch from
              (select max(closed_at) from task where campaign = $1) -
              (select min(l.issued_at) from lease l join task t on t.id = l.task_id where t.campaign = $1)
            )::float8 as seconds`,
    [campaign],
  )
  const [row] = rows
  if (!row) throw new Error('a count without a row')
  return {
    verified,
    verdicts: Object.fromEntries(verdicts.map(({ verdict, pages }) => [verdict, pages])),
    observations: row.observations,
    thirdObservers: row.third,
    seconds: row.seconds,
  }
}

function cpu(): Cpu {
  const { user, system } = process.cpuUsage()
  return {
    serverMs: (user + system) / 1000,
    databaseMs: postgres && cpuMs({ pids: [], withChildren: postgres.pid }),
  }
}

process.on('message', ({ id, ask }: { id: number; ask: Ask }) => {
  void answer(ask).then(
    (value) => process.send?.({ id, value }),
    (error: unknown) => process.send?.({ id, error: String(error) }),
  )
})
// The bench is gone: nobody will say stop.
process.on('disconnect', () => void server.stop())
process.send?.({ id: 0, value: server.joinLink })
