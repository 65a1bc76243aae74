import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { access, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import { surt } from '../../lib/capture/surt.ts'
import { lessRestrictive, useOf } from '../../lib/capture/use-signals.ts'
import { fromBase64, fromBase64Url, toBase64Url } from '../../lib/crypto/base64.ts'
import { toHex } from '../../lib/crypto/hex.ts'
import { type Campaign, campaign } from '../../lib/protocol/campaign.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import type { EnvelopeMessage } from '../../lib/protocol/fields.ts'
import { network } from '../../lib/protocol/network.ts'
import {
  type AttestedRow,
  type Release,
  type Row,
  release,
  row,
} from '../../lib/protocol/release.ts'
import { countUse, noUses, releaseCard, type UseCounts } from './card.ts'
import { formatCdxj, revisitMime } from './cdxj.ts'
import { streamDigest } from './file-digest.ts'
import { JsonLinesWriter } from './json-lines.ts'
import { syncFolder, writeNew } from './new-file.ts'
import { parseJson } from './parse-json.ts'
import { Staging } from './staging.ts'
import {
  conversionRecord,
  idOf,
  metadataRecord,
  type RecordSubject,
  type ResponseHead,
  responseRecord,
  revisitRecord,
  WarcWriter,
  type WrittenRecord,
} from './warc.ts'

/** One verified page, ready to be published. */
export type ReleaseRow = {
  /** The exact text that was committed; `row` of the protocol as canonical JSON. */
  rowJson: string
  /** 32 bytes, base64url. */
  salt: string
  leafIndex: number
  attestations: readonly EnvelopeMessage[]
  /** The text that the attestations sign the digest of. Null for a duplicate. */
  text: string | null
  /** Response headers for an exact row: only what the observers agree on, nothing of one of them. */
  headers: readonly (readonly [name: string, value: string])[]
}

export type ReleaseFacts = {
  /** Made by this. Must not be there, unless as this same release unsealed. Its parent must. */
  folder: string
  name: string
  /** RFC 3339 with `Z`. */
  createdAt: string
  /** Software and version. */
  generator: string
  network: EnvelopeMessage
  /** Manifests of every campaign that a row names. */
  campaigns: readonly EnvelopeMessage[]
  /** In log order, a duplicate after its first. Read once, one at a time. */
  rows: AsyncIterable<ReleaseRow> | Iterable<ReleaseRow>
  /** The payload of an exact row; asked at most once for each payload digest. */
  readPayload: (released: ReleaseRow, row: Row) => Promise<Uint8Array>
}

export type BuiltRelease = {
  /** SHA-256 of the file SHA256SUMS, for the log. */
  sums: Uint8Array<ArrayBuffer>
  rows: number
  duplicates: number
}

/** The folder is there already, sealed or not a release at all. Releases do not change. */
export class ReleaseExists extends Error {}

/** A Set holds 2^24 keys and a verifier keeps one for each of at most five attestations a row. */
export const maxRows = 3_000_000

/** Research asks for files of 100-500 MB: a removal rewrites one of them. */
const shardBytes = 256 * 1024 * 1024

/**
 * Writes a release but for its `log/`, which `sealRelease` adds once the log holds its digest.
 *
 * All is written into `FOLDER.building` and renamed at the end, so the folder is whole or absent;
 * what a crash left there is removed by the next attempt, and so is a whole folder of this name that
 * was never sealed. The same facts give the same bytes, on
 * the same versions of DuckDB and zlib. Memory grows with the number of rows (some 300 bytes each),
 * not with their size.
 *
 * @throws ReleaseExists
 * @throws Error when a fact does not fit another: a text or payload that is not the one committed,
 *   a duplicate without a first. Nothing is left but the folder of the attempt.
 */
export async function buildRelease(facts: ReleaseFacts): Promise<BuiltRelease> {
  if (await exists(facts.folder)) {
    if (!(await isUnsealed(facts.folder, facts.name))) {
      throw new ReleaseExists(`${facts.folder} is already there`)
    }
    // A crash came between building and sealing: nobody can rely on it yet.
    await rm(facts.folder, { recursive: true })
  }
  const building = `${facts.folder}.building`
  await rm(building, { recursive: true, force: true })
  for (const name of ['campaigns', 'data', 'warc']) {
    await mkdir(join(building, name), { recursive: true })
  }

  const campaigns = facts.campaigns.map(readManifest)
  const written = await writeRows(building, facts, new Set(campaigns.map(({ digest }) => digest)))
  const description: Release = release.parse({
    version: 1,
    name: facts.name,
    campaigns: campaigns.map(({ digest }) => digest),
    createdAt: facts.createdAt,
    rows: written.rows,
    duplicates: written.duplicates,
    generator: facts.generator,
  })
  const operator = network.parse(payloadOf(facts.network))
  await writeNew(join(building, 'release.json'), pretty(description))
  await writeNew(join(building, 'network.json'), pretty(facts.network))
  for (const { manifest, envelope } of campaigns) {
    await writeNew(join(building, 'campaigns', `${manifest.id}.json`), pretty(envelope))
  }
  const card = releaseCard({
    release: description,
    network: operator,
    campaigns,
    languages: written.languages,
    exact: written.exact,
    uses: written.uses,
  })
  await writeNew(join(building, 'README.md'), card)
  const sums = await sumsOf(building)
  await writeNew(join(building, 'SHA256SUMS'), sums)
  for (const name of ['campaigns', 'data', 'warc', '.']) await syncFolder(join(building, name))

  await rename(building, facts.folder)
  await syncFolder(dirname(facts.folder))
  // Committed. A crash from here leaves a whole release that the log does not know yet.
  return {
    sums: new Uint8Array(createHash('sha256').update(sums).digest()),
    rows: written.rows,
    duplicates: written.duplicates,
  }
}

type WrittenRows = {
  rows: number
  duplicates: number
  exact: number
  /** Primary language subtags that occur, sorted. */
  languages: string[]
  uses: UseCounts
}

async function writeRows(
  building: string,
  facts: ReleaseFacts,
  campaigns: ReadonlySet<string>,
): Promise<WrittenRows> {
  const staging = await Staging.open(`${building}.staging`)
  const lines = await JsonLinesWriter.open(join(building, 'attestations.jsonl.gz'))
  const warc = new WarcWriter({
    folder: building,
    release: facts.name,
    createdAt: facts.createdAt,
    generator: facts.generator,
    shardBytes,
  })
  const pages = new PageWriter(warc, staging, facts.readPayload)
  const languages = new Set<string>()
  const counts = { rows: 0, duplicates: 0, exact: 0 }
  const uses = noUses()
  try {
    for await (const released of facts.rows) {
      const parsed = readRow(released, campaigns)
      counts.rows += 1
      if (counts.rows > maxRows) throw new Error(`a release holds at most ${maxRows} rows`)
      if (parsed.duplicate) counts.duplicates += 1
      if (parsed.grade === 'exact') counts.exact += 1
      countUse(uses, parsed)
      const language = parsed.language?.split('-')[0]?.toLowerCase()
      // The card lists languages of the ISO 639 form; a page may state anything.
      if (language !== undefined && /^[a-z]{2,3}$/.test(language)) languages.add(language)

      const commitment = commitmentOf(released)
      const location = await pages.write(released, parsed, commitment)
      staging.appendRow({
        row: parsed,
        release: facts.name,
        commitment,
        leafIndex: released.leafIndex,
        attestations: released.attestations.length,
        warc: location,
        text: released.text,
      })
      const line: AttestedRow = {
        row: released.rowJson,
        salt: released.salt,
        leafIndex: released.leafIndex,
        attestations: [...released.attestations],
        warc: location,
      }
      await lines.write(JSON.stringify(line))
    }
    await lines.close()
    await warc.close()
    await staging.writeParquet(join(building, 'data', 'train-00000-of-00001.parquet'))
    await staging.writeIndex(join(building, 'warc', 'index.cdxj'))
    return { ...counts, languages: [...languages].sort(), uses }
  } finally {
    await warc.close()
    await lines.abandon()
    await staging.close()
  }
}

/** Puts the pages of rows into WARC records and their index lines into staging. */
class PageWriter {
  readonly #warc: WarcWriter
  readonly #staging: Staging
  readonly #readPayload: ReleaseFacts['readPayload']
  /** First conversion record of each text, and the response record of each payload, by digest. */
  readonly #texts = new Map<string, WrittenRecord>()
  readonly #payloads = new Map<string, WrittenRecord>()

  constructor(warc: WarcWriter, staging: Staging, readPayload: ReleaseFacts['readPayload']) {
    this.#warc = warc
    this.#staging = staging
    this.#readPayload = readPayload
  }

  /** @returns where the row's text is */
  async write(released: ReleaseRow, row: Row, commitment: string) {
    const subject: RecordSubject = { url: row.url, day: row.day, commitment }
    const response = await this.#writeResponse(released, row, subject)
    if (row.duplicate) {
      const first = this.#texts.get(row.text)
      if (first === undefined) throw new Error(`${row.url}: a duplicate without a first`)
      if (released.text !== null) throw new Error(`${row.url}: a duplicate with a text of its own`)
      if (row.grade === 'sentences') {
        const digest = labelOf(row.text)
        const location = await this.#warc.write(revisitRecord(subject, digest, first, undefined))
        this.#index(row, revisitMime, digest, location)
      }
      return first.location
    }
    const text = textOf(released, row)
    const location = await this.#warc.write(conversionRecord(subject, text, response))
    const record = { id: idOf('conversion', subject), url: row.url, day: row.day, location }
    if (!this.#texts.has(row.text)) this.#texts.set(row.text, record)
    return location
  }

  async #writeResponse(
    released: ReleaseRow,
    row: Row,
    subject: RecordSubject,
  ): Promise<WrittenRecord | undefined> {
    if (row.payload === null) return undefined
    const head: ResponseHead = { status: row.status, type: row.type, headers: released.headers }
    const digest = labelOf(row.payload)
    const earlier = this.#payloads.get(row.payload)
    if (earlier !== undefined) {
      const location = await this.#warc.write(revisitRecord(subject, digest, earlier, head))
      this.#index(row, revisitMime, digest, location)
      return { id: idOf('revisit', subject), url: row.url, day: row.day, location }
    }
    const payload = await this.#readPayload(released, row)
    if (digestOf(payload) !== row.payload) {
      throw new Error(`${row.url}: the payload handed in is not the one committed`)
    }
    const location = await this.#warc.write(responseRecord(subject, head, payload))
    const response = { id: idOf('response', subject), url: row.url, day: row.day, location }
    await this.#warc.write(metadataRecord(subject, response))
    this.#index(row, row.type, digest, location)
    this.#payloads.set(row.payload, response)
    return response
  }

  #index(row: Row, mime: string, digest: string, location: WrittenRecord['location']): void {
    this.#staging.appendIndexLine(
      formatCdxj({
        surt: surt(row.url),
        day: row.day,
        url: row.url,
        mime,
        status: row.status,
        digest,
        location,
      }),
    )
  }
}

/** A manifest with the envelope and digest it came by. */
export type ReleasedCampaign = { manifest: Campaign; digest: string; envelope: EnvelopeMessage }

function readManifest(envelope: EnvelopeMessage): ReleasedCampaign {
  return {
    manifest: campaign.parse(payloadOf(envelope)),
    digest: digestOf(fromBase64(envelope.payload)),
    envelope,
  }
}

function readRow(released: ReleaseRow, campaigns: ReadonlySet<string>): Row {
  const parsed = row.parse(JSON.parse(released.rowJson))
  const complaint = complaintAbout(parsed, released, campaigns)
  if (complaint !== undefined) throw new Error(`${parsed.url}: ${complaint}`)
  return parsed
}

function complaintAbout(
  row: Row,
  released: ReleaseRow,
  campaigns: ReadonlySet<string>,
): string | undefined {
  if (canonicalJson(row) !== released.rowJson) return 'the committed row is not canonical JSON'
  if (!campaigns.has(row.campaign)) return `campaign ${row.campaign} was not handed in`
  if ((row.grade === 'exact') !== (row.payload !== null)) return 'payload and grade do not fit'
  if (row.status < 100 || row.status > 599) return `status ${row.status}`
  const use = row.use && lessRestrictive(row.use, useOf(row.signals))
  if (use !== undefined) return `its use (${use}) is less restrictive than its signals`
  return undefined
}

function textOf({ text }: ReleaseRow, row: Row): Uint8Array {
  if (text === null) throw new Error(`${row.url}: no text and no duplicate`)
  const bytes = Buffer.from(text)
  if (digestOf(bytes) !== row.text) {
    throw new Error(`${row.url}: the text handed in is not the one committed`)
  }
  return bytes
}

function commitmentOf({ salt, rowJson }: ReleaseRow): string {
  return createHash('sha256').update(fromBase64Url(salt)).update(rowJson).digest('hex')
}

function payloadOf(envelope: EnvelopeMessage): unknown {
  return JSON.parse(Buffer.from(fromBase64(envelope.payload)).toString())
}

function digestOf(bytes: Uint8Array): string {
  return toBase64Url(createHash('sha256').update(bytes).digest())
}

function labelOf(digest: string): string {
  return `sha256:${toHex(fromBase64Url(digest))}`
}

function pretty(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

async function sumsOf(folder: string): Promise<string> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join('/'))
    // Names are ASCII, so code units sort as bytes do.
    .sort((a, b) => (a < b ? -1 : 1))
  let sums = ''
  for (const path of paths) {
    sums += `${await streamDigest(createReadStream(join(folder, path)))}  ${path}\n`
  }
  return sums
}

/** Whether a folder is this release as `buildRelease` leaves it, and nothing of anybody else's. */
async function isUnsealed(folder: string, name: string): Promise<boolean> {
  if (await exists(join(folder, 'log'))) return false
  const description = await readFile(join(folder, 'release.json'), 'utf8').catch(() => '')
  return release.safeParse(parseJson(description)).data?.name === name
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
