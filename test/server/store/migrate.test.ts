import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import {
  DatabaseNewerThanCode,
  MIGRATIONS_FOLDER,
  MigrationChanged,
  MigrationFailed,
  migrate,
} from '../../../server/store/migrate.ts'
import { openEmptyDatabase } from './test-database.ts'

const folders: string[] = []
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
})

async function migrations(files: Record<string, string>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-test-'))
  folders.push(folder)
  for (const [name, sql] of Object.entries(files)) await writeFile(join(folder, name), sql)
  return folder
}

const first = {
  '001-fruit.sql': 'create table fruit (name text);\ninsert into fruit values ($$fig$$);',
}
const second = { ...first, '002-colour.sql': 'alter table fruit add colour text;' }

test('migrations are applied in order, once, and recorded', async () => {
  const { connection, pool } = await openEmptyDatabase()
  expect(await migrate(connection, await migrations(first))).toEqual([1])
  expect(await migrate(connection, await migrations(second))).toEqual([2])
  expect(await migrate(connection, await migrations(second))).toEqual([])
  const recorded = await pool.query('select * from schema_migration order by number')
  expect(recorded.rows).toMatchObject([
    { number: 1, name: '001-fruit.sql' },
    { number: 2, name: '002-colour.sql' },
  ])
  expect(recorded.rows[0].digest).toHaveLength(32)
  expect(recorded.rows[0].applied_at).toBeInstanceOf(Date)
  expect((await pool.query('select * from fruit')).rows).toEqual([{ name: 'fig', colour: null }])
})

test('line ends do not count as a change', async () => {
  const { connection } = await openEmptyDatabase()
  await migrate(connection, await migrations(first))
  const windows = { '001-fruit.sql': first['001-fruit.sql'].replaceAll('\n', '\r\n') }
  expect(await migrate(connection, await migrations(windows))).toEqual([])
})

test('a database newer than the code is refused, with both numbers', async () => {
  const { connection } = await openEmptyDatabase()
  await migrate(connection, await migrations(second))
  const refusal = migrate(connection, await migrations(first))
  await expect(refusal).rejects.toThrow(DatabaseNewerThanCode)
  await expect(refusal).rejects.toMatchObject({ databaseNumber: 2, codeNumber: 1 })
})

test('a changed migration is refused, and nothing after it applied', async () => {
  const { connection, pool } = await openEmptyDatabase()
  await migrate(connection, await migrations(first))
  const changed = { ...second, '001-fruit.sql': 'create table fruit (name text not null);' }
  const refusal = migrate(connection, await migrations(changed))
  await expect(refusal).rejects.toThrow(MigrationChanged)
  await expect(refusal).rejects.toMatchObject({ number: 1 })
  expect((await pool.query('select * from schema_migration')).rowCount).toBe(1)
})

test('a failing migration leaves no trace, names its line, and can be repaired', async () => {
  const { connection, pool } = await openEmptyDatabase()
  const broken = { ...first, '002-colour.sql': 'create table half ();\nselect nothing from half;' }
  const failure = migrate(connection, await migrations(broken))
  await expect(failure).rejects.toThrow(MigrationFailed)
  await expect(failure).rejects.toThrow(/^002-colour\.sql, line 2: /)
  expect((await pool.query("select to_regclass('half') as half")).rows).toEqual([{ half: null }])
  expect(await migrate(connection, await migrations(second))).toEqual([2])
})

test('appliers at once apply each migration once', async () => {
  const { connection, pool } = await openEmptyDatabase()
  const slow = { ...second, '003-slow.sql': 'select pg_sleep(0.2); create table slow ();' }
  const folder = await migrations(slow)
  const applied = await Promise.all([1, 2, 3, 4].map(() => migrate(connection, folder)))
  expect(applied.flat().sort()).toEqual([1, 2, 3])
  expect((await pool.query('select * from schema_migration')).rowCount).toBe(3)
})

test('files out of number are refused before anything is applied', async () => {
  const { connection, pool } = await openEmptyDatabase()
  const gap = { ...first, '003-colour.sql': '' }
  await expect(migrate(connection, await migrations(gap))).rejects.toThrow(/is not numbered 2/)
  const twice = { ...first, '001-again.sql': '' }
  await expect(migrate(connection, await migrations(twice))).rejects.toThrow(/is not numbered 2/)
  expect((await pool.query("select to_regclass('fruit') as fruit")).rows).toEqual([{ fruit: null }])
})

test("the project's own migrations can be applied", async () => {
  const { connection } = await openEmptyDatabase()
  const applied = await migrate(connection, MIGRATIONS_FOLDER)
  expect(applied[0]).toBe(1)
  expect(await migrate(connection)).toEqual([])
})

test('a crawl that was under way before the frontier had a queue goes on after it', async () => {
  const { connection, pool } = await openEmptyDatabase()
  const name = '001-straight-line.sql'
  const before = await migrations({
    [name]: await readFile(join(MIGRATIONS_FOLDER, name), 'utf8'),
  })
  await migrate(connection, before)
  const campaign = Buffer.alloc(32, 1)
  await pool.query(
    `insert into campaign (digest, id, envelope, manifest) values ($1, 'old', '{}', $2)`,
    [campaign, JSON.stringify({ quorum: 2, use: 'research', limits: { pages: 10, depth: 3 } })],
  )
  await pool.query(
    `insert into host (origin, interval_ms, max_in_flight, in_flight, robots_state, robots_text, robots_digest, robots_at) values
       ('https://a.example', 1000, 2, 1, 'rules', 'User-agent: *', $1, now() - interval '1 hour'),
       ('https://b.example', 500, 1, 0, 'asked', null, null, null)`,
    [campaign],
  )
  await pool.query(
    `insert into task (campaign, host_id, kind, url, url_digest, depth, state, wanted, granted)
     select $1, h.id, kind, h.origin || path, sha256((h.origin || path)::bytea), 0, state, 2, granted
     from (values (1, 'page', '/1', 'open', 1), (1, 'page', '/2', 'closed', 2), (2, 'robots', '/robots.txt', 'open', 0),
                  (2, 'page', '/3', 'found', 0)) as t (host, kind, path, state, granted)
     join host h on h.id = t.host`,
    [campaign],
  )
  expect(await migrate(connection)).not.toContain(1)
  const queues = await pool.query('select host_id, ready, pages from queue order by host_id')
  expect(queues.rows).toEqual([
    { host_id: 1, ready: true, pages: 2 },
    { host_id: 2, ready: true, pages: 1 },
  ])
  const hosts = await pool.query(
    'select robots_state, pace_ms, robots_due_at > now() as later from host order by id',
  )
  expect(hosts.rows).toEqual([
    { robots_state: 'rules', pace_ms: 1000, later: true },
    // Asked again: the old task may still be answered, too.
    { robots_state: 'unknown', pace_ms: 500, later: false },
  ])
  const { rows } = await pool.query('select pages, seeded_at is not null as seeded from campaign')
  expect(rows).toEqual([{ pages: 3, seeded: true }])
  const files = await pool.query('select body from robots_file')
  expect(files.rows).toEqual([{ body: 'User-agent: *' }])
})
