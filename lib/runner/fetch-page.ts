import { isWanted } from '../capture/content-kind.ts'
import { ListedDomain } from '../consent/domain-list.ts'
import { covers, type ScopeRules } from '../consent/scope.ts'
import type { Campaign } from '../protocol/campaign.ts'
import type { Lease } from '../protocol/lease.ts'
import type { FailureReason } from '../protocol/observation.ts'
import type { LeaseRefusalReason } from '../protocol/refusal.ts'
import { HopFailure } from './hop-failure.ts'
import type { FetchHop, Hop, RunnerPorts } from './ports.ts'

/** What became of one lease's fetch. Byte counts include what was thrown away. */
export type PageFetch =
  | FetchedPage
  | { kind: 'failed'; reason: FailureReason; hops: number; totalMs: number; wireBytes: number }
  /** The device will not do it; nothing was sent. */
  | { kind: 'refused'; reason: LeaseRefusalReason }
  /** The signal ended it: withdrawal, pause or halt. */
  | { kind: 'aborted'; hops: number; totalMs: number; wireBytes: number }

export interface FetchedPage {
  kind: 'fetched'
  /** After the last redirect, without fragment. */
  url: string
  /** Status of each redirect followed. */
  hops: number[]
  status: number
  /** Lower case, without parameters; empty where the site does not say. */
  type: string
  headers: ReadonlyMap<string, string>
  /** Decoded body. */
  payload: Uint8Array<ArrayBuffer>
  firstByteMs: number
  totalMs: number
  /** Encoded body bytes; the decoded length where the platform does not say. */
  wireBytes: number
  /** As the platform says, 0 where it does not: for the observation. */
  statedWireBytes: number
}

export interface PageRequest {
  lease: Pick<Lease, 'kind' | 'url' | 'maxBytes' | 'maxMs' | 'maxRedirects' | 'paceMs' | 'domain'>
  campaign: Pick<Campaign, 'sites' | 'wide' | 'types'>
  scope: ScopeRules
  /** Withdrawal, pause and halt. */
  signal: AbortSignal
}

// The observation's list of hops has ten places (protocol README §6).
const MOST_REDIRECTS = 10
// A body that says nothing for so long is not worth the slot it holds.
const IDLE_MS = 5_000

/**
 * Fetches a page hop by hop. Scope is checked before each hop; bytes, wall clock and idle time are
 * bounded; what the campaign does not want is refused by its header, before the body is read. Never
 * throws.
 */
export async function fetchPage(
  request: PageRequest,
  ports: Pick<RunnerPorts, 'now' | 'sleep'> & { hop: FetchHop },
): Promise<PageFetch> {
  const { lease, campaign, scope } = request
  const first = withoutFragment(lease.url)
  const listed = ListedDomain.proven(campaign, lease.domain)
  const covered = covers(campaign, lease.kind, first, scope, listed)
  if (!covered.ok) return { kind: 'refused', reason: covered.reason }

  const startedMs = ports.now()
  const elapsedMs = () => Math.max(0, Math.round(ports.now() - startedMs))
  const over = new AbortController()
  const abort = () => over.abort(new Ended('aborted'))
  request.signal.addEventListener('abort', abort)
  if (request.signal.aborted) abort()
  void ports.sleep(lease.maxMs, over.signal).then(
    () => over.abort(new Ended('timeout')),
    // The fetch was over first.
    () => {},
  )

  const hops: number[] = []
  let readBytes = 0
  let stated = () => 0
  const wireBytes = () => stated() || readBytes
  try {
    const seen = new Set([first])
    const hosts = new Set<string>()
    for (let url = first; ; ) {
      const { hostname } = new URL(url)
      // Politeness counts by host: one that this fetch has spoken to waits its turn. Another host has
      // a clock of its own, which the server keeps; it is asked at once.
      if (hosts.has(hostname)) {
        await until(over.signal, ports.sleep(lease.paceMs ?? 0, over.signal))
      }
      hosts.add(hostname)
      const hop = await until(over.signal, ports.hop({ url, signal: over.signal }))
      if (hop.kind === 'failed') throw new Ended(hop.reason)
      if (hop.kind === 'redirect') {
        hops.push(hop.status)
        url = nextUrl(hop.location, url, seen, hops.length, request, listed)
        seen.add(url)
        continue
      }
      stated = hop.wireBytes
      const firstByteMs = elapsedMs()
      const type = mediaType(hop.headers.get('content-type'))
      // robots.txt is read whatever its type: servers label it carelessly, and its status counts.
      if (lease.kind === 'page' && !isWanted(type, campaign.types)) {
        throw new Ended('unsupported-type')
      }
      const payload = await readBody(hop, lease, over.signal, ports.sleep, (bytes) => {
        readBytes += bytes
      })
      return {
        kind: 'fetched',
        url,
        hops,
        status: hop.status,
        type,
        headers: hop.headers,
        payload,
        firstByteMs,
        totalMs: elapsedMs(),
        wireBytes: wireBytes(),
        statedWireBytes: stated(),
      }
    }
  } catch (error) {
    const seen = { hops: hops.length, totalMs: elapsedMs(), wireBytes: wireBytes() }
    const reason = reasonOf(over.signal.aborted ? over.signal.reason : error)
    return reason === 'aborted' ? { kind: 'aborted', ...seen } : { kind: 'failed', reason, ...seen }
  } finally {
    request.signal.removeEventListener('abort', abort)
    // Ends the wall clock, and a body that was not read to its end.
    over.abort(new Ended('aborted'))
  }
}

/** Why a fetch ended early; thrown inside this file only. */
class Ended extends Error {
  readonly why: FailureReason | 'aborted'

  constructor(why: FailureReason | 'aborted') {
    super(why)
    this.why = why
  }
}

function reasonOf(error: unknown): FailureReason | 'aborted' {
  if (error instanceof Ended) return error.why
  if (error instanceof HopFailure) return error.reason
  // Whatever else a platform throws while it talks to a site is a connection that failed.
  return 'connection'
}

/** The address of the next hop, after every check that the first one passed. */
function nextUrl(
  location: string,
  base: string,
  seen: ReadonlySet<string>,
  redirects: number,
  { lease, campaign, scope }: PageRequest,
  listed: ListedDomain | null,
): string {
  if (redirects > Math.min(lease.maxRedirects, MOST_REDIRECTS)) throw new Ended('redirect-limit')
  let url: string
  try {
    url = withoutFragment(new URL(location, base).href)
  } catch {
    // A Location that is no address leads nowhere that was agreed to.
    throw new Ended('redirect-refused')
  }
  if (seen.has(url)) throw new Ended('redirect-limit')
  const covered = covers(campaign, lease.kind, url, scope, listed)
  if (covered.ok) return url
  throw new Ended(covered.reason === 'host-not-public' ? 'private-address' : 'redirect-refused')
}

async function readBody(
  hop: Extract<Hop, { kind: 'response' }>,
  { kind, maxBytes }: Pick<Lease, 'kind' | 'maxBytes'>,
  signal: AbortSignal,
  sleep: RunnerPorts['sleep'],
  count: (bytes: number) => void,
): Promise<Uint8Array<ArrayBuffer>> {
  // RFC 9309 §2.5: of a robots.txt that is longer the beginning counts. A page is whole or nothing.
  const cutsOff = kind === 'robots'
  // Compressed, so the decoded body is hardly ever shorter: no need to download it to know.
  if (!cutsOff && Number(hop.headers.get('content-length') ?? 0) > maxBytes) {
    throw new Ended('too-large')
  }
  // One buffer that doubles: a site that sends single bytes must not make us keep millions of chunks.
  let buffer = new Uint8Array(Math.min(maxBytes, 65_536))
  let length = 0
  const body = hop.body[Symbol.asyncIterator]()
  for (;;) {
    const { done, value } = await withinIdleTime(body.next(), signal, sleep)
    if (done) return buffer.slice(0, length)
    count(value.length)
    if (length + value.length > maxBytes && !cutsOff) throw new Ended('too-large')
    const end = Math.min(maxBytes, length + value.length)
    if (end > buffer.length) {
      const larger = new Uint8Array(Math.min(maxBytes, Math.max(end, 2 * buffer.length)))
      larger.set(buffer.subarray(0, length))
      buffer = larger
    }
    buffer.set(value.subarray(0, end - length), length)
    length = end
    // The caller ends the connection: what else comes is not waited for.
    if (cutsOff && length === maxBytes) return buffer.slice(0, length)
  }
}

async function withinIdleTime<Value>(
  next: Promise<Value>,
  signal: AbortSignal,
  sleep: RunnerPorts['sleep'],
): Promise<Value> {
  const idle = new AbortController()
  const timer = sleep(IDLE_MS, idle.signal).then(
    () => {
      throw new Ended('timeout')
    },
    // The chunk came first; `next` below has won already.
    () => new Promise<never>(() => {}),
  )
  try {
    return await until(signal, Promise.race([next, timer]))
  } finally {
    idle.abort()
  }
}

/** The promise, or the signal's reason as soon as it is aborted: adapters may be slow to notice. */
function until<Value>(signal: AbortSignal, promise: Promise<Value>): Promise<Value> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

function mediaType(contentType: string | undefined): string {
  const type = (contentType ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''
  // Longer ones are nonsense, and the observation has room for 100 characters.
  return type.length <= 100 ? type : ''
}

function withoutFragment(url: string): string {
  const at = url.indexOf('#')
  return at < 0 ? url : url.slice(0, at)
}
