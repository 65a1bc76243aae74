import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type DeviceState,
  defaultLimits,
  type FetchFacts,
  type Limits,
  limits,
  mayFetch,
  mayWork,
  type Pause,
  type Usage,
} from '../../../lib/consent/limits.ts'

const nowMs = Date.parse('2026-11-22T16:00:00Z')
const silent: DeviceState = { onBattery: null, metered: null, idle: null, online: null }
const spent = (day: string, bytes: number): Usage => ({ day, bytesUp: bytes, bytesDown: 0 })

interface Case {
  limits?: Partial<Limits>
  device?: Partial<DeviceState>
  usage?: Usage[]
  pause?: Pause | null
  localMinute?: number
}

function ask({ limits = {}, device = {}, usage = [], pause = null, localMinute = 720 }: Case) {
  return mayWork(
    { ...defaultLimits, ...limits },
    { nowMs, localMinute, pause, device: { ...silent, ...device }, usage },
  )
}

const waiting = (reason: string) => ({ kind: 'waiting', reason })
const midnight = Date.parse('2026-11-23T00:00:00Z')
const december = Date.parse('2026-12-01T00:00:00Z')

describe('a device that may not work', () => {
  test.each<[string, Case, object, number | null]>([
    ['paused for good', { pause: { untilMs: null } }, { kind: 'paused', untilMs: null }, null],
    [
      'paused for an hour',
      { pause: { untilMs: nowMs + 3_600_000 } },
      { kind: 'paused', untilMs: nowMs + 3_600_000 },
      nowMs + 3_600_000,
    ],
    [
      'paused although the cap is reached',
      { pause: { untilMs: null }, usage: [spent('2026-11-22', 1e9)] },
      { kind: 'paused', untilMs: null },
      null,
    ],
    ['offline', { device: { online: false } }, waiting('offline'), null],
    [
      'the day is spent',
      { usage: [spent('2026-11-22', 100_000_000)] },
      { kind: 'capped', period: 'day' },
      midnight,
    ],
    [
      'the month is spent, on other days',
      { usage: [spent('2026-11-01', 6e8), spent('2026-11-20', 4e8)] },
      { kind: 'capped', period: 'month' },
      december,
    ],
    [
      'both directions count',
      { usage: [{ day: '2026-11-22', bytesUp: 5e7, bytesDown: 5e7 }] },
      { kind: 'capped', period: 'day' },
      midnight,
    ],
    [
      'in quiet hours',
      { limits: { quietHours: { fromMinute: 700, toMinute: 780 } } },
      waiting('quiet-hours'),
      nowMs + 60 * 60_000,
    ],
    [
      'in quiet hours past midnight, before it',
      { limits: { quietHours: { fromMinute: 1320, toMinute: 360 } }, localMinute: 1380 },
      waiting('quiet-hours'),
      nowMs + 420 * 60_000,
    ],
    [
      'in quiet hours past midnight, after it',
      { limits: { quietHours: { fromMinute: 1320, toMinute: 360 } }, localMinute: 359 },
      waiting('quiet-hours'),
      nowMs + 60_000,
    ],
    ['on battery', { device: { onBattery: true } }, waiting('on-battery'), null],
    ['metered', { device: { metered: true } }, waiting('metered'), null],
    [
      'in use',
      { device: { idle: false }, limits: { whileInUse: false } },
      waiting('not-idle'),
      null,
    ],
  ])('%s', (_, given, state, untilMs) => {
    expect(ask(given)).toEqual({ ok: false, state, untilMs })
  })
})

describe('a device that may work', () => {
  test.each<[string, Case]>([
    ['by default, when the platform says nothing', {}],
    ['when a pause is over', { pause: { untilMs: nowMs } }],
    [
      'on battery, if the person allows it',
      { device: { onBattery: true }, limits: { onBattery: true } },
    ],
    [
      'metered, if the person allows it',
      { device: { metered: true }, limits: { onMetered: true } },
    ],
    ['in use, by default', { device: { idle: false } }],
    ['idle', { device: { idle: true }, limits: { whileInUse: false } }],
    ['last month was spent', { usage: [spent('2026-10-31', 2e9)] }],
    [
      'at the first minute after quiet hours',
      { limits: { quietHours: { fromMinute: 600, toMinute: 720 } } },
    ],
    [
      'with quiet hours of no length',
      { limits: { quietHours: { fromMinute: 720, toMinute: 720 } } },
    ],
  ])('%s', (_, given) => {
    expect(ask(given).ok).toBe(true)
  })

  test('is told what the tightest cap leaves', () => {
    expect(ask({ usage: [spent('2026-11-22', 30_000_000)] })).toEqual({
      ok: true,
      bytesLeft: 70_000_000,
      tightest: 'day',
      freshMs: midnight,
    })
    expect(ask({ usage: [spent('2026-11-02', 990_000_000)] })).toEqual({
      ok: true,
      bytesLeft: 10_000_000,
      tightest: 'month',
      freshMs: december,
    })
  })
})

describe('a fetch', () => {
  const site = { requestsPerSecond: 2, requestsInFlight: 2 }
  const free: FetchFacts = {
    nowMs,
    fetchesAtOnce: 4,
    bytesLeft: 10_000_000,
    maxBytes: 2_000_000,
    reservedBytes: 0,
    inFlight: 0,
    inFlightAtSite: 0,
    lastStartAtSiteMs: null,
  }

  test.each<[string, Partial<FetchFacts>, object]>([
    ['may start', {}, { ok: true }],
    ['may start when the last one is long ago', { lastStartAtSiteMs: nowMs - 500 }, { ok: true }],
    ['may start when the clock was set back', { lastStartAtSiteMs: nowMs + 9e6 }, { ok: true }],
    ['may use the last bytes', { reservedBytes: 8_000_000 }, { ok: true }],
    ['waits for a free place', { inFlight: 4 }, { ok: false, reason: 'busy' }],
    ['waits for the site', { inFlight: 2, inFlightAtSite: 2 }, { ok: false, reason: 'site-busy' }],
    [
      'waits when the pages in flight may use up the cap',
      { reservedBytes: 8_000_001 },
      { ok: false, reason: 'cap-reached' },
    ],
    [
      'waits for its turn at the site',
      { lastStartAtSiteMs: nowMs - 499 },
      { ok: false, reason: 'site-rate', untilMs: nowMs + 1 },
    ],
  ])('%s', (_, given, expected) => {
    expect(mayFetch(site, { ...free, ...given })).toEqual(expected)
  })

  test('never passes the cap, whatever the order', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 5_000_000 })), (pages) => {
        let reservedBytes = 0
        for (const maxBytes of pages) {
          if (mayFetch(site, { ...free, fetchesAtOnce: 99, reservedBytes, maxBytes }).ok) {
            reservedBytes += maxBytes
          }
        }
        expect(reservedBytes).toBeLessThanOrEqual(free.bytesLeft)
      }),
    )
  })
})

describe('stored limits', () => {
  test('parse as they were written', () => {
    expect(limits.parse(JSON.parse(JSON.stringify(defaultLimits)))).toEqual(defaultLimits)
  })

  test.each([
    ['no cap', { bytesPerDay: Number.POSITIVE_INFINITY }],
    ['a cap of nothing', { bytesPerMonth: 0 }],
    ['a minute that no day has', { quietHours: { fromMinute: 0, toMinute: 1440 } }],
    ['sixteen at once', { fetchesAtOnce: 16 }],
    ['an unknown setting', { turbo: true }],
  ])('with %s are refused', (_, changed) => {
    expect(limits.safeParse({ ...defaultLimits, ...changed }).success).toBe(false)
  })
})
