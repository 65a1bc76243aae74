import { describe, expect, it } from 'vitest'
import { loadMessageBytes, uploadQueueBytes } from '../../../lib/meter/load.ts'

describe('load', () => {
  it.each([
    ['nothing is known', 0, 0, 2_048],
    ['the line carries 1 Mbit/s', 125_000, 1_000, 2_048],
    ['the line carries 5 Mbit/s', 625_000, 1_000, 6_250],
    ['the line carries 100 Mbit/s', 12_500_000, 1_000, 16_384],
  ])('is cut to 10 ms when %s', (_, sentBytes, elapsedMs, expected) => {
    expect(loadMessageBytes(sentBytes, elapsedMs)).toBe(expected)
  })

  it.each([
    ['at the start', 0, 32_768],
    ['at 20 Mbit/s', 125_000, 250_000],
    ['at 500 Mbit/s', 3_125_000, 262_144],
  ])('is queued for two ticks, within bounds, %s', (_, leftBytes, expected) => {
    expect(uploadQueueBytes(leftBytes)).toBe(expected)
  })
})
