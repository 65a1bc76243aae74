import { digestBytes } from '../crypto/digest.ts'
import { inclusionRanges, type LeafRange, nodeHash, rootHash } from './merkle.ts'

/** A node with 2^level leaves below it, none missing; `index` counts from the left of its level. */
export type PerfectNode = { level: number; index: number }

/** Finds a stored hash. Throwing is the finder's business: a proof needs them all. */
export type NodeLookup = (node: PerfectNode) => Uint8Array

/**
 * Every perfect node of a tree, so that a proof needs no hashing but along the ragged right edge:
 * one array a level, leaves first, each the hashes of its nodes one after another. Twice the bytes
 * of the leaves.
 *
 * @param leafHashes 32 bytes each, one after another
 */
export function levelsOf(leafHashes: Uint8Array): Uint8Array[] {
  const levels: Uint8Array[] = []
  for (let below = leafHashes; below.length > 0; ) {
    levels.push(below)
    const above = new Uint8Array(Math.floor(below.length / digestBytes / 2) * digestBytes)
    for (let at = 0; at < above.length; at += digestBytes) {
      const left = 2 * at
      const right = left + digestBytes
      above.set(
        nodeHash(below.subarray(left, right), below.subarray(right, right + digestBytes)),
        at,
      )
    }
    below = above
  }
  return levels
}

/** The nodes from which `inclusionFromNodes` makes a proof, so that a store can read them at once. */
export function nodesForInclusion(index: number, size: number): PerfectNode[] {
  return inclusionRanges(index, size).flatMap(perfectNodes)
}

/**
 * The same proof as `inclusionProof` makes from all leaves.
 *
 * @throws RangeError unless 0 <= index < size
 */
export function inclusionFromNodes(index: number, size: number, hash: NodeLookup): Uint8Array[] {
  return inclusionRanges(index, size).map((range) => rangeHash(range, hash))
}

/** The same as `rootHash` over all leaves. */
export function rootFromNodes(size: number, hash: NodeLookup): Uint8Array {
  return size === 0 ? rootHash([]) : rangeHash({ start: 0, end: size }, hash)
}

/**
 * The perfect subtrees of a range, largest first. RFC 9162's ranges begin at a multiple of the
 * largest power of two in them, so each of these stands at a whole index of its level.
 */
function perfectNodes({ start, end }: LeafRange): PerfectNode[] {
  const nodes: PerfectNode[] = []
  for (let at = start; at < end; ) {
    let level = 0
    while (at + 2 ** (level + 1) <= end) level++
    nodes.push({ level, index: at / 2 ** level })
    at += 2 ** level
  }
  return nodes
}

function rangeHash(range: LeafRange, hash: NodeLookup): Uint8Array {
  return perfectNodes(range)
    .map(hash)
    .reduceRight((right, left) => nodeHash(left, right))
}
