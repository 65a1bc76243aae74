import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import type { FetchHop } from '../../lib/runner/ports.ts'
import { readConfig } from '../../server/config.ts'
import { crawlCounts } from '../../server/demo/progress.ts'
import { type RunningServer, startServer } from '../../server/main.ts'
import { checkLedger, openCampaign, signCampaign } from '../../server/operator.ts'
import { startContributor } from './contributor.ts'
import { type SmallSite, smallCampaign, startSmallSite } from './small-site.ts'
import { startVanishingLine } from './vanishing-line.ts'

const stops: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

interface Scene {
  server: RunningServer
  site: SmallSite
  folder: string
}

async function start(times: { leaseMs: number; followUpMs: number }): Promise<Scene> {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-vanishing-'))
  stops.push(() => rm(folder, { recursive: true, force: true }))
  // As root, PostgreSQL runs as nobody and must pass through.
  await chmod(folder, 0o711)
  const site = await startSmallSite()
  stops.push(() => site.close())
  const server = await startServer(
    readConfig({ data: folder, port: '0', postgres: process.env.GLEANER_POSTGRES }, {}),
    pino({ level: 'silent' }),
    { scopeRules: { loopbackAllowed: false }, ...times },
  )
  stops.push(() => server.stop())
  const { keys } = server.workspace
  await openCampaign(server.workspace, await signCampaign(smallCampaign(Date.now()), keys.campaign))
  return { server, site, folder }
}

async function crawled({ server }: Scene, withinMs: number): Promise<void> {
  const deadline = Date.now() + withinMs
  for (;;) {
    const counts = await crawlCounts(server.workspace.database.pool)
    if (counts.done) return
    if (Date.now() > deadline) throw new Error(`still crawling: ${JSON.stringify(counts)}`)
    await sleep(50)
  }
}

async function expectAllPublished({ server, site }: Scene): Promise<void> {
  const { database } = server.workspace
  const { rows } = await database.pool.query<{ url: string }>(
    `select row_json::jsonb->>'url' as url from record`,
  )
  expect(rows.map(({ url }) => url).sort()).toEqual([...site.published].sort())
  expect(await checkLedger(database)).toMatchObject({ balanced: true })
}

test('the payload’s node vanishes: the next one is asked, and the page is published', async () => {
  const scene = await start({ leaseMs: 5_000, followUpMs: 2_000 })
  const { server, site, folder } = scene
  const serverPort = Number(new URL(server.origin).port)
  const [, fingerprint] = server.joinLink.split('#')
  const { pool } = server.workspace.database
  // Whoever is asked first for a page's payload is gone before it answers.
  let vanished: string | null = null
  let isPageAsked = false
  const nodes = await Promise.all(
    ['127.0.41.1', '127.0.42.1', '127.0.43.1'].map(async (address) => {
      const line = await startVanishingLine({
        address,
        serverPort,
        cutBefore: (request) => {
          if (vanished !== null || !isPageAsked) return false
          const id = /^POST \/v1\/follow-ups\/([A-Za-z0-9_-]{22})\/payload /.exec(request)?.[1]
          if (id === undefined) return false
          vanished = id
          return true
        },
      })
      stops.push(() => line.close())
      const joinLink = `http://${address}:${line.port}/join#${fingerprint}`
      const node = await startContributor({ joinLink, folder, address, sitePort: site.port })
      stops.push(() => node.stop())
      return { node, line }
    }),
  )
  // robots.txt is settled before any page is asked about.
  while (!isPageAsked) {
    const { rows } = await pool.query(`select from host where robots_state = 'rules'`)
    isPageAsked = rows.length === 1
    await sleep(10)
  }
  await crawled(scene, 60_000)

  expect(nodes.filter(({ line }) => line.isCut())).toHaveLength(1)
  const asked = await pool.query<{ state: string; mine: boolean; url: string }>(
    `select f.state, f.id = $1 as mine, t.url from follow_up f join task t on t.id = f.task_id
     where f.kind = 'payload' and f.task_id = (select task_id from follow_up where id = $1)
     order by f.asked_at`,
    [Buffer.from(vanished ?? '', 'base64url')],
  )
  expect(asked.rows[0]).toMatchObject({ mine: true, state: 'expired' })
  expect(asked.rows.slice(1).map(({ state }) => state)).toContain('answered')
  expect(site.published).toContain(asked.rows[0]?.url)
  await expectAllPublished(scene)
}, 90_000)

test('a node that takes leases and never answers loses them to others', async () => {
  const scene = await start({ leaseMs: 1_500, followUpMs: 20_000 })
  const { server, site, folder } = scene
  const { joinLink } = server
  const { pool } = server.workspace.database
  const silent: FetchHop = ({ signal }) =>
    new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error))
    })
  const joinAt = (address: string, hop?: FetchHop) =>
    startContributor({ joinLink, folder, address, sitePort: site.port, ...(hop && { hop }) })
  // Alone at first, so that it holds the first task.
  const mute = await joinAt('127.0.51.1', silent)
  stops.push(() => mute.stop())
  for (;;) {
    const { rows } = await pool.query('select from lease')
    if (rows.length > 0) break
    await sleep(20)
  }
  for (const address of ['127.0.52.1', '127.0.53.1']) {
    const node = await joinAt(address)
    stops.push(() => node.stop())
  }
  await crawled(scene, 60_000)

  const leases = await pool.query<{ state: string; mute: boolean; n: number }>(
    `select state, node_id = $1 as mute, count(*) as n from lease group by 1, 2`,
    [Buffer.from(mute.nodeId, 'base64url')],
  )
  const count = (state: string, isMute: boolean) =>
    leases.rows.find((row) => row.state === state && row.mute === isMute)?.n ?? 0
  expect(count('expired', true)).toBeGreaterThan(0)
  expect(count('answered', true)).toBe(0)
  expect(count('live', true)).toBe(0)
  const inFlight = await pool.query<{ in_flight: number }>('select in_flight from host')
  expect(inFlight.rows).toEqual([{ in_flight: 0 }])
  await expectAllPublished(scene)
}, 90_000)
