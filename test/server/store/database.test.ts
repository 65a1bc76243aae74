import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { openDatabase } from '../../../server/store/database.ts'
import { openEmptyDatabase } from './test-database.ts'

const log = pino({ level: 'silent' })

test('values arrive as the types that the contract names', async () => {
  const { pool } = await openEmptyDatabase()
  const { rows } = await pool.query(`
    select 9007199254740991::int8 as big, array[1, null, -2]::int8[] as bigs, '{}'::int8[] as none,
           '\\x00ff'::bytea as bytes, '2026-01-31T10:00:00+02'::timestamptz as at,
           '2026-01-31'::date as day, sum(2::int8) as sum, count(*) as count`)
  expect(rows).toEqual([
    {
      big: Number.MAX_SAFE_INTEGER,
      bigs: [1, null, -2],
      none: [],
      bytes: Buffer.from([0, 255]),
      at: new Date('2026-01-31T08:00:00Z'),
      day: '2026-01-31',
      sum: '2',
      count: 1,
    },
  ])
})

test('an integer that a number cannot hold fails its query alone', async () => {
  const { pool } = await openEmptyDatabase()
  for (const value of ['9007199254740992', '-9007199254740992', '9223372036854775807']) {
    await expect(pool.query(`select '${value}'::int8`)).rejects.toThrow(RangeError)
    await expect(pool.query(`select array['${value}'::int8]`)).rejects.toThrow(RangeError)
  }
  expect((await pool.query('select 1::int8 as one')).rows).toEqual([{ one: 1 }])
})

test('a timestamp without a zone is refused', async () => {
  const { pool } = await openEmptyDatabase()
  await expect(pool.query('select now()::timestamp')).rejects.toThrow(/timestamptz/)
})

test('bytes, lists of bytes and dates make the journey there and back', async () => {
  const { pool } = await openEmptyDatabase()
  const bytes = Uint8Array.from([0, 1, 92, 34, 255])
  const at = new Date('2026-03-29T01:30:00.123Z')
  const { rows } = await pool.query(
    'select $1::bytea as one, $2::bytea[] as many, $3::timestamptz as at, $4::int8 as big',
    [bytes, [bytes, bytes], at, Number.MAX_SAFE_INTEGER],
  )
  const buffer = Buffer.from(bytes)
  const big = Number.MAX_SAFE_INTEGER
  expect(rows).toEqual([{ one: buffer, many: [buffer, buffer], at, big }])
})

test('a statement over its time is cancelled', async () => {
  const { connection } = await openEmptyDatabase()
  const database = openDatabase({ connection, log, statementTimeoutMs: 100 })
  await expect(database.pool.query('select pg_sleep(5)')).rejects.toMatchObject({ code: '57014' })
  expect((await database.pool.query('select 1 as one')).rows).toEqual([{ one: 1 }])
  await database.close()
})

test('a transaction commits what its body did, unseen until then', async () => {
  const { pool, transaction } = await openEmptyDatabase()
  await pool.query('create table kept (value int)')
  const answer = await transaction(async (tx) => {
    await tx.query('insert into kept values ($1)', [1])
    await tx.query('insert into kept values ($1)', [2])
    expect((await tx.query('select from kept')).rowCount).toBe(2)
    expect((await pool.query('select from kept')).rowCount).toBe(0)
    return 'done'
  })
  expect(answer).toBe('done')
  expect((await pool.query('select value from kept order by value')).rows).toEqual([
    { value: 1 },
    { value: 2 },
  ])
})

test('a transaction whose body throws leaves nothing', async () => {
  const { pool, transaction } = await openEmptyDatabase()
  await pool.query('create table kept (value int)')
  const body = transaction(async (tx) => {
    await tx.query('insert into kept values (1)')
    throw new Error('on second thoughts')
  })
  await expect(body).rejects.toThrow('on second thoughts')
  expect((await pool.query('select from kept')).rowCount).toBe(0)
})

test('a body that goes on after a failed statement is not taken for committed', async () => {
  const { transaction } = await openEmptyDatabase()
  const body = transaction(async (tx) => {
    await tx.query('select 1 / 0').catch(() => {})
  })
  await expect(body).rejects.toThrow(/rolled back/)
})

test('two transactions that deadlock both commit in the end', async () => {
  const { pool, transaction } = await openEmptyDatabase()
  await pool.query('create table account (id int primary key, points int)')
  await pool.query('insert into account values (1, 0), (2, 0)')
  let bodies = 0
  const move = (from: number, to: number) =>
    transaction(async (tx) => {
      bodies += 1
      await tx.query('update account set points = points - 1 where id = $1', [from])
      await sleep(100)
      await tx.query('update account set points = points + 1 where id = $1', [to])
    })
  await Promise.all([move(1, 2), move(2, 1)])
  expect(bodies).toBeGreaterThan(2)
  expect((await pool.query('select points from account')).rows).toEqual([
    { points: 0 },
    { points: 0 },
  ])
})

test('serializable transactions that conflict are repeated', async () => {
  const { pool, transaction } = await openEmptyDatabase()
  await pool.query('create table counter (value int)')
  await pool.query('insert into counter values (0)')
  const count = () =>
    transaction(
      async (tx) => {
        const { rows } = await tx.query<{ value: number }>('select value from counter')
        await tx.query('update counter set value = $1', [(rows[0]?.value ?? 0) + 1])
      },
      { isolation: 'serializable' },
    )
  await Promise.all([count(), count(), count()])
  expect((await pool.query('select value from counter')).rows).toEqual([{ value: 3 }])
})

test('lost connections fail their own work and nothing later', async () => {
  const { connection, pool, transaction } = await openEmptyDatabase()
  await pool.query('select 1')
  const other = openDatabase({ connection, log })
  const endOthers = async () => {
    await other.pool.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()`,
    )
    await sleep(50)
  }
  await endOthers() // idle
  expect((await pool.query('select 1 as one')).rows).toEqual([{ one: 1 }])
  const running = pool.query('select pg_sleep(5)')
  const failed = expect(running).rejects.toThrow(/terminat/)
  await sleep(50)
  await endOthers() // at work
  await failed
  const between = transaction(async (tx) => {
    await tx.query('select 1')
    await endOthers() // in a transaction, between two statements
    await tx.query('select 2')
  })
  await expect(between).rejects.toThrow()
  expect((await pool.query('select 1 as one')).rows).toEqual([{ one: 1 }])
  await other.close()
  await other.close()
})
