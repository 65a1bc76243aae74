import { createHash } from 'node:crypto'
import type { Release, Row } from '../../lib/protocol/release.ts'
import { type CdxjEntry, parseCdxj, revisitMime } from './cdxj.ts'
import type { Findings } from './findings.ts'
import { LinesError, readLines } from './json-lines.ts'
import { shapeComplaint } from './record-shape.ts'
import type { ReleaseFolder } from './release-folder.ts'
import {
  identicalPayloadProfile,
  type RecordLocation,
  rebuiltNote,
  textType,
  warcinfoRecord,
} from './warc.ts'
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
  readonly #pages = new Set<string>()
  /** Line of the index by what a row must be to ask for it. */
  readonly #lines = new Map<string, number>()
  /** Line of the index by what a row must be that its record may refer to. */
  readonly #references = new Map<string, number>()
  /** What the metadata after a response must say, by where the response ends, by file. */
  readonly #responses = new Map<string, string>()
  /** Labelled digests whose response record is there and good. */
  readonly #payloads = new Set<string>()

  addPage({ url, day, digest, mime, status }: CdxjEntry, line: number): void {
    this.#pages.add(keyOf(url, day, digest))
    this.#lines.set(keyOf(url, day, digest, status, mime), line)
  }

  /** Whether the index has this page. A row asks; what no row asks for should not be there. */
  takePage({ url, day, status, type }: Row, digest: string): boolean {
    for (const mime of [type, revisitMime]) {
      this.#lines.delete(keyOf(url, day, digest, status, mime))
    }
    return this.#pages.has(keyOf(url, day, digest))
  }

  /** A line of the index whose record refers to an earlier page. */
  addReference(url: string, day: string, digest: string, line: number): void {
    this.#references.set(keyOf(url, day, digest), line)
  }

  /** A row with this payload or text of its own: what a revisit may refer to. */
  takeReference({ url, day }: Row, digest: string): void {
    this.#references.delete(keyOf(url, day, digest))
  }

  addPayload(digest: string): void {
    this.#payloads.add(digest)
  }

  hasPayload(digest: string): boolean {
    return this.#payloads.has(digest)
  }

  addResponse({ file, offset, length }: RecordLocation, { fields }: ParsedRecord): void {
    this.#responses.set(`${offset + length} ${file}`, aboutKey(fields, 'WARC-Record-ID'))
  }

  /** Whether a record is the note on the response that ends where it begins. */
  isNoteOn({ fields }: ParsedRecord, file: string, offset: number): boolean {
    return this.#responses.get(`${offset} ${file}`) === aboutKey(fields, 'WARC-Refers-To')
  }

  addSpan({ file, offset, length }: RecordLocation): void {
    const spans = this.#spans.get(file) ?? new Map<number, number>()
    this.#spans.set(file, spans.set(offset, length))
  }

  /** Lines of the index that belong to no row. */
  get unclaimedLines(): number[] {
    return [...this.#lines.values()]
  }

  /** Lines of the index whose records refer to what no row is. */
  get danglingLines(): number[] {
    return [...this.#references.values()]
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
      if (Buffer.compare(previous, text) > 0) {
        findings.add(7, `${indexPath} line ${line}`, 'is not in ascending order')
      }
      previous = Buffer.from(text)
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
  text: Buffer,
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
  named.addPage(entry, line)
  const record = await readRecord(folder, entry.location)
  if (record === undefined) {
    findings.add(7, where, 'names no record', { found: describe(entry.location) })
    return
  }
  named.addSpan(entry.location)
  const isRevisit = entry.mime === revisitMime
  if (isRevisit) {
    const url = record.fields.get('WARC-Refers-To-Target-URI') ?? ''
    const day = record.fields.get('WARC-Refers-To-Date') ?? ''
    named.addReference(url, day, entry.digest, line)
  } else named.addResponse(entry.location, record)
  const complaint = isRevisit
    ? revisitComplaint(record, entry.digest)
    : responseComplaint(record, entry.digest)
  if (complaint !== undefined) findings.add(7, where, complaint)
  else if (
    record.fields.get('WARC-Target-URI') !== entry.url ||
    record.fields.get('WARC-Date') !== entry.day
  ) {
    findings.add(7, where, 'its record is of another address or day')
  } else if (!isRevisit) named.addPayload(entry.digest)
}

function responseComplaint(record: ParsedRecord, digest: string): string | undefined {
  if (record.fields.get('WARC-Type') !== 'response') return 'its record is not a response'
  const body = httpBody(record.block)
  if (body === undefined || labelledDigest(body) !== digest) {
    return 'the payload of its record has another digest'
  }
  return record.fields.get('WARC-Payload-Digest') === digest
    ? recordComplaint(record)
    : 'its record states another payload digest'
}

function revisitComplaint(record: ParsedRecord, digest: string): string | undefined {
  if (record.fields.get('WARC-Type') !== 'revisit') return 'its record is not a revisit'
  if (record.fields.get('WARC-Profile') !== identicalPayloadProfile) {
    return 'its record is a revisit of another profile'
  }
  if (record.fields.get('WARC-Payload-Digest') !== digest) {
    return 'its record states another payload digest'
  }
  // A head may be kept; a body would be content that nobody attested.
  if (record.block.length > 0 && httpBody(record.block)?.length !== 0) {
    return 'its record is a revisit with a body'
  }
  return recordComplaint(record)
}

/** Whether the record at a row's `warc` is the row's text. Undefined when it is. */
export async function textComplaint(
  folder: ReleaseFolder,
  location: RecordLocation,
  expected: { text: string; page: { url: string; day: string } | undefined },
): Promise<string | undefined> {
  const record = await readRecord(folder, location)
  if (record === undefined) return `names no record: ${describe(location)}`
  if (record.fields.get('WARC-Type') !== 'conversion') return 'its record is not a conversion'
  if (record.fields.get('Content-Type') !== textType) return `its record is not ${textType}`
  if (createHash('sha256').update(record.block).digest('base64url') !== expected.text) {
    return 'the text in its record is not the one that was signed'
  }
  const { page } = expected
  if (page !== undefined && record.fields.get('WARC-Target-URI') !== page.url) {
    return 'its record is of another address'
  }
  if (page !== undefined && record.fields.get('WARC-Date') !== page.day) {
    return 'its record is of another day'
  }
  if (record.fields.get('WARC-Payload-Digest') !== labelledDigest(record.block)) {
    return 'its record states another payload digest'
  }
  return recordComplaint(record)
}

/** Step 7, the rest of the WARC files: they hold nothing that no row stands for. */
export async function verifyCoverage(
  folder: ReleaseFolder,
  named: NamedRecords,
  release: Release | undefined,
  findings: Findings,
): Promise<void> {
  for (const line of named.danglingLines) {
    findings.add(7, `${indexPath} line ${line}`, 'its record refers to a page that no row is')
  }
  for (const line of named.unclaimedLines) {
    findings.add(
      7,
      `${indexPath} line ${line}`,
      'is not as any row has it: its page, digest, status and type',
    )
  }
  for (const path of folder.paths) {
    if (!/^warc\/.*\.warc\.gz$/.test(path)) continue
    const gap = (start: number, end: number) =>
      verifyGap({ folder, named, release }, path, [start, end], findings)
    let at = 0
    for (const [offset, length] of named.spansOf(path)) {
      if (offset < at) findings.add(7, `${path} at ${offset}`, 'two records overlap')
      else await gap(at, offset)
      at = Math.max(at, offset + length)
    }
    await gap(at, folder.bytesOf(path) ?? at)
  }
}

type GapContext = {
  folder: ReleaseFolder
  named: NamedRecords
  release: Release | undefined
}

/** Between what is named stands one record at most, which says nothing of a page. */
async function verifyGap(
  { folder, named, release }: GapContext,
  path: string,
  [start, end]: [number, number],
  findings: Findings,
): Promise<void> {
  // Past the end of the file when a span is; whoever named that one has failed already.
  if (start >= end) return
  const where = `${path} bytes ${start} to ${end}`
  const record =
    end - start > maxGapBytes ? undefined : await folder.readRecord(path, start, end - start)
  if (record === undefined) {
    findings.add(7, where, 'belong to no row and are no note either')
    return
  }
  const isNote =
    record.fields.get('WARC-Type') === 'metadata'
      ? record.block.toString('latin1') === rebuiltNote && named.isNoteOn(record, path, start)
      : start === 0 && isInfo(record, path, release)
  const complaint = isNote ? recordComplaint(record) : 'its record belongs to no row'
  if (complaint !== undefined) findings.add(7, where, complaint)
}

/** Whether a record is the first of its file: what release.json says, in other words. */
function isInfo(record: ParsedRecord, path: string, release: Release | undefined): boolean {
  if (record.fields.get('WARC-Type') !== 'warcinfo') return false
  if (release === undefined) return true
  const { name, createdAt, generator } = release
  const file = path.slice(path.lastIndexOf('/') + 1)
  const expected = warcinfoRecord({ release: name, createdAt, generator }, file)
  return (
    record.block.equals(expected.block) &&
    record.fields.get('WARC-Date') === createdAt &&
    record.fields.get('WARC-Filename') === file
  )
}

async function readRecord(
  folder: ReleaseFolder,
  { file, offset, length }: RecordLocation,
): Promise<ParsedRecord | undefined> {
  if (!/^warc\/.*\.warc\.gz$/.test(file)) return undefined
  return folder.readRecord(file, offset, length)
}

/** What is wrong with a record of whatever type. */
function recordComplaint({ fields, block }: ParsedRecord): string | undefined {
  if (fields.get('WARC-Block-Digest') !== labelledDigest(block)) {
    return 'its record states another block digest'
  }
  const complaint = shapeComplaint({ fields, block })
  if (complaint !== undefined) return complaint
  // A time of day would say when somebody read the page.
  if (fields.get('WARC-Type') !== 'warcinfo' && !isDay(fields.get('WARC-Date') ?? '')) {
    return 'its record has a date that is no day'
  }
  return undefined
}

function isDay(text: string): boolean {
  const at = Date.parse(`${text}T00:00:00Z`)
  return !Number.isNaN(at) && new Date(at).toISOString() === `${text}T00:00:00.000Z`
}

function describe({ file, offset, length }: RecordLocation): string {
  return `${file}, ${length} bytes at ${offset}`
}

/** Of one length, whatever the address's. */
function keyOf(...parts: (string | number)[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64')
}

function aboutKey(fields: ParsedRecord['fields'], idName: string): string {
  return keyOf(...[idName, 'WARC-Target-URI', 'WARC-Date'].map((name) => fields.get(name) ?? ''))
}
