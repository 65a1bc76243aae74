import { createHash } from 'node:crypto'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { type Envelope, signEnvelope } from '../../../lib/crypto/dsse.ts'
import { importSeed, publicKeyBytes, type SigningKeyPair } from '../../../lib/crypto/ed25519.ts'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import { canonicalJson } from '../../../lib/protocol/canonical-json.ts'
import type { Attestation } from '../../../lib/protocol/follow-up.ts'
import type { LogEntry } from '../../../lib/protocol/log-entry.ts'
import type { Network } from '../../../lib/protocol/network.ts'
import { payloadType } from '../../../lib/protocol/payload-type.ts'
import type { Release, Row } from '../../../lib/protocol/release.ts'
import { signCheckpoint } from '../../../lib/tlog/checkpoint.ts'
import { leafHash, rootHash } from '../../../lib/tlog/merkle.ts'
import { formatVerifierKey, noteSigner, noteVerifier } from '../../../lib/tlog/note.ts'
import { buildRelease, type ReleaseRow } from '../../../server/publish/build-release.ts'
import { sealRelease } from '../../../server/publish/seal-release.ts'

/** What a page of the sample is, before anybody signs it. */
export type SamplePage = {
  path: string
  text: string
  /** Only an exact page has one. */
  payload?: string
  duplicate?: boolean
  day?: string
  observers?: number
  row?: Partial<Row>
  /** Gaps that each observer counts; the row admits the most of them. */
  gaps?: number[]
  headers?: [string, string][]
}

/** A network, its keys, and everything that a release of it is built from. Deterministic. */
export type Sample = {
  name: string
  createdAt: string
  verifyKey: string
  network: Envelope
  campaigns: Envelope[]
  rows: ReleaseRow[]
  payloads: ReadonlyMap<string, Uint8Array>
  /** The log before the release: network, campaigns, rows, and rows that are not in the release. */
  entries: string[]
  logKey: SigningKeyPair
}

const origin = 'log.sample.example'
const host = 'https://docs.sample.example'
const day = '2026-11-20'
const lines = (...text: string[]) => text.join('\n')
const page = (body: string) => `<!doctype html><title>Sample</title><main>${body}</main>\n`

/** Exact, sentence-graded and duplicate pages; quorums of two and three; two days of one address. */
export const samplePages: readonly SamplePage[] = [
  {
    path: '/',
    text: lines('Welcome', 'This is the manual of a sample. It has few pages.'),
    payload: page('<h1>Welcome</h1><p>This is the manual of a sample. It has few pages.'),
    headers: [
      ['Content-Type', 'text/html; charset=utf-8'],
      ['ETag', '"1"'],
      ['Content-Encoding', 'gzip'],
      ['Content-Length', '12'],
    ],
  },
  {
    path: '/prices?item=1&currency=EUR',
    text: lines('Prices', 'One costs 3.50 €. Two cost −7,00 €.'),
    row: {
      title: 'Prices – “sample”',
      language: 'en-GB',
      signals: [
        { source: 'header', name: 'content-usage', value: 'train-ai=n, search=y' },
        { source: 'meta', name: 'robots', value: 'nofollow, googlebot' },
        { source: 'tdmrep', name: 'tdm-reservation', value: '0' },
      ],
      use: { aiInput: 'unknown', search: 'y', tdm: 'y', train: 'n' },
    },
    gaps: [2, 1, 0],
    observers: 3,
  },
  {
    path: '/index.html',
    text: lines('Welcome', 'This is the manual of a sample. It has few pages.'),
    payload: page('<h1>Welcome</h1><p>This is the manual of a sample. It has few pages.'),
    duplicate: true,
  },
  {
    path: '/print/',
    text: lines('Welcome', 'This is the manual of a sample. It has few pages.'),
    payload: page('<h1>Welcome</h1> <p>This is the manual of a sample. It has few pages.'),
    duplicate: true,
  },
  {
    path: '/prices/today',
    text: lines('Prices', 'One costs 3.50 €. Two cost −7,00 €.'),
    duplicate: true,
  },
  {
    path: '/unicode',
    text: lines('Ζωή 生活 😀', `${'Many words make a long page. '.repeat(200)}End.`),
    payload: page(`<h1>Ζωή 生活 😀</h1>${'Many words make a long page. '.repeat(200)}End.`),
    row: { language: 'el', title: null, robots: null },
  },
  {
    path: '/news',
    text: 'Nothing happened on Friday.',
    gaps: [0, 3],
  },
  {
    path: '/news',
    text: 'Something happened on Saturday.',
    payload: page('<p>Something happened on Saturday.'),
    day: '2026-11-21',
    row: { type: 'text/plain', status: 203 },
  },
]

/** Makes keys, documents, attestations and log entries. The same pages give the same sample. */
export async function makeSample(
  pages: readonly SamplePage[] = samplePages,
  changes: { network?: Partial<Network>; manifest?: Partial<Campaign> } = {},
): Promise<Sample> {
  const campaignKey = await keyOf('campaign')
  const logKey = await keyOf('log')
  const verifyKey = formatVerifierKey(noteVerifier(origin, await publicKeyBytes(logKey.publicKey)))
  const operator = { name: 'Sample Operator', contact: 'operator@sample.example' }
  const networkDocument: Network = {
    version: 1,
    name: 'Sample',
    operator,
    campaignKey: await nameOf(campaignKey),
    leaseKey: await nameOf(await keyOf('lease')),
    receiptKey: await nameOf(await keyOf('receipt')),
    logKey: verifyKey,
    createdAt: '2026-11-01T00:00:00Z',
    ...changes.network,
  }
  const manifest: Campaign = { ...sampleManifest(operator), ...changes.manifest }
  const network = await signed(payloadType.network, networkDocument, campaignKey)
  const campaign = await signed(payloadType.campaign, manifest, campaignKey)
  const campaignDigest = toBase64Url(sha256(JSON.stringify(manifest)))
  const entries: LogEntry[] = [
    { type: 'network', envelope: network },
    { type: 'campaign', envelope: campaign },
  ]
  // More than a tile of rows that other releases hold.
  for (let other = 0; other < 300; other++) {
    entries.push({ type: 'row', commitment: toBase64Url(sha256(`other row ${other}`)) })
  }
  const rows: ReleaseRow[] = []
  const payloads = new Map<string, Uint8Array>()
  for (const [at, sample] of pages.entries()) {
    const row = rowOf(sample, campaignDigest)
    if (sample.payload !== undefined) {
      payloads.set(row.payload as string, Buffer.from(sample.payload))
    }
    const rowJson = canonicalJson(row)
    const salt = sha256(`salt ${at}`)
    const commitment = toBase64Url(sha256(Buffer.concat([salt, Buffer.from(rowJson)])))
    rows.push({
      rowJson,
      salt: toBase64Url(salt),
      leafIndex: entries.length,
      attestations: await attest(row, at, sample),
      text: row.duplicate ? null : sample.text,
      headers: sample.headers ?? [],
    })
    entries.push({ type: 'row', commitment })
  }
  return {
    name: 'sample 2026-11-22',
    createdAt: '2026-11-22T12:00:00Z',
    verifyKey,
    network,
    campaigns: [campaign],
    rows,
    payloads,
    entries: entries.map((entry) => canonicalJson(entry)),
    logKey,
  }
}

/** Builds, logs and seals the sample in `folder`, which must not be there. */
export async function publishSample(sample: Sample, folder: string): Promise<void> {
  const built = await buildRelease({
    folder,
    name: sample.name,
    createdAt: sample.createdAt,
    generator: 'gleaner-test/1',
    network: sample.network,
    campaigns: sample.campaigns,
    rows: sample.rows,
    readPayload: async (_, row) => {
      const payload = sample.payloads.get(row.payload as string)
      if (payload === undefined) throw new Error(`no payload of ${row.url}`)
      return payload
    },
  })
  await seal(sample, folder, built.sums, built.rows)
}

/**
 * Makes SHA256SUMS and `log/` fit whatever the folder holds now: what an operator could do who holds
 * the log key and cheats.
 */
export async function resealSample(sample: Sample, folder: string): Promise<void> {
  await rewriteSums(folder)
  const sums = sha256(await readFile(join(folder, 'SHA256SUMS')))
  const release = JSON.parse(await readFile(join(folder, 'release.json'), 'utf8')) as Release
  await rm(join(folder, 'log'), { recursive: true })
  await seal(sample, folder, sums, release.rows)
}

/** Makes SHA256SUMS fit the files: what anybody could do who passes the folder on. */
export async function rewriteSums(folder: string): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .filter((path) => path !== 'SHA256SUMS' && !path.startsWith('log/'))
    .sort()
  let sums = ''
  for (const path of paths) {
    const bytes = await readFile(join(folder, path))
    sums += `${createHash('sha256').update(bytes).digest('hex')}  ${path}\n`
  }
  await writeFile(join(folder, 'SHA256SUMS'), sums)
}

/** The log of a sample with these release entries at its end, signed. */
export async function sampleLog(sample: Sample, releases: readonly LogEntry[]) {
  const entries = [
    ...sample.entries,
    ...releases.map((entry) => canonicalJson(entry)),
    // The log goes on after a release, and its checkpoint may be a later one.
    canonicalJson({ type: 'row', commitment: toBase64Url(sha256('a later row')) }),
  ]
  const hashes = entries.map((entry) => leafHash(Buffer.from(entry)))
  const checkpoint = await signCheckpoint(
    { origin, size: hashes.length, rootHash: rootHash(hashes), extensions: [] },
    [await noteSigner(origin, sample.logKey)],
  )
  const inClear = [0, 1, ...releases.map((_, at) => sample.entries.length + at)]
  return {
    checkpoint,
    leafHashes: hashes,
    entries: inClear.map((leafIndex) => ({ leafIndex, entry: entries[leafIndex] as string })),
  }
}

/** Ed25519 key pair of a name. For samples only: everybody knows the name. */
export async function keyOf(name: string): Promise<SigningKeyPair> {
  return importSeed(sha256(`gleaner sample key ${name}`), { extractable: true })
}

/** Signs canonical JSON, as nodes sign attestations. */
export async function signAttestation(statement: Attestation, key: string): Promise<Envelope> {
  const pair = await keyOf(key)
  const bytes = new TextEncoder().encode(canonicalJson(statement))
  return signEnvelope(payloadType.attestation, bytes, [
    { keyid: await nameOf(pair), privateKey: pair.privateKey },
  ])
}

async function seal(sample: Sample, folder: string, sums: Uint8Array, rows: number): Promise<void> {
  const entry: LogEntry = { type: 'release', name: sample.name, sums: toBase64Url(sums), rows }
  await sealRelease({ folder, ...(await sampleLog(sample, [entry])) })
}

function rowOf(sample: SamplePage, campaign: string): Row {
  const exact = sample.payload !== undefined
  return {
    agreementPermille: exact ? 1000 : 973,
    campaign,
    day: sample.day ?? day,
    duplicate: sample.duplicate ?? false,
    gaps: Math.max(0, ...(sample.gaps ?? [])),
    grade: exact ? 'exact' : 'sentences',
    language: 'en',
    payload: exact ? toBase64Url(sha256(sample.payload as string)) : null,
    quorum: sample.observers ?? 2,
    robots: toBase64Url(sha256('User-agent: *\nDisallow: /private/\n')),
    signals: [],
    status: 200,
    text: toBase64Url(sha256(sample.text)),
    title: 'Sample',
    type: 'text/html',
    url: `${host}${sample.path}`,
    use: { aiInput: 'unknown', search: 'unknown', tdm: 'unknown', train: 'unknown' },
    ...sample.row,
  }
}

function attest(row: Row, at: number, sample: SamplePage): Promise<Envelope[]> {
  const statement: Attestation = {
    campaign: row.campaign,
    day: row.day,
    gaps: 0,
    ...(row.payload === null ? {} : { payload: row.payload }),
    text: row.text,
    transform: 'gleaner-text/1',
    url: row.url,
  }
  return Promise.all(
    Array.from({ length: sample.observers ?? 2 }, (_, observer) =>
      signAttestation(
        { ...statement, gaps: sample.gaps?.[observer] ?? 0 },
        `row ${at} observer ${observer}`,
      ),
    ),
  )
}

function sampleManifest(operator: Campaign['operator']): Campaign {
  return {
    version: 1,
    id: 'sample-docs',
    title: 'The sample manual',
    purpose: 'A manual that search engines may find. Nothing else is done with it.',
    operator,
    use: 'research',
    sites: [
      {
        host: 'docs.sample.example',
        scheme: 'https',
        pathPrefixes: ['/'],
        requestsPerSecond: 1,
        requestsInFlight: 1,
      },
    ],
    canaryHosts: [],
    seeds: [`${host}/`],
    limits: { pageBytes: 1_000_000, pageMs: 10_000, pages: 100, depth: 3 },
    retentionDays: 365,
    quorum: 2,
    points: { perPage: 10, perDuplicate: 1, perPayload: 2, budget: 1000, funding: 'subsidy' },
    validFrom: '2026-11-01T00:00:00Z',
    validUntil: '2027-11-01T00:00:00Z',
  }
}

async function signed(type: string, document: object, pair: SigningKeyPair): Promise<Envelope> {
  const bytes = new TextEncoder().encode(JSON.stringify(document))
  return signEnvelope(type, bytes, [{ keyid: await nameOf(pair), privateKey: pair.privateKey }])
}

async function nameOf(pair: SigningKeyPair): Promise<string> {
  return toBase64Url(await publicKeyBytes(pair.publicKey))
}
