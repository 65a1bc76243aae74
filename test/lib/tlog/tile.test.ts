import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { rootHash } from '../../../lib/tlog/merkle.ts'
import {
  decodeEntries,
  decodeTile,
  encodeEntries,
  encodeTile,
  entriesPath,
  leafTiles,
  partialWidth,
  tilePath,
  tilesOf,
} from '../../../lib/tlog/tile.ts'

const leaves = (count: number) => Array.from({ length: count }, (_, at) => sha256(String(at)))

describe('a tile address', () => {
  test.each([
    [tilePath(0, 0), 'tile/0/000'],
    [tilePath(0, 0, 256), 'tile/0/000'],
    [tilePath(0, 0, 1), 'tile/0/000.p/1'],
    [tilePath(1, 999), 'tile/1/999'],
    [tilePath(2, 1000, 255), 'tile/2/x001/000.p/255'],
    // The example of C2SP tlog-tiles.
    [tilePath(0, 1234067), 'tile/0/x001/x234/067'],
    [tilePath(0, 1234067, 8), 'tile/0/x001/x234/067.p/8'],
    [tilePath(63, Number.MAX_SAFE_INTEGER), 'tile/63/x009/x007/x199/x254/x740/991'],
    [entriesPath(0), 'tile/entries/000'],
    [entriesPath(1234067, 8), 'tile/entries/x001/x234/067.p/8'],
  ])('is %s', (path, expected) => {
    expect(path).toBe(expected)
  })

  test.each([
    [-1, 0, 256],
    [64, 0, 256],
    [0.5, 0, 256],
    [0, -1, 256],
    [0, 1.5, 256],
    [0, 2 ** 53, 256],
    [0, 0, 0],
    [0, 0, 257],
    [0, 0, 1.5],
  ])('does not exist for level %d, index %d, width %d', (level, index, width) => {
    expect(() => tilePath(level, index, width)).toThrow(RangeError)
  })
})

describe('the tiles of a tree', () => {
  test.each([
    [0, []],
    [1, ['tile/0/000.p/1']],
    [255, ['tile/0/000.p/255']],
    // "a tree of size 256 will be represented by a full level 0 tile and a partial level 1 tile".
    [256, ['tile/0/000', 'tile/1/000.p/1']],
    [600, ['tile/0/000', 'tile/0/001', 'tile/0/002.p/88', 'tile/1/000.p/2']],
  ])('of %i leaves are %j', (size, paths) => {
    const tiles = [...tilesOf(leaves(size))]
    expect(tiles.map(({ level, index, hashes }) => tilePath(level, index, hashes.length))).toEqual(
      paths,
    )
  })

  test('of 70,000 leaves are the ones the specification counts', () => {
    // Alike leaves, told apart by position alone: hashing 70,000 of them is enough work.
    const counts = new Map<string, number>()
    for (const { level, hashes } of tilesOf(Array(70_000).fill(sha256('leaf')))) {
      const kind = `level ${level}, ${hashes.length} wide`
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
    }
    expect(Object.fromEntries(counts)).toEqual({
      'level 0, 256 wide': 273,
      'level 0, 112 wide': 1,
      'level 1, 256 wide': 1,
      'level 1, 17 wide': 1,
      'level 2, 1 wide': 1,
    })
    expect([0, 1, 2, 3].map((level) => partialWidth(level, 70_000))).toEqual([112, 17, 1, 0])
  })

  test('hold at level 1 the roots of the full tiles below', () => {
    const all = leaves(600)
    const upper = [...tilesOf(all)].find(({ level }) => level === 1)
    expect(upper?.hashes).toEqual([rootHash(all.slice(0, 256)), rootHash(all.slice(256, 512))])
  })

  test('hold every leaf hash once, in order', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 700 }), (size) => {
        const all = leaves(size)
        const tiles = leafTiles(all)
        expect(tiles.flatMap(({ hashes }) => hashes)).toEqual(all)
        expect(tiles.map(({ index }) => index)).toEqual([...tiles.keys()])
        for (const tile of tiles.slice(0, -1)) expect(tile.hashes).toHaveLength(256)
        expect(tiles.every(({ hashes }) => hashes.length > 0)).toBe(true)
      }),
      { numRuns: 20 },
    )
  })
})

describe('the bytes of a tile', () => {
  test('are 8,192 for a full one and read as they were written', () => {
    for (const width of [1, 17, 256]) {
      const bytes = encodeTile(leaves(width))
      expect(bytes).toHaveLength(width * 32)
      expect(decodeTile(bytes)).toEqual(leaves(width))
    }
  })

  test.each([0, 31, 33, 257 * 32])('are never %i', (length) => {
    expect(decodeTile(new Uint8Array(length))).toBeUndefined()
  })
})

describe('an entry bundle', () => {
  test('puts a 16-bit big-endian length before each entry', () => {
    const entries = [Uint8Array.of(7, 8), new Uint8Array(0), new Uint8Array(258)]
    const bytes = encodeEntries(entries)
    expect([...bytes.slice(0, 8)]).toEqual([0, 2, 7, 8, 0, 0, 1, 2])
    expect(bytes).toHaveLength(2 + 2 + 2 + 2 + 258)
    expect(decodeEntries(bytes)).toEqual(entries)
  })

  test('reads as it was written', () => {
    const entries = fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 256 })
    fc.assert(
      fc.property(entries, (written) => {
        expect(decodeEntries(encodeEntries(written))).toEqual(
          written.map((e) => Uint8Array.from(e)),
        )
      }),
      { numRuns: 20 },
    )
  })

  test('takes entries of 65,535 bytes and no more', () => {
    expect(decodeEntries(encodeEntries([new Uint8Array(65_535)]))?.[0]).toHaveLength(65_535)
    expect(() => encodeEntries([new Uint8Array(65_536)])).toThrow(RangeError)
  })

  test('takes 1 to 256 entries', () => {
    expect(() => encodeEntries([])).toThrow(RangeError)
    expect(() => encodeEntries(Array(257).fill(new Uint8Array(1)))).toThrow(RangeError)
    expect(decodeEntries(new Uint8Array(256 * 2))).toHaveLength(256)
    expect(decodeEntries(new Uint8Array(257 * 2))).toBeUndefined()
  })

  test.each([
    ['empty', []],
    ['half a length', [0]],
    ['a length with no entry', [0, 1]],
    ['a short entry', [0, 3, 1, 2]],
    ['something after the last entry', [0, 1, 9, 0]],
  ])('that is %s is refused', (_, bytes) => {
    expect(decodeEntries(Uint8Array.from(bytes))).toBeUndefined()
  })
})
