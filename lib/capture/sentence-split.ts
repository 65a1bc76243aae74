/**
 * Cuts a line of text into sentences by fixed rules of our own: every observer must cut alike, and
 * `Intl.Segmenter` and `\p{…}` follow the engine's Unicode version. The rules know no language.
 * They may cut once too often after an abbreviation; as sentences are only the unit of voting and
 * are joined again, that does no harm.
 *
 * 1. `. ! ? …` and their kin of other scripts, repeated, then closing quotes and brackets, end a
 *    sentence when white space or the end of the line follows.
 * 2. The full-width `。！？｡．` end one without white space.
 * 3. A full stop does not end one after a single letter ("J. Doe", "e.g."), after a number of one or
 *    two digits ("1. Install", "3. Mai"), or before a lower-case letter of the Latin, Greek or
 *    Cyrillic alphabet.
 *
 * @param line with white space collapsed to single spaces and trimmed
 * @returns non-empty sentences in order; joined by single spaces they are the line again (rule 2 and
 *   pieces of over-long sentences excepted, where nothing stood between)
 */
export function splitSentences(line: string): string[] {
  const sentences: string[] = []
  let start = 0
  ENDING.lastIndex = 0
  for (let match = ENDING.exec(line); match; match = ENDING.exec(line)) {
    const at = match.index
    const end = ENDING.lastIndex
    const marks = match[1] ?? ''
    if (!isEnd(line, at, end, marks)) continue
    sentences.push(...cutLong(line.slice(start, end)))
    start = end + (line[end] === ' ' ? 1 : 0)
  }
  sentences.push(...cutLong(line.slice(start)))
  return sentences
}

/** UTF-16 code units. A longer run without a sentence end is cut into pieces; the list counts lengths in 16 bits. */
export const MAX_SENTENCE_CHARACTERS = 10_000

/** Marks, then closing quotes and brackets. Disjoint classes, so the match is linear. */
const ENDING = /([.!?…‽؟۔।॥։።፧។၊။᠃᠉⸮。！？｡．]+)[)\]}"'»”’›」』】）》〉〕］｝]*/g

const FULL_WIDTH = /[。！？｡．]/

/** ASCII, Latin-1, Greek and Cyrillic small letters: ranges that no Unicode version will move. */
const SMALL_LETTER = /[a-zß-öø-ÿά-ώа-џ]/

function isEnd(line: string, at: number, end: number, marks: string): boolean {
  if (end === line.length || FULL_WIDTH.test(marks)) return true
  if (line[end] !== ' ') return false
  if (marks !== '.' && marks !== '…' && marks !== '...') return true
  if (SMALL_LETTER.test(line[end + 1] ?? '')) return false
  return marks !== '.' || !isInitialOrNumber(line, at)
}

/** Whether the word before the full stop is one letter, or a number of one or two digits. */
function isInitialOrNumber(line: string, at: number): boolean {
  const last = line.charCodeAt(at - 1)
  if (isDigit(last)) {
    const begin = isDigit(line.charCodeAt(at - 2)) ? at - 2 : at - 1
    return isWordStart(line, begin)
  }
  return isLetter(last) && isWordStart(line, at - 1)
}

function isWordStart(line: string, at: number): boolean {
  return at === 0 || ' .([{"\'«“‘„‚-–—/'.includes(line[at - 1] ?? '')
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39
}

/** Letters of alphabets that have initials; from U+2E80 on a character is a word or a syllable. */
function isLetter(code: number): boolean {
  return (
    (code >= 0x41 && code <= 0x5a) ||
    (code >= 0x61 && code <= 0x7a) ||
    (code >= 0xc0 && code < 0x2000)
  )
}

/** A sentence, or the pieces of one that is too long. Empty text has no pieces. */
export function cutLong(sentence: string): string[] {
  const pieces: string[] = []
  let rest = sentence
  while (rest.length > MAX_SENTENCE_CHARACTERS) {
    const code = rest.charCodeAt(MAX_SENTENCE_CHARACTERS)
    // A low surrogate may not be torn from its high one: the halves have no UTF-8.
    const cut = MAX_SENTENCE_CHARACTERS - (code >= 0xdc00 && code <= 0xdfff ? 1 : 0)
    const piece = rest.slice(0, cut).replace(/ $/, '')
    if (piece !== '') pieces.push(piece)
    rest = rest.slice(cut).replace(/^ /, '')
  }
  if (rest !== '') pieces.push(rest)
  return pieces
}
