import { concatBytes, digestBytes, equalBytes, sha256 } from '../crypto/digest.ts'

/** Hash of a log entry: SHA-256(0x00 || entry) (RFC 9162 §2.1.1). */
export function leafHash(entry: Uint8Array): Uint8Array<ArrayBuffer> {
  return sha256(concatBytes(leafPrefix, entry))
}

/** Hash of an inner node: SHA-256(0x01 || left || right) (RFC 9162 §2.1.1). */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array<ArrayBuffer> {
  return sha256(concatBytes(nodePrefix, left, right))
}

/** Root of the tree over these leaf hashes; of none, the hash of nothing (RFC 9162 §2.1.1). */
export function rootHash(leafHashes: readonly Uint8Array[]): Uint8Array {
  return rootOfRange(leafHashes, { start: 0, end: leafHashes.length })
}

/**
 * The siblings of a leaf up to the root, the leaf's own first (RFC 9162 §2.1.3.1).
 *
 * Costs a hash of every leaf. For a large stored log ask `inclusionRanges` and look the hashes up.
 *
 * @throws RangeError when the index is not a leaf's
 */
export function inclusionProof(leafHashes: readonly Uint8Array[], index: number): Uint8Array[] {
  return inclusionRanges(index, leafHashes.length).map((range) => rootOfRange(leafHashes, range))
}

/**
 * The nodes that show the tree of the first `oldSize` leaves to be a prefix of this one
 * (RFC 9162 §2.1.4.1). Empty when the sizes are equal.
 *
 * @throws RangeError unless 0 < oldSize <= number of leaves
 */
export function consistencyProof(leafHashes: readonly Uint8Array[], oldSize: number): Uint8Array[] {
  return consistencyRanges(oldSize, leafHashes.length).map((range) =>
    rootOfRange(leafHashes, range),
  )
}

/** Leaves `start` (counted) to `end` (not counted). */
export type LeafRange = { start: number; end: number }

/**
 * Which subtrees' roots make up an inclusion proof, in proof order: PATH of RFC 9162 §2.1.3.1
 * without the hashing, so that a store can answer from tiles. Sizes may reach 2^53 - 1.
 *
 * @throws RangeError unless 0 <= index < size
 */
export function inclusionRanges(index: number, size: number): LeafRange[] {
  if (!isCount(index) || !isCount(size) || index >= size) {
    throw new RangeError(`no leaf ${index} in a tree of ${size}`)
  }
  const fromRoot: LeafRange[] = []
  let start = 0
  let end = size
  while (end - start > 1) {
    const middle = start + largestPowerBelow(end - start)
    if (index < middle) {
      fromRoot.push({ start: middle, end })
      end = middle
    } else {
      fromRoot.push({ start, end: middle })
      start = middle
    }
  }
  return fromRoot.reverse()
}

/**
 * Which subtrees' roots make up a consistency proof, in proof order: SUBPROOF of
 * RFC 9162 §2.1.4.1 without the hashing.
 *
 * @throws RangeError unless 0 < oldSize <= newSize
 */
export function consistencyRanges(oldSize: number, newSize: number): LeafRange[] {
  if (!isCount(oldSize) || !isCount(newSize) || oldSize === 0 || oldSize > newSize) {
    throw new RangeError(`no consistency proof from ${oldSize} to ${newSize} leaves`)
  }
  const fromRoot: LeafRange[] = []
  let start = 0
  let end = newSize
  while (end !== oldSize) {
    const middle = start + largestPowerBelow(end - start)
    if (oldSize <= middle) {
      fromRoot.push({ start: middle, end })
      end = middle
    } else {
      fromRoot.push({ start, end: middle })
      start = middle
    }
  }
  // A verifier who holds the old root knows the subtree that is the whole old tree.
  if (start > 0) fromRoot.push({ start, end })
  return fromRoot.reverse()
}

export type InclusionClaim = {
  leafHash: Uint8Array
  /** Position of the leaf, from 0. */
  index: number
  /** Leaves in the tree. */
  size: number
  rootHash: Uint8Array
  proof: readonly Uint8Array[]
}

/**
 * Whether the leaf is at that index of the tree with that size and root (RFC 9162 §2.1.3.2).
 * Anything malformed is false.
 */
export function verifyInclusion(claim: InclusionClaim): boolean {
  const { index, size, proof } = claim
  if (!isCount(index) || !isCount(size) || index >= size) return false
  if (![claim.leafHash, claim.rootHash, ...proof].every(isHash)) return false

  // Numbers, not bit operations: JavaScript's shift at 32 bits, sizes go to 2^53 - 1.
  let node = index
  let last = size - 1
  let hash = claim.leafHash
  for (const sibling of proof) {
    if (last === 0) return false
    if (node % 2 === 1 || node === last) {
      hash = nodeHash(sibling, hash)
      // On the ragged right edge a node rises without a sibling until it is a right child.
      while (node % 2 === 0 && node !== 0) {
        node /= 2
        last = Math.floor(last / 2)
      }
    } else {
      hash = nodeHash(hash, sibling)
    }
    node = Math.floor(node / 2)
    last = Math.floor(last / 2)
  }
  return last === 0 && equalBytes(hash, claim.rootHash)
}

export type ConsistencyClaim = {
  oldSize: number
  oldRootHash: Uint8Array
  newSize: number
  newRootHash: Uint8Array
  proof: readonly Uint8Array[]
}

/**
 * Whether the new tree begins with all of the old one (RFC 9162 §2.1.4.2). Anything malformed is
 * false. So is an old size of 0: every tree extends the empty one, and a proof of it says nothing.
 */
export function verifyConsistency(claim: ConsistencyClaim): boolean {
  const { oldSize, oldRootHash, newSize, newRootHash, proof } = claim
  if (!isCount(oldSize) || !isCount(newSize) || oldSize === 0 || oldSize > newSize) return false
  if (![oldRootHash, newRootHash, ...proof].every(isHash)) return false
  if (oldSize === newSize) return proof.length === 0 && equalBytes(oldRootHash, newRootHash)

  let node = oldSize - 1
  let last = newSize - 1
  while (node % 2 === 1) {
    node = Math.floor(node / 2)
    last = Math.floor(last / 2)
  }
  // node is 0 when the old tree was perfect; its root then stands in the new tree as it is.
  const [seed, ...siblings] = node === 0 ? [oldRootHash, ...proof] : proof
  if (seed === undefined) return false
  let oldHash = seed
  let newHash = seed
  for (const sibling of siblings) {
    if (last === 0) return false
    if (node % 2 === 1 || node === last) {
      oldHash = nodeHash(sibling, oldHash)
      newHash = nodeHash(sibling, newHash)
      while (node % 2 === 0 && node !== 0) {
        node /= 2
        last = Math.floor(last / 2)
      }
    } else {
      newHash = nodeHash(newHash, sibling)
    }
    node = Math.floor(node / 2)
    last = Math.floor(last / 2)
  }
  return last === 0 && equalBytes(oldHash, oldRootHash) && equalBytes(newHash, newRootHash)
}

const leafPrefix = Uint8Array.of(0)
const nodePrefix = Uint8Array.of(1)

function rootOfRange(leafHashes: readonly Uint8Array[], { start, end }: LeafRange): Uint8Array {
  if (end === start) return sha256('')
  if (end - start === 1) return leafHashes[start] as Uint8Array
  const middle = start + largestPowerBelow(end - start)
  return nodeHash(
    rootOfRange(leafHashes, { start, end: middle }),
    rootOfRange(leafHashes, { start: middle, end }),
  )
}

/** The largest power of two smaller than `count`, for counts above 1 (RFC 9162 §2.1.1). */
function largestPowerBelow(count: number): number {
  let power = 1
  while (power * 2 < count) power *= 2
  return power
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}

function isHash(value: Uint8Array): boolean {
  return value.length === digestBytes
}
