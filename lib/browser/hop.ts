import { addressRefusal } from '../capture/public-host.ts'
import { HopFailure } from '../runner/hop-failure.ts'
import type { FetchHop, Hop } from '../runner/ports.ts'
import { build, isFirefox } from './build.ts'
import { lookUpRefusal } from './look-up.ts'
import type { Pace } from './pace.ts'
import type { ExpectedSighting, Sighting, Sightings } from './sightings.ts'
import { sleep } from './sleep.ts'
import type { WireBytes } from './wire-bytes.ts'

// The event came at most 4 ms after fetch resolved (feasibility notes, row 5a). This is for a stall.
const SIGHTING_MS = 5_000
// The event and the end of the stream come by different ways, a few milliseconds apart.
const BROKEN_MS = 100

/**
 * One GET as research/extension-feasibility.md §2 found it safe: nothing of the person goes along,
 * Chromium refuses addresses that are not public before it sends, and the peer's address is
 * checked again before a byte of the answer is read.
 *
 * @param parts.pace bounds how much of the idle line is used
 * @param parts.ready resolves once requests carry the crawler's name and no cookies
 */
export function createHop(parts: {
  sightings: Sightings
  wireBytes: WireBytes
  pace: Pace
  ready: () => Promise<void>
}): FetchHop {
  return async ({ url, signal }) => {
    await parts.ready()
    signal.throwIfAborted()
    if (isFirefox) {
      const refusal = await lookUpRefusal(new URL(url).hostname, build.loopbackSitesAllowed)
      if (refusal !== null) return { kind: 'failed', reason: refusal }
    }

    const stop = new AbortController()
    const expected = parts.sightings.expect(url)
    let response: Response
    try {
      response = await fetch(expected.taggedUrl, {
        credentials: 'omit',
        referrerPolicy: 'no-referrer',
        cache: 'no-store',
        redirect: 'manual',
        // The person's own languages would tell them apart, and pages apart.
        headers: { 'accept-language': '*' },
        ...(build.targetAddressSpace && { targetAddressSpace: build.targetAddressSpace }),
        signal: AbortSignal.any([signal, stop.signal]),
      })
    } catch (error) {
      const seen = await within(expected.first, SIGHTING_MS, signal)
      expected.forget()
      if (signal.aborted) throw error
      return failure(seen)
    }

    const hop = judge(await within(expected.first, SIGHTING_MS, signal))
    if (hop.kind !== 'response') {
      expected.forget()
      stop.abort()
      return hop
    }
    return {
      kind: 'response',
      status: response.status,
      headers: new Map(response.headers),
      ...body(response, expected, parts, signal),
    }
  }
}

/** What may be done with an answer, given who gave it. */
function judge(seen: Sighting | null): Exclude<Hop, { kind: 'response' }> | { kind: 'response' } {
  if (seen === null || seen.kind === 'failed') return failure(seen)
  // A redirect without an address is the browser's own (HSTS): nobody was asked yet.
  if (seen.ip === null && seen.kind === 'response') return { kind: 'failed', reason: 'connection' }
  if (seen.ip !== null && !isAllowedPeer(seen.ip)) {
    return { kind: 'failed', reason: 'private-address' }
  }
  return seen.kind === 'redirect'
    ? { kind: 'redirect', status: seen.status, location: seen.location }
    : { kind: 'response' }
}

function isAllowedPeer(ip: string): boolean {
  const refusal = addressRefusal(ip.replace(/^\[(.*)\]$/, '$1'))
  return refusal === null || (refusal === 'loopback' && build.loopbackSitesAllowed)
}

function failure(seen: Sighting | null): Extract<Hop, { kind: 'failed' }> {
  if (seen?.kind === 'failed' && isUndecodable(seen.error)) {
    return { kind: 'failed', reason: 'undecodable' }
  }
  // Chromium refuses an address space with a bare ERR_FAILED, and says it of little else.
  const refused =
    build.targetAddressSpace !== undefined &&
    seen?.kind === 'failed' &&
    seen.error === 'net::ERR_FAILED'
  return { kind: 'failed', reason: refused ? 'private-address' : 'connection' }
}

/** The names that Chromium and Firefox give to a body which is not what Content-Encoding says. */
function isUndecodable(error: string): boolean {
  return /ERR_CONTENT_DECODING|NS_ERROR_INVALID_CONTENT_ENCODING/.test(error)
}

function body(
  response: Response,
  expected: ExpectedSighting,
  { wireBytes, pace }: { wireBytes: WireBytes; pace: Pace },
  signal: AbortSignal,
) {
  let encoded = 0
  async function* read(): AsyncGenerator<Uint8Array> {
    const reader = response.body?.getReader()
    if (reader === undefined) return
    try {
      for (;;) {
        const { done, value } = await reader.read()
        if (done) break
        yield value
        // Decoded bytes stand in for those on the wire, which are known only at the end. Reading
        // late is enough: TCP then slows the sender.
        await pace.take(value.length, signal)
      }
      encoded = await wireBytes.of(expected.taggedUrl)
    } catch (error) {
      // The stream itself only says that it failed.
      const why = signal.aborted ? null : await within(expected.broken, BROKEN_MS, signal)
      if (why !== null && isUndecodable(why)) throw new HopFailure('undecodable', { cause: error })
      throw error
    } finally {
      expected.forget()
      // Reached early when the runner has read enough. After the end this changes nothing.
      await reader.cancel().catch(() => {
        // The stream had failed already; the reader of this body has that error.
      })
    }
  }
  return { body: read(), wireBytes: () => encoded }
}

/** The promise's value, or null when it takes too long or the signal ends the wait. */
async function within<T>(
  promise: Promise<T>,
  limitMs: number,
  signal: AbortSignal,
): Promise<T | null> {
  const waited = new AbortController()
  const late = sleep(limitMs, AbortSignal.any([signal, waited.signal])).then(
    () => null,
    // Cut short, by the value or by the signal: an ordinary end of waiting.
    () => null,
  )
  try {
    return await Promise.race([promise, late])
  } finally {
    waited.abort()
  }
}
