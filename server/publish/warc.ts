import { type FileHandle, open } from 'node:fs/promises'
import { STATUS_CODES } from 'node:http'
import { join } from 'node:path'
import { recordId } from './record-id.ts'
import { encodeRecord, hasControl, labelledDigest, type WarcRecord } from './warc-record.ts'

/** Where a record is: a gzip member of a file of the release. */
export type RecordLocation = {
  /** Path from the release folder, with `/`. */
  file: string
  offset: number
  length: number
}

/** What is common to the records of one row. */
export type RecordSubject = {
  url: string
  /** YYYY-MM-DD. WARC 1.1 §5.4 allows a date of less precision; exact times are never published. */
  day: string
  /** The row's commitment in hex: names its records. */
  commitment: string
}

/** A record that another may refer to. */
export type WrittenRecord = { id: string; url: string; day: string; location: RecordLocation }

/** A site's response as far as it is known: status and chosen headers. */
export type ResponseHead = {
  status: number
  type: string
  headers: readonly (readonly [name: string, value: string])[]
}

/** The only block that a metadata record has. */
export const rebuiltNote = 'note: body decoded by the client, status line and headers rebuilt\r\n'

/** WARC 1.1 §6.7.2. */
export const identicalPayloadProfile =
  'http://netpreserve.org/warc/1.1/revisit/identical-payload-digest'

/** Media type of blocks that are a response or its head. */
export const httpType = 'application/http; msgtype=response'

/** Media type of blocks of `name: value`. */
export const infoType = 'application/warc-fields'

/** Media type of the text of a row. */
export const textType = 'text/plain; charset=utf-8'

/**
 * A fetched page. The body is the payload as the client decoded it; the head is rebuilt, so codings
 * that no longer apply keep their name behind `x-orig-`, as other archives of decoded bodies do.
 */
export function responseRecord(
  subject: RecordSubject,
  head: ResponseHead,
  payload: Uint8Array,
): WarcRecord {
  const block = Buffer.concat([rebuiltHead(head, payload.length), payload])
  return {
    fields: [
      ...common('response', subject),
      ['Content-Type', httpType],
      ['WARC-Payload-Digest', labelledDigest(payload)],
      ['WARC-Block-Digest', labelledDigest(block)],
    ],
    block,
  }
}

/** Says of a response that it is rebuilt. */
export function metadataRecord(subject: RecordSubject, response: WrittenRecord): WarcRecord {
  const block = Buffer.from(rebuiltNote)
  return {
    fields: [
      ...common('metadata', subject),
      ['WARC-Refers-To', response.id],
      ['Content-Type', infoType],
      ['WARC-Block-Digest', labelledDigest(block)],
    ],
    block,
  }
}

/** The text of a row, the bytes that its attestations sign the digest of. */
export function conversionRecord(
  subject: RecordSubject,
  text: Uint8Array,
  source: WrittenRecord | undefined,
): WarcRecord {
  const digest = labelledDigest(text)
  return {
    fields: [
      ...common('conversion', subject),
      ...(source === undefined ? [] : [['WARC-Refers-To', source.id] as const]),
      ['Content-Type', textType],
      ['WARC-Payload-Digest', digest],
      ['WARC-Block-Digest', digest],
    ],
    block: text,
  }
}

/**
 * A page whose payload, or where only the text is known whose text, an earlier record holds.
 *
 * @param digest labelled digest of that payload or text
 * @param head undefined when the earlier record is a text: there is no response to describe
 */
export function revisitRecord(
  subject: RecordSubject,
  digest: string,
  earlier: WrittenRecord,
  head: ResponseHead | undefined,
): WarcRecord {
  const block = head === undefined ? Buffer.alloc(0) : rebuiltHead(head, undefined)
  return {
    fields: [
      ...common('revisit', subject),
      ['WARC-Profile', identicalPayloadProfile],
      ['WARC-Refers-To', earlier.id],
      ['WARC-Refers-To-Target-URI', earlier.url],
      ['WARC-Refers-To-Date', earlier.day],
      ['WARC-Payload-Digest', digest],
      ['WARC-Block-Digest', labelledDigest(block)],
      // WARC 1.1 §6.7.2: the head is kept, the body left out.
      ...(head === undefined
        ? []
        : ([
            ['Content-Type', httpType],
            ['WARC-Truncated', 'length'],
          ] as const)),
    ],
    block,
  }
}

/** Id of the record of this type about this row. */
export function idOf(type: string, subject: RecordSubject): string {
  return recordId(type, subject.commitment)
}

/**
 * Writes `part-00000.warc.gz`, `part-00001.warc.gz`, … into `warc/` of a release, each beginning
 * with a warcinfo record. A file is closed once it has `shardBytes`: small files make removal cheap.
 */
export class WarcWriter {
  readonly #options: WarcWriterOptions
  #shard: { handle: FileHandle; file: string; offset: number } | undefined
  #shards = 0

  constructor(options: WarcWriterOptions) {
    this.#options = options
  }

  /** Appends one record as a gzip member. Not durable before `close`. */
  async write(record: WarcRecord): Promise<RecordLocation> {
    const shard = this.#shard ?? (await this.#begin())
    const location = await append(shard, record)
    if (shard.offset >= this.#options.shardBytes) await this.close()
    return location
  }

  /** Makes everything written durable. */
  async close(): Promise<void> {
    const shard = this.#shard
    this.#shard = undefined
    await shard?.handle.sync()
    await shard?.handle.close()
  }

  async #begin() {
    const name = `part-${String(this.#shards).padStart(5, '0')}.warc.gz`
    const handle = await open(join(this.#options.folder, 'warc', name), 'wx')
    const shard = { handle, file: `warc/${name}`, offset: 0 }
    this.#shard = shard
    this.#shards += 1
    await append(shard, warcinfoRecord(this.#options, name))
    return shard
  }
}

export type WarcWriterOptions = {
  /** Of the release; `warc/` is in it. */
  folder: string
  release: string
  /** RFC 3339. */
  createdAt: string
  generator: string
  shardBytes: number
}

async function append(
  shard: { handle: FileHandle; file: string; offset: number },
  record: WarcRecord,
): Promise<RecordLocation> {
  const member = encodeRecord(record)
  await shard.handle.writeFile(member)
  const location = { file: shard.file, offset: shard.offset, length: member.length }
  shard.offset += member.length
  return location
}

/**
 * What stands at the begin of a WARC file.
 *
 * @param name of the file, without its folder
 */
export function warcinfoRecord(
  options: Pick<WarcWriterOptions, 'release' | 'createdAt' | 'generator'>,
  name: string,
): WarcRecord {
  const block = Buffer.from(
    [
      `software: ${options.generator}`,
      'format: WARC file version 1.1',
      'conformsTo: http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/',
      `isPartOf: ${options.release}`,
      'description: texts that independent observers attested; dates are days, UTC',
      '',
    ].join('\r\n'),
  )
  return {
    fields: [
      ['WARC-Type', 'warcinfo'],
      ['WARC-Record-ID', recordId('warcinfo', `${options.release}\n${name}`)],
      ['WARC-Date', options.createdAt],
      ['WARC-Filename', name],
      ['Content-Type', infoType],
      ['WARC-Block-Digest', labelledDigest(block)],
    ],
    block,
  }
}

function common(type: string, subject: RecordSubject): (readonly [string, string])[] {
  return [
    ['WARC-Type', type],
    ['WARC-Record-ID', idOf(type, subject)],
    ['WARC-Date', subject.day],
    ['WARC-Target-URI', subject.url],
  ]
}

/** @param length of the body that follows; undefined when none does */
function rebuiltHead(head: ResponseHead, length: number | undefined): Buffer {
  const named = new Set(head.headers.map(([name]) => name.toLowerCase()))
  const headers = [
    ...(named.has('content-type') ? [] : [['content-type', head.type] as const]),
    ...head.headers
      .map(([name, value]) => [renamed(name.toLowerCase()), value.trim()] as const)
      .filter(([name]) => name !== 'content-length'),
    ...(length === undefined ? [] : [['content-length', String(length)] as const]),
  ]
  const lines = headers
    // RFC 9110 §5.1, §5.5. What a browser cannot have seen as a header is not one.
    .filter(([name, value]) => /^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name) && !hasControl(value))
    .map(([name, value]) => `${name}: ${value}\r\n`)
  const reason = STATUS_CODES[head.status] ?? ''
  return Buffer.from(`HTTP/1.1 ${head.status} ${reason}\r\n${lines.join('')}\r\n`)
}

function renamed(name: string): string {
  return name === 'content-encoding' || name === 'transfer-encoding' ? `x-orig-${name}` : name
}
