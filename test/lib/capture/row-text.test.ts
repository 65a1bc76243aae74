import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { rowText } from '../../../lib/capture/row-text.ts'
import { extractSentences } from '../../../lib/capture/sentences.ts'
import vectors from '../../vectors/row-text.json' with { type: 'json' }

interface Case {
  name: string
  indexes: number[]
  text?: string
  gaps?: number
  digest?: string
  refusal?: string
}

const page = fc
  .array(fc.constantFrom('<p>One.', ' Two.', '<li>Three.', '<pre>a\nb</pre>', ' Four!', '<br>x'), {
    maxLength: 25,
  })
  .map((pieces) => extractSentences(pieces.join('')).sentences)

describe('the text of a row', () => {
  test.each(vectors.cases as Case[])('of $name follows the vector', (vector) => {
    const row = rowText(extractSentences(vectors.html).sentences, vector.indexes)
    if (vector.refusal !== undefined) {
      expect(row).toEqual({ ok: false, reason: vector.refusal })
      return
    }
    expect(row).toMatchObject({ ok: true, text: vector.text, gaps: vector.gaps })
    expect(
      createHash('sha256')
        .update(vector.text ?? '')
        .digest('hex'),
    ).toBe(vector.digest)
  })

  test('of all sentences has no gaps and a line for each block', () => {
    fc.assert(
      fc.property(page, (sentences) => {
        const row = rowText(sentences, [...sentences.keys()])
        expect(row).toMatchObject({ ok: true, gaps: 0 })
        const blocks = sentences.filter((sentence) => sentence.startsBlock).length
        if (row.ok && blocks > 0) expect(row.text.split('\n')).toHaveLength(blocks)
      }),
    )
  })

  test('has a gap for every sentence left out of a block that is taken in part', () => {
    fc.assert(
      fc.property(page, fc.infiniteStream(fc.boolean()), (sentences, choices) => {
        const indexes = [...sentences.keys()].filter(() => choices.next().value === true)
        const row = rowText(sentences, indexes)
        let expected = 0
        let start = 0
        for (let end = 1; end <= sentences.length; end++) {
          if (end < sentences.length && !sentences[end]?.startsBlock) continue
          const taken = indexes.filter((index) => index >= start && index < end).length
          if (taken > 0) expected += end - start - taken
          start = end
        }
        expect(row).toMatchObject({ ok: true, gaps: expected })
      }),
    )
  })
})
