import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'

/** The database was migrated by newer code than this. */
export class DatabaseNewerThanCode extends Error {
  override readonly name = 'DatabaseNewerThanCode'
  readonly databaseNumber: number
  readonly codeNumber: number

  constructor(databaseNumber: number, codeNumber: number) {
    super(
      `The database is at migration ${databaseNumber}, and this version of Gleaner knows ` +
        `${codeNumber}. Start the newer version.`,
    )
    this.databaseNumber = databaseNumber
    this.codeNumber = codeNumber
  }
}

/** A migration that the database has applied is another one, or absent, in this code. */
export class MigrationChanged extends Error {
  override readonly name = 'MigrationChanged'
  readonly number: number

  constructor(number: number, name: string) {
    super(
      `Migration ${number} (${name}) is not the one that the database has applied. Applied ` +
        'migrations never change: put the file back and add a new one.',
    )
    this.number = number
  }
}

/** A migration's SQL failed and was rolled back. The message names file and line. */
export class MigrationFailed extends Error {
  override readonly name = 'MigrationFailed'
}

/**
 * Brings a database up to date: applies each `NNN-name.sql` that is not yet recorded, in order,
 * each with its record in one transaction. What is returned as applied is durable; after an error
 * the migrations before it stay applied. May be called again, and by several processes at once:
 * they take turns under an advisory lock.
 *
 * @param connection needs the right to create tables
 * @param folder holds the files, numbered 001, 002, … without a gap
 * @returns the numbers applied by this call
 * @throws DatabaseNewerThanCode
 * @throws MigrationChanged
 * @throws MigrationFailed
 */
export async function migrate(
  connection: pg.ClientConfig,
  folder: string = MIGRATIONS_FOLDER,
): Promise<number[]> {
  const migrations = await readMigrations(folder)
  const client = new pg.Client({ application_name: 'gleaner-migrate', ...connection })
  // A lost connection also fails the query under way, which reports it.
  client.on('error', () => {})
  await client.connect()
  try {
    const applied: number[] = []
    for (;;) {
      const number = await applyNext(client, migrations)
      if (number === undefined) return applied
      applied.push(number)
    }
  } finally {
    await client.end().catch(() => {})
  }
}

/** The migrations of this code. */
export const MIGRATIONS_FOLDER = fileURLToPath(new URL('./migrations/', import.meta.url))

/** Of all appliers on one database; the number only has to be ours. */
const MIGRATION_LOCK = 0x676c_6561_6d69

interface Migration {
  readonly number: number
  readonly fileName: string
  readonly sql: string
  readonly digest: Uint8Array
}

async function readMigrations(folder: string): Promise<Migration[]> {
  const fileNames = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  const migrations: Migration[] = []
  for (const fileName of fileNames) {
    const number = Number(/^(\d{3})-[a-z0-9-]+\.sql$/.exec(fileName)?.[1])
    if (number !== migrations.length + 1) {
      throw new Error(`${fileName} is not numbered ${migrations.length + 1} (001-name.sql, …)`)
    }
    // Git may check files out with other line ends on Windows: not a change.
    const sql = (await readFile(`${folder}/${fileName}`, 'utf8')).replaceAll('\r\n', '\n')
    migrations.push({ number, fileName, sql, digest: createHash('sha256').update(sql).digest() })
  }
  return migrations
}

/**
 * Applies the first migration that is not recorded, if there is one, and returns its number. The
 * lock belongs to the transaction, so that it also works behind a pooler.
 */
async function applyNext(
  client: pg.Client,
  migrations: readonly Migration[],
): Promise<number | undefined> {
  await client.query('begin')
  try {
    // A migration may take long, and so may waiting for another applier.
    await client.query('set local statement_timeout = 0')
    await client.query('select pg_advisory_xact_lock($1)', [MIGRATION_LOCK])
    const recorded = await readRecorded(client)
    const next = nextMigration(migrations, recorded)
    if (next !== undefined) {
      await runSql(client, next)
      await client.query(
        'insert into schema_migration (number, name, digest) values ($1, $2, $3)',
        [next.number, next.fileName, next.digest],
      )
    }
    await client.query('commit')
    return next?.number
  } catch (error) {
    // A rollback fails only with the connection, and the server then rolls back by itself.
    await client.query('rollback').catch(() => {})
    throw error
  }
}

interface Recorded {
  readonly number: number
  readonly name: string
  readonly digest: Uint8Array
}

async function readRecorded(client: pg.Client): Promise<Recorded[]> {
  await client.query(`
    create table if not exists schema_migration (
      number int primary key,
      name text not null,
      digest bytea not null,
      applied_at timestamptz not null default now()
    )`)
  const result = await client.query<Recorded>(
    'select number, name, digest from schema_migration order by number',
  )
  return result.rows
}

function nextMigration(
  migrations: readonly Migration[],
  recorded: readonly Recorded[],
): Migration | undefined {
  const newest = recorded.at(-1)?.number ?? 0
  if (newest > migrations.length) throw new DatabaseNewerThanCode(newest, migrations.length)
  for (const [index, migration] of migrations.entries()) {
    const row = recorded[index]
    if (row === undefined) return migration
    const same =
      row.number === migration.number && Buffer.compare(row.digest, migration.digest) === 0
    if (!same) throw new MigrationChanged(row.number, row.name)
  }
  return undefined
}

async function runSql(client: pg.Client, migration: Migration): Promise<void> {
  try {
    // Without parameters: the simple protocol, which takes several statements.
    await client.query(migration.sql)
  } catch (cause) {
    const { position, message } = cause as { position?: string; message: string }
    const line =
      position === undefined ? 1 : migration.sql.slice(0, Number(position)).split('\n').length
    throw new MigrationFailed(`${migration.fileName}, line ${line}: ${message}`, { cause })
  }
}
