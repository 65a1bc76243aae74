import { createHash } from 'node:crypto'
import { appendFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync, gzipSync, inflateRawSync } from 'node:zlib'
import { canonicalJson } from '../../../lib/protocol/canonical-json.ts'
import type { AttestedRow, Row } from '../../../lib/protocol/release.ts'

const warc = 'warc/part-00000.warc.gz'
const index = 'warc/index.cdxj'
const attestations = 'attestations.jsonl.gz'

export type Forgery = [what: string, steps: number[], forge: (folder: string) => Promise<void>]

/**
 * What an operator can write who holds the log's key, and which steps refuse it: step 9 aside, which
 * not every verifier takes.
 */
export const forgeries: Forgery[] = [
  [
    'a member of a line is there twice',
    [7],
    (folder) =>
      editGzip(folder, (text) => text.replace('"leafIndex":307', '"leafIndex":1,"leafIndex":307')),
  ],
  [
    'bytes follow the gzip members of the rows',
    [7],
    (folder) => appendFile(join(folder, attestations), Buffer.from('\0said nobody')),
  ],
  [
    'the block digest of a record is another',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'WARC-Type: metadata')
        record.bytes = record.bytes.replace(/(WARC-Block-Digest: sha256:).{8}/, '$100000000')
      }),
  ],
  [
    'a record says at what time a page was fetched',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'WARC-Type: metadata')
        record.bytes = record.bytes.replace(/(WARC-Date: \S+)/, '$1T12:00:00Z')
      }),
  ],
  [
    'the index gives another type than the row',
    [7],
    (folder) =>
      rework(folder, (parts) => {
        parts.index[0] = (parts.index[0] as string).replace('text/html', 'image/png')
      }),
  ],
  [
    'the index gives another status than the row',
    [7],
    (folder) =>
      rework(folder, (parts) => {
        parts.index[0] = (parts.index[0] as string).replace('"200"', '"404"')
      }),
  ],
  [
    'bytes follow the gzip member within what a row names',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'Nothing happened')
        record.pack = (bytes) => Buffer.concat([gzipSync(bytes), Buffer.from('\0said nobody')])
      }),
  ],
  [
    'a record is spread over two gzip members',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'Nothing happened')
        record.pack = (bytes) =>
          Buffer.concat([gzipSync(bytes.subarray(0, 50)), gzipSync(bytes.subarray(50))])
      }),
  ],
  [
    'a duplicate brings a record of its own, of an address that nobody signed',
    [7],
    (folder) =>
      rework(folder, ({ lines, records }) => {
        const text = Buffer.from('Prices\nOne costs 3.50 €. Two cost −7,00 €.').toString('latin1')
        records.push({ at: -1, bytes: textRecord(text) })
        const line = lineAt(lines, 4)
        line.warc = { ...line.warc, offset: -1 }
      }),
  ],
  [
    'a text states another payload digest',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'WARC-Type: conversion')
        record.bytes = record.bytes.replace(/(WARC-Payload-Digest: sha256:).{8}/, '$100000000')
      }),
  ],
  [
    'a record has no id',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'WARC-Type: metadata')
        record.bytes = record.bytes.replace(/WARC-Record-ID: .*\r\n/, '')
      }),
  ],
  [
    'the head of a record is not UTF-8',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'WARC-Type: metadata')
        record.bytes = record.bytes.replace('application/warc-fields', '\xff')
      }),
  ],
  [
    'a member of an index line is there twice',
    [7],
    (folder) =>
      rework(folder, (parts) => {
        parts.index[0] = (parts.index[0] as string).replace('"mime"', '"mime":"a/b","mime"')
      }),
  ],
  [
    'a member of release.json is there twice, once with an escape',
    [4],
    (folder) => editFile(folder, 'release.json', '"version"', '"n\\u0061me": "Sample", "version"'),
  ],
  [
    'a member of network.json is there twice',
    [3],
    (folder) => editFile(folder, 'network.json', '"payloadType"', '"payload": "", "payloadType"'),
  ],
  [
    'a member of a manifest’s file is there twice',
    [6],
    (folder) =>
      editFile(folder, 'campaigns/sample-docs.json', '"payload"', '"payload": "", "payload"'),
  ],
  [
    'release.json is not UTF-8',
    [4],
    (folder) => editFile(folder, 'release.json', 'gleaner-test', '\xff'),
  ],
  [
    'a row is not UTF-8',
    [7, 8],
    (folder) => editRows(folder, (rows) => rows.replace('Sample', '\xff')),
  ],
  [
    'an attestation has its signature in base64url',
    [7],
    (folder) =>
      rework(folder, ({ lines }) => {
        const envelope = lines
          .flatMap(({ attestations }) => attestations)
          .find(({ signatures: [signature] }) => /[+/]/.test(signature?.sig ?? ''))
        const signature = envelope?.signatures[0]
        if (signature === undefined) throw new Error('no signature with + or /')
        signature.sig = signature.sig.replaceAll('+', '-').replaceAll('/', '_')
      }),
  ],
  [
    'the first record of a file says more than release.json',
    [7],
    (folder) => rework(folder, ({ records }) => editBlock(records, 'gleaner-test', 'said nobody')),
  ],
  [
    'the first record of a file comes again later',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        records.push({ ...find(records, 'WARC-Type: warcinfo'), at: -1 })
      }),
  ],
  ...['warcinfo', 'response', 'metadata', 'conversion', 'revisit'].map(
    (type): Forgery => [
      `a ${type} record has a field that no release writes`,
      [7],
      (folder) =>
        rework(folder, ({ records }) => {
          const record = find(records, `WARC-Type: ${type}`)
          record.bytes = record.bytes.replace('Content-Length', 'X-Text: said nobody\r\n$&')
        }),
    ],
  ),
  [
    'a record has an id that was not derived',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'WARC-Type: conversion')
        record.bytes = record.bytes.replace(/urn:uuid:[^>]+/, 'https://said.example/nobody')
      }),
  ],
  [
    'a note is on another page than the response before it',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'WARC-Type: metadata')
        record.bytes = record.bytes.replace(/(WARC-Target-URI: \S+)/, '$1said-nobody')
      }),
  ],
  [
    'a note comes twice',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const note = find(records, 'WARC-Type: metadata')
        records.splice(records.indexOf(note), 0, { ...note, at: -1 })
      }),
  ],
  [
    'a revisit refers to a page that nobody signed',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        const record = find(records, 'WARC-Type: revisit')
        record.bytes = record.bytes.replace(/(Refers-To-Target-URI: \S+)/, '$1said-nobody')
      }),
  ],
  [
    'a gzip header has a name',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        find(records, 'Nothing happened').pack = (bytes) => named(gzipSync(bytes))
      }),
  ],
  [
    'a gzip header of the rows has a name',
    [7, 8],
    async (folder) => {
      const path = join(folder, attestations)
      await writeFile(path, named(await readFile(path)))
    },
  ],
]

/** With a character a byte. */
async function editFile(folder: string, path: string, from: string, to: string): Promise<void> {
  const text = await readFile(join(folder, path), 'latin1')
  const edited = text.replace(from, to)
  if (edited === text) throw new Error(`${path} has no ${from}`)
  await writeFile(join(folder, path), edited, 'latin1')
}

/** RFC 1952 §2.3.1: FNAME. */
function named(member: Buffer): Buffer {
  const header = Buffer.from(member.subarray(0, 10))
  header[3] = 8
  return Buffer.concat([header, Buffer.from('said nobody\0'), member.subarray(10)])
}

export async function editGzip(folder: string, edit: (text: string) => string): Promise<void> {
  await editRows(folder, (rows) => {
    const text = Buffer.from(rows, 'latin1').toString()
    return Buffer.from(edit(text)).toString('latin1')
  })
}

/** With a character a byte. */
async function editRows(folder: string, edit: (rows: string) => string): Promise<void> {
  const rows = gunzipSync(await readFile(join(folder, attestations))).toString('latin1')
  const edited = edit(rows)
  if (edited === rows) throw new Error('nothing was edited')
  await writeFile(join(folder, attestations), gzipSync(Buffer.from(edited, 'latin1')))
}

/** One gzip member: where it was, and what it holds, a character a byte. */
type Member = { at: number; bytes: string; pack?: (bytes: Buffer) => Buffer }
type Parts = { lines: AttestedRow[]; index: string[]; records: Member[] }

/** Edits rows, index and records, and moves what names a record along with it. */
export async function rework(folder: string, edit: (parts: Parts) => unknown): Promise<void> {
  const parts: Parts = {
    lines: gunzipSync(await readFile(join(folder, attestations)))
      .toString()
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as AttestedRow),
    index: (await readFile(join(folder, index), 'utf8')).trimEnd().split('\n'),
    records: membersOf(await readFile(join(folder, warc))),
  }
  edit(parts)
  const places = new Map<number, { offset: number; length: number }>()
  const members: Buffer[] = []
  let offset = 0
  for (const { at, bytes, pack = gzipSync } of parts.records) {
    const member = pack(Buffer.from(bytes, 'latin1'))
    places.set(at, { offset, length: member.length })
    members.push(member)
    offset += member.length
  }
  const lines = parts.lines.map((line) => {
    const place = places.get(line.warc.offset)
    const whole = line.warc.length < 2 ** 50
    return JSON.stringify({
      ...line,
      warc: { ...line.warc, ...(whole ? place : { offset: place?.offset ?? 0 }) },
    })
  })
  const indexed = parts.index.map((line) =>
    line.replace(/"length":"\d+","offset":"(\d+)"/, (_, at) => {
      const { offset, length } = places.get(Number(at)) as { offset: number; length: number }
      return `"length":"${length}","offset":"${offset}"`
    }),
  )
  await writeFile(join(folder, warc), Buffer.concat(members))
  await writeFile(join(folder, attestations), gzipSync(`${lines.join('\n')}\n`))
  await writeFile(join(folder, index), `${indexed.join('\n')}\n`)
}

/** The builder's members have the plain header of ten bytes. */
function membersOf(file: Buffer): Member[] {
  const members: Member[] = []
  for (let at = 0; at < file.length; ) {
    const { buffer, engine } = inflateRawSync(file.subarray(at + 10), {
      info: true,
    }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } }
    members.push({ at, bytes: buffer.toString('latin1') })
    at += 10 + engine.bytesWritten + 8
  }
  return members
}

export function find(records: Member[], part: string): Member {
  const record = records.find(({ bytes }) => bytes.includes(part))
  if (record === undefined) throw new Error(`no record has ${part}`)
  return record
}

/** Replaces in the first record that has it, and makes its length and digests fit. */
export function editBlock(records: Member[], from: string, to: string): void {
  editRecord(records, from, (block) => block.replace(from, to))
}

export function editRecord(records: Member[], part: string, edit: (block: string) => string): void {
  const record = find(records, part)
  const end = record.bytes.indexOf('\r\n\r\n') + 4
  const block = edit(record.bytes.slice(end, -4))
  const head = record.bytes
    .slice(0, end)
    .replace(/(Content-Length: )\d+/, `$1${block.length}`)
    .replace(/(WARC-Block-Digest: sha256:)\w+/, `$1${hexDigest(block)}`)
  record.bytes = `${head}${block}\r\n\r\n`
}

export function textRecord(text: string): string {
  const fields = [
    'WARC/1.1',
    'WARC-Type: conversion',
    'WARC-Record-ID: <urn:uuid:00000000-0000-8000-8000-000000000000>',
    'WARC-Date: 2026-11-20',
    'WARC-Target-URI: https://docs.sample.example/more',
    'Content-Type: text/plain; charset=utf-8',
    `WARC-Payload-Digest: sha256:${hexDigest(text)}`,
    `WARC-Block-Digest: sha256:${hexDigest(text)}`,
    `Content-Length: ${text.length}`,
  ]
  return `${fields.join('\r\n')}\r\n\r\n${text}\r\n\r\n`
}

function hexDigest(bytes: string): string {
  return createHash('sha256').update(Buffer.from(bytes, 'latin1')).digest('hex')
}

export function lineAt(lines: AttestedRow[], at: number): AttestedRow {
  const line = lines[at]
  if (line === undefined) throw new Error(`no line ${at}`)
  return line
}

export function editRow(lines: AttestedRow[], at: number, changes: Partial<Row>): void {
  const line = lineAt(lines, at)
  line.row = canonicalJson({ ...(JSON.parse(line.row) as Row), ...changes })
}
