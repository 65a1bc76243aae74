import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import { addCampaign } from '../../../server/store/campaigns.ts'
import { listenForRings, type Ring, recalls, ring } from '../../../server/store/doorbell.ts'
import {
  endHalt,
  type Halts,
  haltInForce,
  moveCampaign,
  putHalt,
  standingHalts,
} from '../../../server/store/halt.ts'
import type { Queryable } from '../../../server/store/queryable.ts'
import { campaignOver } from '../../lib/runner/operator.ts'
import { openTestDatabase, type TestDatabase } from './test-database.ts'

test('a ring is heard once, when its transaction commits', async () => {
  const { database, heard, close } = await listening()
  await database.transaction(async (tx) => {
    await ring(tx, [{ node: 'ab', notice: 'work' }])
    await ring(tx, [{ node: 'ab', notice: 'work' }])
    await sleep(100)
    expect(heard).toEqual([])
  })
  await until(() => heard.length > 0)
  expect(heard).toEqual([{ node: 'ab', notice: 'work' }])
  await close()
})

test('after its connection was lost, everybody is rung for what may have been missed', async () => {
  const { database, heard, close } = await listening()
  const ended = await database.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and application_name like 'gleaner-doorbell-%'`,
  )
  expect(ended.rows).toHaveLength(1)
  await until(() => heard.length >= 3)
  expect(heard).toEqual([
    { node: null, notice: 'work' },
    { node: null, notice: 'follow-ups' },
    { node: null, notice: 'outcomes' },
  ])
  await ring(database.pool, [{ node: 'cd', notice: 'outcomes' }])
  await until(() => heard.length > 3)
  expect(heard.at(-1)).toEqual({ node: 'cd', notice: 'outcomes' })
  await close()
})

test('a recall names each node’s own leases, 64 in a ring', async () => {
  const [one, two] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)]
  const lease = (n: number) => Buffer.alloc(16, n)
  const rings = recalls([
    { nodeId: two, leaseId: lease(0) },
    ...Array.from({ length: 65 }, (_, n) => ({ nodeId: one, leaseId: lease(n + 1) })),
  ])
  expect(rings.map((ring) => ring.notice === 'recall' && ring.leases.length)).toEqual([1, 64, 1])
  expect(rings[0]).toEqual({
    node: two.toString('hex'),
    notice: 'recall',
    leases: [lease(0).toString('base64url')],
  })
  const { database, heard, close } = await listening()
  await ring(database.pool, rings)
  await until(() => heard.length === 3)
  expect(heard).toEqual(expect.arrayContaining(rings))
  await close()
})

describe('what is halted', () => {
  let shared: TestDatabase | undefined

  test('rings, is looked at once a second, and is known however long it was not heard', async () => {
    const { database, heard, looks, close } = await listening()
    await until(() => looks.length > 0)
    expect(looks[0]).toMatchObject({ everything: false, campaigns: [] })
    expect(await database.transaction((tx) => putHalt(tx, 'a site complained'))).toBe(true)
    await until(() => heard.length > 0 && looks.at(-1)?.everything === true)
    expect(heard).toEqual([{ node: null, notice: 'halt', campaign: null }])
    await close()
    const again = await listening(database)
    await until(() => again.looks.length > 0)
    expect(again.looks[0]).toMatchObject({ everything: true })
    await again.close()
  })

  test('a look is as old as its question', async () => {
    const beforeMs = performance.now()
    const { looks, close } = await listening()
    await until(() => looks.length > 1)
    const [first, second] = looks
    expect(first?.atMs).toBeGreaterThan(beforeMs)
    expect((second?.atMs ?? 0) - (first?.atMs ?? 0)).toBeGreaterThanOrEqual(990)
    expect(looks.at(-1)?.atMs).toBeLessThanOrEqual(performance.now())
    await close()
  })

  test('everything: once, with its reason, until it is ended', async () => {
    const { pool } = await openTestDatabase()
    expect(await haltInForce(pool)).toBeNull()
    expect(await endHalt(pool)).toBe(false)
    expect(await putHalt(pool, 'first')).toBe(true)
    expect(await putHalt(pool, 'second')).toBe(false)
    expect(await haltInForce(pool)).toMatchObject({ reason: 'first', at: expect.any(Date) })
    expect(await endHalt(pool)).toBe(true)
    expect(await haltInForce(pool)).toBeNull()
  })

  test.each([
    ['running', 'paused', true],
    ['running', 'running', false],
    ['running', 'stopped', true],
    ['paused', 'running', true],
    ['paused', 'paused', false],
    ['paused', 'stopped', true],
    ['exhausted', 'running', false],
    ['exhausted', 'paused', false],
    ['exhausted', 'stopped', true],
    ['stopped', 'running', false],
    ['stopped', 'paused', false],
    ['stopped', 'stopped', false],
  ] as const)('a campaign that is %s goes to %s: %s', async (before, to, moved) => {
    shared ??= await openTestDatabase()
    const { database, heard, close } = await listening(shared)
    const digest = await openCampaign(database.pool, 'fields')
    await database.pool.query('update campaign set state = $1', [before])
    expect(await moveCampaign(database.pool, 'fields', to)).toEqual({ before, moved })
    const { rows } = await database.pool.query<{ state: string }>('select state from campaign')
    const after = moved ? to : before
    expect(rows).toEqual([{ state: after }])
    expect((await standingHalts(database.pool)).campaigns).toEqual(
      after === 'paused' || after === 'stopped' ? [digest] : [],
    )
    await ring(database.pool, [{ node: 'ab', notice: 'work' }])
    await until(() => heard.some(({ notice }) => notice === 'work'))
    const notice = to === 'running' ? 'resume' : 'halt'
    const rung = moved ? [{ node: null, notice, campaign: digest }] : []
    expect(heard.slice(0, -1)).toEqual(rung)
    await close()
  })

  test('no campaign of this name', async () => {
    const { pool } = await openTestDatabase()
    expect(await moveCampaign(pool, 'fields', 'paused')).toBeNull()
  })
})

async function openCampaign(db: Queryable, id: string): Promise<string> {
  const digest = Buffer.alloc(32, 7)
  const manifest: Campaign = campaignOver('barley.example', { id })
  const envelope = { payloadType: 'x', payload: '', signatures: [] }
  await addCampaign(db, { digest, manifest, envelope, leafIndex: 1 })
  return digest.toString('base64url')
}

async function listening(given?: TestDatabase) {
  const database = given ?? (await openTestDatabase())
  const heard: Ring[] = []
  const looks: (Halts & { atMs: number })[] = []
  const { close } = await listenForRings({
    connection: database.connection,
    onRing: (one) => heard.push(one),
    onHalts: (halts, atMs) => looks.push({ ...halts, atMs }),
    log: pino({ level: 'silent' }),
  })
  return { database, heard, looks, close }
}

async function until(isSo: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!isSo() && Date.now() < deadline) await sleep(10)
}
