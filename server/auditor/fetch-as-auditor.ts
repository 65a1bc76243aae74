import { setTimeout as sleep } from 'node:timers/promises'
import { hostRefusal } from '../../lib/capture/public-host.ts'
import { HopFailure } from '../../lib/runner/hop-failure.ts'
import { createNodeHop } from '../node/hop.ts'
import type { HostMap, Lookup } from '../node/host-map.ts'
import { HostBusy, type TakeTurn, type Turn } from './host-turns.ts'

export interface AuditorFetchOptions {
  userAgent: string
  /** Mailbox of the operator, if there is one. */
  from: string | null
  takeTurn: TakeTurn
  hostMap?: HostMap | undefined
  /** Loopback names and any port: for the lab and the demo only. */
  loopbackAllowed: boolean
  lookup?: Lookup | undefined
}

export interface FetchLimits {
  /** Decoded bytes that are read; a longer body is cut there. */
  maxBytes: number
  /** Wall clock of all hops and the body. */
  maxMs: number
  maxRedirects: number
  signal: AbortSignal
  /** Asked before each hop: why it must not be, or null. */
  permit?: (url: URL) => Promise<string | null>
}

export interface Answer {
  /** After the last redirect. */
  url: string
  redirects: number
  status: number
  headers: ReadonlyMap<string, string>
  /** Decoded as the headers say; ends at `maxBytes`. */
  body: AsyncIterable<Uint8Array>
  /** Whether the body was longer than `maxBytes`. Known when it has been read. */
  isCut(): boolean
}

export type FailureReason =
  | 'not-public'
  | 'not-web'
  | 'not-permitted'
  | 'redirect-limit'
  | 'connection'
  | 'timeout'
  | 'undecodable'
  | 'busy'
  | 'aborted'

export type AuditorFetch<Value> =
  | { kind: 'answered'; value: Value }
  | { kind: 'failed'; reason: FailureReason; sentence: string }

/**
 * One fetch of the auditor, redirects followed. Each hop is looked up once, refused if any of its
 * addresses is not public, and connected to one of them; scheme, port, permission and the host's
 * turn are asked anew. No cookies, no body, no credentials. Bytes, wall clock and idle time are
 * bounded. `read` is given the answer while the connection is open; whatever it throws by itself is
 * thrown on.
 *
 * @throws HostBusy when the first host cannot be spoken to now: nothing was sent
 */
export type FetchAsAuditor = <Value>(
  url: string,
  limits: FetchLimits,
  read: (answer: Answer) => Promise<Value>,
) => Promise<AuditorFetch<Value>>

/** A body that says nothing for so long is not worth the host's slot. */
const idleMs = 10_000
/** A host with a long pace is not waited for in the middle of a redirect: it is one visit. */
const mostBetweenHopsMs = 2_000

export function createAuditorFetch(options: AuditorFetchOptions): FetchAsAuditor {
  const { loopbackAllowed, hostMap, lookup } = options
  return async (given, limits, read) => {
    const over = new AbortController()
    const end = (why: FailureReason) => over.abort(new FetchEnded(why, sentences[why]))
    const abort = () => end('aborted')
    limits.signal.addEventListener('abort', abort, { once: true })
    if (limits.signal.aborted) abort()
    const clock = setTimeout(() => end('timeout'), limits.maxMs)
    // One for each fetch: connections of fifty thousand hosts are not to be kept, and each address
    // is checked at the connection that is used.
    const node = createNodeHop({
      userAgent: options.userAgent,
      ...(options.from === null ? {} : { from: options.from }),
      ...(hostMap ? { hostMap } : {}),
      ...(lookup ? { lookup } : {}),
      loopbackAllowed,
      mislabelledGzipAllowed: true,
    })
    let turn: Turn | null = null
    let hasSpoken = false
    const slotLost = () => end('busy')
    try {
      const seen = new Set<string>()
      for (let url = webAddress(given, null, loopbackAllowed); ; ) {
        if (seen.has(url.href)) {
          throw new FetchEnded(
            'redirect-limit',
            `The redirects go round in a circle at ${url.href}.`,
          )
        }
        seen.add(url.href)
        const refusal = (await limits.permit?.(url)) ?? null
        if (refusal !== null) throw new FetchEnded('not-permitted', refusal)
        if (over.signal.aborted) throw over.signal.reason
        if (turn?.origin === url.origin) {
          await sleep(Math.min(turn.restMs(), mostBetweenHopsMs), undefined, {
            signal: over.signal,
          })
        } else {
          await turn?.end()
          turn = null
          turn = await options.takeTurn(url, over.signal)
          turn.lost.addEventListener('abort', slotLost, { once: true })
          if (turn.lost.aborted) slotLost()
        }
        turn.begin()
        hasSpoken = true
        const hop = await until(over.signal, node.hop({ url: url.href, signal: over.signal }))
        if (hop.kind === 'failed') throw hopFailed(hop.reason, url)
        turn.answered(
          hop.status,
          hop.kind === 'response' ? hop.headers.get('retry-after') : undefined,
        )
        if (hop.kind === 'redirect') {
          if (seen.size > limits.maxRedirects) {
            throw new FetchEnded(
              'redirect-limit',
              `There were more than ${limits.maxRedirects} redirects, the last to ${hop.location.slice(0, 200)}.`,
            )
          }
          url = webAddress(hop.location, url, loopbackAllowed)
          continue
        }
        const cut = { isCut: false }
        const value = await read({
          url: url.href,
          redirects: seen.size - 1,
          status: hop.status,
          headers: hop.headers,
          body: bounded(hop.body, limits.maxBytes, over.signal, cut),
          isCut: () => cut.isCut,
        })
        return { kind: 'answered', value }
      }
    } catch (error) {
      if (error instanceof HostBusy && hasSpoken) {
        return { kind: 'failed', reason: 'busy', sentence: error.message }
      }
      const failure = over.signal.aborted ? over.signal.reason : error
      if (!(failure instanceof FetchEnded)) throw failure
      return { kind: 'failed', reason: failure.reason, sentence: failure.message }
    } finally {
      clearTimeout(clock)
      limits.signal.removeEventListener('abort', abort)
      turn?.lost.removeEventListener('abort', slotLost)
      await node.close()
      await turn?.end()
    }
  }
}

/** Why a fetch ended. Thrown by a body too: let it pass. */
class FetchEnded extends Error {
  readonly reason: FailureReason

  constructor(reason: FailureReason, sentence: string) {
    super(sentence)
    this.name = 'FetchEnded'
    this.reason = reason
  }
}

const sentences: Record<FailureReason, string> = {
  'not-public': 'The name leads to an address that is not public.',
  'not-web': 'The address is not one of the public web.',
  'not-permitted': 'The address must not be fetched.',
  'redirect-limit': 'There were too many redirects.',
  connection: 'No connection was possible.',
  timeout: 'The answer took too long.',
  undecodable: 'The body cannot be decoded as its headers say.',
  busy: 'The host is not to be spoken to now.',
  aborted: 'The auditor was stopped.',
}

/** http and https on their own ports, of a name that is public in form; literals and local names never. */
function webAddress(given: string, base: URL | null, loopbackAllowed: boolean): URL {
  const where = base === null ? 'The address' : 'A redirect'
  const shown = given.slice(0, 200)
  let url: URL
  try {
    url = base === null ? new URL(given) : new URL(given, base)
  } catch {
    throw new FetchEnded('not-web', `${where} does not parse: ${shown}`)
  }
  url.hash = ''
  if (!/^https?:$/.test(url.protocol)) {
    throw new FetchEnded('not-web', `${where} is not of the web: ${shown}`)
  }
  if (url.username !== '' || url.password !== '') {
    throw new FetchEnded('not-web', `${where} holds a user name or password.`)
  }
  if (loopbackAllowed) return url
  if (url.port !== '') throw new FetchEnded('not-web', `${where} names another port: ${shown}`)
  const refusal = hostRefusal(url.href)
  if (refusal === null) return url
  throw new FetchEnded('not-public', `${where} is no public name of the web (${refusal}): ${shown}`)
}

function hopFailed(reason: string, url: URL): FetchEnded {
  switch (reason) {
    case 'private-address':
      return new FetchEnded('not-public', `${url.host} leads to an address that is not public.`)
    case 'undecodable':
      return new FetchEnded('undecodable', sentences.undecodable)
    default:
      return new FetchEnded('connection', `No connection to ${url.origin} was possible.`)
  }
}

/** The body up to `maxBytes`, each piece within the idle time. */
async function* bounded(
  body: AsyncIterable<Uint8Array>,
  maxBytes: number,
  signal: AbortSignal,
  cut: { isCut: boolean },
): AsyncGenerator<Uint8Array> {
  const pieces = body[Symbol.asyncIterator]()
  let left = maxBytes
  for (;;) {
    let piece: Uint8Array
    try {
      const next = await withinIdleTime(pieces.next(), signal)
      if (next.done) return
      piece = next.value
    } catch (error) {
      if (error instanceof FetchEnded) throw error
      if (error instanceof HopFailure) throw hopFailed(error.reason, new URL('http://body.invalid'))
      throw new FetchEnded('connection', 'The connection broke off.')
    }
    if (piece.length > left) {
      cut.isCut = true
      if (left > 0) yield piece.subarray(0, left)
      return
    }
    left -= piece.length
    yield piece
  }
}

async function withinIdleTime<Value>(next: Promise<Value>, signal: AbortSignal): Promise<Value> {
  let timer: NodeJS.Timeout | undefined
  const idle = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new FetchEnded('timeout', `Nothing came for ${idleMs / 1000} seconds.`)),
      idleMs,
    )
  })
  try {
    return await until(signal, Promise.race([next, idle]))
  } finally {
    clearTimeout(timer)
  }
}

/** The promise, or the signal's reason as soon as it is aborted. */
function until<Value>(signal: AbortSignal, promise: Promise<Value>): Promise<Value> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/** Reads a body that is known to be short. */
export async function wholeBody(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for await (const piece of body) pieces.push(piece)
  return Buffer.concat(pieces)
}
