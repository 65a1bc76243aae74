import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { type WebSocket, WebSocketServer } from 'ws'
import { readPayload } from '../../../lib/capture/read-payload.ts'
import { rowText } from '../../../lib/capture/row-text.ts'
import { fromBase64Url, toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { preAuthEncoding, verifyEnvelope } from '../../../lib/crypto/dsse.ts'
import { verify } from '../../../lib/crypto/ed25519.ts'
import { attestationBatch } from '../../../lib/protocol/attestation-batch.ts'
import { canonicalJson } from '../../../lib/protocol/canonical-json.ts'
import { type Consent, consent } from '../../../lib/protocol/consent.ts'
import { envelope } from '../../../lib/protocol/fields.ts'
import type { FollowUp } from '../../../lib/protocol/follow-up.ts'
import { type Lease, leaseRequest } from '../../../lib/protocol/lease.ts'
import {
  type FetchedObservation,
  type Observation,
  observation,
  observationBatch,
} from '../../../lib/protocol/observation.ts'
import type { Outcome } from '../../../lib/protocol/outcome.ts'
import { payloadType } from '../../../lib/protocol/payload-type.ts'
import { type ProblemReason, problemStatus } from '../../../lib/protocol/problem.ts'
import { type RefusalBatch, refusalBatch } from '../../../lib/protocol/refusal.ts'
import { certificate, session, sessionRequest } from '../../../lib/protocol/session.ts'
import { type SocketNotice, socketRequest } from '../../../lib/protocol/socket.ts'
import { type OfferedCampaign, type Operator, seal } from './operator.ts'

/** What the server knows of one lease. */
export interface LeaseRecord {
  lease: Lease
  statement?: string
  key?: string
  observation?: Observation
  sentenceList?: Uint8Array
  payload?: Uint8Array<ArrayBuffer>
  attestation?: { gaps: number; sig: string; text: string }
}

/**
 * A task server that speaks the real protocol to one node: it verifies what the node says as the
 * specification demands, grants the leases that the test queues, asks for sentences, payload and
 * attestation of each page, and then tells the outcome.
 */
export class ScriptedServer {
  readonly operator: Operator
  readonly campaigns: OfferedCampaign[] = []
  readonly queue: {
    url: string
    kind?: Lease['kind']
    campaign?: string
    changes?: Partial<Lease>
  }[] = []
  readonly leases = new Map<string, LeaseRecord>()
  readonly consents: Consent[] = []
  readonly refusals: RefusalBatch = { leases: [], followUps: [] }
  readonly outcomes: Outcome[] = []
  /** Method and path of every request, in order. */
  readonly calls: string[] = []
  /** Body bytes received, by path. */
  readonly bytesUp = new Map<string, number>()
  /** Answered instead of the real answer, once each, by path. */
  readonly faults = new Map<string, ((response: ServerResponse) => void)[]>()
  /** Questions asked of each page, in this order. */
  script: FollowUp['kind'][] = ['sentences', 'payload', 'attest']
  leaseRetryAfterMs = 60_000
  /** Whether pages are closed when nothing more is asked about them. */
  close = true
  /** Sockets stay open, but pings and tokens are not answered. */
  isDeaf = false
  /** What went wrong in the node's messages; a test expects none. */
  readonly complaints: string[] = []
  networkAnswer: unknown
  readonly #server: Server
  readonly #sockets = new Set<WebSocket>()
  readonly #challenges = new Set<string>()
  readonly #tokens = new Set<string>()
  readonly #followUps = new Map<string, FollowUp>()
  readonly #released: string[] = []
  #nodeKey: Uint8Array = new Uint8Array(0)
  #serial = 0

  private constructor(operator: Operator) {
    this.operator = operator
    this.networkAnswer = operator.networkEnvelope
    this.#server = createServer((request, response) => {
      this.#handle(request, response).catch((error) => {
        this.complaints.push(String(error))
        if (!response.headersSent) response.writeHead(500)
        response.end()
      })
    })
    const sockets = new WebSocketServer({ server: this.#server, path: '/v1/socket' })
    sockets.on('connection', (socket) => {
      socket.on('message', (data) => {
        const said = socketRequest.parse(JSON.parse(String(data)))
        if (this.isDeaf) return
        if (said.type === 'ping') return socket.send('{"type":"pong"}')
        if (!this.#tokens.has(said.token)) return socket.close()
        this.#sockets.add(socket)
        socket.send('{"type":"ready"}')
      })
      socket.on('close', () => this.#sockets.delete(socket))
    })
  }

  static async start(operator: Operator): Promise<ScriptedServer> {
    const scripted = new ScriptedServer(operator)
    await new Promise<void>((resolve) => scripted.#server.listen(0, '127.0.0.1', resolve))
    return scripted
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  ring(notice: SocketNotice): void {
    for (const socket of this.#sockets) socket.send(JSON.stringify(notice))
  }

  socketCount(): number {
    return this.#sockets.size
  }

  dropSockets(): void {
    for (const socket of this.#sockets) socket.terminate()
  }

  endSessions(): void {
    this.#tokens.clear()
  }

  fail(path: string, reason: ProblemReason, headers: Record<string, string> = {}, times = 1): void {
    const fault = (response: ServerResponse) => problem(response, reason, headers)
    this.faults.set(path, [...(this.faults.get(path) ?? []), ...Array(times).fill(fault)])
  }

  records(): LeaseRecord[] {
    return [...this.leases.values()]
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.terminate()
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '', this.origin)
    const path = url.pathname
    this.calls.push(`${request.method} ${path}`)
    const raw = await bodyOf(request)
    this.bytesUp.set(path, (this.bytesUp.get(path) ?? 0) + raw.length)
    const fault = this.faults.get(path)?.shift()
    if (fault) return fault(response)
    const bytes = request.headers['content-encoding'] === 'gzip' ? gunzipSync(raw) : raw
    const json = () => JSON.parse(bytes.toString())

    if (path === '/v1/network') return answer(response, this.networkAnswer)
    if (path === '/v1/campaigns') return answer(response, await this.operator.list(this.campaigns))
    if (path === '/v1/challenges') {
      const challenge = this.#id()
      this.#challenges.add(challenge)
      return answer(response, { challenge, validForMs: 60_000 })
    }
    if (path === '/v1/sessions') return this.#openSession(json(), response)

    const token = request.headers.authorization?.replace(/^Bearer /, '') ?? ''
    if (!this.#tokens.has(token)) return problem(response, 'no-session')
    const [, followUp, kind] = /^\/v1\/follow-ups\/([^/]+)\/(sentences|payload)$/.exec(path) ?? []
    if (followUp !== undefined) return this.#upload(followUp, kind ?? '', bytes, response)
    switch (path) {
      case '/v1/consents':
        return this.#consent(json(), response)
      case '/v1/leases':
        return this.#grant(json(), response)
      case '/v1/observations':
        return this.#observe(json(), response)
      case '/v1/follow-ups': {
        const followUps = [...this.#followUps.values()].slice(0, 64)
        return answer(response, { followUps, released: this.#released.splice(0) })
      }
      case '/v1/attestations':
        return this.#attest(json(), response)
      case '/v1/refusals': {
        const given = refusalBatch.parse(json())
        this.refusals.leases.push(...given.leases)
        this.refusals.followUps.push(...given.followUps)
        for (const { followUp: id } of given.followUps) this.#followUps.delete(id)
        return void response.writeHead(204).end()
      }
      case '/v1/outcomes': {
        const after = Number(url.searchParams.get('after'))
        return answer(response, { outcomes: this.outcomes.filter((o) => o.sequence > after) })
      }
      default:
        return problem(response, 'not-found')
    }
  }

  async #openSession(body: unknown, response: ServerResponse): Promise<void> {
    const asked = sessionRequest.parse(body)
    const accountKey = fromBase64Url(asked.certificate.signatures[0]?.keyid ?? '')
    const certified = await verifyEnvelope(asked.certificate, payloadType.certificate, accountKey)
    if (!certified.ok) return problem(response, 'bad-signature')
    const { nodeKey } = certificate.parse(parse(certified.payload))
    const opened = await verifyEnvelope(asked.session, payloadType.session, fromBase64Url(nodeKey))
    if (!opened.ok) return problem(response, 'bad-signature')
    const said = session.parse(parse(opened.payload))
    if (said.fingerprint !== this.operator.fingerprint) return problem(response, 'wrong-network')
    if (!this.#challenges.delete(said.challenge)) return problem(response, 'unknown-challenge')
    this.#nodeKey = fromBase64Url(nodeKey)
    const token = toBase64Url(sha256(this.#id()))
    this.#tokens.add(token)
    answer(response, { token, nodeId: toBase64Url(sha256(this.#nodeKey)), validForMs: 1_800_000 })
  }

  async #consent(body: unknown, response: ServerResponse): Promise<void> {
    const opened = await verifyEnvelope(envelope.parse(body), payloadType.consent, this.#nodeKey)
    if (!opened.ok) return problem(response, 'bad-signature')
    const said = consent.parse(parse(opened.payload))
    if (!this.campaigns.some(({ digest }) => digest === said.campaign)) {
      return problem(response, 'unknown-campaign')
    }
    this.consents.push(said)
    response.writeHead(204).end()
  }

  async #grant(body: unknown, response: ServerResponse): Promise<void> {
    const asked = leaseRequest.parse(body)
    const last = (digest: string) => this.consents.findLast(({ campaign }) => campaign === digest)
    if (asked.campaigns.some((digest) => last(digest)?.act !== 'given')) {
      return problem(response, 'no-consent')
    }
    answer(response, await this.grant(asked.max))
  }

  /** Leases of what is queued, as the answer to a call that asked for so many. */
  async grant(max: number) {
    const leases = []
    for (const { url, kind = 'page', campaign, changes } of this.queue.splice(0, max)) {
      const lease: Lease = {
        version: 1,
        id: this.#id(),
        campaign: campaign ?? this.campaigns[0]?.digest ?? '',
        kind,
        url,
        nonce: this.#id(),
        validForMs: 60_000,
        maxBytes: 1_000_000,
        maxMs: 10_000,
        maxRedirects: 5,
        ...changes,
      }
      this.leases.set(lease.id, { lease })
      leases.push(await seal('lease', this.operator.leaseKey, lease))
    }
    return { leases, retryAfterMs: this.leaseRetryAfterMs }
  }

  async #observe(body: unknown, response: ServerResponse): Promise<void> {
    const results = []
    for (const { statement, key, sig } of observationBatch.parse(body).observations) {
      const bytes = new TextEncoder().encode(statement)
      const message = preAuthEncoding(payloadType.observation, bytes)
      const isSigned = await verify(fromBase64Url(key), fromBase64Url(sig), message)
      const said = observation.parse(JSON.parse(statement))
      const record = this.leases.get(said.lease)
      const reused = this.records().some((other) => other !== record && other.key === key)
      if (!isSigned) results.push(refusal('bad-signature'))
      else if (record === undefined) results.push(refusal('unknown-lease'))
      else if (reused) results.push(refusal('key-reused'))
      else if (record.statement !== undefined && record.statement !== statement) {
        results.push(refusal('lease-used'))
      } else {
        const isNew = record.statement === undefined
        Object.assign(record, { statement, key, observation: said })
        const receipt = await seal('receipt', this.operator.receiptKey, {
          version: 1,
          lease: said.lease,
          statement: toBase64Url(sha256(statement)),
        })
        results.push({ ok: true, receipt })
        if (isNew) this.#askNext(record)
      }
    }
    answer(response, { results })
  }

  async #upload(id: string, kind: string, bytes: Buffer, response: ServerResponse): Promise<void> {
    const followUp = this.#followUps.get(id)
    const record = followUp && this.leases.get(followUp.lease)
    const said = record?.observation
    if (!record || said?.outcome !== 'fetched') return problem(response, 'unknown-follow-up')
    const body = new Uint8Array(bytes)
    const expected = kind === 'payload' ? said.payload.digest : said.sentences.digest
    if (toBase64Url(sha256(body)) !== expected) {
      this.complaints.push(`${kind} does not match the observation`)
      return problem(response, 'digest-mismatch')
    }
    if (kind === 'payload') record.payload = body
    else record.sentenceList = body
    this.#followUps.delete(id)
    this.#askNext(record)
    response.writeHead(204).end()
  }

  async #attest(body: unknown, response: ServerResponse): Promise<void> {
    const results = []
    for (const { followUp: id, gaps, sig } of attestationBatch.parse(body).attestations) {
      const followUp = this.#followUps.get(id)
      const record = followUp && this.leases.get(followUp.lease)
      const said = record?.observation
      if (followUp?.kind !== 'attest' || !record?.payload || said?.outcome !== 'fetched') {
        results.push(refusal('unknown-follow-up'))
        continue
      }
      const text = textAt(record.payload, said, followUp.indexes)
      const statement = canonicalJson({
        campaign: record.lease.campaign,
        day: followUp.day,
        gaps,
        ...(followUp.exact ? { payload: said.payload.digest } : {}),
        text: toBase64Url(sha256(text)),
        transform: 'gleaner-text/1',
        url: followUp.url,
      })
      const message = preAuthEncoding(payloadType.attestation, new TextEncoder().encode(statement))
      const key = fromBase64Url(record.key ?? '')
      if (!(await verify(key, fromBase64Url(sig), message))) {
        this.complaints.push(`attestation does not fit ${statement}`)
        results.push(refusal('attestation-mismatch'))
        continue
      }
      record.attestation = { gaps, sig, text }
      this.#followUps.delete(id)
      this.#askNext(record)
      results.push({ ok: true })
    }
    answer(response, { results })
  }

  /** The next question about a page, or its end. */
  #askNext(record: LeaseRecord): void {
    const { lease, observation: said, payload } = record
    if (said?.outcome !== 'fetched') {
      this.#close(record)
      return
    }
    const done = [
      record.sentenceList && 'sentences',
      payload && 'payload',
      record.attestation && 'attest',
    ]
    const kind = this.script.find((asked) => !done.includes(asked))
    if (kind === undefined) {
      this.#close(record)
      return
    }
    const common = { id: this.#id(), lease: lease.id, validForMs: 600_000 }
    this.#followUps.set(
      common.id,
      kind === 'attest'
        ? {
            ...common,
            kind,
            url: said.url,
            day: new Date().toISOString().slice(0, 10),
            indexes: Array.from({ length: said.sentences.count }, (_, i) => i),
            exact: true,
          }
        : { ...common, kind },
    )
    this.ring({ type: 'follow-ups' })
  }

  #close({ lease }: LeaseRecord): void {
    if (!this.close) return
    this.#released.push(lease.id)
    this.outcomes.push({
      sequence: this.outcomes.length + 1,
      lease: lease.id,
      verdict: 'valid',
      grade: 'exact',
      duplicate: false,
      points: 10,
    })
    this.ring({ type: 'outcomes' })
  }

  #id(): string {
    this.#serial += 1
    return toBase64Url(sha256(`${this.#server.address()}${this.#serial}`).slice(0, 16))
  }
}

function textAt(
  payload: Uint8Array,
  { type, charset, url }: FetchedObservation,
  indexes: readonly number[],
): string {
  const read = readPayload(payload, { type, charset, url })
  const row = read.ok ? rowText(read.page.sentences, indexes) : undefined
  if (!row?.ok) throw new Error('the payload that was observed cannot be read')
  return row.text
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks)
}

function parse(bytes: Uint8Array): unknown {
  return JSON.parse(new TextDecoder().decode(bytes))
}

function answer(response: ServerResponse, body: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

function problemBody(reason: ProblemReason) {
  const status = problemStatus[reason]
  return {
    type: `urn:gleaner:problem:${reason}`,
    title: reason,
    status,
    detail: `Because: ${reason}.`,
  }
}

function refusal(reason: ProblemReason) {
  return { ok: false, problem: problemBody(reason) }
}

/** Answers as a refusal of the real server would look. */
export function problem(
  response: ServerResponse,
  reason: ProblemReason,
  headers: Record<string, string> = {},
): void {
  response
    .writeHead(problemStatus[reason], { 'content-type': 'application/problem+json', ...headers })
    .end(JSON.stringify(problemBody(reason)))
}
