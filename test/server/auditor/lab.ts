import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pino } from 'pino'
import { afterEach, expect } from 'vitest'
import { sha256 } from '../../../lib/crypto/digest.ts'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import {
  type AuditorOptions,
  type RunningAuditor,
  runAuditor,
} from '../../../server/auditor/run-auditor.ts'
import { addAuditorTasks, type NewAuditorTask } from '../../../server/store/auditor-tasks.ts'
import { addCampaign } from '../../../server/store/campaigns.ts'
import type { Database } from '../../../server/store/database.ts'
import { smallCampaign } from '../small-site.ts'

const ends: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

/** Ends it after the test. */
export function endAfter(end: () => Promise<void>) {
  ends.push(end)
}

/** A site on loopback; returns its port. */
export async function site(listener: RequestListener): Promise<number> {
  const server: Server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  endAfter(
    () =>
      new Promise((resolve) => {
        server.closeAllConnections()
        server.close(() => resolve())
      }),
  )
  return (server.address() as AddressInfo).port
}

export function auditor(database: Database, options: Partial<AuditorOptions> = {}): RunningAuditor {
  const running = runAuditor(
    database,
    {
      agent: 'gleaner',
      contact: 'crawl@barley.example',
      scopeRules: { loopbackAllowed: true },
      ...options,
    },
    pino({ level: 'silent' }),
  )
  endAfter(() => running.stop())
  return running
}

/** A running campaign over hosts, all of which allow everything at a quick pace. */
export async function openCampaign(
  database: Database,
  hosts: readonly string[],
  limits: Partial<Campaign['limits']> = {},
): Promise<Buffer> {
  const campaign = smallCampaign(Date.now())
  const [one] = campaign.sites
  if (!one) throw new Error('a campaign without a site')
  const manifest: Campaign = {
    ...campaign,
    id: `over-${hosts[0]?.replaceAll('.', '-')}`,
    sites: hosts.map((host) => ({ ...one, host, requestsInFlight: 1 })),
    limits: { ...campaign.limits, pages: 10_000, ...limits },
  }
  const digest = Buffer.from(sha256(JSON.stringify(manifest)))
  const envelope = { payloadType: 'none', payload: '', signatures: [] }
  await database.transaction((tx) => addCampaign(tx, { digest, manifest, envelope, leafIndex: 1 }))
  await database.pool.query(
    `update host set robots_state = 'allow-all', robots_at = now(), robots_due_at = null`,
  )
  return digest
}

export async function hostId(database: Database, origin: string): Promise<number> {
  const { rows } = await database.pool.query<{ id: number }>(
    'select id from host where origin = $1',
    [origin],
  )
  if (!rows[0]) throw new Error(`no host ${origin}`)
  return rows[0].id
}

export function ask(database: Database, tasks: readonly NewAuditorTask[]) {
  return database.transaction((tx) => addAuditorTasks(tx, tasks))
}

/** Waits until nothing is due or taken; returns how each task ended, by its target. */
export async function allEnded(
  database: Database,
  timeout = 15_000,
): Promise<Record<string, { state: string; reason: string }>> {
  const read = async () =>
    (
      await database.pool.query<{ target: string; state: string; reason: string }>(
        'select target, state, reason from auditor_task order by id',
      )
    ).rows
  await expect
    .poll(async () => (await read()).filter(({ state }) => /due|taken/.test(state)), {
      timeout,
      interval: 50,
    })
    .toEqual([])
  return Object.fromEntries((await read()).map(({ target, ...row }) => [target, row]))
}
