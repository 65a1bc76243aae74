import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, toHex } from '../../../lib/crypto/hex.ts'
import { CompactRange, type CompactRangeState } from '../../../lib/tlog/compact-range.ts'
import { leafHash, rootHash } from '../../../lib/tlog/merkle.ts'
import tree from '../../vectors/merkle-tree.json'

describe('a compact range', () => {
  test('has the published root at every size of the eight-leaf tree', () => {
    const range = new CompactRange()
    const roots = [toHex(range.root())]
    for (const leaf of tree.leaves) {
      range.append(leafHash(fromHex(leaf)))
      roots.push(toHex(range.root()))
    }
    expect(roots).toEqual(tree.rootHashes)
  })

  test('has the root of the whole tree at every size, also after being stored and read back', () => {
    const entries = fc.array(fc.uint8Array({ maxLength: 4 }), { maxLength: 70 })
    fc.assert(
      fc.property(entries, fc.nat({ max: 70 }), (leaves, storedAt) => {
        const hashes = leaves.map(leafHash)
        let range = new CompactRange()
        for (const [at, hash] of hashes.entries()) {
          if (at === storedAt) {
            const stored = JSON.parse(JSON.stringify(range.state())) as CompactRangeState
            range = CompactRange.fromState(stored)
          }
          range.append(hash)
          expect(range.size).toBe(at + 1)
          expect(range.root()).toEqual(rootHash(hashes.slice(0, at + 1)))
        }
      }),
    )
  })

  test('keeps one hash for each 1 bit of its size', () => {
    const range = new CompactRange()
    for (let size = 1; size <= 70; size++) {
      range.append(leafHash(Uint8Array.of(size)))
      expect(range.state().hashes).toHaveLength(size.toString(2).replaceAll('0', '').length)
    }
  })

  test('goes on beyond 32 bits', () => {
    const hash = 'A'.repeat(43).concat('=')
    const range = CompactRange.fromState({ size: 2 ** 40 - 1, hashes: Array(40).fill(hash) })
    range.append(new Uint8Array(32))
    expect(range.size).toBe(2 ** 40)
    expect(range.state().hashes).toHaveLength(1)
  })

  test('does not change when the caller reuses the array it appended', () => {
    const range = new CompactRange()
    const hash = leafHash(Uint8Array.of(1))
    range.append(hash)
    const root = toHex(range.root())
    hash.fill(0)
    expect(toHex(range.root())).toBe(root)
  })

  test.each([0, 31, 33])('refuses a leaf hash of %i bytes', (length) => {
    expect(() => new CompactRange().append(new Uint8Array(length))).toThrow(RangeError)
  })

  const hash = 'A'.repeat(43).concat('=')
  test.each<[string, CompactRangeState]>([
    ['too few hashes', { size: 3, hashes: [hash] }],
    ['too many hashes', { size: 4, hashes: [hash, hash] }],
    ['a short hash', { size: 1, hashes: ['AAAA'] }],
    ['a broken hash', { size: 1, hashes: ['A'] }],
    ['a negative size', { size: -1, hashes: [] }],
    ['a fractional size', { size: 0.5, hashes: [] }],
    ['a size beyond 2^53', { size: 2 ** 53, hashes: [hash] }],
  ])('refuses a state with %s', (_, state) => {
    expect(() => CompactRange.fromState(state)).toThrow()
  })
})
