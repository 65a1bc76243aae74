import { addressRefusal } from '../capture/public-host.ts'
import type { FetchHop, Hop } from '../runner/ports.ts'
import { build, isFirefox } from './build.ts'
import { lookUpRefusal } from './look-up.ts'
import type { Pace } from './pace.ts'
import type { Sighting, Sightings } from './sightings.ts'
import type { WireBytes } from './wire-bytes.ts'

// The event came at most 4 ms after fetch resolved (feasibility notes, row 5a). This is for a stall.
const SIGHTING_MS = 5_000

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
    const { taggedUrl, sighting, forget } = parts.sightings.expect(url)
    let response: Response
    try {
      response = await fetch(taggedUrl, {
        credentials: 'omit',
        referrerPolicy: 'no-referrer',
        cache: 'no-store',
        redirect: 'manual',
        ...(build.targetAddressSpace && { targetAddressSpace: build.targetAddressSpace }),
        signal: AbortSignal.any([signal, stop.signal]),
      })
    } catch (error) {
      const seen = signal.aborted ? null : await within(sighting, SIGHTING_MS)
      forget()
      if (signal.aborted) throw error
      return failure(seen)
    }

    const seen = await within(sighting, SIGHTING_MS)
    forget()
    const hop = judge(seen)
    if (hop.kind !== 'response') {
      stop.abort()
      return hop
    }
    return {
      kind: 'response',
      status: response.status,
      headers: new Map(response.headers),
      ...body(response, taggedUrl, parts, signal),
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

function failure(seen: Sighting | null): {
  kind: 'failed'
  reason: 'connection' | 'private-address'
} {
  // Chromium refuses an address space with a bare ERR_FAILED, and says it of little else.
  const refused =
    build.targetAddressSpace !== undefined &&
    seen?.kind === 'failed' &&
    seen.error === 'net::ERR_FAILED'
  return { kind: 'failed', reason: refused ? 'private-address' : 'connection' }
}

function body(
  response: Response,
  taggedUrl: string,
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
      encoded = await wireBytes.of(taggedUrl)
    } finally {
      // Reached early when the runner has read enough. After the end this changes nothing.
      await reader.cancel().catch(() => {
        // The stream had failed already; the reader of this body has that error.
      })
    }
  }
  return { body: read(), wireBytes: () => encoded }
}

/** The promise's value, or null when it takes too long. */
async function within<T>(promise: Promise<T>, limitMs: number): Promise<T | null> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), limitMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
