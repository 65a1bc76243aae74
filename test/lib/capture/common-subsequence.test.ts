import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { longestCommonSubsequence, type Pair } from '../../../lib/capture/common-subsequence.ts'

/** The textbook table, the reference. */
function lcsLength(a: readonly string[], b: readonly string[]): number {
  let above = new Array<number>(b.length + 1).fill(0)
  for (const symbol of a) {
    const row = [0]
    for (const [j, other] of b.entries()) {
      row.push(symbol === other ? (above[j] ?? 0) + 1 : Math.max(above[j + 1] ?? 0, row[j] ?? 0))
    }
    above = row
  }
  return above.at(-1) ?? 0
}

function expectCommon(a: readonly string[], b: readonly string[], pairs: readonly Pair[]) {
  let [lastA, lastB] = [-1, -1]
  for (const [i, j] of pairs) {
    expect(i).toBeGreaterThan(lastA)
    expect(j).toBeGreaterThan(lastB)
    expect(a[i]).toBeDefined()
    expect(a[i]).toBe(b[j])
    ;[lastA, lastB] = [i, j]
  }
}

const sequence = (symbols: string, maxLength: number) =>
  fc.array(fc.constantFrom(...symbols), { maxLength })

describe('the longest common subsequence', () => {
  test.each([
    ['', '', 0],
    ['abc', '', 0],
    ['abc', 'abc', 3],
    ['abc', 'xyz', 0],
    ['abcbdab', 'bdcaba', 4],
    ['abc', 'cba', 1],
    ['xaxbx', 'ab', 2],
    ['aaaa', 'aa', 2],
  ])('of %j and %j has length %i', (a, b, length) => {
    const pairs = longestCommonSubsequence([...a], [...b])
    expect(pairs).toHaveLength(length)
    expectCommon([...a], [...b], pairs)
  })

  test('is as long as the textbook finds, and as long the other way round', () => {
    const pair = fc.oneof(
      fc.tuple(sequence('ab', 70), sequence('ab', 70)),
      fc.tuple(sequence('abcdefgh', 90), sequence('abcdefgh', 90)),
      fc.tuple(sequence('abcdefghijklmnopqrstuvwxyz', 40), sequence('abcxyzäöü', 200)),
    )
    fc.assert(
      fc.property(pair, ([a, b]) => {
        const pairs = longestCommonSubsequence(a, b)
        expectCommon(a, b, pairs)
        expect(pairs.length).toBe(lcsLength(a, b))
        expect(longestCommonSubsequence(b, a).length).toBe(pairs.length)
        expect(longestCommonSubsequence(a, b)).toEqual(pairs)
      }),
      { numRuns: 1_500 },
    )
  })

  test('of two hostile lists of 20,000 is found in bounded time', () => {
    const list = (seed: number, symbols: number) => {
      let state = seed
      return Array.from({ length: 20_000 }, () => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
        return (state >>> 8) % symbols
      })
    }
    for (const symbols of [1, 2, 50, 20_000]) {
      const pairs = longestCommonSubsequence([-1, ...list(1, symbols)], [...list(2, symbols), -1])
      expect(pairs.length).toBeGreaterThan(symbols === 20_000 ? 100 : 1_000)
    }
    const rising = Array.from({ length: 20_000 }, (_, i) => i)
    expect(longestCommonSubsequence(rising, [...rising].reverse())).toHaveLength(1)
    // Two seconds when nothing else runs; a quadratic one would take minutes.
  }, 90_000)
})
