import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromBase64 } from '../../../lib/crypto/base64.ts'
import { fromHex, toHex } from '../../../lib/crypto/hex.ts'
import {
  type ConsistencyClaim,
  consistencyProof,
  consistencyRanges,
  type InclusionClaim,
  inclusionProof,
  inclusionRanges,
  leafHash,
  nodeHash,
  rootHash,
  verifyConsistency,
  verifyInclusion,
} from '../../../lib/tlog/merkle.ts'
import consistencyVectors from '../../vectors/merkle-consistency.json'
import inclusionVectors from '../../vectors/merkle-inclusion.json'
import tree from '../../vectors/merkle-tree.json'

const treeLeaves = tree.leaves.map((leaf) => leafHash(fromHex(leaf)))

describe('the published tree of eight leaves', () => {
  test.each(tree.hashes)('$name has its published hash', (vector) => {
    const hash =
      vector.leaf === undefined
        ? nodeHash(fromHex(vector.left ?? ''), fromHex(vector.right ?? ''))
        : leafHash(fromHex(vector.leaf))
    expect(toHex(hash)).toBe(vector.hash)
  })

  test('each leaf has its published hash', () => {
    expect(treeLeaves.map(toHex)).toEqual(tree.nodeHashes[0])
  })

  test('each inner node has its published hash', () => {
    for (const [level, hashes] of tree.nodeHashes.entries()) {
      const width = 2 ** level
      const roots = hashes.map((_, at) => rootHash(treeLeaves.slice(at * width, (at + 1) * width)))
      expect(roots.map(toHex)).toEqual(hashes)
    }
  })

  test('each size from 0 to 8 has its published root', () => {
    expect(tree.rootHashes.map((_, size) => toHex(rootHash(treeLeaves.slice(0, size))))).toEqual(
      tree.rootHashes,
    )
  })
})

describe('published inclusion proofs', () => {
  test.each(inclusionVectors.cases)('$name is valid: $valid', (vector) => {
    const claim = {
      leafHash: fromBase64(vector.leafHash),
      index: vector.index,
      size: vector.size,
      rootHash: fromBase64(vector.rootHash),
      proof: vector.proof.map(fromBase64),
    }
    expect(verifyInclusion(claim)).toBe(vector.valid)
  })

  test('those of the eight-leaf tree are the ones made here', () => {
    const ofTree = inclusionVectors.cases.filter(
      ({ valid, size, rootHash: root }) =>
        valid && toHex(fromBase64(root)) === tree.rootHashes[size],
    )
    expect(ofTree.length).toBeGreaterThan(3)
    for (const { index, size, proof } of ofTree) {
      expect(inclusionProof(treeLeaves.slice(0, size), index)).toEqual(proof.map(fromBase64))
    }
  })
})

describe('published consistency proofs', () => {
  // Its roots are 12 bytes of text that the reference never hashes. Here a root is a SHA-256 digest,
  // so it is malformed.
  const withoutDigests = 'additional/sizes-are-equal-one-and-proof-is-empty'

  test.each(consistencyVectors.cases)('$name is valid: $valid', (vector) => {
    const claim = {
      oldSize: vector.oldSize,
      oldRootHash: fromBase64(vector.oldRootHash),
      newSize: vector.newSize,
      newRootHash: fromBase64(vector.newRootHash),
      proof: vector.proof.map(fromBase64),
    }
    expect(verifyConsistency(claim)).toBe(vector.valid && vector.name !== withoutDigests)
  })

  test('those of the eight-leaf tree are the ones made here', () => {
    const ofTree = consistencyVectors.cases.filter(
      ({ valid, newSize, newRootHash: root }) =>
        valid && toHex(fromBase64(root)) === tree.rootHashes[newSize],
    )
    expect(ofTree.length).toBeGreaterThan(3)
    for (const { oldSize, newSize, proof } of ofTree) {
      expect(consistencyProof(treeLeaves.slice(0, newSize), oldSize)).toEqual(proof.map(fromBase64))
    }
  })
})

const leavesOfRandomTree = fc
  .array(fc.uint8Array({ maxLength: 8 }), { minLength: 1, maxLength: 70 })
  .map((entries) => entries.map(leafHash))

describe('any tree', () => {
  test('every leaf has a proof that verifies, and a flipped bit never does', () => {
    fc.assert(
      fc.property(leavesOfRandomTree, fc.nat(), (leaves, chosen) => {
        const root = rootHash(leaves)
        for (const [index, leaf] of leaves.entries()) {
          const claim = {
            leafHash: leaf,
            index,
            size: leaves.length,
            rootHash: root,
            proof: inclusionProof(leaves, index),
          }
          expect(verifyInclusion(claim)).toBe(true)
          for (const part of ['leafHash', 'rootHash'] as const) {
            const damaged = { ...claim, [part]: flipped(claim[part], chosen) }
            expect(verifyInclusion(damaged)).toBe(false)
          }
          for (const proof of damagedProofs(claim.proof, chosen)) {
            expect(verifyInclusion({ ...claim, proof })).toBe(false)
          }
        }
      }),
      { numRuns: 20 },
    )
  })

  test('a proof verifies at no other index and, unless the path is the same, no other size', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 70 }), fc.nat(), fc.nat(), (size, at, elsewhere) => {
        const leaves = distinctLeaves(size)
        const index = at % size
        const claim = {
          leafHash: leaves[index] as Uint8Array,
          index,
          size,
          rootHash: rootHash(leaves),
          proof: inclusionProof(leaves, index),
        }
        const other = elsewhere % size
        expect(verifyInclusion({ ...claim, index: other })).toBe(other === index)
      }),
    )
  })

  test('every earlier size has a proof that verifies, and a flipped bit never does', () => {
    fc.assert(
      fc.property(leavesOfRandomTree, fc.nat(), (leaves, chosen) => {
        const newRootHash = rootHash(leaves)
        for (let oldSize = 1; oldSize <= leaves.length; oldSize++) {
          const claim = {
            oldSize,
            oldRootHash: rootHash(leaves.slice(0, oldSize)),
            newSize: leaves.length,
            newRootHash,
            proof: consistencyProof(leaves, oldSize),
          }
          expect(verifyConsistency(claim)).toBe(true)
          for (const part of ['oldRootHash', 'newRootHash'] as const) {
            const damaged = { ...claim, [part]: flipped(claim[part], chosen) }
            expect(verifyConsistency(damaged)).toBe(false)
          }
          for (const proof of damagedProofs(claim.proof, chosen)) {
            expect(verifyConsistency({ ...claim, proof })).toBe(false)
          }
        }
      }),
      { numRuns: 20 },
    )
  })

  test('a rewritten leaf below the old size has no consistency proof', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 70 }), fc.nat(), fc.nat(), (newSize, cut, at) => {
        const oldSize = 1 + (cut % newSize)
        const leaves = distinctLeaves(newSize)
        const rewritten = leaves.with(at % oldSize, leafHash(Uint8Array.of(255, 255)))
        const claim = {
          oldSize,
          oldRootHash: rootHash(leaves.slice(0, oldSize)),
          newSize,
          newRootHash: rootHash(rewritten),
          proof: consistencyProof(rewritten, oldSize),
        }
        expect(verifyConsistency(claim)).toBe(false)
      }),
    )
  })
})

describe('large trees', () => {
  // Sizes beyond 32 bits, where bit operations on numbers would go wrong. All leaves are alike, so
  // that the root of a subtree depends on its size alone.
  const leaf = leafHash(Uint8Array.of(7))
  const roots = new Map<number, Uint8Array>([[1, leaf]])
  const rootOfSize = (size: number): Uint8Array => {
    const known = roots.get(size)
    if (known !== undefined) return known
    let left = 1
    while (left * 2 < size) left *= 2
    const root = nodeHash(rootOfSize(left), rootOfSize(size - left))
    roots.set(size, root)
    return root
  }
  const size = fc.integer({ min: 2 ** 31, max: Number.MAX_SAFE_INTEGER })

  test('the ranges of an inclusion proof verify', () => {
    fc.assert(
      fc.property(size, fc.maxSafeNat(), (treeSize, at) => {
        const index = at % treeSize
        const proof = inclusionRanges(index, treeSize).map(({ start, end }) =>
          rootOfSize(end - start),
        )
        const claim = {
          leafHash: leaf,
          index,
          size: treeSize,
          rootHash: rootOfSize(treeSize),
          proof,
        }
        expect(verifyInclusion(claim)).toBe(true)
        expect(verifyInclusion({ ...claim, proof: proof.slice(1) })).toBe(false)
      }),
    )
  })

  test('the ranges of a consistency proof verify', () => {
    fc.assert(
      fc.property(size, fc.maxSafeNat(), (newSize, at) => {
        const oldSize = 1 + (at % newSize)
        const proof = consistencyRanges(oldSize, newSize).map(({ start, end }) =>
          rootOfSize(end - start),
        )
        const claim = {
          oldSize,
          oldRootHash: rootOfSize(oldSize),
          newSize,
          newRootHash: rootOfSize(newSize),
          proof,
        }
        expect(verifyConsistency(claim)).toBe(true)
        expect(verifyConsistency({ ...claim, newRootHash: leaf })).toBe(false)
      }),
    )
  })
})

describe('malformed claims are false, not errors', () => {
  const leaves = treeLeaves.slice(0, 5)
  const inclusion: InclusionClaim = {
    leafHash: leaves[2] as Uint8Array,
    index: 2,
    size: 5,
    rootHash: rootHash(leaves),
    proof: inclusionProof(leaves, 2),
  }
  const consistency: ConsistencyClaim = {
    oldSize: 3,
    oldRootHash: rootHash(leaves.slice(0, 3)),
    newSize: 5,
    newRootHash: rootHash(leaves),
    proof: consistencyProof(leaves, 3),
  }
  const badCounts = [-1, 2.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]
  const short = new Uint8Array(31)

  test('the claims they are made from hold', () => {
    expect(verifyInclusion(inclusion)).toBe(true)
    expect(verifyConsistency(consistency)).toBe(true)
  })

  test.each<Partial<InclusionClaim>>([
    ...badCounts.flatMap((count) => [{ index: count }, { size: count }]),
    { index: 5 },
    { size: 0 },
    { leafHash: short },
    { rootHash: short },
    { proof: [short, ...inclusion.proof.slice(1)] },
    { proof: Array(10_000).fill(inclusion.rootHash) },
  ])('inclusion with %j', (change) => {
    expect(verifyInclusion({ ...inclusion, ...change })).toBe(false)
  })

  test.each<Partial<ConsistencyClaim>>([
    ...badCounts.flatMap((count) => [{ oldSize: count }, { newSize: count }]),
    { oldSize: 0 },
    { oldSize: 0, proof: [] },
    { oldSize: 6 },
    { oldRootHash: short },
    { newRootHash: short },
    { proof: [] },
    { proof: [short, ...consistency.proof.slice(1)] },
    { proof: Array(10_000).fill(consistency.newRootHash) },
  ])('consistency with %j', (change) => {
    expect(verifyConsistency({ ...consistency, ...change })).toBe(false)
  })
})

describe('a proof that cannot exist', () => {
  test.each([
    [0, 0],
    [5, 5],
    [-1, 5],
    [1.5, 5],
  ])('of leaf %d among %d is refused', (index, size) => {
    expect(() => inclusionRanges(index, size)).toThrow(RangeError)
  })

  test.each([
    [0, 5],
    [6, 5],
    [-1, 5],
    [1.5, 5],
  ])('from %d to %d leaves is refused', (oldSize, newSize) => {
    expect(() => consistencyRanges(oldSize, newSize)).toThrow(RangeError)
  })
})

function distinctLeaves(count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, at) => leafHash(Uint8Array.of(at)))
}

function flipped(bytes: Uint8Array, chosen: number): Uint8Array {
  const at = (chosen >> 3) % bytes.length
  return bytes.map((byte, position) => (position === at ? byte ^ (1 << (chosen & 7)) : byte))
}

/** The proof with one bit of each hash flipped, one hash missing, and one too many. */
function damagedProofs(proof: Uint8Array[], chosen: number): Uint8Array[][] {
  return [
    ...proof.map((hash, at) => proof.with(at, flipped(hash, chosen))),
    ...proof.map((_, at) => proof.toSpliced(at, 1)),
    [...proof, new Uint8Array(32)],
  ]
}
