import { Parser } from 'htmlparser2'

/** What a sitemap names: a page, or from an index another sitemap. As written, without space around. */
export type SitemapItem =
  | {
      kind: 'page'
      url: string
      /** 0 to 1; null where nobody said. */
      priority: number | null
      /** A date as written; null where nobody said. */
      lastModified: string | null
    }
  | { kind: 'sitemap'; url: string }

export type SitemapFormat = 'sitemap' | 'index' | 'rss' | 'atom' | 'text'

export interface SitemapReader {
  /** Takes the next piece of decoded text; returns what was found in it. */
  write(text: string): SitemapItem[]
  /** Takes the end; returns what only now is known to be whole. */
  end(): SitemapItem[]
  /** Null while, or because, it is none of them. */
  readonly format: SitemapFormat | null
  /** Why the rest is not read; null as long as there is no reason. */
  readonly stopped: string | null
}

/** sitemaps.org: "each Sitemap … must have no more than 50,000 URLs". */
export const mostPages = 50_000
/** sitemaps.org allows 50,000 here too; each is a fetch of its own, so a hundredth of that. */
export const mostSitemaps = 500
/** sitemaps.org: an address has less than 2,048 characters. Entities and spaces aside, some more. */
const mostAddressCharacters = 8_192
/** A date or a priority is shorter. */
const mostFieldCharacters = 100
/** A tag, comment or instruction that is longer is no part of a sitemap, and would have to be kept whole. */
const mostTokenCharacters = 256 * 1_024
/** Sitemaps are four deep with their extensions, feeds some more. */
const mostDepth = 64

/**
 * Reads a sitemap piece by piece (sitemaps.org 0.9): a list of addresses, an index of sitemaps, a
 * feed (RSS 0.9x to 2.0, Atom), or text with an address a line. Nothing is kept but the element that
 * is being read, so memory does not grow with the file; nothing that a document type declares is
 * expanded. Never throws: what is neither of these names nothing.
 */
export function createSitemapReader(): SitemapReader {
  let reader: Walk | null = null
  let leading = ''
  return {
    write(text) {
      if (reader) return reader.write(text)
      // The first character that is no space says whether it is XML.
      leading = (leading + text).replace(/^[\ufeff\s]+/, '')
      if (leading === '') return []
      reader = leading.startsWith('<') ? new XmlWalk() : new TextWalk()
      return reader.write(leading)
    },
    end: () => reader?.end() ?? [],
    get format() {
      return reader?.format ?? null
    },
    get stopped() {
      return reader?.stopped ?? null
    },
  }
}

abstract class Walk {
  format: SitemapFormat | null = null
  stopped: string | null = null
  #pages = 0
  #sitemaps = 0
  #found: SitemapItem[] = []

  protected abstract read(text: string): void
  protected abstract finish(): void

  write(text: string): SitemapItem[] {
    if (this.stopped === null) this.read(text)
    return this.#take()
  }

  end(): SitemapItem[] {
    if (this.stopped === null) this.finish()
    return this.#take()
  }

  #take(): SitemapItem[] {
    return this.#found.splice(0)
  }

  protected page(url: string, priority: number | null, lastModified: string | null) {
    if (this.stopped !== null || url === '') return
    if (this.#pages === mostPages) {
      this.stop(`only the first ${mostPages.toLocaleString('en')} addresses count`)
      return
    }
    this.#pages += 1
    this.#found.push({ kind: 'page', url, priority, lastModified })
  }

  protected sitemap(url: string) {
    if (this.stopped !== null || url === '') return
    if (this.#sitemaps === mostSitemaps) {
      this.stop(`only the first ${mostSitemaps} sitemaps of an index count`)
      return
    }
    this.#sitemaps += 1
    this.#found.push({ kind: 'sitemap', url })
  }

  protected stop(reason: string) {
    this.stopped ??= reason
  }
}

/** An address a line; what is none is left out. */
class TextWalk extends Walk {
  #line = ''

  protected read(text: string) {
    const lines = (this.#line + text).split(/\r\n|\n|\r/)
    // Of a longer line the beginning is no address.
    this.#line = (lines.pop() ?? '').slice(0, mostAddressCharacters + 1)
    for (const line of lines) this.#address(line)
  }

  protected finish() {
    this.#address(this.#line)
  }

  #address(line: string) {
    const url = line.trim()
    if (url.length > mostAddressCharacters || !/^https?:\/\//i.test(url)) return
    this.format = 'text'
    this.page(url, null, null)
  }
}

const roots: Readonly<Record<string, SitemapFormat>> = {
  urlset: 'sitemap',
  sitemapindex: 'index',
  rss: 'rss',
  rdf: 'rss',
  feed: 'atom',
}

/** Elements that stand for a page or a sitemap, by format. */
const entries: Readonly<Record<SitemapFormat, string>> = {
  sitemap: 'url',
  index: 'sitemap',
  rss: 'item',
  atom: 'entry',
  text: '',
}

/** The fields of an entry that count, by format; prefixed elements (image:loc) are others. */
const fields: Readonly<Record<string, 'address' | 'priority' | 'lastModified'>> = {
  'sitemap loc': 'address',
  'sitemap priority': 'priority',
  'sitemap lastmod': 'lastModified',
  'index loc': 'address',
  'rss link': 'address',
  'rss pubdate': 'lastModified',
  'rss dc:date': 'lastModified',
  'atom updated': 'lastModified',
}

type Entry = { address: string; priority: string; lastModified: string }

class XmlWalk extends Walk {
  readonly #parser: Parser
  /** Prefix of the root, which its own elements carry, too. */
  #prefix = ''
  #depth = 0
  #entryDepth = 0
  #entry: Entry | null = null
  #field: keyof Entry | null = null
  /** Since the parser last said something: that much it keeps. */
  #silent = 0

  constructor() {
    super()
    const heard = () => {
      this.#silent = 0
    }
    this.#parser = new Parser(
      {
        onopentag: (name, attributes) => {
          heard()
          this.#open(name.toLowerCase(), attributes)
        },
        onclosetag: () => {
          heard()
          this.#close()
        },
        ontext: (text) => {
          heard()
          this.#text(text)
        },
        oncomment: heard,
        onprocessinginstruction: heard,
      },
      { xmlMode: true },
    )
  }

  protected read(text: string) {
    // In pieces, so that the end of what is read is noticed soon.
    for (let at = 0; at < text.length && this.stopped === null; at += 65_536) {
      const piece = text.slice(at, at + 65_536)
      this.#silent += piece.length
      this.#parser.write(piece)
      if (this.#silent > mostTokenCharacters) this.stop('it holds a tag or comment without an end')
    }
  }

  protected finish() {
    // An element that is still open was cut: half an address is another address.
    this.#entry = null
    this.#parser.end()
  }

  #open(name: string, attributes: Record<string, string>) {
    this.#depth += 1
    if (this.stopped !== null) return
    if (this.#depth > mostDepth) return this.stop('its elements are nested too deep')
    if (this.#depth === 1) return this.#root(name)
    const { format } = this
    if (format === null) return
    const own = this.#own(name)
    if (this.#entry === null) {
      if (own !== entries[format]) return
      this.#entry = { address: '', priority: '', lastModified: '' }
      this.#entryDepth = this.#depth
      return
    }
    if (this.#depth !== this.#entryDepth + 1) return
    this.#field = fields[`${format} ${own}`] ?? null
    // Only the first of each counts.
    if (this.#field !== null && this.#entry[this.#field] !== '') this.#field = null
    if (format === 'atom' && own === 'link' && this.#entry.address === '') {
      // RFC 4287 §4.2.7.2: a link without rel is an alternate.
      const { href, rel = 'alternate' } = attributes
      if (rel === 'alternate' && href !== undefined) this.#entry.address = cut(href)
    }
  }

  #root(name: string) {
    const [, prefix = '', local = name] = /^(?:([^:]*:))?(.*)$/.exec(name) ?? []
    const format = roots[local]
    if (format === undefined) return this.stop(`its root is <${local.slice(0, 40)}>`)
    this.format = format
    // RSS 1.0 has the prefix only at its root.
    this.#prefix = format === 'rss' ? '' : prefix
  }

  #own(name: string): string {
    return name.startsWith(this.#prefix) ? name.slice(this.#prefix.length) : `other:${name}`
  }

  #text(text: string) {
    if (this.#entry === null || this.#field === null) return
    // One character more than may be: what is too long is known by it.
    const room = (this.#field === 'address' ? mostAddressCharacters : mostFieldCharacters) + 1
    this.#entry[this.#field] = (this.#entry[this.#field] + text).slice(0, room)
  }

  #close() {
    const depth = this.#depth
    this.#depth -= 1
    if (this.#entry === null) return
    if (depth === this.#entryDepth + 1) this.#field = null
    if (depth !== this.#entryDepth) return
    const entry = this.#entry
    this.#entry = null
    const address = entry.address.trim()
    if (address.length > mostAddressCharacters) return
    if (this.format === 'index') this.sitemap(address)
    else this.page(address, priorityOf(entry.priority), entry.lastModified.trim() || null)
  }
}

function cut(text: string): string {
  return text.slice(0, mostAddressCharacters + 1)
}

function priorityOf(text: string): number | null {
  if (!/^\s*(0?\.\d{1,9}|[01](\.\d{0,9})?)\s*$/.test(text)) return null
  return Math.min(Number(text), 1)
}

/** Entries that changed within this time come sooner: they are what a campaign does not know yet. */
const recentMs = 7 * 86_400_000
const recentBonus = 0.2

/**
 * How urgent a page is, 0 to 1, by what its sitemap says: its priority (0.5 where nobody said, as
 * sitemaps.org has it), and a little more when it changed within a week. Null where nothing is said.
 */
export function urgencyOf(
  { priority, lastModified }: { priority: number | null; lastModified: string | null },
  nowMs: number,
): number | null {
  // W3C dates, as sitemaps and Atom have them, and those of RSS; what else it reads does no harm.
  const ageMs = lastModified === null ? Number.NaN : nowMs - Date.parse(lastModified)
  const isRecent = ageMs >= 0 && ageMs < recentMs
  if (priority === null && !isRecent) return null
  return Math.min(1, (priority ?? 0.5) + (isRecent ? recentBonus : 0))
}
