import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { listenForRings, type Ring, ring } from '../../../server/store/doorbell.ts'
import { openTestDatabase } from './test-database.ts'

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
     where datname = current_database() and query like 'listen %'`,
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

async function listening() {
  const database = await openTestDatabase()
  const heard: Ring[] = []
  const { close } = await listenForRings({
    connection: database.connection,
    onRing: (one) => heard.push(one),
    log: pino({ level: 'silent' }),
  })
  return { database, heard, close }
}

async function until(isSo: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!isSo() && Date.now() < deadline) await sleep(10)
}
