import { Tokenizer, type TokenizerCallbacks } from 'htmlparser2'
import { canonicalUrl } from './canonical-url.ts'
import { type Attributes, MAX_HTML_CHARACTERS, walkHtml } from './html-walk.ts'
import { LinkList, type Page, pageLanguage, pageTitle, readPlainPage } from './page.ts'
import { extractSentences, SentenceListener } from './sentences.ts'

/**
 * Reads a feed: RSS 0.9x, 1.0 and 2.0, and Atom (RFC 4287). Never throws.
 *
 * Sentences are the titles and descriptions in document order, the markup that they carry read as
 * HTML; of an entry without a description, its content. Links are those of the entries and of the
 * feed itself to what they describe, and to the feed's next and previous pages. XML that is no feed,
 * and HTML that calls itself XML, has no text and no links.
 *
 * No tree is built, no entity but XML's own five is known, and nothing that a document type declares
 * is expanded. Elements are told apart by the prefixes that everybody uses, not by namespace.
 *
 * @param xml decoded text; 2 MiB are read
 * @param url the final address of the feed, canonical
 */
export function readFeed(xml: string, url: string): Page {
  const walk = new FeedWalk(xml.slice(0, MAX_HTML_CHARACTERS), url)
  walk.run()
  return walk.finish()
}

/** Without prefix. `RDF` is RSS 0.90 and 1.0. */
const ROOTS = new Set(['rss', 'feed', 'RDF'])
const CHANNELS = new Set(['channel', 'feed'])
const ENTRIES = new Set(['item', 'entry'])

/** Prefixes of the formats themselves; with any other, `media:title` say, a name means another thing. */
const OWN_PREFIX = /^(?:a10|atom|rdf|rss):/

/** What a channel or an entry says of itself in its children. */
const FIELDS = new Set(
  `content content:encoded dc:language description guid language link subtitle summary tagline
  title`.split(/\s+/),
)
const CHANNEL_DESCRIPTIONS = new Set(['description', 'subtitle', 'tagline'])
/** The first of these that an entry has: what introduces it, else the whole of it. */
const ENTRY_DESCRIPTIONS = ['description', 'summary', 'content:encoded', 'content']

/** Link relations that lead to pages: RFC 4287 §4.2.7.2, RFC 5005 §3 and §4. Without one it is the first. */
const FOLLOWED = new Set(['alternate', 'next', 'prev', 'previous', 'next-archive', 'prev-archive'])

/** Atom's text constructs (RFC 4287 §3.1, §4.1.3.1), and how Atom 0.3 called them. */
const ATOM_PLAIN = new Set(['text', 'text/plain'])
const ATOM_MARKUP = new Set(['html', 'xhtml', 'text/html', 'application/xhtml+xml'])

/** Deeper elements are not told apart. A feed has five levels, the markup in it some more. */
const MAX_DEPTH = 64
/** Longer names are cut: none that means anything here has more. */
const MAX_NAME_CHARACTERS = 32
/** A longer value counts as absent: more than any address that is used. */
const MAX_ATTRIBUTE_CHARACTERS = 8_192
const KEPT_ATTRIBUTES = new Set(['href', 'isPermaLink', 'rel', 'type', 'xml:base', 'xml:lang'])

const NO_ATTRIBUTES: Attributes = new Map()

interface Element {
  name: string
  /** What relative addresses in it are resolved against: `xml:base`, or the feed's own address. */
  base: string
}

/** An element of `FIELDS` that is open. */
interface Field {
  name: string
  /** Its place on the stack. */
  at: number
  attributes: Attributes
  base: string
  text: string
  /** Where its content begins in the document. */
  start: number
  hasElements: boolean
}

/** What an open entry has said. Texts are HTML. */
interface Entry {
  /** Its place on the stack. */
  at: number
  title: string | null
  descriptions: Map<string, string>
  guid: string | null
  hasLink: boolean
}

class FeedWalk implements TokenizerCallbacks {
  readonly #xml: string
  readonly #url: string
  #root: string | null = null
  readonly #stack: Element[] = []
  /** Open elements beyond `MAX_DEPTH`. */
  #deeper = 0
  #name = ''
  #attributes = new Map<string, string>()
  #attributeName = ''
  #attributeValue = ''
  #field: Field | null = null
  #entry: Entry | null = null

  #title: string | null = null
  #language: string | null = null
  readonly #sentences = new SentenceListener()
  readonly #links = new LinkList()

  constructor(xml: string, url: string) {
    this.#xml = xml
    this.#url = url
  }

  run(): void {
    const tokenizer = new Tokenizer({ xmlMode: true, decodeEntities: true }, this)
    if (this.#xml !== '') tokenizer.write(this.#xml)
    tokenizer.end()
    this.#popTo(0, this.#xml.length)
  }

  finish(): Page {
    if (!this.#isFeed()) return readPlainPage('', this.#url)
    return {
      ...this.#sentences.finish(),
      title: this.#title,
      canonical: null,
      language: this.#language,
      base: this.#url,
      signals: [],
      links: this.#links.list(),
    }
  }

  ontext(start: number, end: number): void {
    if (this.#field !== null) this.#field.text += this.#xml.slice(start, end)
  }

  ontextentity(codepoint: number): void {
    if (this.#field !== null) this.#field.text += String.fromCodePoint(codepoint)
  }

  oncdata(start: number, end: number, terminator: number): void {
    this.ontext(start, end - terminator)
  }

  onopentagname(start: number, end: number): void {
    this.#name = this.#nameAt(start, end)
    this.#attributes = new Map()
  }

  onattribname(start: number, end: number): void {
    const name = this.#nameAt(start, end)
    this.#attributeName = KEPT_ATTRIBUTES.has(name) ? name : ''
    this.#attributeValue = ''
  }

  onattribdata(start: number, end: number): void {
    if (this.#attributeName !== '' && this.#attributeValue.length <= MAX_ATTRIBUTE_CHARACTERS) {
      this.#attributeValue += this.#xml.slice(start, end)
    }
  }

  onattribentity(codepoint: number): void {
    if (this.#attributeName !== '' && this.#attributeValue.length <= MAX_ATTRIBUTE_CHARACTERS) {
      this.#attributeValue += String.fromCodePoint(codepoint)
    }
  }

  onattribend(): void {
    const name = this.#attributeName
    this.#attributeName = ''
    if (name === '' || this.#attributeValue.length > MAX_ATTRIBUTE_CHARACTERS) return
    if (!this.#attributes.has(name)) this.#attributes.set(name, this.#attributeValue)
  }

  onopentagend(end: number): void {
    this.#start(end + 1)
  }

  onselfclosingtag(end: number): void {
    if (this.#start(end + 1)) this.#end(this.#name, end + 1)
  }

  onclosetag(start: number, end: number): void {
    this.#end(this.#nameAt(start, end), this.#xml.lastIndexOf('<', start))
  }

  oncomment(): void {}
  ondeclaration(): void {}
  onprocessinginstruction(): void {}
  onend(): void {}

  #nameAt(start: number, end: number): string {
    return this.#xml
      .slice(start, Math.min(end, start + MAX_NAME_CHARACTERS + 1))
      .replace(OWN_PREFIX, '')
  }

  #isFeed(): boolean {
    return this.#root !== null && ROOTS.has(this.#root)
  }

  /** @returns whether the element is open now */
  #start(contentStart: number): boolean {
    const name = this.#name
    const attributes = this.#attributes
    this.#root ??= name
    if (!this.#isFeed()) return false
    if (this.#field !== null) this.#field.hasElements = true
    if (this.#stack.length >= MAX_DEPTH) {
      this.#deeper++
      return true
    }
    const parent = this.#stack.at(-1)
    const base = baseOf(attributes, parent?.base ?? this.#url)
    const at = this.#stack.push({ name, base }) - 1
    if (this.#field !== null) return true
    if (CHANNELS.has(name)) this.#sayLanguage(attributes.get('xml:lang'))
    if (parent === undefined) return true
    if (ENTRIES.has(name) && (ROOTS.has(parent.name) || CHANNELS.has(parent.name))) {
      this.#entry = { at, title: null, descriptions: new Map(), guid: null, hasLink: false }
    } else if (FIELDS.has(name) && (CHANNELS.has(parent.name) || ENTRIES.has(parent.name))) {
      const field = { name, at, attributes, base, text: '', start: contentStart }
      this.#field = { ...field, hasElements: false }
    }
    return true
  }

  #end(name: string, contentEnd: number): void {
    if (this.#deeper > 0) {
      this.#deeper--
      return
    }
    const at = this.#stack.findLastIndex((element) => element.name === name)
    if (at >= 0) this.#popTo(at, contentEnd)
  }

  /** Ends the element at this place and all within it. */
  #popTo(at: number, contentEnd: number): void {
    this.#stack.length = Math.min(at, this.#stack.length)
    const field = this.#field
    if (field !== null && field.at >= at) {
      this.#field = null
      this.#endField(field, contentEnd)
    }
    const entry = this.#entry
    if (entry !== null && entry.at >= at) {
      this.#entry = null
      this.#endEntry(entry)
    }
  }

  #endField(field: Field, contentEnd: number): void {
    const { name, text, attributes, base } = field
    const entry = this.#entry
    if (name === 'link') {
      this.#link(attributes.get('href'), attributes.get('rel'), text, base)
      return
    }
    if (name === 'language' || name === 'dc:language') {
      if (entry === null) this.#sayLanguage(text)
      return
    }
    if (name === 'guid') {
      // RSS 2.0: an address, unless it says that it is not one.
      if (entry !== null && attributes.get('isPermaLink') !== 'false') entry.guid ??= text.trim()
      return
    }
    const html = this.#htmlOf(field, contentEnd)
    if (html === null) return
    if (entry === null) this.#ofChannel(name, html)
    else if (name === 'title') entry.title ??= html
    else if (!entry.descriptions.has(name)) entry.descriptions.set(name, html)
  }

  /** What a text element says, as HTML; null when it is no text. */
  #htmlOf({ attributes, hasElements, start, text }: Field, end: number): string | null {
    const type = attributes.get('type')?.trim().toLowerCase()
    // RSS does not say whether its texts are HTML: everybody writes and reads them as if they were.
    if (this.#root === 'feed' && (type === undefined || ATOM_PLAIN.has(type))) {
      return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
    }
    if (this.#root === 'feed' && type !== undefined && !ATOM_MARKUP.has(type)) return null
    // XHTML, or markup that somebody forgot to escape: as it stands.
    return hasElements ? this.#xml.slice(start, end) : text
  }

  #ofChannel(name: string, html: string): void {
    if (name === 'title') {
      this.#title ??= pageTitle(wordsOf(html))
      this.#say('h1', html)
    } else if (CHANNEL_DESCRIPTIONS.has(name)) this.#say('div', html)
  }

  #endEntry(entry: Entry): void {
    if (entry.title !== null) this.#say('h2', entry.title)
    const kept = ENTRY_DESCRIPTIONS.find((name) => entry.descriptions.has(name))
    if (kept !== undefined) this.#say('div', entry.descriptions.get(kept) ?? '')
    // Not resolved against anything: a guid that is no address of its own is only a name.
    if (!entry.hasLink && entry.guid !== null) this.#links.add(entry.guid, undefined, false)
  }

  #say(element: 'h1' | 'h2' | 'div', html: string): void {
    this.#sentences.open(element, NO_ATTRIBUTES)
    walkHtml(html, this.#sentences)
    this.#sentences.close(element)
  }

  #link(href: string | undefined, rel = 'alternate', text: string, base: string): void {
    const address = (href ?? text).trim()
    if (address === '') return
    // RSS's own link has neither; Atom's, which stands in RSS feeds as well, has its address in href.
    if (href !== undefined && !FOLLOWED.has(rel.trim().toLowerCase())) return
    if (this.#entry !== null) this.#entry.hasLink = true
    this.#links.add(address, base, false)
  }

  #sayLanguage(language: string | undefined): void {
    this.#language ??= pageLanguage(language ?? '')
  }
}

function wordsOf(html: string): string {
  return extractSentences(html)
    .sentences.map((sentence) => sentence.text)
    .join(' ')
}

/** XML Base §3.1: each is itself relative to the one around it. */
function baseOf(attributes: Attributes, outer: string): string {
  const written = attributes.get('xml:base')
  if (written === undefined) return outer
  const base = canonicalUrl(written, outer)
  return base.ok ? base.url : outer
}
