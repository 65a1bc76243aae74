import type { MeterReadingReason } from '../protocol/meter.ts'

/** Load counted so far, since the first load message (t = 0). */
export type Sample = { readonly tMs: number; readonly bytesTotal: number }

export type PlateauLimits = {
  /** Lowest round trip of the idle line, ms. */
  readonly baseRttMs: number
  /** Wall-clock cap, ms. */
  readonly maxMs: number
  /** Load the caller is willing to move, bytes. */
  readonly maxBytes: number
}

export type Reading = {
  readonly reason: MeterReadingReason
  /** Mean over both windows. After `time` or `bytes` it may include the ramp: a lower bound. */
  readonly bitsPerSecond: number
  readonly elapsedMs: number
  readonly bytesTotal: number
}

export type PlateauDecision = { readonly kind: 'continue' } | ({ readonly kind: 'stop' } & Reading)

/** How often callers sample, ms. */
export const SAMPLE_EVERY_MS = 50

/** 5 s: no lossless line up to 100 Mbit/s and 200 ms needed longer (bandwidth.md §3). */
export const MAX_TEST_MS = 5_000

// bandwidth.md §3, finding 1: windows of 2 RTT with one confirmation read 39-46 % low at 200 ms,
// because CUBIC leaves slow start early and rests on a false plateau.
const SHORTEST_WINDOW_MS = 250
const WINDOW_ROUND_TRIPS = 2
const SHORTEST_TEST_MS = 800
const CONFIRMATIONS = 4
const LARGEST_DIFFERENCE = 0.06

/**
 * Decides whether a capacity test has seen enough (bandwidth.md §6). Two adjacent windows of
 * max(250 ms, 2 × base RTT) end at the newest sample; the test is over when they differ by less
 * than 6 % at four samples in a row and 800 ms have passed, or at a cap.
 *
 * `samples` are all samples of the test, oldest first, taken about every 50 ms. Late timers do no
 * harm: between samples the count is interpolated.
 */
export function decide(samples: readonly Sample[], limits: PlateauLimits): PlateauDecision {
  const last = samples.at(-1)
  if (last === undefined) return { kind: 'continue' }
  if (last.bytesTotal >= limits.maxBytes) return { kind: 'stop', ...read(samples, limits, 'bytes') }
  if (last.tMs >= SHORTEST_TEST_MS && settled(samples, limits)) {
    return { kind: 'stop', ...read(samples, limits, 'plateau') }
  }
  if (last.tMs >= limits.maxMs) return { kind: 'stop', ...read(samples, limits, 'time') }
  return { kind: 'continue' }
}

/** The reading when something else than this rule ended the test, such as the sender's own cap. */
export function read(
  samples: readonly Sample[],
  limits: PlateauLimits,
  reason: MeterReadingReason,
): Reading {
  const last = samples.at(-1) ?? { tMs: 0, bytesTotal: 0 }
  // A test cut short has no room for two whole windows: use all of it.
  const spanMs = Math.min(2 * windowMs(limits), last.tMs)
  const bytes = last.bytesTotal - bytesAt(samples, last.tMs - spanMs)
  return {
    reason,
    bitsPerSecond: spanMs > 0 ? Math.round((bytes * 8_000) / spanMs) : 0,
    elapsedMs: Math.round(last.tMs),
    bytesTotal: last.bytesTotal,
  }
}

function settled(samples: readonly Sample[], limits: PlateauLimits): boolean {
  if (samples.length < CONFIRMATIONS) return false
  const width = windowMs(limits)
  return samples.slice(-CONFIRMATIONS).every(({ tMs, bytesTotal }) => {
    if (tMs < 2 * width) return false
    const middle = bytesAt(samples, tMs - width)
    const newer = bytesTotal - middle
    const older = middle - bytesAt(samples, tMs - 2 * width)
    // Two silent windows agree perfectly, but they are a stall, not a plateau.
    return Math.abs(newer - older) < LARGEST_DIFFERENCE * Math.max(newer, older)
  })
}

function windowMs(limits: PlateauLimits): number {
  return Math.max(SHORTEST_WINDOW_MS, WINDOW_ROUND_TRIPS * limits.baseRttMs)
}

/** Bytes counted at `tMs`, on the straight line between the samples around it. */
function bytesAt(samples: readonly Sample[], tMs: number): number {
  let after: Sample | undefined
  for (let index = samples.length - 1; index >= 0; index -= 1) {
    const sample = samples[index]
    if (sample === undefined) break
    if (sample.tMs <= tMs) {
      if (after === undefined || after.tMs === sample.tMs) return sample.bytesTotal
      const share = (tMs - sample.tMs) / (after.tMs - sample.tMs)
      return sample.bytesTotal + share * (after.bytesTotal - sample.bytesTotal)
    }
    after = sample
  }
  // Before the first sample: what it counted arrived at once.
  return 0
}
