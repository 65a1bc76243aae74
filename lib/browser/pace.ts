import { sleep } from './sleep.ts'

/** Keeps one direction of the line below a rate, over all fetches together. */
export interface Pace {
  /** Counts bytes that were moved or are about to be; resolves when the next may follow. */
  take(bytes: number, signal?: AbortSignal): Promise<void>
  setRate(bitsPerSecond: number): void
}

// One ordinary page (HTTP Archive's median HTML is 30 kB, its 99th hundredth under 1 MB) comes at
// full speed; what follows comes at the rate.
const BURST_BYTES = 256 * 1024

/** @param now monotonic clock, ms */
export function createPace(bitsPerSecond: number, now: () => number): Pace {
  let rate = bitsPerSecond
  // When all that was taken would have passed at the rate.
  let doneAtMs = 0
  const durationMs = (bytes: number) => (bytes * 8_000) / rate

  return {
    take: async (bytes, signal) => {
      doneAtMs = Math.max(doneAtMs, now()) + durationMs(bytes)
      const waitMs = doneAtMs - now() - durationMs(BURST_BYTES)
      if (waitMs > 0) await sleep(waitMs, signal)
    },
    setRate: (wanted) => {
      // 1 bit/s stands for "none": a division by nothing would wait for ever.
      rate = Math.max(1, wanted)
    },
  }
}
