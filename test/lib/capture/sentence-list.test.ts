import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  decodeSentenceList,
  encodeSentenceList,
  sentenceListDigest,
} from '../../../lib/capture/sentence-list.ts'
import { extractSentences, ROLES, shortDigest } from '../../../lib/capture/sentences.ts'
import { fromHex, toHex } from '../../../lib/crypto/hex.ts'
import vectors from '../../vectors/sentence-list.json' with { type: 'json' }

const bytesOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })

const listed = fc.record({
  digest: bytesOf(16),
  path: bytesOf(4),
  role: fc.constantFrom(...ROLES),
  startsBlock: fc.boolean(),
  suspicious: fc.boolean(),
  linked: fc.boolean(),
  length: fc.nat(0xffff),
})

describe('the binary sentence list', () => {
  test.each(vectors.cases)('of $name is the vector', ({ html, links, bytes, digest }) => {
    const encoded = encodeSentenceList(extractSentences(html).sentences, links.map(shortDigest))
    expect(toHex(encoded)).toBe(bytes)
    expect(toHex(sentenceListDigest(encoded))).toBe(digest)
    expect(createHash('sha256').update(fromHex(bytes)).digest('hex')).toBe(digest)
  })

  test('decodes to what was encoded, and encodes to the same bytes again', () => {
    fc.assert(
      fc.property(fc.array(listed), fc.array(bytesOf(16)), (sentences, links) => {
        const bytes = encodeSentenceList(sentences, [...links, ...links])
        const decoded = decodeSentenceList(bytes)
        if (!decoded.ok) throw new Error(decoded.reason)
        expect(decoded.list.sentences).toEqual(sentences)
        expect(encodeSentenceList(decoded.list.sentences, decoded.list.links)).toEqual(bytes)
        expect(new Set(decoded.list.links.map(toHex))).toEqual(new Set(links.map(toHex)))
      }),
    )
  })

  test('decodes from the middle of a larger buffer', () => {
    const { sentences } = extractSentences('<p>One. Two.</p>')
    const bytes = encodeSentenceList(sentences, [shortDigest('x')])
    const larger = new Uint8Array(bytes.length + 20)
    larger.set(bytes, 7)
    const decoded = decodeSentenceList(larger.subarray(7, 7 + bytes.length))
    expect(decoded).toEqual(decodeSentenceList(bytes))
  })

  test('whatever decodes is the one encoding of its list', () => {
    const bytes = encodeSentenceList(extractSentences('<p>One. Two.<li>Three.').sentences, [
      shortDigest('x'),
      shortDigest('y'),
    ])
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), (at, value) => {
        const changed = bytes.slice()
        changed[at] = value
        const decoded = decodeSentenceList(changed)
        if (!decoded.ok) return
        expect(encodeSentenceList(decoded.list.sentences, decoded.list.links)).toEqual(changed)
      }),
      { numRuns: 1_000 },
    )
  })

  test('saturates lengths at 65,535', () => {
    const [sentence] = extractSentences('<p>x').sentences
    if (!sentence) throw new Error('no sentence')
    const decoded = decodeSentenceList(encodeSentenceList([{ ...sentence, length: 70_000 }], []))
    expect(decoded.ok && decoded.list.sentences[0]?.length).toBe(0xffff)
  })

  const good = encodeSentenceList(extractSentences('<p>One. Two.').sentences, [
    shortDigest('x'),
    shortDigest('y'),
  ])
  const changed = (change: (bytes: Uint8Array, view: DataView) => void) => {
    const bytes = good.slice()
    change(bytes, new DataView(bytes.buffer))
    return bytes
  }
  const flagsAt = 5 + 2 * 20
  const linksAt = 5 + 2 * 23 + 4

  test.each([
    ['nothing', new Uint8Array(), 'length'],
    ['another version', changed((bytes) => bytes.set([2], 0)), 'version'],
    ['a missing byte', good.slice(0, -1), 'length'],
    ['a byte too many', new Uint8Array([...good, 0]), 'length'],
    ['more sentences than bytes', changed((_, view) => view.setUint32(1, 1_000, true)), 'length'],
    [
      '20,001 sentences',
      changed((_, view) => view.setUint32(1, 20_001, true)),
      'too-many-sentences',
    ],
    ['4 billion sentences', changed((_, view) => view.setInt32(1, -1)), 'too-many-sentences'],
    [
      '2,001 links',
      changed((_, view) => view.setUint32(linksAt - 4, 2_001, true)),
      'too-many-links',
    ],
    ['an unknown role', changed((bytes) => bytes.set([7], flagsAt)), 'flags'],
    ['an unknown flag', changed((bytes) => bytes.set([0x41], flagsAt)), 'flags'],
    [
      'a link twice',
      changed((bytes) => bytes.copyWithin(linksAt, linksAt + 16)),
      'links-out-of-order',
    ],
    ['falling links', changed((bytes) => bytes.set([255, 255], linksAt)), 'links-out-of-order'],
  ])('with %s does not decode', (_, bytes, reason) => {
    expect(decodeSentenceList(bytes)).toEqual({ ok: false, reason })
  })

  test('never throws on any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        decodeSentenceList(bytes)
        if (bytes.length > 0)
          decodeSentenceList(new Uint8Array([1, bytes.length, 0, 0, 0, ...bytes]))
      }),
    )
  })
})
