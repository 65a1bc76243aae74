import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import { ServerProblem } from '../../lib/runner/server-connection.ts'
import { readConfig } from '../../server/config.ts'
import { crawlCounts } from '../../server/demo/progress.ts'
import { type RunningServer, startServer } from '../../server/main.ts'
import { openCampaign, signCampaign } from '../../server/operator.ts'
import { startContributor } from './contributor.ts'
import { smallCampaign, startSmallSite } from './small-site.ts'
import { expectAcknowledgedIsStored, expectNothingCreditedTwice, untilTold } from './soundness.ts'

const stops: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

async function start(): Promise<{ server: RunningServer; folder: string; log: string[] }> {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-database-'))
  stops.push(() => rm(folder, { recursive: true, force: true }))
  // As root, PostgreSQL runs as nobody and must pass through.
  await chmod(folder, 0o711)
  const config = readConfig({ data: folder, port: '0', postgres: process.env.GLEANER_POSTGRES }, {})
  const log: string[] = []
  const server = await startServer(
    config,
    pino({ level: 'info' }, { write: (line: string) => log.push(line) }),
    { scopeRules: { loopbackAllowed: false } },
  )
  stops.push(() => server.stop())
  return { server, folder, log }
}

function killDatabase(server: RunningServer): void {
  const pid = server.workspace.postgres?.pid
  if (pid === undefined) throw new Error('a server without a database of its own')
  process.kill(pid, 'SIGKILL')
}

test('a server whose database is killed starts it again, and the crawl finishes', async () => {
  const { server, folder, log } = await start()
  const { database, keys } = server.workspace
  const site = await startSmallSite()
  stops.push(() => site.close())
  await openCampaign(server.workspace, await signCampaign(smallCampaign(Date.now()), keys.campaign))
  const nodes = await Promise.all(
    ['127.0.31.1', '127.0.32.1', '127.0.33.1'].map((address) =>
      startContributor({ joinLink: server.joinLink, folder, address, sitePort: site.port }),
    ),
  )
  stops.push(() => Promise.all(nodes.map((node) => node.stop())))

  // While robots.txt is observed, and in the middle of the pages. A third death would be one too many.
  const killAt = [1, 6]
  const deadline = Date.now() + 60_000
  for (;;) {
    // A query may meet the death: then there is nothing to count yet.
    const counts = await crawlCounts(database.pool).catch(() => null)
    if (counts?.done) break
    const [at] = killAt
    if (counts && at !== undefined && counts.observations >= at) {
      killAt.shift()
      console.log(`database killed after ${counts.observations} observations`)
      killDatabase(server)
    }
    if (Date.now() > deadline) {
      throw new Error(`still crawling: ${JSON.stringify(counts)}\n${log.join('')}`)
    }
    await sleep(20)
  }
  expect(killAt).toEqual([])
  expect(log.filter((line) => line.includes('the embedded database runs again'))).toHaveLength(2)

  // Nodes were asked to come back, not told of a failure.
  const failures = nodes
    .flatMap((node) => node.problems)
    .filter(({ error }) => error instanceof ServerProblem && error.reason === 'internal')
  expect(failures).toEqual([])

  await untilTold(nodes, 60_000)
  await expectAcknowledgedIsStored(database, nodes)
  await expectNothingCreditedTwice(database, nodes)
  const { rows } = await database.pool.query<{ url: string }>(
    `select row_json::jsonb->>'url' as url from record`,
  )
  expect(rows.map(({ url }) => url).sort()).toEqual([...site.published].sort())
}, 120_000)

test('a database that dies again and again stops the server with a sentence', async () => {
  const { server, folder } = await start()
  let failure: Error | null = null
  void server.failed.then((error) => {
    failure = error
  })
  const killed = new Set<number>()
  const deadline = Date.now() + 30_000
  while (failure === null && Date.now() < deadline) {
    const pid = server.workspace.postgres?.pid
    if (pid !== undefined && !killed.has(pid)) {
      killed.add(pid)
      killDatabase(server)
    }
    await sleep(20)
  }
  expect(killed.size).toBe(3)
  expect(failure).toMatchObject({
    message: `The embedded database ended three times within a minute. Its log is in ${join(folder, 'postgres')}. The server stops; nothing that was acknowledged is lost.`,
  })
}, 60_000)
