/** What the budget remembers of the newest successful capacity test. */
export type LastCapacity = {
  /** Wall clock, ms since the epoch. */
  readonly atMs: number
  readonly downBitsPerSecond: number
  /** Null when only the download could be measured. */
  readonly upBitsPerSecond: number | null
}

export type CapacityTestFacts = {
  /** Wall clock, ms since the epoch. */
  readonly nowMs: number
  readonly lastResult: LastCapacity | null
  readonly consented: boolean
  /** When the device last changed networks, ms since the epoch; null when it has not. */
  readonly networkChangedAtMs: number | null
  /** `navigator.connection.saveData`. */
  readonly saveData: boolean
  /** The cap the person set; null when there is none. */
  readonly dataCapBytesPerMonth: number | null
  /** Load of all tests this month, both directions, failed ones too. */
  readonly measuredBytesThisMonth: number
  /** Tests begun today, failed ones too. */
  readonly testsToday: number
}

export type CapacityTestDue =
  | { kind: 'due'; because: 'first' | 'network-changed' | 'routine'; bytesBudget: number }
  | { kind: 'not-due'; reason: 'no-consent' | 'save-data' | 'data-cap' | 'tests-today' }
  | { kind: 'not-due'; reason: 'too-soon'; retryAfterMs: number }

// bandwidth.md §6: rare. A person who roams between networks all day still pays for two.
const TESTS_PER_DAY = 2
const ROUTINE_EVERY_MS = 8 * 60 * 60 * 1_000
// A network that has just come up still moves the device's own backlog.
const SETTLE_MS = 5_000
// 15 MB measured 100 Mbit/s at 50 ms, 11 MB at 10 ms; the upload needs the rest.
const TEST_BYTES = 25_000_000
// 0.9 MB measured 5 Mbit/s (bandwidth.md §3). With less, a test costs data and says little.
const SMALLEST_TEST_BYTES = 1_000_000
const MEASURING_SHARE_OF_CAP = 0.01

/**
 * Says whether a capacity test may run now, and how many bytes of load it may move in both
 * directions together. Whether the device is idle is for the caller to see: idle moments make the
 * times of routine tests random (bandwidth.md §6).
 */
export function capacityTestDue(facts: CapacityTestFacts): CapacityTestDue {
  if (!facts.consented) return { kind: 'not-due', reason: 'no-consent' }
  if (facts.saveData) return { kind: 'not-due', reason: 'save-data' }

  const bytesBudget = testBytes(facts.dataCapBytesPerMonth, facts.measuredBytesThisMonth)
  if (bytesBudget < SMALLEST_TEST_BYTES) return { kind: 'not-due', reason: 'data-cap' }
  if (facts.testsToday >= TESTS_PER_DAY) return { kind: 'not-due', reason: 'tests-today' }

  if (facts.lastResult === null) return { kind: 'due', because: 'first', bytesBudget }
  const { atMs } = facts.lastResult
  if (facts.networkChangedAtMs !== null && facts.networkChangedAtMs > atMs) {
    const settleMs = facts.networkChangedAtMs + SETTLE_MS - facts.nowMs
    // A change in the future is a clock set back; waiting for it could take for ever.
    if (settleMs > 0 && settleMs <= SETTLE_MS) {
      return { kind: 'not-due', reason: 'too-soon', retryAfterMs: settleMs }
    }
    return { kind: 'due', because: 'network-changed', bytesBudget }
  }
  const waitMs = atMs + ROUTINE_EVERY_MS - facts.nowMs
  if (waitMs > 0 && waitMs <= ROUTINE_EVERY_MS) {
    return { kind: 'not-due', reason: 'too-soon', retryAfterMs: waitMs }
  }
  return { kind: 'due', because: 'routine', bytesBudget }
}

function testBytes(capBytes: number | null, measuredBytes: number): number {
  if (capBytes === null) return TEST_BYTES
  const left = Math.floor(capBytes * MEASURING_SHARE_OF_CAP) - measuredBytes
  return Math.min(TEST_BYTES, Math.max(0, left))
}

export type IdleShareSettings = {
  /** Part of the measured capacity that may be used, 0 to 1. */
  readonly share: number
}

export const DEFAULT_IDLE_SHARE: IdleShareSettings = { share: 0.2 }

// The scavenger's floor (bandwidth.md §6): small on any line, and enough to begin with.
const UNMEASURED_BITS_PER_SECOND = 250_000
// Above this a shaper in the router starts to queue, and the person notices (bandwidth.md §6).
const LARGEST_SHARE = 0.95

/** Bounds how fast the idle line may be used, bits per second: a share of what was measured. */
export function idleShareBitsPerSecond(
  result: LastCapacity | null,
  settings: IdleShareSettings,
): { downBitsPerSecond: number; upBitsPerSecond: number } {
  const share = Math.min(LARGEST_SHARE, Math.max(0, settings.share))
  const bound = (measured: number | null | undefined) =>
    share === 0 ? 0 : measured == null ? UNMEASURED_BITS_PER_SECOND : Math.floor(measured * share)
  return {
    downBitsPerSecond: bound(result?.downBitsPerSecond),
    upBitsPerSecond: bound(result?.upBitsPerSecond),
  }
}
