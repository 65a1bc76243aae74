import { DEFAULT_IDLE_SHARE, idleShareBitsPerSecond, type LastCapacity } from '../meter/budget.ts'
import { readDevice } from './device.ts'
import { measureIfDue } from './line-meter.ts'
import { createPace, type Pace } from './pace.ts'
import { report } from './report.ts'
import type { Sharing } from './sharing.ts'
import { activeConsents, type DeviceStore } from './store.ts'

/** The person's line: how fast it may be used, and how that is found out. */
export interface Line {
  down: Pace
  up: Pace
  /** Measures in the background, if a test is due and work may run at all. */
  measure(sharing: Sharing): void
  /** Another network, or the old one again: what was measured may no longer hold. */
  changed(): void
}

/** Bounds both directions by the last result, or by little when there is none. */
export async function createLine(store: DeviceStore): Promise<Line> {
  const monotonic = () => performance.now()
  const known = bounds((await store.meter())?.last ?? null)
  const down = createPace(known.downBitsPerSecond, monotonic)
  const up = createPace(known.upBitsPerSecond, monotonic)
  let changedAtMs: number | null = null
  let isMeasuring = false

  /** Measures against the first network that the person works for. */
  async function measureNow(sharing: Sharing): Promise<void> {
    const state = sharing.state()
    const mayWork =
      state.kind === 'working' || (state.kind === 'waiting' && state.reason === 'no-work')
    const [consent] = await activeConsents(store)
    const networks = await store.networks()
    const joined = networks.find(({ fingerprint }) => fingerprint === consent?.network)
    if (!mayWork || joined === undefined) return
    const record = await measureIfDue({
      store,
      server: sharing.connectionTo(joined),
      origin: joined.origin,
      device: await readDevice(),
      networkChangedAtMs: changedAtMs,
      nowMs: Date.now(),
    })
    if (record === null) return
    const measured = bounds(record.last)
    down.setRate(measured.downBitsPerSecond)
    up.setRate(measured.upBitsPerSecond)
  }

  return {
    down,
    up,
    measure: (sharing) => {
      if (isMeasuring) return
      isMeasuring = true
      void measureNow(sharing)
        .catch(report('measure the line'))
        .finally(() => {
          isMeasuring = false
        })
    },
    changed: () => {
      changedAtMs = Date.now()
    },
  }
}

function bounds(last: LastCapacity | null) {
  return idleShareBitsPerSecond(last, DEFAULT_IDLE_SHARE)
}
