import { canonicalUrl } from '../capture/canonical-url.ts'
import { readPayload } from '../capture/read-payload.ts'
import { fromBase64Url, toBase64Url } from '../crypto/base64.ts'
import { concatBytes, sha256 } from '../crypto/digest.ts'
import { preAuthEncoding } from '../crypto/dsse.ts'
import { publicKeyBytes, type SigningKeyPair, sign } from '../crypto/ed25519.ts'
import type { Lease } from '../protocol/lease.ts'
import {
  type FetchedObservation,
  type Observation,
  observedHeaders,
  type SignedStatement,
} from '../protocol/observation.ts'
import { payloadType } from '../protocol/payload-type.ts'
import type { FetchedPage, PageFetch } from './fetch-page.ts'
import type { RunnerTask } from './ports.ts'

/** A signed statement of what was seen, and what to keep beside the body that it speaks of. */
export interface PageObservation {
  statement: SignedStatement
  /** Absent when the page could not be read: nothing can be asked about it later. */
  body?: NonNullable<RunnerTask['body']>
}

// signedStatement's bound. A long address and ten long headers would exceed it.
const LONGEST_STATEMENT = 4096
const LONGEST_HEADER = 256
/** What goes first when a statement is too long: headers that say nothing of a use by themselves. */
const dispensable = ['etag', 'last-modified', 'content-language', 'retry-after', 'link'] as const

/** States what a fetch saw, under the lease's one-use key (protocol README §6). */
export async function observePage(
  lease: Pick<Lease, 'id' | 'nonce'>,
  page: FetchedPage,
  key: SigningKeyPair,
): Promise<PageObservation> {
  const canonical = canonicalUrl(page.url)
  const url = canonical.ok ? canonical.url : page.url
  const { type } = page
  const charset = charsetOf(page.headers.get('content-type') ?? '')
  const read = readPayload(page.payload, { type, charset, url })
  if (!read.ok) {
    const { totalMs } = page
    const wireBytes = page.statedWireBytes
    return {
      statement: await observeFailure(lease, { reason: read.reason, totalMs, wireBytes }, key),
    }
  }
  const payloadDigest = toBase64Url(sha256(page.payload))
  const observation: FetchedObservation = {
    version: 1,
    outcome: 'fetched',
    lease: lease.id,
    url,
    hops: page.hops,
    status: page.status,
    type,
    charset,
    headers: chosenHeaders(page.headers),
    payload: { bytes: page.payload.length, digest: payloadDigest },
    freshness: toBase64Url(freshness(lease.nonce, page.payload)),
    sentences: {
      count: read.page.sentences.length,
      digest: toBase64Url(read.sentenceListDigest),
    },
    title: toBase64Url(read.digests.title),
    canonical: toBase64Url(read.digests.canonical),
    language: toBase64Url(read.digests.language),
    signals: toBase64Url(read.digests.signals),
    links: toBase64Url(read.digests.links),
    firstByteMs: page.firstByteMs,
    totalMs: page.totalMs,
    wireBytes: page.statedWireBytes,
  }
  return {
    statement: await signStatement(shortened(observation), key),
    body: {
      bytes: page.payload.length,
      digest: payloadDigest,
      type,
      charset,
      url,
    },
  }
}

/** States that a fetch failed, and how. */
export function observeFailure(
  lease: Pick<Lease, 'id'>,
  failed: Pick<Extract<PageFetch, { kind: 'failed' }>, 'reason' | 'totalMs' | 'wireBytes'>,
  key: SigningKeyPair,
): Promise<SignedStatement> {
  const { reason, totalMs, wireBytes } = failed
  const observation: Observation = {
    version: 1,
    outcome: 'failed',
    lease: lease.id,
    reason,
    totalMs,
    wireBytes,
  }
  return signStatement(JSON.stringify(observation), key)
}

/** SHA-256(nonce ‖ payload): only who had the payload after the lease can know it. */
export function freshness(nonce: string, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  return sha256(concatBytes(fromBase64Url(nonce), payload))
}

/** Signs a statement's text in the coat of protocol README §1. */
export async function signStatement(
  statement: string,
  key: SigningKeyPair,
): Promise<SignedStatement> {
  const message = preAuthEncoding(payloadType.observation, new TextEncoder().encode(statement))
  return {
    statement,
    key: toBase64Url(await publicKeyBytes(key.publicKey)),
    sig: toBase64Url(await sign(key.privateKey, message)),
  }
}

/** Null when there is none, or it is no name that any encoding has. */
function charsetOf(contentType: string): string | null {
  const match = /;\s*charset\s*=\s*["']?([a-z0-9._:+-]{1,40})(?![a-z0-9._:+-])/i.exec(contentType)
  return match?.[1]?.toLowerCase() ?? null
}

function chosenHeaders(headers: ReadonlyMap<string, string>): FetchedObservation['headers'] {
  const chosen: FetchedObservation['headers'] = {}
  for (const name of observedHeaders) {
    const header = headers.get(name)
    const value = name === 'link' && header !== undefined ? licenceLinks(header) : header
    if (value !== undefined) chosen[name] = value.slice(0, LONGEST_HEADER)
  }
  return chosen
}

/** The links of rel=license in a Link header (RFC 8288 §3); others are no statement about use. */
function licenceLinks(header: string): string | undefined {
  // A header this long is a list of pictures to load early.
  const links = header.slice(0, 8_192).split(/,(?=\s*<)/)
  const licences = links.filter((link) => {
    const rel = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]*))/i.exec(link)
    const relations = (rel?.[1] ?? rel?.[2] ?? '').toLowerCase()
    return relations.split(/\s+/).includes('license')
  })
  return licences.length === 0 ? undefined : licences.map((link) => link.trim()).join(', ')
}

/** The statement's text, within its bound: use signals are the last to be cut. */
function shortened(observation: FetchedObservation): string {
  const headers = { ...observation.headers }
  const text = () => JSON.stringify({ ...observation, headers })
  for (const name of [...dispensable, ...observedHeaders]) {
    if (text().length <= LONGEST_STATEMENT) break
    delete headers[name]
  }
  return text()
}
