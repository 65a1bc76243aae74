import type { DeviceState } from '../consent/limits.ts'
import { firstDayOfMonth, utcDay } from '../consent/limits.ts'
import { type CapacityTestDue, capacityTestDue, type LastCapacity } from '../meter/budget.ts'
import { type CapacityFailure, runCapacityTest } from '../meter/capacity-test.ts'
import { meterSocketOpener } from '../meter/socket.ts'
import type { ServerConnection } from '../runner/ports.ts'
import type { DeviceStore } from './store.ts'

/** What this device knows of its own line. It stays here. */
export interface MeterRecord {
  last: MeasuredLine | null
  /** Why the newest test gave nothing; null when it gave something. */
  failure: { atMs: number; reason: CapacityFailure } | null
  /** First day of the month that `measuredBytes` counts. */
  month: string
  measuredBytes: number
  day: string
  testsToday: number
}

/** The newest result. Network addresses and names are not part of it. */
export interface MeasuredLine extends LastCapacity {
  baseRttMs: number
  /** How much the load raised the round trip, ms; null when pings were lost. */
  latencyRiseMs: number | null
}

const nothing: MeterRecord = {
  last: null,
  failure: null,
  month: '',
  measuredBytes: 0,
  day: '',
  testsToday: 0,
}

/**
 * Runs one capacity test against a task server if one is due, and keeps its result. The attempt is
 * stored before it begins and its bytes after, so a worker that dies in a test cannot repeat it
 * without end.
 */
export async function measureIfDue(given: {
  store: DeviceStore
  server: ServerConnection
  origin: string
  device: DeviceState
  networkChangedAtMs: number | null
  nowMs: number
}): Promise<MeterRecord | null> {
  const { store, nowMs } = given
  const before = current((await store.meter()) ?? nothing, nowMs)
  const due = capacityTestDue({
    nowMs,
    lastResult: before.last,
    // The terms that the person agreed to name this test.
    consented: true,
    networkChangedAtMs: given.networkChangedAtMs,
    saveData: given.device.metered === true,
    dataCapBytesPerMonth: (await store.limits()).bytesPerMonth,
    measuredBytesThisMonth: before.measuredBytes,
    testsToday: before.testsToday,
  })
  if (due.kind !== 'due' || !suits(due, given.device)) return null

  const token = await given.server.token()
  const begun = { ...before, testsToday: before.testsToday + 1 }
  await store.putMeter(begun)
  // Committed. A worker that dies from here has used up one of the day's tests.
  const result = await runCapacityTest(ports, {
    serverUrl: given.origin,
    token,
    bytesBudget: due.bytesBudget,
  })
  await store.addUsage(utcDay(nowMs), result.bytesUp, result.bytesDown)
  const after: MeterRecord = {
    ...begun,
    measuredBytes: begun.measuredBytes + result.bytesUp + result.bytesDown,
    ...(result.kind === 'failed'
      ? { failure: { atMs: nowMs, reason: result.reason } }
      : {
          failure: null,
          last: {
            atMs: nowMs,
            downBitsPerSecond: result.down.bitsPerSecond,
            upBitsPerSecond: result.kind === 'measured' ? result.up.bitsPerSecond : null,
            baseRttMs: result.baseRttMs,
            latencyRiseMs: result.down.latency?.latencyRiseMs ?? null,
          },
        }),
  }
  await store.putMeter(after)
  return after
}

/** Later tests wait until the person is away; the first is what the rate is set by. */
function suits(due: Extract<CapacityTestDue, { kind: 'due' }>, device: DeviceState): boolean {
  return due.because !== 'routine' || device.idle !== false
}

/** Counts of an earlier day or month do not count any more. */
function current(record: MeterRecord, nowMs: number): MeterRecord {
  const month = firstDayOfMonth(nowMs)
  const day = utcDay(nowMs)
  return {
    ...record,
    month,
    measuredBytes: record.month === month ? record.measuredBytes : 0,
    day,
    testsToday: record.day === day ? record.testsToday : 0,
  }
}

const ports = {
  openSocket: meterSocketOpener((url) => new WebSocket(url)),
  now: () => performance.now(),
  setTimer: (run: () => void, delayMs: number) => {
    const timer = setTimeout(run, delayMs)
    return () => clearTimeout(timer)
  },
  randomBytes: (length: number) => crypto.getRandomValues(new Uint8Array(length)),
}
