import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  adaptiveDelayMs,
  holdMs,
  pageRetryMs,
  retryAfterMs,
  robotsFreshMs,
  robotsRefreshMs,
  robotsRetryMs,
  smoothedResponseMs,
} from '../../../server/frontier/politeness.ts'

const second = 1_000
const minute = 60 * second
const hour = 60 * minute
const day = 24 * hour

/** 37 seconds before the date that RFC 9110 §5.6.7 writes in three forms. */
const nowMs = Date.UTC(1994, 10, 6, 8, 49, 0)

describe('Retry-After', () => {
  test.each([
    ['120', 120 * second],
    ['0', 0],
    [' 7 ', 7 * second],
    ['-5', 0],
    ['Sun, 06 Nov 1994 08:49:37 GMT', 37 * second],
    ['Sunday, 06-Nov-94 08:49:37 GMT', 37 * second],
    ['Sun Nov  6 08:49:37 1994', 37 * second],
    ['Thu Nov 10 08:49:00 1994', 4 * day],
    ['Sun, 06 Nov 1994 08:49:60 GMT', 60 * second],
    ['Sun, 06 Nov 1994 08:48:37 GMT', 0],
    ['Wed, 21 Oct 1970 07:28:00 GMT', 0],
  ])('%j asks for %s ms', (header, expected) => {
    expect(retryAfterMs(header, nowMs)).toBe(expected)
  })

  test.each([
    undefined,
    '',
    'soon',
    '1.5',
    '1e3',
    '0x10',
    '120, 240',
    '٣',
    'Sun, 6 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 08:49:37 CET',
    'Sun, 06 Nov 1994 24:00:00 GMT',
    'Sun, 06 Foo 1994 08:49:37 GMT',
    'Wed, 31 Feb 2027 08:49:37 GMT',
    'Sun, 00 Nov 1994 08:49:37 GMT',
    '1994-11-06T08:49:37Z',
  ])('%j says nothing', (header) => {
    expect(retryAfterMs(header, nowMs)).toBeNull()
  })

  test('of two digits the year is the one within fifty years', () => {
    const in2026 = Date.UTC(2026, 10, 22)
    expect(retryAfterMs('Monday, 23-Nov-26 00:00:00 GMT', in2026)).toBe(day)
    // 2076 is fifty years away, 2077 would be more and is 1977.
    expect(retryAfterMs('Sunday, 22-Nov-76 00:00:00 GMT', in2026)).toBeGreaterThan(49 * 365 * day)
    expect(retryAfterMs('Tuesday, 22-Nov-77 00:00:00 GMT', in2026)).toBe(0)
  })

  test('is a finite time or nothing, whatever the header', () => {
    const dateLike = fc.stringMatching(
      /^(Sun, |Sunday, )?\d{1,2}[ -](Nov|Feb)[ -]\d{2,4} \d\d:\d\d:\d\d GMT$/,
    )
    fc.assert(
      fc.property(fc.oneof(fc.string(), dateLike, fc.stringMatching(/^\d{1,400}$/)), (header) => {
        const ms = retryAfterMs(header, nowMs)
        expect(ms === null || (Number.isFinite(ms) && ms >= 0)).toBe(true)
      }),
    )
  })
})

describe('a hold', () => {
  const hold = (status: number | 'unreachable', holds = 0, retryAfter: number | null = null) =>
    holdMs({ status, holds, retryAfterMs: retryAfter })

  test.each([200, 204, 301, 304, 400, 401, 403, 404, 410, 418, 451, 501, 505, 520])(
    'is not asked for by %s, with Retry-After or without',
    (status) => {
      expect(hold(status, 5)).toBeNull()
      expect(hold(status, 5, hour)).toBeNull()
    },
  )

  test.each([
    [429, 30 * second, 6 * hour],
    [503, 30 * second, 6 * hour],
    [500, 10 * second, 10 * minute],
    [502, 10 * second, 10 * minute],
    [504, 10 * second, 10 * minute],
    ['unreachable', 30 * second, hour],
  ] as const)(
    'after %s lasts %s ms, doubles each time, and ends at %s ms',
    (status, first, most) => {
      expect([0, 1, 2, 3].map((holds) => hold(status, holds))).toEqual([
        first,
        2 * first,
        4 * first,
        8 * first,
      ])
      expect(hold(status, 20)).toBe(most)
      expect(hold(status, 100_000)).toBe(most)
    },
  )

  test.each([429, 503, 500])('after %s lasts as long as the host asks, up to a day', (status) => {
    expect(hold(status, 0, 5 * second)).toBe(5 * second)
    expect(hold(status, 2, 5 * second)).toBe(5 * second)
    expect(hold(status, 0, 23 * hour)).toBe(23 * hour)
    expect(hold(status, 0, 30 * day)).toBe(day)
    expect(hold(status, 0, Number.MAX_SAFE_INTEGER)).toBe(day)
  })

  test('backs off as well when a host was obeyed three times and still refuses', () => {
    const lengths = Array.from({ length: 12 }, (_, holds) => hold(429, holds, 0))
    expect(lengths.slice(0, 4)).toEqual([0, 0, 0, 4 * minute])
    expect(lengths.at(-1)).toBe(6 * hour)
    expect(hold(429, 11, 20 * hour)).toBe(20 * hour)
  })
})

describe('the adaptive delay', () => {
  test.each([
    [null, 0],
    [0, 0],
    [100, 200],
    [0.3, 1],
    [2_500, 5_000],
    [15_000, 30_000],
    [90_000, 30_000],
  ])('for a response time of %s ms is %s ms', (responseMs, expected) => {
    expect(adaptiveDelayMs(responseMs)).toBe(expected)
  })

  test('follows a host that becomes slow, and one that recovers', () => {
    let responseMs = smoothedResponseMs(null, 50)
    expect(responseMs).toBe(50)
    for (let fetch = 0; fetch < 24; fetch++) responseMs = smoothedResponseMs(responseMs, 4_000)
    expect(adaptiveDelayMs(responseMs)).toBeGreaterThan(7_500)
    for (let fetch = 0; fetch < 40; fetch++) responseMs = smoothedResponseMs(responseMs, 50)
    expect(adaptiveDelayMs(responseMs)).toBeLessThan(200)
  })

  test('is moved by one liar by less than four seconds', () => {
    const honest = fc.integer({ min: 0, max: 15_000 })
    fc.assert(
      fc.property(honest, fc.double({ noNaN: true }), (before, claim) => {
        const moved = adaptiveDelayMs(smoothedResponseMs(before, claim)) - adaptiveDelayMs(before)
        expect(Math.abs(moved)).toBeLessThan(4 * second)
      }),
    )
  })
})

describe('another try', () => {
  test('for robots.txt comes after a quarter of an hour, then later, then daily without end', () => {
    expect([0, 1, 2, 3].map(robotsRetryMs)).toEqual([15, 30, 60, 120].map((of) => of * minute))
    expect([7, 8, 1_000].map(robotsRetryMs)).toEqual([day, day, day])
  })

  test('for a robots.txt in force comes while it is still in force', () => {
    expect(robotsFreshMs).toBe(day)
    // Time for the first five tries to fail.
    const tries = [0, 1, 2, 3].reduce((sum, failures) => sum + robotsRetryMs(failures), 0)
    expect(robotsRefreshMs + tries).toBeLessThan(robotsFreshMs)
  })

  test('for a page comes five times', () => {
    expect([0, 1, 2, 3, 4].map(pageRetryMs)).toEqual([5, 10, 20, 40, 80].map((of) => of * minute))
    expect([5, 6, 1_000].map(pageRetryMs)).toEqual([null, null, null])
  })
})
