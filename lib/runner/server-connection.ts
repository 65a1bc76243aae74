import type * as z from 'zod/mini'
import { toBase64Url } from '../crypto/base64.ts'
import { type Envelope, signEnvelope } from '../crypto/dsse.ts'
import { publicKeyBytes, type SigningKeyPair } from '../crypto/ed25519.ts'
import { payloadType } from '../protocol/payload-type.ts'
import { type ProblemReason, problem, problemReason } from '../protocol/problem.ts'
import { challenge, sessionGrant } from '../protocol/session.ts'
import { gzip } from './gzip.ts'
import type { NodeIdentity, ServerConnection } from './ports.ts'

/** The server answered and refused. */
export class ServerProblem extends Error {
  readonly reason: ProblemReason
  readonly detail: string
  /** From Retry-After; null when the server did not say. */
  readonly retryAfterMs: number | null

  constructor(reason: ProblemReason, detail: string, retryAfterMs: number | null = null) {
    super(`server: ${reason}: ${detail}`)
    this.name = 'ServerProblem'
    this.reason = reason
    this.detail = detail
    this.retryAfterMs = retryAfterMs
  }
}

/** No answer, or one that is not of this protocol. */
export class ServerUnreachable extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(`server: ${message}`, options)
    this.name = 'ServerUnreachable'
  }
}

/** The part of the global fetch that is used; an adapter may bind it to an address or a proxy. */
export type ServerFetch = (
  url: string,
  init: {
    method: 'GET' | 'POST'
    headers: Record<string, string>
    body?: Uint8Array<ArrayBuffer> | string
    credentials: 'omit'
    cache: 'no-store'
    redirect: 'error'
    referrerPolicy: 'no-referrer'
    signal: AbortSignal
  },
) => Promise<Response>

export interface ServerConnectionOptions {
  origin: string
  /** Of the campaign key: stops a relay of the session to another network. */
  fingerprint: string
  identity: () => Promise<NodeIdentity>
  /** Name and version of this client, for the operator's statistics. At most 60 characters. */
  client: string
  fetch: ServerFetch
  /** Milliseconds since the epoch. */
  now: () => number
}

// A payload of 16 MiB at 5 Mbit/s up takes 27 s; beyond a minute the lease is lost anyway.
const CALL_MS = 60_000
// 64 follow-ups of 20,000 indexes are under 8 MiB, and nothing else comes near it.
const LONGEST_ANSWER = 8 * 1024 * 1024
// Below this a gzip header eats what compression saves.
const SMALLEST_GZIP = 200

/** Calls of one task server under sessions that it opens by itself. */
export function createServerConnection(options: ServerConnectionOptions): ServerConnection {
  let token: string | null = null
  let opening: Promise<string> | null = null
  const traffic: Traffic = { bytesUp: 0, bytesDown: 0 }

  async function openSession(signal?: AbortSignal): Promise<string> {
    const identity = await options.identity()
    const asked = understood(
      challenge,
      await exchange(options, traffic, '/v1/challenges', { json: {} }, null, signal),
    )
    const body = {
      certificate: await signed(payloadType.certificate, identity.accountKey, {
        version: 1,
        nodeKey: toBase64Url(await publicKeyBytes(identity.nodeKey.publicKey)),
        createdAt: new Date(options.now()).toISOString(),
      }),
      session: await signed(payloadType.session, identity.nodeKey, {
        version: 1,
        challenge: asked.challenge,
        fingerprint: options.fingerprint,
        client: options.client,
      }),
    }
    const grant = understood(
      sessionGrant,
      await exchange(options, traffic, '/v1/sessions', { json: body }, null, signal),
    )
    return grant.token
  }

  function currentToken(signal?: AbortSignal): Promise<string> {
    if (token !== null) return Promise.resolve(token)
    // One session for all the calls that wait: each would cost the server a challenge.
    opening ??= openSession(signal)
      .then((fresh) => {
        token = fresh
        return fresh
      })
      .finally(() => {
        opening = null
      })
    return opening
  }

  async function call(path: string, body: Body | null, signal?: AbortSignal): Promise<unknown> {
    const used = await currentToken(signal)
    try {
      return await exchange(options, traffic, path, body, used, signal)
    } catch (error) {
      if (!(error instanceof ServerProblem) || error.reason !== 'no-session') throw error
      // Another call may have opened a new session meanwhile; only forget the one that failed.
      if (token === used) token = null
      return exchange(options, traffic, path, body, await currentToken(signal), signal)
    }
  }

  return {
    get: (path, signal) => call(path, null, signal),
    getWithoutSession: (path, signal) => exchange(options, traffic, path, null, null, signal),
    postJson: (path, json, signal) => call(path, { json }, signal),
    postBytes: (path, gzipBody, signal) => call(path, { gzipBody }, signal),
    token: () => currentToken(),
    traffic: () => ({ ...traffic }),
  }
}

/**
 * Asks what needs no session: the network document and the list of campaigns, before joining.
 *
 * @throws ServerProblem, ServerUnreachable
 */
export function askWithoutSession(
  path: '/v1/network' | '/v1/campaigns',
  options: Pick<ServerConnectionOptions, 'origin' | 'fetch'>,
  signal?: AbortSignal,
): Promise<unknown> {
  return exchange(options, { bytesUp: 0, bytesDown: 0 }, path, null, null, signal)
}

/** The answer as this version's message; throws `ServerUnreachable` when it is not one. */
export function understood<Schema extends z.ZodMiniType>(
  schema: Schema,
  answer: unknown,
): z.infer<Schema> {
  const parsed = schema.safeParse(answer)
  if (!parsed.success) {
    throw new ServerUnreachable('an answer that this version does not know', {
      cause: parsed.error,
    })
  }
  return parsed.data
}

/** Signs JSON as an envelope with the key that `keyid` names. */
export async function signed(
  type: string,
  pair: SigningKeyPair,
  statement: object,
): Promise<Envelope> {
  const keyid = toBase64Url(await publicKeyBytes(pair.publicKey))
  const payload = new TextEncoder().encode(JSON.stringify(statement))
  return signEnvelope(type, payload, [{ keyid, privateKey: pair.privateKey }])
}

type Traffic = { bytesUp: number; bytesDown: number }
type Body = { json: unknown } | { gzipBody: Uint8Array<ArrayBuffer> }

/** One request and its answer: parsed JSON, or undefined for an answer without a body. */
async function exchange(
  options: Pick<ServerConnectionOptions, 'origin' | 'fetch'>,
  traffic: Traffic,
  path: string,
  body: Body | null,
  token: string | null,
  signal?: AbortSignal,
): Promise<unknown> {
  const { headers, bytes } = await encoded(body)
  if (token !== null) headers.authorization = `Bearer ${token}`
  const timeout = AbortSignal.timeout(CALL_MS)
  // Not `options.fetch(…)`: a browser's fetch refuses to be called as a method of something else.
  const { fetch } = options
  let response: Response
  let text: string
  try {
    response = await fetch(`${options.origin}${path}`, {
      method: body === null ? 'GET' : 'POST',
      headers,
      ...(bytes === null ? {} : { body: bytes }),
      credentials: 'omit',
      cache: 'no-store',
      redirect: 'error',
      referrerPolicy: 'no-referrer',
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    })
    traffic.bytesUp += bytes?.length ?? 0
    text = await boundedText(response, traffic)
  } catch (error) {
    if (error instanceof ServerUnreachable) throw error
    throw new ServerUnreachable(`no answer from ${options.origin}${path}`, { cause: error })
  }
  if (response.ok && text === '') return undefined
  const answer = parseJson(text)
  if (response.ok) {
    if (answer === undefined)
      throw new ServerUnreachable(`${path} answered something else than JSON`)
    return answer
  }
  throw refusal(path, response, answer)
}

async function encoded(
  body: Body | null,
): Promise<{ headers: Record<string, string>; bytes: Uint8Array<ArrayBuffer> | null }> {
  if (body === null) return { headers: {}, bytes: null }
  if ('gzipBody' in body) {
    return {
      headers: { 'content-type': 'application/octet-stream', 'content-encoding': 'gzip' },
      bytes: body.gzipBody,
    }
  }
  const plain = new TextEncoder().encode(JSON.stringify(body.json))
  const headers = { 'content-type': 'application/json' }
  if (plain.length < SMALLEST_GZIP) return { headers, bytes: plain }
  return { headers: { ...headers, 'content-encoding': 'gzip' }, bytes: await gzip(plain) }
}

async function boundedText(response: Response, traffic: Traffic): Promise<string> {
  if (response.body === null) return ''
  const reader = response.body.getReader()
  const decoder = new TextDecoder()
  let text = ''
  let length = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    length += value.length
    if (length > LONGEST_ANSWER) {
      await reader.cancel()
      throw new ServerUnreachable(`an answer longer than ${LONGEST_ANSWER} bytes`)
    }
    text += decoder.decode(value, { stream: true })
  }
  // What crossed the wire is the compressed length, where the server states it.
  const stated = Number(response.headers.get('content-length') ?? Number.NaN)
  traffic.bytesDown += Number.isSafeInteger(stated) && stated >= 0 ? stated : length
  return text + decoder.decode()
}

function refusal(path: string, response: Response, answer: unknown): Error {
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
  const retryAfterMs = Number.isFinite(seconds) && seconds >= 0 ? seconds * 1_000 : null
  const parsed = problem.safeParse(answer)
  if (parsed.success) {
    return new ServerProblem(problemReason(parsed.data), parsed.data.detail, retryAfterMs)
  }
  // A proxy in front of the server speaks for it in these two cases only.
  if (response.status === 429 || response.status === 503) {
    const reason = response.status === 429 ? 'too-many-requests' : 'overloaded'
    return new ServerProblem(reason, `status ${response.status} for ${path}`, retryAfterMs)
  }
  return new ServerUnreachable(`status ${response.status} for ${path} without a reason`)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // No JSON value is undefined, so it can say that there was none.
    return undefined
  }
}
