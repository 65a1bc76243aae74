import { blockNumbers } from './agreement.ts'
import { type Scrubbed, scrub } from './scrub.ts'
import type { Sentence } from './sentences.ts'

export type RowText =
  | {
      ok: true
      /** What is attested and published. UTF-8 of this is what the text digest is taken of. */
      text: string
      /** Own sentences left out inside blocks of which at least one is taken. */
      gaps: number
      scrubbed: Scrubbed['counts']
    }
  | { ok: false; reason: 'indexes-out-of-order' | 'index-out-of-range' }

/**
 * Builds a row's text from one observer's own sentences: those at `indexes`, joined by a space, or
 * by a line feed where a block begins after the previous one, up to and including this one; then
 * scrubbed. Transform `gleaner-text/1`. Observers whose sentences at their indexes are equal and
 * whose blocks begin alike get equal text, and `gaps` tells on whoever drops a sentence in between.
 *
 * @param sentences all sentences of the page, in order
 * @param indexes strictly ascending places in them; anything else is refused
 */
export function rowText(sentences: readonly Sentence[], indexes: readonly number[]): RowText {
  const blocks = blockNumbers(sentences)
  const taken = new Set<number>()
  let text = ''
  let previous = -1
  for (const index of indexes) {
    const sentence = sentences[index]
    const block = blocks[index]
    // Negative and fractional places have no sentence either.
    if (sentence === undefined || block === undefined) return refused('index-out-of-range')
    if (index <= previous) return refused('indexes-out-of-order')
    if (previous >= 0) text += block === blocks[previous] ? ' ' : '\n'
    text += sentence.text
    taken.add(block)
    previous = index
  }
  const inTakenBlocks = blocks.filter((block) => taken.has(block)).length
  const scrubbed = scrub(text)
  return {
    ok: true,
    text: scrubbed.text,
    gaps: inTakenBlocks - indexes.length,
    scrubbed: scrubbed.counts,
  }
}

function refused(reason: Extract<RowText, { ok: false }>['reason']): RowText {
  return { ok: false, reason }
}
