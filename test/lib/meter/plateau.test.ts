import { describe, expect, it } from 'vitest'
import {
  decide,
  MAX_TEST_MS,
  type PlateauDecision,
  type PlateauLimits,
  read,
  type Sample,
} from '../../../lib/meter/plateau.ts'

const limits: PlateauLimits = { baseRttMs: 20, maxMs: MAX_TEST_MS, maxBytes: 50_000_000 }

/** Samples a line whose rate in bytes per ms is given by time, and returns the first stop. */
function run(
  bytesPerMs: (tMs: number) => number,
  given: Partial<PlateauLimits> = {},
  everyMs: (tMs: number) => number = () => 50,
): PlateauDecision {
  const samples: Sample[] = []
  let bytesTotal = 0
  let nextMs = 0
  for (let tMs = 0; tMs <= 20_000; tMs += 1) {
    bytesTotal += bytesPerMs(tMs)
    if (tMs < nextMs) continue
    nextMs = tMs + everyMs(tMs)
    samples.push({ tMs, bytesTotal: Math.round(bytesTotal) })
    const decision = decide(samples, { ...limits, ...given })
    if (decision.kind === 'stop') return decision
  }
  return { kind: 'continue' }
}

const steady = () => 2_500
const ramp = (fullAtMs: number) => (tMs: number) => 2_500 * Math.min(1, tMs / fullAtMs)

describe('the plateau rule', () => {
  it('continues without samples', () => {
    expect(decide([], limits)).toEqual({ kind: 'continue' })
  })

  it('reads a steady 20 Mbit/s at 800 ms', () => {
    const stop = run(steady)
    expect(stop).toMatchObject({ kind: 'stop', reason: 'plateau', elapsedMs: 800 })
    expect(stop.kind === 'stop' && stop.bitsPerSecond).toBeCloseTo(20e6, -5)
  })

  it.each([400, 800, 1_500])('waits until a ramp of %i ms is out of both windows', (fullAtMs) => {
    const stop = run(ramp(fullAtMs))
    if (stop.kind !== 'stop') throw new Error('never stopped')
    expect(stop.reason).toBe('plateau')
    expect(stop.bitsPerSecond).toBeGreaterThan(20e6 * 0.95)
    expect(stop.bitsPerSecond).toBeLessThanOrEqual(20e6 * 1.001)
  })

  it('uses windows of two round trips on a long line', () => {
    // 2 × 2 × 300 ms must have passed at each of four samples.
    expect(run(steady, { baseRttMs: 300 })).toMatchObject({ reason: 'plateau', elapsedMs: 1_350 })
  })

  it('is not deceived by a rest of three round trips on the way up', () => {
    const stop = run((tMs) => (tMs < 400 ? tMs * 3 : tMs < 1_000 ? 1_200 : 2_500), {
      baseRttMs: 200,
    })
    expect(stop).toMatchObject({ reason: 'plateau' })
    expect(stop.kind === 'stop' && stop.bitsPerSecond).toBeGreaterThan(20e6 * 0.95)
  })

  it('does not depend on timers being on time', () => {
    const stop = run(steady, {}, (tMs) => 35 + ((tMs * 7919) % 60))
    expect(stop).toMatchObject({ reason: 'plateau' })
    expect(stop.kind === 'stop' && stop.bitsPerSecond).toBeCloseTo(20e6, -5)
  })

  it('stops at the byte budget, even before 800 ms', () => {
    expect(run(steady, { maxBytes: 500_000 })).toMatchObject({
      reason: 'bytes',
      elapsedMs: 200,
      bitsPerSecond: expect.closeTo(20e6, -6),
    })
  })

  it('stops at the time cap when the rate never settles', () => {
    const stop = run((tMs) => (tMs % 500 < 250 ? 4_000 : 1_000))
    expect(stop).toMatchObject({ reason: 'time', elapsedMs: 5_000 })
    expect(stop.kind === 'stop' && stop.bitsPerSecond).toBeCloseTo(20e6, -6)
  })

  it('does not take silence for a plateau', () => {
    expect(run(() => 0)).toMatchObject({ reason: 'time', bitsPerSecond: 0 })
  })

  it('reads a stall in the middle as zero at the time cap', () => {
    expect(run((tMs) => (tMs < 400 ? 2_500 : 0))).toMatchObject({
      reason: 'time',
      bitsPerSecond: 0,
    })
  })

  it('reads all of a test cut short by the sender', () => {
    const samples = [
      { tMs: 0, bytesTotal: 16_384 },
      { tMs: 100, bytesTotal: 250_000 },
    ]
    expect(read(samples, limits, 'bytes')).toEqual({
      reason: 'bytes',
      bitsPerSecond: ((250_000 - 16_384) * 8_000) / 100,
      elapsedMs: 100,
      bytesTotal: 250_000,
    })
  })

  it.each([{ samples: [] }, { samples: [{ tMs: 0, bytesTotal: 16_384 }] }])(
    'reads no rate out of no time',
    ({ samples }) => {
      expect(read(samples, limits, 'time').bitsPerSecond).toBe(0)
    },
  )
})
