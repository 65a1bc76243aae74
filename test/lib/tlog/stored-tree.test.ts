import { describe, expect, test } from 'vitest'
import { concatBytes, sha256 } from '../../../lib/crypto/digest.ts'
import { inclusionProof, rootHash } from '../../../lib/tlog/merkle.ts'
import {
  inclusionFromNodes,
  levelsOf,
  nodesForInclusion,
  type PerfectNode,
  rootFromNodes,
} from '../../../lib/tlog/stored-tree.ts'

const key = ({ level, index }: PerfectNode) => `${level}/${index}`

describe.each([1, 2, 3, 7, 255, 256, 257, 511, 513, 1000, 65_536, 65_537])(
  'a tree of %i leaves',
  (size) => {
    const hashes = Array.from({ length: size }, (_, leaf) => sha256(`leaf ${leaf}`))
    const levels = levelsOf(concatBytes(...hashes))
    const hashOf = ({ level, index }: PerfectNode) => {
      const hash = levels[level]?.slice(index * 32, index * 32 + 32)
      if (hash?.length !== 32) throw new Error(`no node ${level}/${index}`)
      return hash
    }
    const places = [0, 1, 127, 128, 254, 255, 256, 257, 511, 512, size >> 1, size - 2, size - 1]
    const indexes = [...new Set(places)].filter((index) => index >= 0 && index < size)

    test('has the same root from its nodes as from its leaves', () => {
      expect(rootFromNodes(size, hashOf)).toEqual(rootHash(hashes))
    })

    test('gives the same proofs from the nodes that were asked for as from all leaves', () => {
      // Two slow references are enough in a large tree.
      for (const index of size > 10_000 ? indexes.slice(-2) : indexes) {
        const asked = new Map(
          nodesForInclusion(index, size).map((node) => [key(node), hashOf(node)] as const),
        )
        const only = (node: PerfectNode) => asked.get(key(node)) ?? expect.fail(key(node))
        expect(inclusionFromNodes(index, size, only)).toEqual(inclusionProof(hashes, index))
      }
    })
  },
)

test('a tree of no leaves has the root of nothing', () => {
  expect(levelsOf(new Uint8Array(0))).toEqual([])
  expect(rootFromNodes(0, () => expect.fail('asked'))).toEqual(rootHash([]))
})

test('there is no proof of a leaf outside the tree', () => {
  expect(() => nodesForInclusion(3, 3)).toThrow(RangeError)
})
