import { describe, expect, test } from 'vitest'
import { readPayload } from '../../../lib/capture/read-payload.ts'
import { rowText } from '../../../lib/capture/row-text.ts'
import { decodeSentenceList } from '../../../lib/capture/sentence-list.ts'
import {
  agreeOnMain,
  agreeOnSentences,
  bands,
  type Listed,
} from '../../../server/verify/sentence-quorum.ts'
import { changed, paragraphs, replaced, teaPage } from './tea-page.ts'

interface Seen extends Listed {
  texts: string[]
}

function seen(lease: string, html: string): Seen {
  const read = readPayload(new TextEncoder().encode(html), {
    type: 'text/html',
    charset: 'utf-8',
    url: 'https://barley.example/tea',
  })
  if (!read.ok) throw new Error(read.reason)
  const decoded = decodeSentenceList(read.sentenceList)
  if (!decoded.ok) throw new Error(decoded.reason)
  return { lease, list: decoded.list, texts: read.page.sentences.map((one) => one.text) }
}

/** The row text as this observer makes it. */
function rebuilt({ list, texts }: Seen, indexes: readonly number[]): string {
  const row = rowText(
    list.sentences.map((sentence, i) => ({ ...sentence, text: texts[i] ?? '' })),
    indexes,
  )
  if (!row.ok) throw new Error(row.reason)
  return row.text
}

const tea = (lease: string, shown: Parameters<typeof teaPage>[0] = {}) =>
  seen(lease, teaPage(shown))

describe('agreeOnSentences', () => {
  test('two equal lists agree, high and uncontested', () => {
    expect(agreeOnSentences([tea('a'), tea('b')], 2)).toEqual({
      kind: 'agree',
      members: ['a', 'b'],
      band: 'high',
      contested: false,
      outliers: [],
    })
  })

  test('what stands outside the main text does not count', () => {
    const [a, b] = [tea('a', { promotion: 'Cheap leaves!' }), tea('b', { promotion: 'Rain.' })]
    expect(agreeOnSentences([a, b], 2)).toMatchObject({ band: 'high', contested: false })
  })

  test('one sentence inside a block that is otherwise agreed is contested', () => {
    const b = tea('b', { paragraphs: changed(0, 'evergreen', 'thorny') })
    expect(agreeOnSentences([tea('a'), b], 2)).toMatchObject({ band: 'high', contested: true })
  })

  test.each([
    [1, 'middle'],
    [2, 'middle'],
  ])('with %d of six blocks said otherwise the band is %s', (count, band) => {
    const b = tea('b', { paragraphs: replaced(count, 'xylo') })
    expect(agreeOnSentences([tea('a'), b], 2)).toMatchObject({ band, contested: false })
  })

  test.each([5, 6])('with %d of six blocks said otherwise they differ', (count) => {
    const b = tea('b', { paragraphs: replaced(count, 'xylo') })
    expect(agreeOnSentences([tea('a'), b], 2)).toEqual({ kind: 'differ' })
  })

  test('of three, the two that agree best are the members', () => {
    const odd = tea('odd', { paragraphs: replaced(2, 'xylo') })
    expect(agreeOnSentences([odd, tea('b'), tea('c')], 2)).toMatchObject({ members: ['b', 'c'] })
  })

  test('an uncontested pair goes before a contested one', () => {
    const forged = tea('a', { paragraphs: changed(3, 'nine', 'five') })
    expect(agreeOnSentences([forged, tea('b'), tea('c')], 2)).toMatchObject({
      members: ['b', 'c'],
      contested: false,
      outliers: [],
    })
  })

  test('a list that is low against every member is an outlier, one that is middle is not', () => {
    const stranger = tea('stranger', { paragraphs: replaced(6, 'xylo') })
    const cousin = tea('cousin', { paragraphs: replaced(2, 'yara') })
    expect(agreeOnSentences([stranger, tea('b'), cousin, tea('c')], 2)).toMatchObject({
      members: ['b', 'c'],
      outliers: ['stranger'],
    })
  })

  test('a quorum of three wants every pair to agree', () => {
    const odd = tea('odd', { paragraphs: replaced(6, 'xylo') })
    expect(agreeOnSentences([tea('a'), tea('b'), odd], 3)).toEqual({ kind: 'differ' })
    expect(agreeOnSentences([tea('a'), odd, tea('b'), tea('c')], 3)).toMatchObject({
      members: ['a', 'b', 'c'],
    })
  })

  test('fewer lists than the quorum differ', () => {
    expect(agreeOnSentences([tea('a')], 2)).toEqual({ kind: 'differ' })
    expect(agreeOnSentences([], 2)).toEqual({ kind: 'differ' })
  })

  test('the bands leave room for a middle', () => {
    for (const band of Object.values(bands)) expect(band.low).toBeLessThan(band.high)
  })
})

describe('agreeOnMain', () => {
  /** Everything but the menu and the footer, as the extractor would mark it. */
  const mainOf = ({ texts }: Seen) => {
    const from = texts.findIndex((text) => text.startsWith('Tea is'))
    return texts.map((_, i) => i >= from)
  }
  const textsOf = (one: Seen, indexes: readonly number[]) => indexes.map((i) => one.texts[i])
  const agreed = (...members: Seen[]) => {
    const [holder] = members
    if (!holder) throw new Error('nobody')
    const main = agreeOnMain(mainOf(holder), members)
    return members.map((one, n) => textsOf(one, main.selected[n]?.indexes ?? []))
  }

  test('selects the same sentences in each member’s own list', () => {
    const [a, b] = [tea('a'), tea('b', { promotion: 'Rain. Wind.', links: '<p>Before</p>' })]
    const longer = seen('c', teaPage().replace('<nav>', '<p>A banner.</p><nav>'))
    const [ofA, ofB, ofC] = agreed(a, b, longer)
    expect(ofA?.slice(0, 3).join(' ')).toBe(paragraphs[0])
    expect(ofB).toEqual(ofA)
    expect(ofC).toEqual(ofA)
    const { selected } = agreeOnMain(mainOf(a), [a, longer])
    expect(selected[1]?.indexes[0]).toBe((selected[0]?.indexes[0] ?? 0) + 1)
  })

  test('withholds the whole block of a sentence that differs', () => {
    const b = tea('b', { paragraphs: changed(3, 'nine', 'five'), promotion: 'Nothing new.' })
    const [texts] = agreed(tea('a'), b)
    expect(texts?.join(' ')).not.toContain('A tin of two hundred grams')
    expect(texts?.join(' ')).not.toContain('The leaves keep for a year')
    expect(texts?.join(' ')).toContain('Milk goes in first')
  })

  test('withholds the block also when only the other one added a sentence to it', () => {
    const b = tea('b', { paragraphs: changed(3, 'The leaves keep', 'Buy now! The leaves keep') })
    for (const texts of agreed(tea('a'), b)) {
      expect(texts.join(' ')).not.toContain('A tin of two hundred grams')
      expect(texts.join(' ')).toContain(paragraphs[4])
    }
  })

  test('the agreement is that of the pair that agrees least', () => {
    const a = tea('a')
    const [near, far] = [
      tea('b', { paragraphs: replaced(1, 'xylo') }),
      tea('c', { paragraphs: replaced(2, 'yara') }),
    ]
    const alone = agreeOnMain(mainOf(a), [a, far]).agreement
    expect(agreeOnMain(mainOf(a), [a, near]).agreement).toBeGreaterThan(alone)
    expect(agreeOnMain(mainOf(a), [a, near, far]).agreement).toBe(alone)
  })

  test('a block that members break differently is withheld: each must rebuild the same text', () => {
    const one = seen('a', '<p>Tea is old. It is hot.</p><p>Roses like it.</p>')
    const other = seen('b', '<p>Tea is old.</p><p>It is hot.</p><p>Roses like it.</p>')
    expect(one.texts).toEqual(other.texts)
    const { selected } = agreeOnMain([true, true, true], [one, other])
    expect(rebuilt(one, selected[0]?.indexes ?? [])).toBe(
      rebuilt(other, selected[1]?.indexes ?? []),
    )
    expect(textsOf(one, selected[0]?.indexes ?? [])).toEqual(['Roses like it.'])
  })

  test('members that share nothing have nothing selected', () => {
    const [a, b] = [tea('a'), tea('b', { paragraphs: replaced(6, 'xylo') })]
    const [texts] = agreed(a, b)
    expect(texts).toEqual(['Nothing new.'])
  })

  test('nobody at all is a fault of the caller', () => {
    expect(() => agreeOnMain([], [])).toThrow('nobody')
  })
})
