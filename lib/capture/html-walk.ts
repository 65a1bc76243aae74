import { Tokenizer, type TokenizerCallbacks } from 'htmlparser2'

/** Attributes by lower-case name; only those of `KEPT_ATTRIBUTES`, the first of each (as browsers do). */
export type Attributes = ReadonlyMap<string, string>

/** Hears a document in order. Every `open` has its `close`, properly nested. */
export interface HtmlListener {
  open(name: string, attributes: Attributes): void
  close(name: string): void
  /** Entities are decoded. One text may arrive in several pieces. */
  text(text: string): void
}

/** UTF-16 code units of decoded text that are read; longer documents are cut. The work is linear in this. */
export const MAX_HTML_CHARACTERS = 2 * 1_024 * 1_024

/** Open elements, as in Blink. Elements deeper than this are empty: their text belongs to the last one. */
const MAX_DEPTH = 512

/** Longer element names are cut; no element of HTML has more than 14 characters. */
const MAX_NAME_CHARACTERS = 32

/** A longer attribute value counts as absent: more than any URL or signal that is used. */
const MAX_ATTRIBUTE_CHARACTERS = 8_192

const KEPT_ATTRIBUTES = new Set(
  'charset content hidden href hreflang http-equiv lang name open rel style type'.split(' '),
)

const VOID = new Set(
  'area base basefont bgsound br col embed frame hr img input keygen link meta param source track wbr'.split(
    ' ',
  ),
)

/** Their content is text up to the end tag (noscript, too, as with scripts on). */
const RAW = new Set('iframe noembed noframes noscript script style textarea title xmp'.split(' '))

/** Elements that are laid out as blocks (HTML Standard §15.3), and `button`, whose label stands alone. */
export const BLOCK_ELEMENTS: ReadonlySet<string> = new Set(
  `address article aside blockquote button caption center dd details dialog dir div dl dt fieldset
  figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li listing main menu nav ol
  p pre search section summary table tbody td tfoot th thead tr ul xmp`.split(/\s+/),
)

/** Their start tag ends an open paragraph (HTML Standard §13.2.6.4.7). */
const ENDS_PARAGRAPH = new Set(
  `address article aside blockquote center dd details dialog dir div dl dt fieldset figcaption figure
  footer form h1 h2 h3 h4 h5 h6 header hgroup hr li listing main menu nav ol p pre search section
  summary table ul xmp`.split(/\s+/),
)

/** HTML Standard §13.2.4.2, "have an element in scope": end tags do not reach past these. */
const SCOPE = new Set('applet caption marquee math object svg table td template th'.split(' '))
const BUTTON_SCOPE = new Set([...SCOPE, 'button'])
const ITEM_SCOPE = new Set([...SCOPE, 'ol', 'ul', 'menu', 'dir'])
const DEFINITION_SCOPE = new Set([...SCOPE, 'dl'])
const TABLE_SCOPE = new Set(['table', 'template'])
const INLINE_SCOPE = new Set([...SCOPE, ...BLOCK_ELEMENTS])

const PARAGRAPH = new Set(['p'])
const ITEM = new Set(['li'])
const DEFINITION = new Set(['dd', 'dt'])
const CELLS = new Set(['td', 'th', 'caption'])
const ROWS = new Set(['td', 'th', 'tr', 'caption'])
const SECTIONS = new Set(['td', 'th', 'tr', 'tbody', 'thead', 'tfoot', 'caption'])
const HEADINGS = new Set(['h1', 'h2', 'h3', 'h4', 'h5', 'h6'])
const TABLE_PARTS = new Set([...SECTIONS, 'table'])

/** Inside SVG and MathML these start tags end the drawing (HTML Standard §13.2.6.5). */
const ENDS_FOREIGN = new Set(
  `b big blockquote br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 hr i img li listing menu
  meta nobr ol p pre ruby s small span strong strike sub sup table tt u ul var`.split(/\s+/),
)
const FOREIGN = new Set(['svg', 'math'])
const INTEGRATION = new Set(['foreignobject', 'desc', 'annotation-xml', 'mi', 'mo', 'mn', 'mtext'])

const NO_ATTRIBUTES: Attributes = new Map()

/**
 * Walks an HTML document once, in order, without building a tree. Tokens come from htmlparser2;
 * optional end tags, scopes, raw text and foreign content follow the HTML Standard closely enough
 * that text lands in the block a browser shows it in. Not followed: formatting elements are not
 * reopened after a misnested end tag, and text inside a table but outside its cells stays there.
 *
 * `html`, `head` and `body` are heard but hold nothing: their tags are optional and often repeated.
 * htmlparser2's own Parser is not used because its stack has no limit and a deep document makes it
 * quadratic. Never throws, whatever the input.
 */
export function walkHtml(html: string, listener: HtmlListener): void {
  const walk = new Walk(html.slice(0, MAX_HTML_CHARACTERS), listener)
  walk.run()
}

class Walk implements TokenizerCallbacks {
  readonly #html: string
  readonly #listener: HtmlListener
  readonly #stack: string[] = []
  /** How often each name is on the stack, so that stray end tags cost nothing. */
  readonly #open = new Map<string, number>()
  /** The raw-text element we are in: only its own end tag is seen. */
  #raw: string | null = null
  #name = ''
  #attributes: Map<string, string> | null = null
  #attributeName = ''
  #attributeValue = ''

  constructor(html: string, listener: HtmlListener) {
    this.#html = html
    this.#listener = listener
  }

  run(): void {
    const tokenizer = new Tokenizer({ xmlMode: false, decodeEntities: true }, this)
    if (this.#html !== '') tokenizer.write(this.#html)
    tokenizer.end()
    while (this.#stack.length > 0) this.#pop()
  }

  ontext(start: number, end: number): void {
    if (end > start) this.#listener.text(this.#html.slice(start, end))
  }

  ontextentity(codepoint: number): void {
    this.#listener.text(String.fromCodePoint(codepoint))
  }

  onopentagname(start: number, end: number): void {
    this.#name = this.#nameAt(start, end)
    this.#attributes = null
  }

  onattribname(start: number, end: number): void {
    const name = end - start > MAX_NAME_CHARACTERS ? '' : this.#nameAt(start, end)
    this.#attributeName = KEPT_ATTRIBUTES.has(name) ? name : ''
    this.#attributeValue = ''
  }

  onattribdata(start: number, end: number): void {
    if (this.#attributeName !== '' && this.#attributeValue.length <= MAX_ATTRIBUTE_CHARACTERS) {
      this.#attributeValue += this.#html.slice(start, end)
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
    this.#attributes ??= new Map()
    if (!this.#attributes.has(name)) this.#attributes.set(name, this.#attributeValue)
  }

  onopentagend(): void {
    this.#start(false)
  }

  onselfclosingtag(): void {
    this.#start(true)
  }

  onclosetag(start: number, end: number): void {
    this.#end(this.#nameAt(start, end))
  }

  // Comments, declarations and processing instructions are not part of the visible text; in HTML
  // a CDATA section is a comment as well.
  oncomment(): void {}
  oncdata(): void {}
  ondeclaration(): void {}
  onprocessinginstruction(): void {}
  onend(): void {}

  /** ASCII lower case only: "K" (Kelvin) is not "k" in a name. */
  #nameAt(start: number, end: number): string {
    const name = this.#html.slice(start, Math.min(end, start + MAX_NAME_CHARACTERS))
    return name.replace(/[A-Z]+/g, (capitals) => capitals.toLowerCase())
  }

  #start(selfClosing: boolean): void {
    if (this.#raw !== null) return
    const name = this.#name
    const attributes = this.#attributes ?? NO_ATTRIBUTES
    if (name === 'html' || name === 'head' || name === 'body') {
      this.#listener.open(name, attributes)
      this.#listener.close(name)
      return
    }
    if (ENDS_FOREIGN.has(name)) this.#endForeign()
    this.#endImplied(name)
    this.#listener.open(name, attributes)
    const isEmpty = VOID.has(name) || (selfClosing && this.#isForeign(name))
    const isRaw = RAW.has(name) && !this.#isForeign(name)
    if (isEmpty || (this.#stack.length >= MAX_DEPTH && !isRaw)) {
      this.#listener.close(name)
      return
    }
    this.#stack.push(name)
    this.#open.set(name, (this.#open.get(name) ?? 0) + 1)
    if (isRaw) this.#raw = name
  }

  #end(name: string): void {
    if (this.#raw !== null) {
      if (name !== this.#raw) return
      this.#raw = null
      this.#pop()
      return
    }
    if (name === 'br' || (name === 'p' && !this.#isOpen('p'))) {
      // HTML Standard §13.2.6.4.7: these two end tags make an element of their own.
      this.#listener.open(name, NO_ATTRIBUTES)
      this.#listener.close(name)
      return
    }
    if (TABLE_PARTS.has(name)) this.#popTo(name, name === 'table' ? SCOPE_OF_TABLE : TABLE_SCOPE)
    else if (name === 'li') this.#popTo(name, ITEM_SCOPE)
    else if (name === 'p') this.#popTo(name, BUTTON_SCOPE)
    else if (BLOCK_ELEMENTS.has(name) || name === 'a' || SCOPE.has(name)) this.#popTo(name, SCOPE)
    else this.#popTo(name, INLINE_SCOPE)
  }

  /** Start tags that end what is open, HTML Standard §13.1.2.4 and §13.2.6.4. */
  #endImplied(name: string): void {
    if (ENDS_PARAGRAPH.has(name)) this.#popThrough(PARAGRAPH, BUTTON_SCOPE)
    if (HEADINGS.has(name) && HEADINGS.has(this.#stack.at(-1) ?? '')) this.#pop()
    if (name === 'li') this.#popThrough(ITEM, ITEM_SCOPE)
    else if (name === 'dd' || name === 'dt') this.#popThrough(DEFINITION, DEFINITION_SCOPE)
    else if (name === 'td' || name === 'th') this.#popThrough(CELLS, TABLE_SCOPE)
    else if (name === 'tr') this.#popThrough(ROWS, TABLE_SCOPE)
    else if (name === 'tbody' || name === 'thead' || name === 'tfoot') {
      this.#popThrough(SECTIONS, TABLE_SCOPE)
    } else if (name === 'a' || name === 'button') this.#popTo(name, SCOPE)
  }

  #isOpen(name: string): boolean {
    return (this.#open.get(name) ?? 0) > 0
  }

  /** Closes up to and with the nearest element of this name, unless `scope` stands between. */
  #popTo(name: string, scope: ReadonlySet<string>): void {
    if (!this.#isOpen(name)) return
    for (let at = this.#stack.length - 1; at >= 0; at--) {
      const open = this.#stack[at] ?? ''
      if (open === name) {
        while (this.#stack.length > at) this.#pop()
        return
      }
      if (scope.has(open)) return
    }
  }

  /** Closes up to and with the outermost of these names on this side of `scope`. */
  #popThrough(names: ReadonlySet<string>, scope: ReadonlySet<string>): void {
    let outermost = -1
    if (![...names].some((name) => this.#isOpen(name))) return
    for (let at = this.#stack.length - 1; at >= 0; at--) {
      const open = this.#stack[at] ?? ''
      if (names.has(open)) outermost = at
      else if (scope.has(open)) break
    }
    if (outermost < 0) return
    while (this.#stack.length > outermost) this.#pop()
  }

  #isForeign(name: string): boolean {
    if (FOREIGN.has(name)) return true
    if (!this.#isOpen('svg') && !this.#isOpen('math')) return false
    const nearest = this.#stack.findLast((open) => FOREIGN.has(open) || INTEGRATION.has(open))
    return nearest !== undefined && FOREIGN.has(nearest)
  }

  #endForeign(): void {
    while (this.#isForeign('')) {
      let popped = ''
      while (!FOREIGN.has(popped)) popped = this.#pop()
    }
  }

  #pop(): string {
    const name = this.#stack.pop() ?? ''
    this.#open.set(name, (this.#open.get(name) ?? 1) - 1)
    this.#listener.close(name)
    return name
  }
}

/** A table's own end tag may pass cells of that table, which are open inside it. */
const SCOPE_OF_TABLE = new Set(['template', 'object', 'svg', 'math'])
