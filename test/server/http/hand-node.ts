import { gzipSync } from 'node:zlib'
import { readPayload } from '../../../lib/capture/read-payload.ts'
import { rowText } from '../../../lib/capture/row-text.ts'
import { fromBase64Url, toBase64Url } from '../../../lib/crypto/base64.ts'
import { concatBytes, sha256 } from '../../../lib/crypto/digest.ts'
import { type Envelope, preAuthEncoding } from '../../../lib/crypto/dsse.ts'
import {
  generateKeyPair,
  publicKeyBytes,
  type SigningKeyPair,
  sign,
} from '../../../lib/crypto/ed25519.ts'
import { canonicalJson } from '../../../lib/protocol/canonical-json.ts'
import type { FollowUp } from '../../../lib/protocol/follow-up.ts'
import { type Lease, lease as leaseSchema } from '../../../lib/protocol/lease.ts'
import type { Observation, SignedStatement } from '../../../lib/protocol/observation.ts'
import { payloadType } from '../../../lib/protocol/payload-type.ts'
import { seal } from '../../lib/runner/operator.ts'

export interface Answer {
  status: number
  type: string
  /** Of a problem document: what stands after `urn:gleaner:problem:`. */
  problem: string | null
  headers: Headers
  body: unknown
}

/** One HTTP call as a node makes it, or as none should. */
export async function call(
  origin: string,
  path: string,
  sent: {
    method?: string
    body?: unknown
    raw?: Uint8Array | string
    headers?: Record<string, string>
  } = {},
): Promise<Answer> {
  const raw = sent.raw ?? (sent.body === undefined ? null : JSON.stringify(sent.body))
  const response = await fetch(origin + path, {
    method: sent.method ?? (raw === null ? 'GET' : 'POST'),
    headers: { ...(raw === null ? {} : { 'content-type': 'application/json' }), ...sent.headers },
    body: typeof raw === 'string' || raw === null ? raw : Buffer.from(raw),
  })
  const type = response.headers.get('content-type') ?? ''
  const text = await response.text()
  const body: unknown = type.includes('json') && text !== '' ? JSON.parse(text) : text
  const { type: urn } = (typeof body === 'object' && body !== null ? body : {}) as { type?: string }
  return {
    status: response.status,
    type,
    problem: urn?.startsWith('urn:gleaner:problem:') ? urn.slice(20) : null,
    headers: response.headers,
    body,
  }
}

/** An observation that was sent, and what is needed to answer questions about it. */
export interface Told {
  lease: Lease
  payload: Uint8Array
  key: SigningKeyPair
  item: SignedStatement
  read: Extract<ReturnType<typeof readPayload>, { ok: true }>
}

/** A node whose every message is made by hand, so that any of them can be made wrong. */
export class HandNode {
  readonly origin: string
  /** Its address as our own proxy would report it: its network block. */
  readonly address: string
  readonly account: SigningKeyPair
  readonly key: SigningKeyPair
  token = ''
  readonly #fingerprint: string

  private constructor(made: {
    origin: string
    address: string
    fingerprint: string
    account: SigningKeyPair
    key: SigningKeyPair
  }) {
    this.origin = made.origin
    this.address = made.address
    this.#fingerprint = made.fingerprint
    this.account = made.account
    this.key = made.key
  }

  static async join(joinLink: string, address: string): Promise<HandNode> {
    const [link, fingerprint = ''] = joinLink.split('#')
    const node = new HandNode({
      origin: new URL(link ?? '').origin,
      address,
      fingerprint,
      account: await generateKeyPair({ extractable: false }),
      key: await generateKeyPair({ extractable: false }),
    })
    await node.openSession()
    return node
  }

  /** Calls from this node's address, with its session. */
  call(path: string, sent: Parameters<typeof call>[2] = {}): Promise<Answer> {
    return call(this.origin, path, {
      ...sent,
      headers: {
        'x-forwarded-for': this.address,
        authorization: `Bearer ${this.token}`,
        ...sent.headers,
      },
    })
  }

  async challenge(): Promise<string> {
    const { body } = await this.call('/v1/challenges', { body: {} })
    return (body as { challenge: string }).challenge
  }

  async certificate(signedBy = this.account): Promise<Envelope> {
    return seal('certificate', signedBy, {
      version: 1,
      nodeKey: toBase64Url(await publicKeyBytes(this.key.publicKey)),
      createdAt: '2026-11-22T16:00:00Z',
    })
  }

  async session(
    said: { challenge?: string; fingerprint?: string } = {},
    signedBy = this.key,
  ): Promise<Envelope> {
    return seal('session', signedBy, {
      version: 1,
      challenge: said.challenge ?? (await this.challenge()),
      fingerprint: said.fingerprint ?? this.#fingerprint,
      client: 'hand/1',
    })
  }

  async openSession(): Promise<void> {
    const body = { certificate: await this.certificate(), session: await this.session() }
    const answer = await this.call('/v1/sessions', { body })
    if (answer.status !== 200) throw new Error(JSON.stringify(answer.body))
    this.token = (answer.body as { token: string }).token
  }

  consent(campaign: string, act: 'given' | 'withdrawn' = 'given', signedBy = this.key) {
    return seal('consent', signedBy, {
      version: 1,
      campaign,
      act,
      at: '2026-11-22T16:00:00Z',
      receipt: toBase64Url(sha256('receipt')),
    })
  }

  /** Waits until there is a lease, for the host may be resting. */
  async takeLease(campaign: string): Promise<Lease> {
    for (;;) {
      const answer = await this.call('/v1/leases', { body: { campaigns: [campaign], max: 1 } })
      if (answer.status !== 200) throw new Error(JSON.stringify(answer.body))
      const [envelope] = (answer.body as { leases: Envelope[] }).leases
      if (envelope) {
        return leaseSchema.parse(JSON.parse(Buffer.from(envelope.payload, 'base64').toString()))
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  /** The observation of this page for a lease, signed under a fresh key unless another is given. */
  async tell(
    lease: Lease,
    html: string,
    changes: { key?: SigningKeyPair; freshness?: string; statement?: string } = {},
  ): Promise<Told> {
    const payload = new TextEncoder().encode(html)
    const { url } = lease
    const read = readPayload(payload, { type: 'text/html', charset: null, url })
    if (!read.ok) throw new Error(read.reason)
    const { digests } = read
    const seen: Observation = {
      version: 1,
      outcome: 'fetched',
      lease: lease.id,
      url,
      hops: [],
      status: 200,
      type: 'text/html',
      charset: null,
      headers: {},
      payload: { bytes: payload.length, digest: toBase64Url(sha256(payload)) },
      freshness:
        changes.freshness ?? toBase64Url(sha256(concatBytes(fromBase64Url(lease.nonce), payload))),
      sentences: {
        count: read.page.sentences.length,
        digest: toBase64Url(read.sentenceListDigest),
      },
      title: toBase64Url(digests.title),
      canonical: toBase64Url(digests.canonical),
      language: toBase64Url(digests.language),
      signals: toBase64Url(digests.signals),
      links: toBase64Url(digests.links),
      firstByteMs: 1,
      totalMs: 2,
      wireBytes: payload.length,
    }
    const key = changes.key ?? (await generateKeyPair({ extractable: false }))
    const statement = changes.statement ?? JSON.stringify(seen)
    return { lease, payload, key, read, item: await signStatement(key, statement) }
  }

  observe(...told: readonly Pick<Told, 'item'>[]): Promise<Answer> {
    return this.call('/v1/observations', { body: { observations: told.map((one) => one.item) } })
  }

  /** Waits for the pipeline to ask a question of this kind about a lease. */
  async asked<K extends FollowUp['kind']>(
    lease: Lease,
    kind: K,
  ): Promise<Extract<FollowUp, { kind: K }>> {
    for (;;) {
      const found = (await this.followUps()).find(
        (one): one is Extract<FollowUp, { kind: K }> => one.lease === lease.id && one.kind === kind,
      )
      if (found) return found
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  async followUps(): Promise<FollowUp[]> {
    return ((await this.call('/v1/follow-ups')).body as { followUps: FollowUp[] }).followUps
  }

  sendOctets(followUp: { id: string }, kind: 'sentences' | 'payload', bytes: Uint8Array) {
    return this.call(`/v1/follow-ups/${followUp.id}/${kind}`, {
      raw: gzipSync(bytes),
      headers: { 'content-type': 'application/octet-stream', 'content-encoding': 'gzip' },
    })
  }

  /** The attestation that is asked for, as an item of the batch. */
  async attest(
    told: Told,
    asked: Extract<FollowUp, { kind: 'attest' }>,
    campaign: string,
    wrong: { gaps?: number; saidGaps?: number; key?: SigningKeyPair } = {},
  ) {
    const row = rowText(told.read.page.sentences, asked.indexes)
    if (!row.ok) throw new Error(row.reason)
    const gaps = wrong.gaps ?? row.gaps
    const statement = canonicalJson({
      campaign,
      day: asked.day,
      gaps,
      ...(asked.exact ? { payload: toBase64Url(sha256(told.payload)) } : {}),
      text: toBase64Url(sha256(row.text)),
      transform: 'gleaner-text/1',
      url: asked.url,
    })
    const signed = preAuthEncoding(payloadType.attestation, new TextEncoder().encode(statement))
    return {
      followUp: asked.id,
      gaps: wrong.saidGaps ?? gaps,
      sig: toBase64Url(await sign((wrong.key ?? told.key).privateKey, signed)),
    }
  }
}

export async function signStatement(
  key: SigningKeyPair,
  statement: string,
): Promise<SignedStatement> {
  const signed = preAuthEncoding(payloadType.observation, new TextEncoder().encode(statement))
  return {
    statement,
    key: toBase64Url(await publicKeyBytes(key.publicKey)),
    sig: toBase64Url(await sign(key.privateKey, signed)),
  }
}
