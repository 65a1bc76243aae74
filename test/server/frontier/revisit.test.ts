import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { changesPerMs, nextVisitMs } from '../../../server/frontier/revisit.ts'
import { seededRandom } from '../../bench/ingest/random.ts'

const day = 24 * 60 * 60 * 1_000
const nowMs = Date.UTC(2026, 10, 22)

/** Days until the next visit of a page that was watched for some days until now. */
function waitDays(visits: number, changes: number, watchedDays: number): number {
  const lastVisitMs = visits === 0 ? null : nowMs
  const firstVisitMs = visits === 0 ? null : nowMs - watchedDays * day
  return (nextVisitMs({ visits, changes, firstVisitMs, lastVisitMs, nowMs }) - nowMs) / day
}

describe('the next visit', () => {
  test('is in a week as long as there is nothing to compare', () => {
    expect(waitDays(0, 0, 0)).toBe(7)
    expect(waitDays(1, 0, 0)).toBe(7)
    // Several visits at one moment are no history either.
    expect(waitDays(4, 3, 0)).toBe(7)
  })

  test.each([
    // Changed at each of ten daily visits: −ln(0.5 / 10.5) = 3.04 a day, and a day is the least.
    [11, 10, 10, 1],
    // At one of two in two weeks: −ln(1.5 / 2.5) / 7 d = 1 / 13.7 d; ln 2 of it.
    [3, 1, 14, 9.498],
    // At the only one, after a week.
    [2, 1, 7, 4.417],
    // At 3 of 10 in 100 days.
    [11, 3, 100, 20.601],
    // Once in five years.
    [40, 1, 1_825, 60],
  ])(
    'of a page with %i visits and %i changes in %i days is in %f days',
    (visits, changes, watched, days) => {
      expect(waitDays(visits, changes, watched)).toBeCloseTo(days, 2)
    },
  )

  test('of a page that did not change is after as long as it was watched, up to 60 days', () => {
    expect([7, 14, 28, 56, 112].map((watched) => waitDays(5, 0, watched))).toEqual([
      7, 14, 28, 56, 60,
    ])
    expect(waitDays(2, 0, 0.01)).toBe(1)
  })

  test('counts from now, for a page that has not been reached for a while', () => {
    const next = nextVisitMs({
      visits: 2,
      changes: 0,
      firstVisitMs: nowMs - 40 * day,
      lastVisitMs: nowMs - 30 * day,
      nowMs,
    })
    expect(next).toBe(nowMs + 10 * day)
  })

  const history = fc.record({
    visits: fc.integer({ min: 0, max: 10_000 }),
    changes: fc.integer({ min: 0, max: 10_000 }),
    watched: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 4_000, noNaN: true })),
  })

  test('is between a day and 60 days away, whatever the history', () => {
    fc.assert(
      fc.property(history, ({ visits, changes, watched }) => {
        const days = waitDays(visits, changes, watched)
        expect(days).toBeGreaterThanOrEqual(1)
        expect(days).toBeLessThanOrEqual(60)
      }),
      { numRuns: 1_000 },
    )
  })

  test('is never later for more changes', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 500 }),
        fc.double({ min: 0.001, max: 4_000, noNaN: true }),
        fc.nat(),
        (visits, watched, some) => {
          const changes = some % (visits - 1)
          expect(waitDays(visits, changes + 1, watched)).toBeLessThanOrEqual(
            waitDays(visits, changes, watched),
          )
        },
      ),
      { numRuns: 1_000 },
    )
  })
})

describe('the estimate', () => {
  /** Whether a Poisson process of this rate has an event in this time. */
  const changed = (rate: number, time: number, random: () => number) =>
    random() < 1 - Math.exp(-rate * time)

  const intervals = {
    regular: () => 1,
    // Coefficient of variation 0.29, 0.5 and 1.
    uniform: (random: () => number) => 0.5 + random(),
    'two lengths': (random: () => number) => (random() < 0.5 ? 0.5 : 1.5),
    exponential: (random: () => number) => -Math.log(1 - random()),
  }

  /** Mean over 2,000 pages of estimate / truth − 1. */
  function bias(kind: keyof typeof intervals, rate: number, comparisons: number): number {
    const random = seededRandom('revisit', kind, rate, comparisons)
    let sum = 0
    const pages = 2_000
    for (let page = 0; page < pages; page++) {
      let [changes, watched] = [0, 0]
      for (let visit = 0; visit < comparisons; visit++) {
        const interval = intervals[kind](random)
        watched += interval
        if (changed(rate, interval, random)) changes += 1
      }
      sum += changesPerMs(comparisons, changes, watched / comparisons) / rate
    }
    return sum / pages - 1
  }

  // λI = ln 2 is where the rule itself puts visits.
  test.each([
    ['regular', 0.3, 20, 0.03],
    ['regular', Math.LN2, 20, 0.03],
    ['regular', 1.5, 50, 0.03],
    ['regular', Math.LN2, 5, 0.08],
  ] as const)(
    'for %s visits at λI = %f, of %i comparisons, is less than %f off',
    (kind, rate, n, most) => {
      expect(Math.abs(bias(kind, rate, n))).toBeLessThan(most)
    },
  )

  test.each([
    ['uniform', -0.01, -0.06],
    ['two lengths', -0.05, -0.12],
    ['exponential', -0.2, -0.28],
  ] as const)('for %s intervals is too small, by a known part', (kind, most, least) => {
    // 200 comparisons: what is left is the bias of the mean interval.
    const found = bias(kind, Math.LN2, 200)
    expect(found).toBeLessThan(most)
    expect(found).toBeGreaterThan(least)
  })

  test('without the halves would have no value for a page that changed each time', () => {
    expect(changesPerMs(5, 5, 1)).toBeCloseTo(Math.log(11), 10)
    expect(changesPerMs(5, 9, 1)).toBe(changesPerMs(5, 5, 1))
    expect(changesPerMs(5, 0, 1)).toBeCloseTo(0, 10)
  })

  test.each([3, 10, 30])(
    'makes visits of a page that changes every %i days find a change half the time',
    (meanDays) => {
      let [found, later] = [0, 0]
      for (let page = 0; page < 60; page++) {
        const random = seededRandom('loop', meanDays, page)
        const firstVisitMs = nowMs
        let [visits, changes, lastVisitMs] = [1, 0, nowMs]
        const endMs = nowMs + 3 * 365 * day
        for (;;) {
          const next = nextVisitMs({
            visits,
            changes,
            firstVisitMs,
            lastVisitMs,
            nowMs: lastVisitMs,
          })
          if (next > endMs) break
          const isChanged = changed(1 / meanDays, (next - lastVisitMs) / day, random)
          visits += 1
          if (isChanged) changes += 1
          // After a third of the time, when histories are not short any more.
          if (next > nowMs + 365 * day) {
            later += 1
            if (isChanged) found += 1
          }
          lastVisitMs = next
        }
      }
      expect(later).toBeGreaterThan(500)
      expect(found / later).toBeGreaterThan(0.45)
      expect(found / later).toBeLessThan(0.6)
    },
  )
})
