import { sha256 } from '../crypto/digest.ts'
import {
  type Attributes,
  BLOCK_ELEMENTS,
  type HtmlListener,
  MAX_HTML_CHARACTERS,
  walkHtml,
} from './html-walk.ts'
import { cutLong, splitSentences } from './sentence-split.ts'

/** What kind of block a sentence stands in: its nearest enclosing element that says so. */
export const ROLES = ['other', 'heading', 'paragraph', 'item', 'cell', 'code', 'caption'] as const
export type Role = (typeof ROLES)[number]

/** A sentence as the binary list carries it: everything but the text. */
export interface ListedSentence {
  /** First 16 bytes of SHA-256 of the text in UTF-8. See `shortDigest` for why 128 bits are enough. */
  digest: Uint8Array
  /** First 4 bytes of SHA-256 of the block's path, for instance `html/body/div/p`. Tells blocks apart, proves nothing. */
  path: Uint8Array
  role: Role
  startsBlock: boolean
  /** Has characters that change how text looks or reads without being seen. */
  suspicious: boolean
  /** More than 60 % of its block's characters are inside links. */
  linked: boolean
  /** UTF-16 code units of the text. */
  length: number
}

export interface Sentence extends ListedSentence {
  /** NFC, white space collapsed to single spaces, trimmed, not empty. At most 10,000 UTF-16 code units. */
  text: string
}

export interface SentencesOfPage {
  sentences: Sentence[]
  /** More sentences were there than are listed. */
  truncated: boolean
}

/** Sentences listed of one page. The longest encyclopaedia articles have some 5,000. */
export const MAX_SENTENCES = 20_000

/**
 * The ordered sentences of a page's visible text: the same for the same text on every machine.
 * Reads at most 2 MiB (2^21 UTF-16 code units); never throws.
 *
 * Visible is what a browser shows before any script or style sheet: not the content of script,
 * style, noscript, template, svg, title, form fields, media and embedded fallbacks, not elements
 * with `hidden` or an inline `display:none` (on html and body these are ignored: scripts undo them),
 * not a dialog that is closed. `aria-hidden` text counts: it is hidden from assistive technology,
 * not from the eye. NFC is stable for assigned characters (UAX #15 §3), so engines of different
 * Unicode versions can only differ on characters that one of them does not know.
 */
export function extractSentences(html: string): SentencesOfPage {
  const sentences = new SentenceListener()
  walkHtml(html, sentences)
  return sentences.finish()
}

/** The sentences of a `text/plain` page: each line that is not blank is a block. */
export function extractPlainText(text: string): SentencesOfPage {
  const sentences = new SentenceListener()
  sentences.plain(text)
  return sentences.finish()
}

/**
 * The first 16 bytes of SHA-256. 128 bits suffice where only a second pre-image helps an attacker:
 * finding another text with a given digest takes 2^128 trials. Two texts of one's own choice with
 * equal digests take 2^64, and win nothing: both were one's own to publish.
 */
export function shortDigest(input: string | Uint8Array): Uint8Array {
  return sha256(input).slice(0, 16)
}

const ROLE_OF: Readonly<Record<string, Role>> = {
  caption: 'caption',
  dd: 'item',
  dt: 'item',
  figcaption: 'caption',
  h1: 'heading',
  h2: 'heading',
  h3: 'heading',
  h4: 'heading',
  h5: 'heading',
  h6: 'heading',
  legend: 'caption',
  li: 'item',
  listing: 'code',
  p: 'paragraph',
  pre: 'code',
  summary: 'heading',
  td: 'cell',
  th: 'cell',
  xmp: 'code',
}

/** Never shown, or not text of the page: form fields, and fallbacks for what every browser can do. */
const INVISIBLE = new Set(
  `annotation annotation-xml audio canvas datalist iframe noembed noframes noscript object rp script
  select style svg template textarea title video`.split(/\s+/),
)

/** Characters of a block's path that are digested; deeper blocks share the digest of their ancestor. */
const MAX_PATH_CHARACTERS = 1_024

/** Unicode's White_Space property, closed since Unicode 6.3. Zero-width characters are not in it. */
const WHITE_SPACE = /[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g

/**
 * Unicode's Bidi_Control property; zero-width space, word joiner and other invisible format
 * characters; tags and runs of variation selectors, which can carry hidden text.
 */
const SUSPICIOUS =
  /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]|[\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\u180e]|[\u{e0000}-\u{e007f}]|[\ufe00-\ufe0f\u{e0100}-\u{e01ef}]{2}/u

/**
 * A zero-width joiner or non-joiner is how Persian, Indic scripts and emoji are spelled; it is
 * suspicious next to any character before U+0600 (Latin, Greek, Cyrillic, digits, spaces) or the edge.
 */
const MISPLACED_JOINER =
  /(?:^|[\0-\u05ff\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?:$|[\0-\u05ff])/u

/** NFC, without NUL, each run of white space one space, trimmed. */
export function collapsed(text: string): string {
  return text.normalize('NFC').replaceAll('\0', '').replace(WHITE_SPACE, ' ').replace(/^ | $/g, '')
}

/** What an open element means for the text in it. */
interface Frame {
  path: string
  role: Role
  isBlock: boolean
  hidden: boolean
  link: boolean
  pre: boolean
}

const ROOT: Frame = {
  path: 'html/body',
  role: 'other',
  isBlock: true,
  hidden: false,
  link: false,
  pre: false,
}

/** Collects sentences from a walk over a document. One for each document. */
export class SentenceListener implements HtmlListener {
  readonly #sentences: Sentence[] = []
  #truncated = false
  readonly #frames: Frame[] = []
  #frame = ROOT
  readonly #pathDigests = new Map<string, Uint8Array>()

  // The block being read. Lines are separated by a line feed.
  #text = ''
  #where = ROOT
  #linkedCharacters = 0
  #characters = 0
  #lineBreaks = 0

  open(name: string, attributes: Attributes): void {
    if (name === 'br' && !this.#frame.hidden) this.#lineBreaks++
    const outer = this.#frame
    this.#frames.push(outer)
    if (name === 'html' || name === 'head' || name === 'body') return
    const isBlock = BLOCK_ELEMENTS.has(name)
    const hidden = outer.hidden || isHidden(name, attributes)
    if (isBlock && !hidden) this.#endBlock()
    const link = outer.link || (name === 'a' && attributes.has('href'))
    if (!isBlock && hidden === outer.hidden && link === outer.link) return
    const role = ROLE_OF[name] ?? outer.role
    const path =
      isBlock && outer.path.length < MAX_PATH_CHARACTERS ? `${outer.path}/${name}` : outer.path
    this.#frame = { path, role, isBlock, hidden, link, pre: outer.pre || role === 'code' }
  }

  close(_name: string): void {
    const inner = this.#frame
    const outer = this.#frames.pop() ?? ROOT
    if (inner !== outer && inner.isBlock && !inner.hidden) this.#endBlock()
    this.#frame = outer
  }

  text(text: string): void {
    const frame = this.#frame
    if (frame.hidden) return
    const characters = text.replace(WHITE_SPACE, '').length
    if (characters > 0 && this.#lineBreaks > 0) {
      // One <br> ends a line; two are how old pages write a new paragraph.
      if (this.#lineBreaks > 1) this.#endBlock()
      else this.#text += '\n'
      this.#lineBreaks = 0
    }
    if (this.#characters === 0) {
      if (characters === 0) return
      this.#where = frame
    }
    this.#text += frame.pre ? text : text.replace(WHITE_SPACE, ' ')
    this.#characters += characters
    if (frame.link) this.#linkedCharacters += characters
  }

  plain(text: string): void {
    for (const line of text.slice(0, MAX_HTML_CHARACTERS).split(/\r\n|[\n\r]/)) {
      this.text(line)
      this.#endBlock()
    }
  }

  finish(): SentencesOfPage {
    this.#endBlock()
    return { sentences: this.#sentences, truncated: this.#truncated }
  }

  #endBlock(): void {
    if (this.#characters > 0) this.#list()
    this.#text = ''
    this.#characters = 0
    this.#linkedCharacters = 0
    this.#lineBreaks = 0
  }

  #list(): void {
    const { path, role, pre } = this.#where
    const linked = this.#linkedCharacters > 0.6 * this.#characters
    let startsBlock = true
    for (const rawLine of this.#text.split(/\r\n|[\n\r]/)) {
      const line = collapsed(rawLine)
      for (const text of pre ? cutLong(line) : splitSentences(line)) {
        if (this.#sentences.length === MAX_SENTENCES) {
          this.#truncated = true
          return
        }
        this.#sentences.push({
          text,
          digest: shortDigest(text),
          path: this.#pathDigest(path),
          role,
          startsBlock,
          suspicious: SUSPICIOUS.test(text) || MISPLACED_JOINER.test(text),
          linked,
          length: text.length,
        })
        startsBlock = false
      }
      // A line of code is a block: it must not run into the next when they are joined.
      startsBlock ||= pre
    }
  }

  #pathDigest(path: string): Uint8Array {
    let digest = this.#pathDigests.get(path)
    if (!digest) {
      digest = sha256(path).slice(0, 4)
      this.#pathDigests.set(path, digest)
    }
    return digest
  }
}

function isHidden(name: string, attributes: Attributes): boolean {
  if (INVISIBLE.has(name) || attributes.has('hidden')) return true
  if (name === 'dialog') return !attributes.has('open')
  const style = attributes.get('style')
  if (style === undefined) return false
  // The last declaration of a property wins.
  const display = style.split(';').findLast((declaration) => /^\s*display\s*:/i.test(declaration))
  return display !== undefined && /:\s*none\s*(!\s*important\s*)?$/i.test(display)
}
