import {
  DuckDBInstance,
  DuckDBListValue,
  DuckDBStructValue,
  DuckDBTimestampValue,
  type DuckDBValue,
} from '@duckdb/node-api'
import { toHex } from '../../lib/crypto/hex.ts'
import {
  type AttestedLine,
  attestationsPath,
  maxAttestedLineBytes,
  parseAttestedLine,
} from './attested-line.ts'
import { cellsOf, columns } from './columns.ts'
import type { Findings } from './findings.ts'
import { LinesError, readLines } from './json-lines.ts'
import type { ReleaseFolder } from './release-folder.ts'
import { offline, quoted } from './staging.ts'

const path = 'data/train-00000-of-00001.parquet'
const textAt = columns.findIndex(({ name }) => name === 'text')

/** Step 9. */
export async function verifyParquet(
  folder: ReleaseFolder,
  release: string,
  findings: Findings,
  onProgress: (done: number) => void,
): Promise<void> {
  if (folder.bytesOf(path) === undefined || folder.bytesOf(attestationsPath) === undefined) {
    findings.add(9, path, 'cannot be compared: it or the attestations are missing')
    return
  }
  const file = folder.pathOf(path)
  const instance = await DuckDBInstance.create(':memory:', { ...offline, threads: '1' })
  const connection = await instance.connect()
  try {
    // The one file, and no other and no network, whatever a hostile file may ask for.
    await connection.run(`set allowed_paths = [${quoted(file)}]`)
    await connection.run('set enable_external_access = false')
    const source = `read_parquet(${quoted(file)})`
    const described = await connection.runAndReadAll(`describe select * from ${source}`)
    const found = described.getRows().map(([name, type]) => `${name} ${type}`)
    const expected = columns.map(({ name, type }) => `${name} ${type}`)
    if (found.join() !== expected.join()) {
      const odd = found.find((column) => !expected.includes(column))
      const missing = expected.find((column) => !found.includes(column))
      findings.add(9, path, 'has other columns than the specification', {
        expected: missing ?? expected.join(', '),
        found: odd ?? found.join(', '),
      })
      return
    }
    // Hashed where it lies: the way to JavaScript drops a byte order mark.
    const rows = await connection.stream(`select *, sha256(text) from ${source}`)
    await compareRows(folder, release, rows.yieldRows(), findings, onProgress)
  } catch (error) {
    if (error instanceof LinesError) {
      findings.add(9, attestationsPath, `cannot be compared: ${error.message}`)
    } else {
      const reason = error instanceof Error ? error.message : String(error)
      findings.add(9, path, `cannot be read: ${reason}`)
    }
  } finally {
    connection.closeSync()
    instance.closeSync()
  }
}

async function compareRows(
  folder: ReleaseFolder,
  release: string,
  batches: AsyncIterable<DuckDBValue[][]>,
  findings: Findings,
  onProgress: (done: number) => void,
): Promise<void> {
  const source = await folder.stream(attestationsPath)
  const lines = readLines(source, { gzip: true, maxLineBytes: maxAttestedLineBytes })
  let at = 0
  try {
    for await (const batch of batches) {
      for (const cells of batch) {
        at += 1
        const next = await lines.next()
        if (next.done) {
          findings.add(9, path, 'has more rows than there are attested lines', { expected: at - 1 })
          return
        }
        const line = parseAttestedLine(next.value)
        // Step 7 has said so already.
        if (line === undefined) continue
        compareRow(line, release, cells, at, findings)
      }
      onProgress(at)
    }
    if (!(await lines.next()).done) {
      findings.add(9, path, 'has fewer rows than there are attested lines', { found: at })
    }
  } finally {
    await lines.return(undefined)
  }
}

function compareRow(
  { attested, row, commitment }: AttestedLine,
  release: string,
  cells: readonly DuckDBValue[],
  at: number,
  findings: Findings,
): void {
  const where = `${path} row ${at} (${row.url})`
  const text = cells[textAt]
  const digest = cells[columns.length]
  const expectedDigest = row.duplicate ? null : Buffer.from(row.text, 'base64url').toString('hex')
  if (digest !== expectedDigest) {
    findings.add(9, where, 'has another text than the one that was signed', {
      expected: expectedDigest ?? 'null',
      found: String(digest),
    })
    return
  }
  const expected = cellsOf({
    row,
    release,
    commitment: toHex(commitment),
    leafIndex: attested.leafIndex,
    attestations: attested.attestations.length,
    warc: attested.warc,
    text: typeof text === 'string' ? text : null,
  })
  for (const [index, column] of columns.entries()) {
    if (column.lookup || index === textAt) continue
    const want = plain(expected[index] ?? null)
    const have = plain(cells[index] ?? null)
    if (want !== have) {
      findings.add(9, where, `column ${column.name} differs from the attested row`, {
        expected: want,
        found: have,
      })
    }
  }
}

/** A value as text, the same for what is written and what is read. */
function plain(value: DuckDBValue): string {
  if (typeof value === 'string') return JSON.stringify(value.replace(/^\ufeff/, ''))
  if (value instanceof DuckDBTimestampValue) return String(value.micros)
  if (value instanceof DuckDBListValue) return `[${value.items.map(plain).join(', ')}]`
  if (value instanceof DuckDBStructValue) {
    const members = Object.entries(value.entries)
    return `{${members.map(([name, member]) => `${name}: ${plain(member)}`).join(', ')}}`
  }
  return String(value)
}
