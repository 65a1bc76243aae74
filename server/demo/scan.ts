import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { DuckDBInstance } from '@duckdb/node-api'

/** Which of these strings occur anywhere in a release: every file is searched unpacked, Parquet as its rows. */
export async function stringsFound(folder: string, wanted: Iterable<string>): Promise<string[]> {
  const needles = [...wanted]
  const found = new Set<string>()
  const search = (text: string) => {
    for (const needle of needles) if (text.includes(needle)) found.add(needle)
  }
  for (const name of await readdir(folder, { recursive: true })) {
    const file = join(folder, name)
    if (name.endsWith('.parquet')) search(await parquetText(file))
    else {
      const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'EISDIR') return null
        throw error
      })
      // A WARC has one gzip member a record; gunzip reads them all.
      if (bytes) search((name.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8'))
    }
  }
  return [...found]
}

async function parquetText(file: string): Promise<string> {
  const instance = await DuckDBInstance.create(':memory:')
  const connection = await instance.connect()
  try {
    const rows = await connection.runAndReadAll(
      `select to_json(t)::varchar as line from read_parquet('${file.replaceAll("'", "''")}') as t`,
    )
    return rows.getRows().flat().join('\n')
  } finally {
    connection.closeSync()
    instance.closeSync()
  }
}
