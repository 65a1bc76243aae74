import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  extractPlainText,
  extractSentences,
  MAX_SENTENCES,
  type Sentence,
} from '../../../lib/capture/sentences.ts'
import { toHex } from '../../../lib/crypto/hex.ts'
import vectors from '../../vectors/sentences.json' with { type: 'json' }
import { hostileHtml } from './hostile-html.ts'

const listed = (sentence: Sentence) => ({
  text: sentence.text,
  digest: toHex(sentence.digest),
  path: toHex(sentence.path),
  role: sentence.role,
  startsBlock: sentence.startsBlock,
  suspicious: sentence.suspicious,
  linked: sentence.linked,
})

describe('the sentences of a page', () => {
  test.each(vectors.html)('follow the vector: $name', ({ input, sentences }) => {
    expect(extractSentences(input).sentences.map(listed)).toEqual(sentences)
  })

  test.each(vectors.plain)('of plain text follow the vector: $name', ({ input, sentences }) => {
    expect(extractPlainText(input).sentences.map(listed)).toEqual(sentences)
  })

  test('have the digests that another implementation of SHA-256 gives', () => {
    const sha256 = (text: string) => createHash('sha256').update(text).digest()
    const [sentence] = extractSentences('<p>Grüße, 世界!</p>').sentences
    expect(sentence?.digest).toEqual(new Uint8Array(sha256('Grüße, 世界!').subarray(0, 16)))
    expect(sentence?.path).toEqual(new Uint8Array(sha256('html/body/p').subarray(0, 4)))
  })

  test('are the same twice, and random markup never throws', () => {
    fc.assert(
      fc.property(hostileHtml, (html) => {
        const page = extractSentences(html)
        expect(extractSentences(html)).toEqual(page)
        for (const { text, length } of page.sentences) {
          expect(text).toBe(text.normalize('NFC'))
          expect(text).not.toMatch(/^\s|\s\s|\s$|^$|[\t\n\r\0]/)
          expect(length).toBe(text.length)
        }
        if (page.sentences.length > 0) expect(page.sentences[0]?.startsBlock).toBe(true)
      }),
      { numRuns: 2_000 },
    )
  })

  test('do not depend on how a paragraph is wrapped', () => {
    const words = fc.array(fc.constantFrom('One.', 'two', 'three!', 'A.', 'b,', '5.'), {
      minLength: 1,
      maxLength: 20,
    })
    fc.assert(
      fc.property(words, fc.constantFrom(' ', '\n', '  \t', '&#32;', ' <b></b>'), (list, gap) => {
        const texts = (html: string) => extractSentences(html).sentences.map(({ text }) => text)
        expect(texts(`<p>${list.join(gap)}</p>`)).toEqual(texts(`<p>${list.join(' ')}</p>`))
        expect(texts(`<p>${list.join(gap)}</p>`).join(' ')).toBe(list.join(' '))
      }),
    )
  })

  test('stop at 20,000 and say so', () => {
    const page = extractSentences('<p>x'.repeat(MAX_SENTENCES + 1))
    expect(page.sentences).toHaveLength(MAX_SENTENCES)
    expect(page.truncated).toBe(true)
    expect(extractSentences('<p>x'.repeat(MAX_SENTENCES)).truncated).toBe(false)
  })

  test('are cut at 10,000 characters without tearing a surrogate pair', () => {
    const { sentences } = extractSentences(`<p>x${'😀'.repeat(12_000)}</p>`)
    expect(sentences.map(({ length }) => length)).toEqual([9_999, 10_000, 4_002])
    expect(sentences.map(({ startsBlock }) => startsBlock)).toEqual([true, false, false])
    expect(sentences.map(({ text }) => text).join('')).toBe(`x${'😀'.repeat(12_000)}`)
  })

  // Each would take minutes with a stack without limit, a backtracking pattern or a quadratic join.
  test.each([
    ['a million open elements', '<div>'.repeat(400_000)],
    ['a million open inline elements with text', '<b>x'.repeat(500_000)],
    ['stray end tags in a deep page', '<i>'.repeat(600) + '</p></b></li>'.repeat(150_000)],
    ['one tag with a million attributes', `<p ${'a '.repeat(1_000_000)}>x`],
    ['one attribute of two megabytes', `<p style="${';'.repeat(2_000_000)}">x`],
    ['a run of full stops', `<p>${'.'.repeat(2_000_000)}x`],
    ['a run of entities', '&'.repeat(2_000_000)],
    ['an endless number', `&#${'1'.repeat(2_000_000)}`],
    ['long paths in many blocks', '<section>'.repeat(500) + '<h1>x</h1><h2>y</h2>'.repeat(50_000)],
    ['nested tables', '<table><tr><td>x'.repeat(100_000)],
    ['nested lists and links', '<ul><li><a href=x>y'.repeat(90_000)],
    ['drawings', '<svg><p>'.repeat(200_000)],
    ['line breaks', `<p>${'x<br>'.repeat(300_000)}`],
    ['more than is read', 'x. '.repeat(3_000_000)],
  ])('of %s are found in linear time', (_, html) => {
    expect(extractSentences(html).sentences.length).toBeLessThanOrEqual(MAX_SENTENCES)
  })

  test('keep an upper bound of depth and still show what is deeper', () => {
    const html = `${'<div>'.repeat(600)}deep${'</div>'.repeat(600)}<p>after</p>`
    expect(extractSentences(html).sentences.map(({ text }) => text)).toEqual(['deep', 'after'])
  })
})
