import { createHash } from 'node:crypto'
import { parseCdxj, revisitMime } from './cdxj.ts'
import type { Findings } from './findings.ts'
import { LinesError, readLines } from './json-lines.ts'
import type { ReleaseFolder } from './release-folder.ts'
import { identicalPayloadProfile, type RecordLocation, rebuiltNote, textType } from './warc.ts'
import { httpBody, labelledDigest, type ParsedRecord } from './warc-record.ts'

const indexPath = 'warc/index.cdxj'

/** An address of 2,048 bytes twice, once as sort key with percent signs, and short fields. */
const maxLineBytes = 16 * 1024

/** Between records that are named stand single metadata records and a file's warcinfo. */
const maxGapBytes = 64 * 1024

/** What the index and the rows name in the WARC files, gathered while both are read. */
export class NamedRecords {
  /** Length by offset, by file. */
  readonly #spans = new Map<string, Map<number, number>>()
  /** Line of the index by page; 0 once a row has asked for it. */
  readonly #pages = new Map<string, number>()
  /** Labelled digests whose response record is there and good. */
  readonly #payloads = new Set<string>()

  addPage(url: string, day: string, digest: string, line: number): void {
    this.#pages.set(pageKey(url, day, digest), line)
  }

  /** Whether the index has this page. A row asks; what no row asks for should not be there. */
  takePage(url: string, day: string, digest: string): boolean {
    const key = pageKey(url, day, digest)
    if (!this.#pages.has(key)) return false
    this.#pages.set(key, 0)
    return true
  }

  addPayload(digest: string): void {
    this.#payloads.add(digest)
  }

  hasPayload(digest: string): boolean {
    return this.#payloads.has(digest)
  }

  addSpan({ file, offset, length }: RecordLocation): void {
    const spans = this.#spans.get(file) ?? new Map<number, number>()
    this.#spans.set(file, spans.set(offset, length))
  }

  /** Lines of the index that belong to no row. */
  get unclaimedLines(): number[] {
    return [...this.#pages.values()].filter((line) => line > 0)
  }

  /** Offset and length of what is named in a file, by offset. */
  spansOf(file: string): [number, number][] {
    return [...(this.#spans.get(file) ?? [])].sort(([a], [b]) => a - b)
  }
}

/** Step 7, the index: every line names a record that is what the line says. */
export async function verifyIndex(
  folder: ReleaseFolder,
  maxLines: number,
  findings: Findings,
): Promise<NamedRecords> {
  const named = new NamedRecords()
  if (folder.bytesOf(indexPath) === undefined) {
    findings.add(7, indexPath, 'is missing')
    return named
  }
  let line = 0
  let previous = Buffer.alloc(0)
  try {
    const source = await folder.stream(indexPath)
    for await (const text of readLines(source, { gzip: false, maxLineBytes })) {
      line += 1
      if (line > maxLines) {
        findings.add(7, indexPath, 'has more lines than there are rows')
        break
      }
      const bytes = Buffer.from(text)
      if (Buffer.compare(previous, bytes) > 0) {
        findings.add(7, `${indexPath} line ${line}`, 'is not in ascending order')
      }
      previous = bytes
      await verifyIndexLine(folder, text, line, named, findings)
    }
  } catch (error) {
    if (!(error instanceof LinesError)) throw error
    findings.add(7, `${indexPath} after line ${line}`, error.message)
  }
  return named
}

async function verifyIndexLine(
  folder: ReleaseFolder,
  text: string,
  line: number,
  named: NamedRecords,
  findings: Findings,
): Promise<void> {
  const where = `${indexPath} line ${line}`
  const entry = parseCdxj(text)
  if (entry === undefined) {
    findings.add(7, where, 'is not a line of CDXJ as the specification has it')
    return
  }
  named.addPage(entry.url, entry.day, entry.digest, line)
  const record = await readRecord(folder, entry.location)
  if (record === undefined) {
    findings.add(7, where, 'names no record', { found: describe(entry.location) })
    return
  }
  named.addSpan(entry.location)
  const isRevisit = entry.mime === revisitMime
  const complaint = isRevisit
    ? revisitComplaint(record, entry.digest)
    : responseComplaint(record, entry.digest)
  if (complaint !== undefined) findings.add(7, where, complaint)
  else if (
    record.fields.get('warc-target-uri') !== entry.url ||
    record.fields.get('warc-date') !== entry.day
  ) {
    findings.add(7, where, 'its record is of another address or day')
  } else if (!isRevisit) named.addPayload(entry.digest)
}

function responseComplaint(record: ParsedRecord, digest: string): string | undefined {
  if (record.fields.get('warc-type') !== 'response') return 'its record is not a response'
  const body = httpBody(record.block)
  if (body === undefined || labelledDigest(body) !== digest) {
    return 'the payload of its record has another digest'
  }
  return record.fields.get('warc-payload-digest') === digest
    ? digestComplaint(record)
    : 'its record states another payload digest'
}

function revisitComplaint(record: ParsedRecord, digest: string): string | undefined {
  if (record.fields.get('warc-type') !== 'revisit') return 'its record is not a revisit'
  if (record.fields.get('warc-profile') !== identicalPayloadProfile) {
    return 'its record is a revisit of another profile'
  }
  if (record.fields.get('warc-payload-digest') !== digest) {
    return 'its record states another payload digest'
  }
  // A head may be kept; a body would be content that nobody attested.
  if (record.block.length > 0 && httpBody(record.block)?.length !== 0) {
    return 'its record is a revisit with a body'
  }
  return digestComplaint(record)
}

/** Whether the record at a row's `warc` is the row's text. Undefined when it is. */
export async function textComplaint(
  folder: ReleaseFolder,
  location: RecordLocation,
  expected: { text: string; page: { url: string; day: string } | undefined },
): Promise<string | undefined> {
  const record = await readRecord(folder, location)
  if (record === undefined) return `names no record: ${describe(location)}`
  if (record.fields.get('warc-type') !== 'conversion') return 'its record is not a conversion'
  if (record.fields.get('content-type') !== textType) return `its record is not ${textType}`
  if (createHash('sha256').update(record.block).digest('base64url') !== expected.text) {
    return 'the text in its record is not the one that was signed'
  }
  const { page } = expected
  if (page !== undefined && record.fields.get('warc-target-uri') !== page.url) {
    return 'its record is of another address'
  }
  if (page !== undefined && record.fields.get('warc-date') !== page.day) {
    return 'its record is of another day'
  }
  return digestComplaint(record)
}

/** Step 7, the rest of the WARC files: they hold nothing that no row stands for. */
export async function verifyCoverage(
  folder: ReleaseFolder,
  named: NamedRecords,
  findings: Findings,
): Promise<void> {
  for (const line of named.unclaimedLines) {
    findings.add(7, `${indexPath} line ${line}`, 'is of a page that no row says it is')
  }
  for (const path of folder.paths) {
    if (!/^warc\/.*\.warc\.gz$/.test(path)) continue
    let at = 0
    for (const [offset, length] of named.spansOf(path)) {
      if (offset < at) findings.add(7, `${path} at ${offset}`, 'two records overlap')
      else await verifyGap(folder, path, at, offset, findings)
      at = Math.max(at, offset + length)
    }
    await verifyGap(folder, path, at, folder.bytesOf(path) ?? at, findings)
  }
}

async function verifyGap(
  folder: ReleaseFolder,
  path: string,
  start: number,
  end: number,
  findings: Findings,
): Promise<void> {
  // Past the end of the file when a span is; whoever named that one has failed already.
  if (start >= end) return
  const where = `${path} bytes ${start} to ${end}`
  const records =
    end - start > maxGapBytes ? undefined : await folder.readRecords(path, start, end - start)
  if (records === undefined) findings.add(7, where, 'belong to no row and are no notes either')
  else if (!records.every(isNote)) findings.add(7, where, 'hold a record that belongs to no row')
}

/** What may stand in a WARC file without a row: it says nothing of a page. */
function isNote({ fields, block }: ParsedRecord): boolean {
  const type = fields.get('warc-type')
  return type === 'warcinfo' || (type === 'metadata' && block.toString() === rebuiltNote)
}

async function readRecord(
  folder: ReleaseFolder,
  { file, offset, length }: RecordLocation,
): Promise<ParsedRecord | undefined> {
  if (!/^warc\/.*\.warc\.gz$/.test(file)) return undefined
  const records = await folder.readRecords(file, offset, length)
  return records?.length === 1 ? records[0] : undefined
}

function digestComplaint({ fields, block }: ParsedRecord): string | undefined {
  return fields.get('warc-block-digest') === labelledDigest(block)
    ? undefined
    : 'its record states another block digest'
}

function describe({ file, offset, length }: RecordLocation): string {
  return `${file}, ${length} bytes at ${offset}`
}

/** Of one length, whatever the address's. */
function pageKey(url: string, day: string, digest: string): string {
  return createHash('sha256').update(`${day} ${digest} ${url}`).digest('base64')
}
