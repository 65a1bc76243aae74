import { inclusionRanges, type LeafRange, nodeHash, rootHash } from './merkle.ts'
import { tileWidth } from './tile.ts'

/** Where a tile stands; what `tilesOf` yields beside its hashes. */
export type TileAddress = { level: number; index: number }

/** Finds the hashes of a stored tile. Throwing is the finder's business: a proof needs them all. */
export type TileLookup = (address: TileAddress) => readonly Uint8Array[]

/**
 * The tiles from which `inclusionFromTiles` makes a proof, each once: at most two a level, so a
 * store can read them all at once.
 *
 * @throws RangeError unless 0 <= index < size
 */
export function tilesForInclusion(index: number, size: number): TileAddress[] {
  const found = new Map<string, TileAddress>()
  for (const range of inclusionRanges(index, size)) {
    for (const subtree of perfectSubtrees(range)) {
      const { level, tile } = placeOf(subtree)
      found.set(`${level}/${tile}`, { level, index: tile })
    }
  }
  return [...found.values()]
}

/**
 * The same proof as `inclusionProof`, for some hundred hashes a level instead of all.
 *
 * @throws RangeError unless 0 <= index < size; Error when a tile lacks a hash
 */
export function inclusionFromTiles(index: number, size: number, tiles: TileLookup): Uint8Array[] {
  return inclusionRanges(index, size).map((range) => rangeHash(range, tiles))
}

/** The same as `rootHash` over all leaves. @throws Error when a tile lacks a hash */
export function rootFromTiles(size: number, tiles: TileLookup): Uint8Array {
  return size === 0 ? rootHash([]) : rangeHash({ start: 0, end: size }, tiles)
}

/** A subtree without gaps: 2^exponent leaves from `start` on. */
type Subtree = { start: number; exponent: number }

/** A range of RFC 9162 begins at a multiple of its largest power of two, so these are aligned. */
function perfectSubtrees({ start, end }: LeafRange): Subtree[] {
  const subtrees: Subtree[] = []
  for (let at = start; at < end; ) {
    let exponent = 0
    while (at + 2 ** (exponent + 1) <= end) exponent++
    subtrees.push({ start: at, exponent })
    at += 2 ** exponent
  }
  return subtrees
}

function placeOf({ start, exponent }: Subtree) {
  // A tile spans eight levels of the tree.
  const level = Math.floor(exponent / 8)
  const position = start / tileWidth ** level
  return {
    level,
    tile: Math.floor(position / tileWidth),
    first: position % tileWidth,
    hashes: 2 ** (exponent % 8),
  }
}

function rangeHash(range: LeafRange, tiles: TileLookup): Uint8Array {
  return perfectSubtrees(range)
    .map((subtree) => {
      const { level, tile, first, hashes } = placeOf(subtree)
      const found = tiles({ level, index: tile }).slice(first, first + hashes)
      if (found.length !== hashes) {
        throw new Error(`tile ${level}/${tile} lacks hashes from ${first} on`)
      }
      return rootHash(found)
    })
    .reduceRight((right, left) => nodeHash(left, right))
}
