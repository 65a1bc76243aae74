import { chmod, mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { readConfig } from '../../../server/config.ts'
import { createMetrics } from '../../../server/http/metrics.ts'
import { type RunningServer, startServer } from '../../../server/main.ts'
import { openCampaign, signCampaign } from '../../../server/operator.ts'
import { endHalt, putHalt } from '../../../server/store/halt.ts'
import { readMeasures } from '../../../server/store/measures.ts'
import { smallCampaign } from '../small-site.ts'
import { openTestDatabase } from '../store/test-database.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })
const silent = pino({ level: 'silent' })
const knowing = { count: () => 3, knowsHalts: () => true }

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gleaner-metrics-'))
  // As root, PostgreSQL runs as nobody and must pass through.
  await chmod(folder, 0o711)
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const start = (flags: { metrics?: string } = {}) =>
  startServer(
    readConfig({ data: folder, port: '0', postgres: process.env.GLEANER_POSTGRES, ...flags }, {}),
    silent,
    { scopeRules: { loopbackAllowed: false } },
  )

/** Values by series, and the families that were declared. */
async function scrape(origin: string | null) {
  const response = await fetch(`${origin}/metrics`)
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
  const lines = (await response.text()).split('\n').filter((line) => line !== '')
  const values = new Map<string, number>()
  for (const line of lines.filter((one) => !one.startsWith('#'))) {
    const space = line.lastIndexOf(' ')
    values.set(line.slice(0, space), Number(line.slice(space + 1)))
  }
  const families = lines.filter((one) => one.startsWith('# TYPE')).map((one) => one.split(' ')[2])
  return { values, families }
}

describe('a running server', () => {
  let server: RunningServer
  beforeAll(async () => {
    server = await start()
    const { keys } = server.workspace
    await openCampaign(
      server.workspace,
      await signCampaign(smallCampaign(Date.now()), keys.campaign),
    )
  })
  afterAll(() => server?.stop())

  test('is healthy, on an address of its own', async () => {
    expect(server.metricsOrigin).not.toBe(server.origin)
    await vi.waitFor(async () => {
      const response = await fetch(`${server.metricsOrigin}/healthz`)
      expect([response.status, await response.json()]).toEqual([200, { ok: true }])
    })
    expect((await fetch(`${server.origin}/metrics`)).status).toBe(404)
    expect((await fetch(`${server.origin}/healthz`)).status).toBe(404)
    expect((await fetch(`${server.metricsOrigin}/v1/network`)).status).toBe(404)
    expect((await fetch(`${server.metricsOrigin}/metrics`, { method: 'POST' })).status).toBe(405)
  })

  test('counts requests by route and status, never by address', async () => {
    await fetch(`${server.origin}/v1/network`)
    await fetch(`${server.origin}/no/such/page-1`)
    await fetch(`${server.origin}/no/such/page-2`)
    await fetch(`${server.origin}/v1/leases`, { method: 'POST' })
    const { values } = await scrape(server.metricsOrigin)
    const count = (method: string, route: string, status: number) =>
      values.get(
        `gleaner_http_request_duration_seconds_count{method="${method}",route="${route}",status="${status}"}`,
      )
    expect(count('GET', '/v1/network', 200)).toBe(1)
    expect(count('POST', '/v1/leases', 401)).toBe(1)
    expect([...values.keys()].filter((series) => series.includes('page-'))).toEqual([])
    expect(
      [...values].filter(([series]) => /_count\{.*status="404"/.test(series)).map(([, n]) => n),
    ).toEqual([expect.any(Number)])
  })

  test('tells what a Prometheus user expects, under names of its kind', async () => {
    const { values, families } = await scrape(server.metricsOrigin)
    expect(values.get('gleaner_database_up')).toBe(1)
    expect(values.get('gleaner_halted')).toBe(0)
    expect(values.get('gleaner_campaigns{state="running"}')).toBe(1)
    expect(values.get('gleaner_campaigns{state="paused"}')).toBe(0)
    expect(values.get('gleaner_log_leaves')).toBe(2)
    expect(values.get('gleaner_doorbell_sockets')).toBe(0)
    for (const name of [
      'process_cpu_seconds_total',
      'nodejs_eventloop_lag_seconds',
      'gleaner_leased_urls_total',
      'gleaner_lease_refusals_total',
      'gleaner_observations_total',
      'gleaner_hosts_held',
      'gleaner_requests_in_flight',
      'gleaner_follow_ups_open',
      'gleaner_records',
      'gleaner_points_pending',
      'gleaner_loop_failures_total',
    ]) {
      expect(families).toContain(name)
    }
    // A family must not be declared twice, or a scrape fails as a whole.
    expect(new Set(families).size).toBe(families.length)
    for (const name of families.filter((one) => one?.startsWith('gleaner_'))) {
      expect(name).toMatch(/^gleaner_[a-z_]+$/)
    }
  })

  test('without metrics, nothing listens', async () => {
    await server.stop()
    server = await start({ metrics: 'off' })
    expect(server.metricsOrigin).toBeNull()
  })

  test('a taken port is named with its flag, and everything is stopped again', async () => {
    await server.stop()
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
    const { port } = other.address() as AddressInfo
    await expect(start({ metrics: `127.0.0.1:${port}` })).rejects.toThrow(
      new RegExp(`^Port ${port} on 127\\.0\\.0\\.1, where metrics .* taken .*--metrics .*"off"`),
    )
    await expect(start({ metrics: '203.0.113.77:1' })).rejects.toThrow(
      /^Metrics cannot listen on port 1 of 203\.0\.113\.77.*--metrics/,
    )
    other.close()
    server = await start()
  })
})

describe('health', () => {
  async function healthOf(metrics: ReturnType<typeof createMetrics>) {
    const { port } = await metrics.listen({ host: '127.0.0.1', port: 0 })
    const response = await fetch(`http://127.0.0.1:${port}/healthz`)
    await metrics.close()
    return [response.status, await response.json()]
  }

  test('a database that is away, and a doorbell that may miss a halt, are named', async () => {
    const database = await openTestDatabase()
    await database.close()
    const doorbells = { count: () => 0, knowsHalts: () => false }
    const metrics = createMetrics({ db: database.pool, log: silent, doorbells })
    expect(await healthOf(metrics)).toEqual([503, { ok: false, failing: ['database', 'doorbell'] }])
  })

  test('a database that hangs is away after two seconds', async () => {
    const hanging = { query: () => new Promise<never>(() => {}) }
    const metrics = createMetrics({ db: hanging, log: silent, doorbells: knowing })
    const beganMs = performance.now()
    expect(await healthOf(metrics)).toEqual([503, { ok: false, failing: ['database'] }])
    expect(performance.now() - beganMs).toBeGreaterThan(1_900)
  })

  test('a loop is named when it has not ended a step well within its time', async () => {
    const { pool } = await openTestDatabase()
    const metrics = createMetrics({ db: pool, log: silent, doorbells: knowing })
    const clock = vi.spyOn(performance, 'now')
    try {
      clock.mockReturnValue(1_000)
      const verify = metrics.observeLoop('verify', 50)
      const seal = metrics.observeLoop('seal', 60_000)
      clock.mockReturnValue(40_000)
      expect(await healthOf(metrics)).toEqual([200, { ok: true }])
      verify.failed()
      clock.mockReturnValue(60_000)
      expect(await healthOf(metrics)).toEqual([503, { ok: false, failing: ['loop verify'] }])
      verify.began()
      verify.ended(2)
      clock.mockReturnValue(61_000)
      expect(await healthOf(metrics)).toEqual([200, { ok: true }])
      seal.began()
    } finally {
      clock.mockRestore()
    }
  })
})

test('loops tell durations, what they did, failures and their last success', async () => {
  const { pool } = await openTestDatabase()
  const metrics = createMetrics({ db: pool, log: silent, doorbells: knowing })
  const verify = metrics.observeLoop('verify', 50)
  verify.began()
  verify.ended(64)
  verify.began()
  verify.failed()
  const { port } = await metrics.listen({ host: '127.0.0.1', port: 0 })
  const { values } = await scrape(`http://127.0.0.1:${port}`)
  expect(values.get('gleaner_loop_duration_seconds_count{loop="verify"}')).toBe(1)
  expect(values.get('gleaner_loop_items_total{loop="verify"}')).toBe(64)
  expect(values.get('gleaner_loop_failures_total{loop="verify"}')).toBe(1)
  const agoSeconds =
    Date.now() / 1000 -
    (values.get('gleaner_loop_last_success_timestamp_seconds{loop="verify"}') ?? 0)
  expect(agoSeconds).toBeLessThan(60)
  expect(values.get('gleaner_doorbell_sockets')).toBe(3)
  await metrics.close()
})

test('what the database says is read at most every 15 s, and left out while it is away', async () => {
  const { pool, transaction, close } = await openTestDatabase()
  const metrics = createMetrics({ db: pool, log: silent, doorbells: knowing })
  const { port } = await metrics.listen({ host: '127.0.0.1', port: 0 })
  const scraped = () => scrape(`http://127.0.0.1:${port}`)
  expect((await scraped()).values.get('gleaner_halted')).toBe(0)
  await transaction((tx) => putHalt(tx, null))
  expect((await scraped()).values.get('gleaner_halted')).toBe(0)
  const later = performance.now() + 16_000
  const clock = vi.spyOn(performance, 'now').mockReturnValue(later)
  try {
    expect((await scraped()).values.get('gleaner_halted')).toBe(1)
    await transaction(endHalt)
    await close()
    clock.mockReturnValue(later + 16_000)
    const { values } = await scraped()
    expect(values.get('gleaner_database_up')).toBe(0)
    expect(values.has('gleaner_halted')).toBe(false)
    expect(values.has('process_cpu_seconds_total')).toBe(true)
  } finally {
    clock.mockRestore()
  }
  await metrics.close()
})

test('tasks are counted while they are few, and estimated from statistics when they are many', async () => {
  const { pool } = await openTestDatabase()
  await pool.query(
    `with c as (insert into campaign (digest, id, envelope, manifest) values ('c', 'c', '{}', '{}')),
          h as (insert into host (origin, interval_ms, max_in_flight, in_flight, hold_until)
                values ('http://a.example', 1000, 8, 3, now() + interval '1 hour') returning id)
     select from h`,
  )
  const add = (from: number, to: number) =>
    pool.query(
      `insert into task (campaign, host_id, kind, url, url_digest, depth, state, wanted)
       select 'c', (select id from host), 'page', n, int8send(n), 0,
              case when n % 10 = 0 then 'open' else 'closed' end, 2
       from generate_series($1::int8, $2::int8) as n`,
      [from, to],
    )
  await add(1, 1000)
  const few = await readMeasures(pool)
  expect(Object.fromEntries(few.tasks)).toEqual({ open: 100, closed: 900 })
  expect(few).toMatchObject({ hosts: 1, hostsHeld: 1, requestsInFlight: 3 })
  await add(1001, 150_000)
  await pool.query('analyze task')
  const many = await readMeasures(pool)
  expect(many.tasks.get('open')).toBeGreaterThan(12_000)
  expect(many.tasks.get('open')).toBeLessThan(18_000)
  expect(many.tasks.get('closed')).toBeGreaterThan(125_000)
})
