import { open, rm } from 'node:fs/promises'
import {
  type DuckDBAppender,
  type DuckDBConnection,
  DuckDBInstance,
  VARCHAR,
} from '@duckdb/node-api'
import { type ColumnFacts, cellsOf, columns } from './columns.ts'

/** DuckDB's vector: flushing less often only holds more text in memory. */
const rowsAFlush = 2048

/** About 100 MB of text: what the Hugging Face viewer asks of a row group (100-300 MB in memory). */
const rowsAGroup = 20_000

/**
 * Rows and index lines of a release while it is built, in a DuckDB file beside it: spills to disk
 * instead of memory. One thread, because several write row groups in whatever order they finish,
 * and a release must come out the same each time.
 */
export class Staging {
  readonly #path: string
  readonly #instance: DuckDBInstance
  readonly #connection: DuckDBConnection
  readonly #rows: DuckDBAppender
  readonly #index: DuckDBAppender
  #waitingRows = 0
  #waitingLines = 0

  private constructor(
    path: string,
    instance: DuckDBInstance,
    connection: DuckDBConnection,
    rows: DuckDBAppender,
    index: DuckDBAppender,
  ) {
    this.#path = path
    this.#instance = instance
    this.#connection = connection
    this.#rows = rows
    this.#index = index
  }

  /** @param path of a file that is made, and deleted by `close` */
  static async open(path: string): Promise<Staging> {
    await remove(path)
    const instance = await DuckDBInstance.create(path, { ...offline, threads: '1' })
    const connection = await instance.connect()
    const definitions = columns.map(({ name, type }) => `"${name}" ${type}`)
    await connection.run(`create table dataset (${definitions.join(', ')})`)
    await connection.run('create table cdxj (line varchar)')
    return new Staging(
      path,
      instance,
      connection,
      await connection.createAppender('dataset'),
      await connection.createAppender('cdxj'),
    )
  }

  appendRow(facts: ColumnFacts): void {
    cellsOf(facts).forEach((cell, at) => {
      const column = columns[at]
      if (column === undefined) throw new Error(`no column ${at}`)
      if (cell === null) this.#rows.appendNull()
      else this.#rows.appendValue(cell, column.type)
    })
    this.#rows.endRow()
    this.#waitingRows += 1
    if (this.#waitingRows % rowsAFlush === 0) this.#rows.flushSync()
  }

  appendIndexLine(line: string): void {
    this.#index.appendValue(line, VARCHAR)
    this.#index.endRow()
    this.#waitingLines += 1
    if (this.#waitingLines % rowsAFlush === 0) this.#index.flushSync()
  }

  /** Rows in the order they came. Durable on return. */
  async writeParquet(path: string): Promise<void> {
    this.#rows.flushSync()
    await this.#connection.run(
      `copy dataset to ${quoted(path)} (format parquet, compression zstd, row_group_size ${rowsAGroup})`,
    )
    const handle = await open(path, 'r+')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  }

  /** Index lines sorted by their bytes, as CDXJ wants them. Durable on return. */
  async writeIndex(path: string): Promise<void> {
    this.#index.flushSync()
    const handle = await open(path, 'wx')
    try {
      const sorted = await this.#connection.stream('select line from cdxj order by line')
      for await (const rows of sorted.yieldRows()) {
        await handle.writeFile(rows.map(([line]) => `${line}\n`).join(''))
      }
      await handle.sync()
    } finally {
      await handle.close()
    }
  }

  async close(): Promise<void> {
    this.#rows.closeSync()
    this.#index.closeSync()
    this.#connection.closeSync()
    this.#instance.closeSync()
    await remove(this.#path)
  }
}

/** Settings of every DuckDB here: it fetches no extension, and keeps within a modest machine. */
export const offline = {
  autoinstall_known_extensions: 'false',
  autoload_known_extensions: 'false',
  memory_limit: '1GB',
}

/** An SQL string literal. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}

async function remove(path: string): Promise<void> {
  await rm(path, { force: true })
  await rm(`${path}.wal`, { force: true })
  await rm(`${path}.tmp`, { force: true, recursive: true })
}
