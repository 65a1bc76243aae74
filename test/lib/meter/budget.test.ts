import { describe, expect, it } from 'vitest'
import {
  type CapacityTestDue,
  type CapacityTestFacts,
  capacityTestDue,
  DEFAULT_IDLE_SHARE,
  idleShareBitsPerSecond,
} from '../../../lib/meter/budget.ts'

const hourMs = 3_600_000
const nowMs = 1_000 * hourMs
const measured = (hoursAgo: number) => ({
  atMs: nowMs - hoursAgo * hourMs,
  downBitsPerSecond: 20e6,
  upBitsPerSecond: 4e6,
})
const facts: CapacityTestFacts = {
  nowMs,
  lastResult: null,
  consented: true,
  networkChangedAtMs: null,
  saveData: false,
  dataCapBytesPerMonth: null,
  measuredBytesThisMonth: 0,
  testsToday: 0,
}
const due = (because: 'first' | 'network-changed' | 'routine', bytesBudget = 25_000_000) => ({
  kind: 'due' as const,
  because,
  bytesBudget,
})
const not = (reason: 'no-consent' | 'save-data' | 'data-cap' | 'tests-today') => ({
  kind: 'not-due' as const,
  reason,
})
const wait = (retryAfterMs: number) => ({
  kind: 'not-due' as const,
  reason: 'too-soon' as const,
  retryAfterMs,
})

const cases: [string, Partial<CapacityTestFacts>, CapacityTestDue][] = [
  ['first after consent', {}, due('first')],
  ['never before consent', { consented: false }, not('no-consent')],
  ['never while saving data', { saveData: true }, not('save-data')],
  ['at once after 8 h', { lastResult: measured(8) }, due('routine')],
  ['not again within 8 h', { lastResult: measured(3) }, wait(5 * hourMs)],
  [
    'on a network change within 8 h',
    { lastResult: measured(1), networkChangedAtMs: nowMs - 6_000 },
    due('network-changed'),
  ],
  [
    'not while a new network settles',
    { lastResult: measured(1), networkChangedAtMs: nowMs - 2_000 },
    wait(3_000),
  ],
  [
    'not for a change that was measured already',
    { lastResult: measured(1), networkChangedAtMs: nowMs - 2 * hourMs },
    wait(7 * hourMs),
  ],
  ['at most twice a day', { lastResult: measured(9), testsToday: 2 }, not('tests-today')],
  [
    'at most twice a day on whatever network',
    { lastResult: measured(1), networkChangedAtMs: nowMs - 60_000, testsToday: 2 },
    not('tests-today'),
  ],
  ['at most twice a day when all fail', { testsToday: 2 }, not('tests-today')],
  ['with 1 % of the data cap', { dataCapBytesPerMonth: 2e9 }, due('first', 20e6)],
  [
    'with what is left of the 1 %',
    { dataCapBytesPerMonth: 2e9, measuredBytesThisMonth: 18_000_000 },
    due('first', 2_000_000),
  ],
  [
    'not with less than a test needs',
    { dataCapBytesPerMonth: 2e9, measuredBytesThisMonth: 19_000_001 },
    not('data-cap'),
  ],
  [
    'not when the 1 % is overdrawn',
    { dataCapBytesPerMonth: 2e9, measuredBytesThisMonth: 30_000_000 },
    not('data-cap'),
  ],
  ['not under a cap of zero', { dataCapBytesPerMonth: 0 }, not('data-cap')],
  ['never above 25 MB', { dataCapBytesPerMonth: 1e12 }, due('first')],
  ['although the clock was set back', { lastResult: measured(-100) }, due('routine')],
  [
    'although the network changed in the future',
    { lastResult: measured(9), networkChangedAtMs: nowMs + hourMs },
    due('network-changed'),
  ],
]

describe('a capacity test is due', () => {
  it.each(cases)('%s', (_, given, expected) => {
    expect(capacityTestDue({ ...facts, ...given })).toEqual(expected)
  })
})

describe('the idle share', () => {
  it('is a fifth of the measured capacity', () => {
    expect(idleShareBitsPerSecond(measured(1), DEFAULT_IDLE_SHARE)).toEqual({
      downBitsPerSecond: 4e6,
      upBitsPerSecond: 0.8e6,
    })
  })

  it('is 250 kbit/s while nothing is measured', () => {
    expect(idleShareBitsPerSecond(null, DEFAULT_IDLE_SHARE)).toEqual({
      downBitsPerSecond: 250_000,
      upBitsPerSecond: 250_000,
    })
  })

  it('takes the floor only for the direction that is unknown', () => {
    const result = { ...measured(1), upBitsPerSecond: null }
    expect(idleShareBitsPerSecond(result, DEFAULT_IDLE_SHARE)).toEqual({
      downBitsPerSecond: 4e6,
      upBitsPerSecond: 250_000,
    })
  })

  it.each([
    ['more than all', 2, 19e6],
    ['nothing', 0, 0],
    ['less than nothing', -1, 0],
  ])('stays within the line when the share is %s', (_, share, expected) => {
    expect(idleShareBitsPerSecond(measured(1), { share }).downBitsPerSecond).toBe(expected)
  })
})
