import { beforeEach, describe, expect, test } from 'vitest'
import {
  addAuditorTasks,
  finishAuditorTask,
  freeHostSlot,
  holdHostSlot,
  keepHostSlot,
  type NewAuditorTask,
  retryAuditorTask,
  returnAuditorTask,
  slotMs,
  spreadHostTasks,
  takeAuditorTasks,
} from '../../../server/store/auditor-tasks.ts'
import { openTestDatabase, type TestDatabase } from './test-database.ts'

let database: TestDatabase
beforeEach(async () => {
  database = await openTestDatabase()
})

const add = (tasks: NewAuditorTask[], options = {}) =>
  database.transaction((tx) => addAuditorTasks(tx, tasks, options))
const take = (limit = 8, except: string[] = []) => takeAuditorTasks(database.pool, limit, except)
const targets = (tasks: readonly { target: string }[]) => tasks.map(({ target }) => target).sort()
const sitemap = (target: string, depth = 0): NewAuditorTask => ({ kind: 'sitemap', target, depth })

async function addHost(origin: string, { paceMs = 1_000, atOnce = 1 } = {}): Promise<number> {
  const { rows } = await database.pool.query<{ id: number }>(
    'insert into host (origin, interval_ms, max_in_flight) values ($1, $2, $3) returning id',
    [origin, paceMs, atOnce],
  )
  return rows[0]?.id ?? 0
}

async function rowOf(target: string) {
  const { rows } = await database.pool.query<{
    state: string
    attempts: number
    reason: string | null
    depth: number
    wait: number
  }>(
    `select state, attempts, reason, depth, extract(epoch from due_at - now())::float8 as wait
     from auditor_task where target = $1`,
    [target],
  )
  return rows[0]
}

const age = (text: string) =>
  database.pool.query(`update auditor_task set taken_at = now() - interval '${text}'`)

describe('tasks', () => {
  test('asked for twice are done once, and again when they were done', async () => {
    await add([sitemap('http://a.example/1'), sitemap('http://a.example/1')])
    await add([sitemap('http://a.example/1')])
    const [task] = await take()
    if (!task) throw new Error('nothing to take')
    expect(await take()).toEqual([])
    await add([sitemap('http://a.example/1')])
    expect(await take()).toEqual([])
    await database.transaction((tx) => finishAuditorTask(tx, task, { state: 'done', reason: 'x' }))
    expect(await take()).toEqual([])
    await add([sitemap('http://a.example/1')], { unlessDoneWithinMs: 60_000 })
    expect(await take()).toEqual([])
    await add([sitemap('http://a.example/1')])
    expect(await take()).toHaveLength(1)
  })

  test('for what cannot be an address are left out, and the others are not', async () => {
    await add([
      sitemap(`http://a.example/${'x'.repeat(3_000)}`),
      sitemap('http://a.example/\u0000'),
      sitemap('http://a.example/1'),
    ])
    expect(targets(await take())).toEqual(['http://a.example/1'])
  })

  test('a sitemap that names one above it asks for nothing', async () => {
    await add([sitemap('http://a.example/index')])
    const [task] = await take()
    if (!task) throw new Error('nothing to take')
    await database.transaction((tx) => finishAuditorTask(tx, task, { state: 'done', reason: 'x' }))
    await add([sitemap('http://a.example/index', 1)])
    expect(await rowOf('http://a.example/index')).toMatchObject({ state: 'done', depth: 0 })
  })

  test('are taken one for each origin, opt-outs first', async () => {
    const id = Buffer.alloc(16, 1)
    await database.pool.query(
      `insert into opt_out (id, scope, host, token) values ($1, 'host', 'a.example', 't')`,
      [id],
    )
    await add([
      sitemap('http://a.example/1'),
      sitemap('http://a.example/2'),
      sitemap('https://a.example/3'),
      sitemap('http://b.example/1'),
    ])
    await add([
      { kind: 'opt-out-dns', target: '_gleaner.a.example', optOut: id },
      { kind: 'opt-out-file', target: 'http://a.example/x.txt', optOut: id },
    ])
    expect(targets(await take(2))).toEqual(['_gleaner.a.example', 'http://a.example/x.txt'])
    expect(targets(await take(8, ['http://a.example']))).toEqual([
      'http://b.example/1',
      'https://a.example/3',
    ])
    expect(await take(8)).toHaveLength(1)
  })

  test('are taken by one auditor each', async () => {
    await add(Array.from({ length: 40 }, (_, at) => sitemap(`http://h${at}.example/`)))
    // Whoever finds all eight in other hands goes away empty, and comes again.
    const takes: number[] = []
    for (let round = 0; round < 6; round += 1) {
      const some = await Promise.all(Array.from({ length: 8 }, () => take(8)))
      takes.push(...some.flat().map(({ id }) => id))
    }
    expect(new Set(takes).size).toBe(takes.length)
    expect(takes.length).toBe(40)
  })

  test('whose auditor was killed are taken again after two minutes, and the dead one’s word counts no more', async () => {
    await add([sitemap('http://a.example/1')])
    const [before] = await take()
    await age('1 minute')
    expect(await take()).toEqual([])
    await age('3 minutes')
    const [again] = await take()
    expect(again).toMatchObject({ id: before?.id, attempts: 2 })
    if (!before || !again) throw new Error('nothing to take')
    const finish = (task: typeof before) =>
      database.transaction((tx) => finishAuditorTask(tx, task, { state: 'done', reason: 'x' }))
    expect(await finish(before)).toBe(false)
    expect(await finish(again)).toBe(true)
  })

  test('that fail are tried four times, each time later, and then say why', async () => {
    const waits: number[] = []
    await add([sitemap('http://a.example/1')])
    for (let attempt = 1; attempt <= 4; attempt += 1) {
      await database.pool.query('update auditor_task set due_at = now()')
      const [task] = await take()
      if (!task) throw new Error('nothing to take')
      await retryAuditorTask(database.pool, task, `failure ${attempt}`)
      const row = await rowOf('http://a.example/1')
      expect(row?.state).toBe(attempt < 4 ? 'due' : 'failed')
      waits.push(Math.round(row?.wait ?? 0))
    }
    expect(waits.slice(0, 3)).toEqual([30, 120, 480])
    expect(await rowOf('http://a.example/1')).toMatchObject({ reason: 'failure 4' })
  })

  test('given back do not count as tried', async () => {
    await add([sitemap('http://a.example/1')])
    const [task] = await take()
    if (!task) throw new Error('nothing to take')
    await returnAuditorTask(database.pool, task, 0)
    expect(await rowOf('http://a.example/1')).toMatchObject({ state: 'due', attempts: 0 })
    expect(await take()).toHaveLength(1)
  })

  test('while all is halted only opt-outs are looked at', async () => {
    const id = Buffer.alloc(16, 1)
    await database.pool.query(
      `insert into opt_out (id, scope, host, token) values ($1, 'host', 'a.example', 't')`,
      [id],
    )
    await add([sitemap('http://a.example/1')])
    await add([{ kind: 'opt-out-dns', target: '_gleaner.a.example', optOut: id }])
    await database.pool.query('insert into halt default values')
    expect(targets(await take())).toEqual(['_gleaner.a.example'])
    await database.pool.query('delete from halt')
    expect(targets(await take())).toEqual(['http://a.example/1'])
  })

  test('of a slow host are spread by its pace, and nobody else’s', async () => {
    const hostId = await addHost('http://slow.example', { paceMs: 60_000 })
    await add(['1', '2', '3'].map((at) => ({ ...sitemap(`http://slow.example/${at}`), hostId })))
    await add([sitemap('http://quick.example/')])
    await spreadHostTasks(database.pool, hostId, 10_000)
    expect(targets(await take())).toEqual(['http://quick.example/'])
    const waits = await Promise.all(['1', '2', '3'].map((at) => rowOf(`http://slow.example/${at}`)))
    expect(waits.map((row) => Math.round(row?.wait ?? 0)).sort((a, b) => a - b)).toEqual([
      70, 130, 190,
    ])
  })
})

describe('a host’s slot', () => {
  const clockOf = async (origin: string) => {
    const { rows } = await database.pool.query<{ wait: number; in_flight: number; holds: number }>(
      `select (extract(epoch from next_at - now()) * 1000)::float8 as wait, in_flight, holds
       from host where origin = $1`,
      [origin],
    )
    return rows[0] ?? { wait: Number.NaN, in_flight: -1, holds: -1 }
  }
  const held = async (origin: string) => {
    const answer = await holdHostSlot(database.pool, origin)
    if (answer.kind !== 'held') throw new Error(answer.kind)
    return answer.slot
  }
  const free = (slot: Awaited<ReturnType<typeof held>>, last = {}) =>
    database.transaction((tx) =>
      freeHostSlot(tx, slot, { agoMs: 0, status: 200, retryAfter: undefined, ...last }),
    )

  test('is nobody else’s, and leaves the host its pace', async () => {
    await addHost('http://a.example', { paceMs: 2_000, atOnce: 4 })
    const slot = await held('http://a.example')
    expect(await holdHostSlot(database.pool, 'http://a.example')).toMatchObject({ kind: 'busy' })
    expect((await clockOf('http://a.example')).wait).toBeGreaterThan(slotMs - 2_000)
    await free(slot, { agoMs: 500 })
    const { wait, in_flight } = await clockOf('http://a.example')
    expect(wait).toBeLessThanOrEqual(1_500)
    expect(wait).toBeGreaterThan(0)
    expect(in_flight).toBe(0)
  })

  test('goes to one of many who ask at once', async () => {
    await addHost('http://a.example')
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => holdHostSlot(database.pool, 'http://a.example')),
    )
    expect(answers.filter(({ kind }) => kind === 'held')).toHaveLength(1)
  })

  test('is not to be had early, nor while as many are in flight as may be', async () => {
    await addHost('http://early.example')
    await database.pool.query(`update host set next_at = now() + interval '1 hour'`)
    expect(await holdHostSlot(database.pool, 'http://early.example')).toMatchObject({
      kind: 'busy',
      waitMs: expect.closeTo(3_600_000, -5),
    })
    await addHost('http://full.example')
    await database.pool.query(`update host set in_flight = 1 where origin = 'http://full.example'`)
    expect(await holdHostSlot(database.pool, 'http://full.example')).toMatchObject({
      kind: 'busy',
      waitMs: 0,
    })
    expect(await holdHostSlot(database.pool, 'http://unknown.example')).toEqual({
      kind: 'unlisted',
    })
  })

  test('of an auditor that was killed ends by itself', async () => {
    await addHost('http://a.example')
    await held('http://a.example')
    // As if it were as much later.
    await database.pool.query(`update host set next_at = next_at - $1 * interval '1 millisecond'`, [
      slotMs + 1,
    ])
    expect(await holdHostSlot(database.pool, 'http://a.example')).toMatchObject({ kind: 'held' })
  })

  test('is kept for as long as it is kept, and not once it has ended', async () => {
    await addHost('http://a.example')
    const slot = await held('http://a.example')
    const kept = await keepHostSlot(database.pool, slot)
    if (!kept) throw new Error('not kept')
    expect(kept.until >= slot.until).toBe(true)
    await free(kept)
    expect((await clockOf('http://a.example')).wait).toBeLessThanOrEqual(1_000)
    const ended = { ...slot, until: new Date(Date.now() - 1_000).toISOString() }
    expect(await keepHostSlot(database.pool, ended)).toBeNull()
  })

  test('does not shorten what others have put the clock to meanwhile', async () => {
    for (const [origin, kept] of [
      ['http://a.example', false],
      ['http://b.example', true],
    ] as const) {
      await addHost(origin, { atOnce: 2 })
      let slot = await held(origin)
      await database.pool.query(
        `update host set next_at = now() + interval '1 minute' where origin = $1`,
        [origin],
      )
      if (kept) slot = (await keepHostSlot(database.pool, slot)) ?? slot
      await free(slot)
      expect((await clockOf(origin)).wait).toBeGreaterThan(50_000)
    }
  })

  test('is lost when the host asks everybody to stay away', async () => {
    await addHost('http://a.example', { atOnce: 2 })
    const slot = await held('http://a.example')
    await database.pool.query(
      `update host set hold_until = now() + interval '1 minute', next_at = now() + interval '1 minute'`,
    )
    expect(await keepHostSlot(database.pool, slot)).toBeNull()
  })

  test('ends with a hold for everybody when the host says so, and a good answer ends the series', async () => {
    await addHost('http://a.example')
    await free(await held('http://a.example'), { status: 429, retryAfter: '120' })
    const { wait, holds } = await clockOf('http://a.example')
    expect(holds).toBe(1)
    expect(wait).toBeGreaterThan(110_000)
    await database.pool.query('update host set next_at = now()')
    await free(await held('http://a.example'), { status: 404 })
    expect((await clockOf('http://a.example')).holds).toBe(0)
  })
})
