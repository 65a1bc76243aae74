import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  agreement,
  blockNumbers,
  commonSentences,
  contentBlocks,
  contestedSentences,
  sentenceKey,
} from '../../../lib/capture/agreement.ts'
import { extractSentences, type ListedSentence } from '../../../lib/capture/sentences.ts'

const list = (html: string) => extractSentences(html).sentences
const all = (sentences: readonly ListedSentence[]) => sentences.map(() => true)
const compare = (a: string, b: string) => agreement(list(a), list(b), all(list(a)), all(list(b)))

describe('agreement', () => {
  test('of a page with itself is 1 and leaves nothing contested', () => {
    const html = '<h1>Tea</h1><p>One here. Two there.</p><p>Three.</p>'
    expect(compare(html, html)).toEqual({
      a: 1,
      pairs: [
        [0, 0],
        [1, 1],
        [2, 2],
        [3, 3],
      ],
      contestedA: [],
      contestedB: [],
    })
  })

  test('names the sentence that only one has inside an agreed block', () => {
    const { a, pairs, contestedA, contestedB } = compare(
      '<p>It is. It costs 5 euros. So be it.</p><p>Same.</p>',
      '<p>It is. It costs 6 euros. So be it.</p><p>Same.</p>',
    )
    expect(pairs).toEqual([
      [0, 0],
      [2, 2],
      [3, 3],
    ])
    expect([contestedA, contestedB]).toEqual([[1], [1]])
    expect(a).toBeCloseTo(20 / 37)
  })

  test('contests nothing in blocks that one side has alone', () => {
    const { a, contestedA, contestedB } = compare(
      '<p>Same.</p><p>Other. Words.</p>',
      '<p>Same.</p>',
    )
    expect([contestedA, contestedB]).toEqual([[], []])
    expect(a).toBeCloseTo(5 / 17)
  })

  test('is the smaller of both directions', () => {
    const short = '<p>0123456789</p>'
    const long = '<p>0123456789</p><p>0123456789012345678901234567890123456789</p>'
    expect(compare(short, long).a).toBeCloseTo(0.2)
    expect(compare(long, short).a).toBeCloseTo(0.2)
  })

  test('does not accept the same text in another kind of place, nor in another order', () => {
    expect(compare('<p>Same.</p>', '<div>Same.</div>').a).toBe(0)
    expect(compare('<p>A.</p><p>B.</p>', '<p>B.</p><p>A.</p>').pairs).toHaveLength(1)
  })

  test('counts main text only, on each side its own', () => {
    const a = list('<p>Main.</p><p>Advert one.</p>')
    const b = list('<p>Main.</p><p>Quite another advert.</p>')
    expect(agreement(a, b, [true, false], [true, false]).a).toBe(1)
    expect(agreement(a, b, [true, false], [true, true]).a).toBeCloseTo(5 / 26)
    expect(agreement(a, b, [true, false], [false, false]).a).toBe(0)
    expect(agreement(a, b, [false, false], [false, false]).a).toBeCloseTo(5 / 26)
  })

  test('of two empty pages is 1, of an empty and another 0', () => {
    expect(compare('', '').a).toBe(1)
    expect(compare('', '<p>x').a).toBe(0)
    expect(compare('<p>x', '').a).toBe(0)
  })

  test('is the same from either side', () => {
    const page = fc
      .array(fc.constantFrom('<p>One.', ' Two.', '<li>Three.', '<p>Four! ', ' Five?'), {
        maxLength: 25,
      })
      .map((pieces) => list(pieces.join('')))
    fc.assert(
      fc.property(page, page, (a, b) => {
        const there = agreement(a, b, contentBlocks(a), contentBlocks(b))
        const back = agreement(b, a, contentBlocks(b), contentBlocks(a))
        expect(back.pairs.length).toBe(there.pairs.length)
        expect(there.a).toBeGreaterThanOrEqual(0)
        expect(there.a).toBeLessThanOrEqual(1)
        for (const [i, j] of there.pairs) {
          expect(sentenceKey(a[i] as ListedSentence)).toBe(sentenceKey(b[j] as ListedSentence))
        }
      }),
    )
  })
})

describe('contested sentences', () => {
  test('are only those of the main text', () => {
    const sentences = list('<p>One. Two. Three.</p>')
    expect(contestedSentences(sentences, [true, false, true], new Set([0]))).toEqual([2])
  })
})

describe('common sentences', () => {
  test('of three lists are in each of them, in order', () => {
    const lists = ['<p>A! B! C! D!', '<p>X! A! C! D!', '<p>A! B! D! C!'].map((html) => list(html))
    const common = commonSentences(lists)
    const texts = common.map((places, k) => places.map((i) => extractTexts(lists[k])[i]))
    expect(texts[0]).toEqual(texts[1])
    expect(texts[0]).toEqual(texts[2])
    expect(texts[0]).toHaveLength(2)
  })

  const extractTexts = (sentences: readonly ListedSentence[] | undefined) =>
    (sentences ?? []).map((sentence) => sentenceKey(sentence))

  test('of no list are none, of one list all', () => {
    expect(commonSentences([])).toEqual([])
    expect(commonSentences([list('<p>A! B!')])).toEqual([[0, 1]])
  })

  test('ascend in every list, whatever the lists', () => {
    const page = fc
      .array(fc.constantFrom('A!', 'B!', 'C!', 'D!'), { maxLength: 30 })
      .map((words) => list(`<p>${words.join(' ')}`))
    fc.assert(
      fc.property(fc.array(page, { minLength: 1, maxLength: 5 }), (lists) => {
        const common = commonSentences(lists)
        expect(common).toHaveLength(lists.length)
        for (const [k, places] of common.entries()) {
          expect(places).toEqual([...new Set(places)].sort((a, b) => a - b))
          const keys = places.map((i) => extractTexts(lists[k])[i])
          expect(keys).toEqual((common[0] ?? []).map((i) => extractTexts(lists[0])[i]))
        }
      }),
    )
  })
})

describe('content blocks', () => {
  const text =
    'A paragraph of running text that goes on for a while, as paragraphs do. It ends here.'
  const article = `<h2>Title</h2><p>${text}</p><p>Short one.</p><p>${text}</p><h3>Sub</h3><p>${text}</p><p>${text}</p>`

  test('are the running text with what stands between, not menus and link lists', () => {
    const html = `<ul><li><a href=/>Home</a><li><a href=/b>${text}</a></ul>${article}<div>Share</div><ul><li><a href=/c>${text}</a></ul><div>© Somebody</div>`
    const sentences = extractSentences(html).sentences
    const main = contentBlocks(sentences)
    const kept = sentences.filter((_, i) => main[i]).map((sentence) => sentence.text)
    expect(kept.slice(0, 4)).toEqual([
      ...text.split(/(?<=\.) /),
      'Short one.',
      'A paragraph of running text that goes on for a while, as paragraphs do.',
    ])
    expect(kept).toContain('Sub')
    expect(kept).not.toContain('Home')
    expect(kept).not.toContain('Share')
    expect(kept).not.toContain('© Somebody')
    expect(kept).toHaveLength(10)
  })

  test('hold whole blocks', () => {
    const sentences = list(article)
    const main = contentBlocks(sentences)
    const blocks = blockNumbers(sentences)
    for (const [i, block] of blocks.entries()) expect(main[i]).toBe(main[blocks.indexOf(block)])
  })

  test('of a page without running text are none', () => {
    expect(contentBlocks([])).toEqual([])
    expect(contentBlocks(list('<p>Short.</p><p>Also.</p>'))).toEqual([false, false])
  })
})
