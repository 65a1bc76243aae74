import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import { beforeEach, expect, test } from 'vitest'
import { startAuditor } from '../../../server/auditor/start-auditor.ts'
import { openTestDatabase, type TestDatabase } from '../store/test-database.ts'
import { allEnded, ask, endAfter, openCampaign, site } from './lab.ts'

let database: TestDatabase
beforeEach(async () => {
  database = await openTestDatabase()
  endAfter(() => database.close())
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

function start(port: number) {
  const auditor = startAuditor(
    { connection: { ...database.connection }, logLevel: 'silent' },
    pino({ level: 'silent' }),
    {
      agent: 'gleaner',
      contact: 'crawl@barley.example',
      scopeRules: { loopbackAllowed: true },
      hostMap: { 'a.example': `127.0.0.1:${port}` },
    },
  )
  endAfter(() => auditor.stop())
  return auditor
}

const target = 'http://a.example/sitemap.xml'
const stateOf = async () =>
  (await database.pool.query<{ state: string }>('select state from auditor_task')).rows[0]?.state

test('an auditor that is killed is started again, and its task comes back', async () => {
  let requests = 0
  const port = await site((_, response) => {
    requests += 1
    // The first visit lasts until its auditor is dead.
    if (requests === 1) response.write('<urlset>')
    else response.end('<urlset><url><loc>http://a.example/1</loc></url></urlset>')
  })
  const campaign = await openCampaign(database, ['a.example'])
  await ask(database, [{ kind: 'sitemap', campaign, target }])
  const auditor = start(port)
  await expect.poll(() => requests, { timeout: 15_000 }).toBe(1)
  const first = auditor.pid
  if (first === undefined) throw new Error('no process')
  process.kill(first, 'SIGKILL')
  await expect.poll(() => isAlive(first), { timeout: 5_000 }).toBe(false)
  expect(await stateOf()).toBe('taken')
  // As if two minutes had passed.
  await database.pool.query(`update auditor_task set taken_at = now() - interval '3 minutes'`)
  const ended = await allEnded(database, 15_000)
  expect(ended[target]).toEqual({ state: 'done', reason: '1 addresses, 1 of them new' })
  expect(auditor.pid).not.toBe(first)
}, 40_000)

test('an auditor that is stopped gives back what it was at, and is gone', async () => {
  let requests = 0
  const port = await site((_, response) => {
    requests += 1
    response.write('<urlset>')
  })
  const campaign = await openCampaign(database, ['a.example'])
  await ask(database, [{ kind: 'sitemap', campaign, target }])
  const auditor = start(port)
  await expect.poll(() => requests, { timeout: 15_000 }).toBe(1)
  const { pid } = auditor
  await auditor.stop()
  expect(isAlive(pid ?? 0)).toBe(false)
  expect(await stateOf()).toBe('due')
  await auditor.stop()
}, 30_000)

test('an auditor ends when its server is killed', async () => {
  const program = fileURLToPath(new URL('./auditor-parent.ts', import.meta.url))
  const parent = spawn(
    process.execPath,
    ['--import', 'tsx', program, JSON.stringify(database.connection)],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  endAfter(async () => {
    parent.kill('SIGKILL')
  })
  const [line] = await once(createInterface(parent.stdout), 'line')
  const pid = Number(line)
  expect(isAlive(pid)).toBe(true)
  // It works: only then there is something that could outlive its server.
  const sessions = async () =>
    (
      await database.pool.query<{ n: number }>(
        'select count(*) as n from pg_stat_activity where application_name = $1',
        [`gleaner-${pid}`],
      )
    ).rows[0]?.n
  await expect.poll(sessions, { timeout: 15_000 }).toBeGreaterThan(0)
  parent.kill('SIGKILL')
  await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false)
}, 40_000)
