import { describe, expect, test } from 'vitest'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { inclusionProof, rootHash } from '../../../lib/tlog/merkle.ts'
import { tilesOf } from '../../../lib/tlog/tile.ts'
import {
  inclusionFromTiles,
  rootFromTiles,
  type TileAddress,
  tilesForInclusion,
} from '../../../lib/tlog/tile-proof.ts'

const leaves = (size: number) => Array.from({ length: size }, (_, leaf) => sha256(`leaf ${leaf}`))

function stored(hashes: readonly Uint8Array[]) {
  const tiles = new Map<string, readonly Uint8Array[]>()
  for (const tile of tilesOf(hashes)) tiles.set(`${tile.level}/${tile.index}`, tile.hashes)
  return tiles
}

const lookUp =
  (tiles: Map<string, readonly Uint8Array[]>) =>
  ({ level, index }: TileAddress) =>
    tiles.get(`${level}/${index}`) ?? []

describe.each([1, 2, 3, 255, 256, 257, 511, 512, 513, 1000, 65_536, 65_537, 66_049])(
  'a tree of %i leaves',
  (size) => {
    const hashes = leaves(size)
    const tiles = stored(hashes)
    // Edges of tiles and of the tree, and some between.
    const places = [0, 1, 127, 128, 254, 255, 256, 257, 511, 512, size >> 1, size - 2, size - 1]
    const indexes = [...new Set(places)].filter((index) => index >= 0 && index < size)

    test('has the same root from its tiles as from its leaves', () => {
      expect(rootFromTiles(size, lookUp(tiles))).toEqual(rootHash(hashes))
    })

    test('gives the same proofs from the tiles that were asked for as from all leaves', () => {
      // Two slow references are enough in a large tree.
      for (const index of size > 10_000 ? indexes.slice(-2) : indexes) {
        const asked = tilesForInclusion(index, size)
        expect(asked.length).toBeLessThanOrEqual(6)
        const only = new Map(
          asked.map(({ level, index: at }) => [
            `${level}/${at}`,
            tiles.get(`${level}/${at}`) ?? [],
          ]),
        )
        expect(inclusionFromTiles(index, size, lookUp(only))).toEqual(inclusionProof(hashes, index))
      }
    })
  },
)

test('a tile that lacks a hash is no proof', () => {
  const tiles = stored(leaves(300))
  tiles.set('0/1', (tiles.get('0/1') ?? []).slice(0, 10))
  expect(() => inclusionFromTiles(3, 300, lookUp(tiles))).toThrow('tile 0/1 lacks hashes')
})

test('there is no proof of a leaf outside the tree', () => {
  expect(() => tilesForInclusion(3, 3)).toThrow(RangeError)
})
