import { fromBase64, fromBase64Url, toBase64Url } from '../../lib/crypto/base64.ts'
import { equalBytes, sha256 } from '../../lib/crypto/digest.ts'
import type { Envelope } from '../../lib/crypto/dsse.ts'
import { toHex } from '../../lib/crypto/hex.ts'
import { type Campaign, campaign } from '../../lib/protocol/campaign.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import { envelope as envelopeSchema } from '../../lib/protocol/fields.ts'
import { type LogEntry, logEntry } from '../../lib/protocol/log-entry.ts'
import { type Network, network } from '../../lib/protocol/network.ts'
import { payloadType } from '../../lib/protocol/payload-type.ts'
import { type Release, release } from '../../lib/protocol/release.ts'
import { type Checkpoint, openCheckpoint } from '../../lib/tlog/checkpoint.ts'
import { CompactRange } from '../../lib/tlog/compact-range.ts'
import { leafHash } from '../../lib/tlog/merkle.ts'
import { formatVerifierKey, type NoteVerifier, parseVerifierKey } from '../../lib/tlog/note.ts'
import { decodeTile, tilePath, tileWidth } from '../../lib/tlog/tile.ts'
import type { Findings } from './findings.ts'
import { parseJson } from './parse-json.ts'
import { payloadOf, verifyReleaseEnvelope } from './release-envelope.ts'
import type { ReleaseFolder } from './release-folder.ts'

/** A signed note, a manifest of 100 sites or a list of a hundred campaigns fits many times over. */
const smallFileBytes = 1024 * 1024
const entriesBytes = 64 * 1024 * 1024

/** Step 1. Undefined when there is no checkpoint to believe. */
export async function verifyCheckpoint(
  folder: ReleaseFolder,
  verifierKey: string,
  findings: Findings,
): Promise<{ checkpoint: Checkpoint; key: NoteVerifier } | undefined> {
  const key = parseVerifierKey(verifierKey.trim())
  if (key === undefined) {
    findings.add(1, 'the key given', 'is not a verifier key NAME+HEX+BASE64 of an Ed25519 log')
    return undefined
  }
  const note = await folder.read('log/checkpoint', smallFileBytes)
  if (note === undefined) {
    findings.add(1, 'log/checkpoint', 'is missing or too large')
    return undefined
  }
  const opened = await openCheckpoint(note, key.name, [key])
  if (opened.ok) return { checkpoint: opened.checkpoint, key }
  const complaint = {
    malformed: 'is not a signed note',
    'too-large': 'is too large for a signed note',
    'unknown-signers': 'is not signed by the key given',
    'bad-signature': 'has a bad signature under the key given',
    'not-a-checkpoint': 'is signed, but is no checkpoint',
    'another-log': 'is signed, but speaks for another log',
  }[opened.reason]
  findings.add(1, 'log/checkpoint', complaint, { expected: `a note signed by ${key.name}` })
  return undefined
}

/** Leaf hashes by index, read from the release's tiles as they are asked for. */
export class Leaves {
  readonly #folder: ReleaseFolder
  readonly size: number
  readonly #tiles = new Map<number, Uint8Array[]>()

  constructor(folder: ReleaseFolder, size: number) {
    this.#folder = folder
    this.size = size
  }

  /** Undefined past the size or where the tile is damaged. */
  async at(index: number): Promise<Uint8Array | undefined> {
    if (index >= this.size) return undefined
    const tile = await this.tile(Math.floor(index / tileWidth))
    return tile?.[index % tileWidth]
  }

  /** Hashes of one tile, exactly as many as the size asks for. */
  async tile(index: number): Promise<Uint8Array[] | undefined> {
    const known = this.#tiles.get(index)
    if (known !== undefined) return known
    const bytes = await this.#folder.read(this.pathOf(index), tileWidth * 32)
    const hashes = bytes && decodeTile(bytes)
    if (hashes === undefined || hashes.length !== this.#widthOf(index)) return undefined
    // Rows are mostly in log order; 1,024 tiles are 8 MB.
    if (this.#tiles.size >= 1024) this.#tiles.clear()
    this.#tiles.set(index, hashes)
    return hashes
  }

  pathOf(index: number): string {
    return `log/${tilePath(0, index, this.#widthOf(index))}`
  }

  #widthOf(index: number): number {
    return Math.min(tileWidth, this.size - index * tileWidth)
  }
}

/** Step 2. */
export async function verifyTiles(
  folder: ReleaseFolder,
  checkpoint: Checkpoint,
  findings: Findings,
): Promise<Leaves | undefined> {
  const leaves = new Leaves(folder, checkpoint.size)
  const range = new CompactRange()
  const expected = new Set(['log/checkpoint', 'log/entries.jsonl'])
  for (let index = 0; range.size < checkpoint.size; index++) {
    const path = leaves.pathOf(index)
    const hashes = await leaves.tile(index)
    if (hashes === undefined) {
      findings.add(2, path, 'is missing or does not hold the hashes it should', {
        expected: `tiles of ${checkpoint.size} leaves`,
        found: `${folder.bytesOf(path) ?? 'no file, 0'} bytes`,
      })
      return undefined
    }
    expected.add(path)
    for (const hash of hashes) range.append(hash)
  }
  for (const path of folder.paths) {
    if (path.startsWith('log/') && !expected.has(path)) {
      findings.add(2, path, 'does not belong to a log of this size')
    }
  }
  if (equalBytes(range.root(), checkpoint.rootHash)) return leaves
  findings.add(2, 'log/tile', 'the leaf hashes are not those that the checkpoint was signed for', {
    expected: `root ${toHex(checkpoint.rootHash)}`,
    found: `root ${toHex(range.root())}`,
  })
  return undefined
}

/** An entry of the log in clear, its leaf checked. */
export type ClearEntry = { leafIndex: number; entry: LogEntry }

/** First half of step 3: each line is the leaf at its index. */
export async function verifyEntries(
  folder: ReleaseFolder,
  leaves: Leaves | undefined,
  findings: Findings,
): Promise<ClearEntry[]> {
  const path = 'log/entries.jsonl'
  const bytes = await folder.read(path, entriesBytes)
  if (bytes === undefined) {
    findings.add(3, path, 'is missing or too large')
    return []
  }
  const entries: ClearEntry[] = []
  // One character a byte: what is not UTF-8 is the fault of its line alone.
  const lines = bytes.toString('latin1').split('\n')
  if (lines.pop() !== '') findings.add(3, path, 'the last line has no line feed')
  let previous = -1
  for (const [at, line] of lines.entries()) {
    const where = `${path} line ${at + 1}`
    const read = parseEntry(Buffer.from(line, 'latin1'))
    if (read === undefined) {
      findings.add(3, where, 'is not an entry of the log')
      continue
    }
    if (read.leafIndex <= previous) findings.add(3, where, 'is not in ascending order')
    previous = read.leafIndex
    const expected = await leaves?.at(read.leafIndex)
    const found = leafHash(Buffer.from(read.text))
    if (leaves !== undefined && !(expected && equalBytes(expected, found))) {
      findings.add(3, where, `is not what the log holds at ${read.leafIndex}`, {
        expected: expected ? toHex(expected) : 'no such leaf',
        found: toHex(found),
      })
      continue
    }
    entries.push({ leafIndex: read.leafIndex, entry: read.entry })
  }
  return entries
}

/** Second half of step 3: who speaks for this network. */
export async function verifyNetwork(
  folder: ReleaseFolder,
  entries: readonly ClearEntry[],
  key: NoteVerifier | undefined,
  findings: Findings,
): Promise<Network | undefined> {
  const first = entries.find(({ leafIndex }) => leafIndex === 0)?.entry
  if (first?.type !== 'network') {
    findings.add(3, 'log/entries.jsonl', 'entry 0, which must be the network, is not there')
    return undefined
  }
  const copy = await readJson(folder, 'network.json')
  if (copy === undefined || !sameJson(copy, first.envelope)) {
    findings.add(3, 'network.json', 'is not the network document that the log begins with')
  }
  const claimed = network.safeParse(payloadOf(first.envelope)).data
  if (claimed === undefined) {
    findings.add(3, 'log/entries.jsonl entry 0', 'does not hold a network document')
    return undefined
  }
  const campaignKey = fromBase64Url(claimed.campaignKey)
  const verdict = await verifyReleaseEnvelope(first.envelope, payloadType.network, campaignKey)
  if (!verdict.ok) {
    findings.add(3, 'log/entries.jsonl entry 0', 'the network is not signed by its campaign key', {
      found: verdict.reason,
    })
    return undefined
  }
  if (key !== undefined && claimed.logKey !== formatVerifierKey(key)) {
    findings.add(3, 'network.json', 'names another log key than the one given', {
      expected: formatVerifierKey(key),
      found: claimed.logKey,
    })
  }
  return claimed
}

/** Step 4, and the release's own words. */
export async function verifyReleaseEntry(
  folder: ReleaseFolder,
  entries: readonly ClearEntry[],
  sums: Buffer | undefined,
  findings: Findings,
): Promise<Release | undefined> {
  const described = release.safeParse(await readJson(folder, 'release.json')).data
  if (described === undefined) {
    findings.add(4, 'release.json', 'is missing or not a description of a release')
  }
  if (sums === undefined) {
    findings.add(4, 'SHA256SUMS', 'is missing or too large')
    return described
  }
  const digest = toBase64Url(sha256(sums))
  const committed = entries
    .map(({ entry }) => entry)
    .filter((entry) => entry.type === 'release')
    .filter((entry) => entry.sums === digest)
  const [entry] = committed
  if (entry === undefined || committed.length > 1) {
    findings.add(4, 'SHA256SUMS', 'is not committed to in the log exactly once', {
      expected: 'one release entry with this digest',
      found: `${committed.length} with ${digest}`,
    })
    return described
  }
  if (described !== undefined && entry.name !== described.name) {
    findings.add(4, 'release.json', 'has another name than the log says', {
      expected: entry.name,
      found: described.name,
    })
  }
  if (described !== undefined && entry.rows !== described.rows) {
    findings.add(4, 'release.json', 'has another number of rows than the log says', {
      expected: entry.rows,
      found: described.rows,
    })
  }
  return described
}

/** Step 6. Manifests by digest. */
export async function verifyCampaigns(
  folder: ReleaseFolder,
  described: Release | undefined,
  operator: Network | undefined,
  entries: readonly ClearEntry[],
  findings: Findings,
): Promise<Map<string, Campaign>> {
  const found = new Map<string, Campaign>()
  const inLog = new Set(
    entries.flatMap(({ entry }) =>
      entry.type === 'campaign' ? [canonicalJson(entry.envelope)] : [],
    ),
  )
  for (const path of folder.paths) {
    if (!path.startsWith('campaigns/')) continue
    const envelope = envelopeSchema.safeParse(await readJson(folder, path)).data
    const manifest = envelope && campaign.safeParse(payloadOf(envelope)).data
    if (envelope === undefined || manifest === undefined) {
      findings.add(6, path, 'does not hold a campaign manifest')
      continue
    }
    const digest = toBase64Url(sha256(fromBase64(envelope.payload)))
    const complaint = await manifestComplaint(path, envelope, manifest, operator, inLog)
    if (complaint !== undefined) findings.add(6, path, complaint)
    else if (described !== undefined && !described.campaigns.includes(digest)) {
      findings.add(6, path, 'is not one of the release’s campaigns', { found: digest })
    } else found.set(digest, manifest)
  }
  for (const digest of described?.campaigns ?? []) {
    if (!found.has(digest)) {
      findings.add(6, 'release.json', 'names a campaign whose manifest is not there, or not good', {
        expected: digest,
      })
    }
  }
  return found
}

async function manifestComplaint(
  path: string,
  envelope: Envelope,
  manifest: Campaign,
  operator: Network | undefined,
  inLog: ReadonlySet<string>,
): Promise<string | undefined> {
  if (path !== `campaigns/${manifest.id}.json`) return `is named for another campaign than its id`
  if (operator !== undefined) {
    const key = fromBase64Url(operator.campaignKey)
    const verdict = await verifyReleaseEnvelope(envelope, payloadType.campaign, key)
    if (!verdict.ok) return 'the manifest is not signed by the network’s campaign key'
  }
  return inLog.has(canonicalJson(envelope)) ? undefined : 'is not in the log in clear'
}

function parseEntry(line: Buffer): (ClearEntry & { text: string }) | undefined {
  const read = parseJson(line)
  if (typeof read !== 'object' || read === null || Object.keys(read).length !== 2) return undefined
  const { leafIndex, entry: text } = read as { leafIndex?: unknown; entry?: unknown }
  if (!Number.isSafeInteger(leafIndex) || (leafIndex as number) < 0) return undefined
  if (typeof text !== 'string') return undefined
  const entry = logEntry.safeParse(parseJson(text)).data
  if (entry === undefined || canonicalJson(entry) !== text) return undefined
  return { leafIndex: leafIndex as number, entry, text }
}

async function readJson(folder: ReleaseFolder, path: string): Promise<unknown> {
  const bytes = await folder.read(path, smallFileBytes)
  return bytes && parseJson(bytes)
}

function sameJson(a: unknown, b: Envelope): boolean {
  const parsed = envelopeSchema.safeParse(a).data
  return parsed !== undefined && canonicalJson(parsed) === canonicalJson(b)
}
