import { createHash } from 'node:crypto'

/** A seeded source of numbers from 0 to 1: the same for the same names. */
export function seededRandom(...names: readonly (string | number)[]): () => number {
  let state = createHash('sha256').update(names.join('\n')).digest().readUInt32LE()
  // mulberry32: small, and good enough to vary pages.
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
