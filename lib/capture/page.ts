import { canonicalUrl } from './canonical-url.ts'
import { type Attributes, type HtmlListener, walkHtml } from './html-walk.ts'
import { ourName } from './robots.ts'
import { MAX_LINKS, sortedUnique } from './sentence-list.ts'
import {
  collapsed,
  extractPlainText,
  SentenceListener,
  type SentencesOfPage,
  shortDigest,
} from './sentences.ts'
import { withoutSession } from './session-id.ts'

export interface PageLink {
  /** Canonical, see `canonicalUrl`. */
  url: string
  /** Every link to this address on the page says rel=nofollow, or the page says so of them all. */
  nofollow: boolean
}

/** A statement of the page about its use, kept as written. Parsing is a later, changeable step. */
export type UseSignal = readonly [source: 'meta' | 'link' | 'a', name: string, value: string]

export interface Page extends SentencesOfPage {
  /** White space collapsed, NFC; null when there is none. At most 1,024 UTF-16 code units. */
  title: string | null
  /** Canonical form of `<link rel=canonical>`. */
  canonical: string | null
  /** `lang` of the html element, lower case, as written otherwise. */
  language: string | null
  /** What relative addresses are resolved against: `<base href>`, or the page's own address. */
  base: string
  /** In document order, at most 64. */
  signals: UseSignal[]
  /**
   * In document order, each address once, at most 2,000: of a and area; of link with rel canonical,
   * next or prev, or alternate with hreflang or a feed's type; of a declared refresh.
   */
  links: PageLink[]
}

/**
 * What an observation says about a page besides its text: 16 bytes of SHA-256 each. 128 bits are
 * enough, since only a second pre-image would help anyone (see `shortDigest`).
 */
export interface PageDigests {
  /** Of the title; an absent one counts as empty. */
  title: Uint8Array
  canonical: Uint8Array
  language: Uint8Array
  /** Of the JSON text of the sorted signals. */
  signals: Uint8Array
  /** Of the link digests that the sentence list carries, one after another. */
  links: Uint8Array
}

/** A real title has under 200; the rest is stuffing. UTF-16 code units. */
const MAX_TITLE_CHARACTERS = 1_024
/** BCP 47 §4.4.1 asks for 35. */
const MAX_LANGUAGE_CHARACTERS = 35
const MAX_SIGNALS = 64
const MAX_SIGNAL_CHARACTERS = 1_024

/**
 * Reads a page in one pass: its sentences and what it says about itself. Never throws.
 *
 * @param html decoded text; 2 MiB are read
 * @param url the final address of the page, canonical
 */
export function readPage(html: string, url: string): Page {
  const sentences = new SentenceListener()
  const about = new AboutListener(url)
  walkHtml(html, {
    open(name, attributes) {
      sentences.open(name, attributes)
      about.open(name, attributes)
    },
    close(name) {
      sentences.close(name)
      about.close(name)
    },
    text(text) {
      sentences.text(text)
      about.text(text)
    },
  })
  return { ...sentences.finish(), ...about.finish() }
}

/** A `text/plain` page: sentences by its lines, and nothing said about itself. */
export function readPlainPage(text: string, url: string): Page {
  return {
    ...extractPlainText(text),
    title: null,
    canonical: null,
    language: null,
    base: url,
    signals: [],
    links: [],
  }
}

/** Digests of what a page says about itself, for its observation. */
export function pageDigests(page: Omit<Page, 'sentences' | 'truncated'>): PageDigests {
  const signals = page.signals.map((signal) => JSON.stringify(signal)).sort()
  const links = sortedUnique(linkDigests(page.links))
  const joined = new Uint8Array(16 * links.length)
  for (const [i, link] of links.entries()) joined.set(link, 16 * i)
  return {
    title: shortDigest(page.title ?? ''),
    canonical: shortDigest(page.canonical ?? ''),
    language: shortDigest(page.language ?? ''),
    signals: shortDigest(`[${signals.join(',')}]`),
    links: shortDigest(joined),
  }
}

/** What `encodeSentenceList` takes: a 16-byte digest of each link's canonical URL. */
export function linkDigests(links: readonly PageLink[]): Uint8Array[] {
  return links.map((link) => shortDigest(link.url))
}

/** `<meta name>`s that say what may be done with a page; and those addressed to one crawler. */
const SIGNAL_NAMES = new Set([
  'content-signal',
  'content-usage',
  'dc.rights',
  'dcterms.license',
  'dcterms.rights',
  'license',
  ourName,
  'rights',
  'robots',
  'tdm-policy',
  'tdm-reservation',
])

/** `<meta name>`s whose nofollow we heed: everybody's, and the one by our own name. */
const ROBOTS_NAMES = new Set(['robots', ourName])

const FEED_TYPES = new Set(['application/rss+xml', 'application/atom+xml'])

/** Links of a page or feed as they are found: canonical, each once, in order. */
export class LinkList {
  readonly #links = new Map<string, PageLink>()
  // Many links are one address in many spellings, so more are read than come out.
  #left = 8 * MAX_LINKS

  /** @param base undefined: only an absolute address counts */
  add(href: string, base: string | undefined, nofollow: boolean): void {
    if (this.#left === 0) return
    this.#left--
    const resolved = canonicalUrl(href, base)
    if (!resolved.ok) return
    // A session of its own for every reader: no two observers would list the same address.
    const { url } = withoutSession(resolved.url)
    const known = this.#links.get(url)
    if (known) known.nofollow &&= nofollow
    else if (this.#links.size < MAX_LINKS) this.#links.set(url, { url, nofollow })
  }

  list(): PageLink[] {
    return [...this.#links.values()]
  }
}

/** A title as it is kept; null when nothing of it is left. */
export function pageTitle(text: string): string | null {
  return collapsed(text).slice(0, MAX_TITLE_CHARACTERS) || null
}

/** A language as it is kept; null when nothing of it is left. */
export function pageLanguage(tag: string): string | null {
  return collapsed(tag).slice(0, MAX_LANGUAGE_CHARACTERS).toLowerCase() || null
}

class AboutListener implements HtmlListener {
  readonly #url: string
  #base: string | null = null
  #title = ''
  #titles = 0
  #inTitle = false
  #drawings = 0
  #inert = 0
  #canonicalHref: string | null = null
  #language: string | null = null
  readonly #signals: UseSignal[] = []
  /** Kept as written until the end: `<base>` may follow. */
  readonly #hrefs: { href: string; nofollow: boolean }[] = []
  /** The page says of all its links that they are not to be followed. */
  #nofollow = false

  constructor(url: string) {
    this.#url = url
  }

  open(name: string, attributes: Attributes): void {
    switch (name) {
      case 'svg':
        this.#drawings++
        return
      case 'template':
        this.#inert++
        return
      case 'title':
        this.#inTitle = this.#drawings === 0 && this.#titles++ === 0
        return
      case 'html':
        this.#language ??= attributes.get('lang') ?? null
        return
      case 'base':
        this.#base ??= attributes.get('href') ?? null
        return
      case 'meta':
        this.#meta(attributes)
        return
      case 'link':
      case 'a':
      case 'area':
        if (this.#inert === 0) this.#link(name, attributes)
    }
  }

  close(name: string): void {
    if (name === 'title') this.#inTitle = false
    else if (name === 'svg') this.#drawings--
    else if (name === 'template') this.#inert--
  }

  text(text: string): void {
    if (this.#inTitle && this.#title.length < 4 * MAX_TITLE_CHARACTERS) this.#title += text
  }

  finish(): Omit<Page, 'sentences' | 'truncated'> {
    const base = this.#resolvedBase()
    const canonical = this.#canonicalHref === null ? null : canonicalUrl(this.#canonicalHref, base)
    return {
      title: pageTitle(this.#title),
      canonical: canonical?.ok ? canonical.url : null,
      language: pageLanguage(this.#language ?? ''),
      base,
      signals: this.#signals,
      links: this.#resolvedLinks(base),
    }
  }

  #meta(attributes: Attributes): void {
    const value = attributes.get('content')
    if (value === undefined) return
    if (attributes.get('http-equiv')?.trim().toLowerCase() === 'refresh' && this.#inert === 0) {
      const href = refreshTarget(value)
      if (href !== null) this.#href(href, false)
    }
    const name = attributes.get('name')?.trim().toLowerCase()
    if (name === undefined) return
    if (ROBOTS_NAMES.has(name)) {
      const rules = value.toLowerCase().split(/[\t\n\f\r ,]+/)
      this.#nofollow ||= rules.includes('nofollow') || rules.includes('none')
    }
    // "googlebot", "ccbot", "gptbot": a rule for one crawler is a wish all the same.
    if (SIGNAL_NAMES.has(name) || /^[a-z-]{1,28}bot$/.test(name)) this.#signal('meta', name, value)
  }

  #link(element: 'link' | 'a' | 'area', attributes: Attributes): void {
    const href = attributes.get('href')
    if (href === undefined) return
    const rel = (attributes.get('rel') ?? '').toLowerCase().split(/[\t\n\f\r ]+/)
    if (rel.includes('license')) this.#signal(element === 'link' ? 'link' : 'a', 'license', href)
    if (element === 'link') {
      if (rel.includes('canonical')) this.#canonicalHref ??= href
      if (!leadsToPage(rel, attributes)) return
    }
    this.#href(href, rel.includes('nofollow'))
  }

  #href(href: string, nofollow: boolean): void {
    if (this.#hrefs.length < 8 * MAX_LINKS) this.#hrefs.push({ href, nofollow })
  }

  #signal(source: UseSignal[0], name: string, value: string): void {
    if (this.#signals.length === MAX_SIGNALS) return
    this.#signals.push([source, name, collapsed(value).slice(0, MAX_SIGNAL_CHARACTERS)])
  }

  /** HTML Standard §4.2.3: the first base element with an href, itself relative to the page. */
  #resolvedBase(): string {
    if (this.#base === null) return this.#url
    const base = canonicalUrl(this.#base, this.#url)
    return base.ok ? base.url : this.#url
  }

  #resolvedLinks(base: string): PageLink[] {
    const links = new LinkList()
    for (const { href, nofollow } of this.#hrefs) links.add(href, base, nofollow || this.#nofollow)
    return links.list()
  }
}

/** Whether a link element names another page rather than a part of this one. */
function leadsToPage(rel: readonly string[], attributes: Attributes): boolean {
  if (rel.includes('canonical') || rel.includes('next') || rel.includes('prev')) return true
  if (!rel.includes('alternate')) return false
  // Not of other media or formats: those say again what the page says.
  const type = attributes.get('type')?.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  return attributes.has('hreflang') || FEED_TYPES.has(type)
}

/**
 * Where `<meta http-equiv=refresh>` leads, as written; null when it only loads the page again.
 * HTML Standard §4.2.5.3, "shared declarative refresh steps", without the time: however long it
 * takes, the page names its successor.
 */
function refreshTarget(content: string): string | null {
  const match =
    /^[\t\n\f\r ]*[\d.]+(?=[\t\n\f\r ;,])[\t\n\f\r ]*[;,]?[\t\n\f\r ]*(?:url[\t\n\f\r ]*=[\t\n\f\r ]*)?(?:"([^"]*)|'([^']*)|(.*))/is.exec(
      content,
    )
  const target = match?.[1] ?? match?.[2] ?? match?.[3] ?? ''
  return target.trim() === '' ? null : target
}
