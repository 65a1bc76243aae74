import { Parser } from 'htmlparser2'
import type { Signal } from '../protocol/release.ts'
import { escapePattern, ourName, parseRobots } from './robots.ts'

/** A file beside the pages of a host that says how they may be used. */
export type UseFile =
  | { kind: 'tdmrep' | 'ai-txt'; body: string }
  /** An RSL licence, by the address that robots.txt names. Null when it could not be had. */
  | { kind: 'rsl'; url: string; body: string | null }

/**
 * What such a file says, rule by rule, in a form that can be stored (table host_signal) and that
 * `siteUse` reads. `name` is a place for `tdmrep` (`0007 /path/*`) and `rsl` (`/path/*`).
 */
export interface HostSignal {
  source: 'tdmrep' | 'ai-txt' | 'rsl'
  name: string
  value: string
}

/** Where the files are that are looked for unasked; licences are where robots.txt says. */
export const useFilePaths = { tdmrep: '/.well-known/tdmrep.json', 'ai-txt': '/ai.txt' } as const

/** Real ones have some kilobytes. UTF-16 code units. */
const maxFileCharacters = 256 * 1_024
/** Each is compared with every address of the host. */
const maxRules = 1_000
/** PostgreSQL indexes 2,704 bytes at most; patterns are ASCII, and a value stands beside them. */
const maxPatternCharacters = 1_500
const maxAddressCharacters = 500

/** What a file says. Never throws; a file that cannot be read says only that. */
export function hostFileSignals(file: UseFile): HostSignal[] {
  switch (file.kind) {
    case 'tdmrep':
      return tdmrep(file.body)
    case 'ai-txt':
      return aiTxt(file.body)
    case 'rsl':
      return licence(file.url, file.body)
  }
}

/** A signal of a file as a row carries it, without the place that it was chosen by. */
export function rowSignal({ source, name, value }: HostSignal): Signal {
  if (source === 'ai-txt') return { source, name, value }
  if (source === 'tdmrep') {
    return { source, name: value === '' ? 'unreadable' : 'tdm-reservation', value }
  }
  return { source, name: name === 'unreadable' || name === 'read' ? name : 'terms', value }
}

/** Whether a signal of source `rsl` is of the licence at this address: a host may name several. */
export function isOfLicence({ value }: Pick<HostSignal, 'value'>, url: string): boolean {
  const address = addressWord(url)
  return value === address || value.endsWith(` ${address}`)
}

/** TDMRep §5: a list of rules; the first whose location matches counts. */
function tdmrep(body: string): HostSignal[] {
  let rules: unknown
  try {
    rules = JSON.parse(body.slice(0, maxFileCharacters).replace(/^\ufeff/, ''))
  } catch {
    rules = undefined
  }
  if (!Array.isArray(rules)) return [{ source: 'tdmrep', name: 'unreadable', value: '' }]
  const read = rules.flatMap((rule: unknown) => {
    const { location, 'tdm-reservation': reserved } = (rule ?? {}) as Record<string, unknown>
    if (typeof location !== 'string' || location === '') return []
    // "1" is no number, but a wish that nobody can mistake. Other values leave it unset.
    const value = reserved === 1 || reserved === '1' ? '1' : reserved === 0 ? '0' : 'unset'
    const pattern = filePattern(location)
    if (pattern.length <= maxPatternCharacters) return [{ pattern, value }]
    // Its beginning matches more than it does: good for a no, and for nothing else.
    return value === '1' ? [{ pattern: pattern.slice(0, maxPatternCharacters), value }] : []
  })
  const kept = read.slice(0, maxRules)
  if (read.slice(maxRules).some(({ value }) => value === '1'))
    kept.push({ pattern: '/', value: '1' })
  return kept.map(({ pattern, value }, at) => ({
    source: 'tdmrep',
    name: `${String(at).padStart(4, '0')} ${pattern}`,
    value,
  }))
}

/** Three formats share the name ai.txt. One of them is like robots.txt, and `Disallow: /` is a no to training. */
function aiTxt(body: string): HostSignal[] {
  const text = body.slice(0, maxFileCharacters)
  // A page in place of a missing file.
  if (text.trim() === '' || /^\s*<(!doctype|html|\?xml)/i.test(text)) return []
  const signals: HostSignal[] = [{ source: 'ai-txt', name: 'presence', value: '' }]
  let isAddressed = true
  let inAgents = false
  for (const { kind, value } of parseRobots(text).lines) {
    if (kind === 'user-agent') {
      const names = value === '*' || value.toLowerCase() === ourName
      isAddressed = inAgents ? isAddressed || names : names
    }
    inAgents = kind === 'user-agent'
    if (kind === 'disallow' && isAddressed && /^(\/\*?|\*)$/.test(value)) {
      return [...signals, { source: 'ai-txt', name: 'disallow', value }]
    }
  }
  return signals
}

const rslNamespace = 'https://rslstandard.org/rsl'

interface Terms {
  permits: string[]
  prohibits: string[]
  payment: string | undefined
  conditional: boolean
}

/** RSL 1.0: `content` elements with the place they are about, each with licences. */
function licence(url: string, body: string | null): HostSignal[] {
  const address = addressWord(url)
  const unreadable: HostSignal[] = [{ source: 'rsl', name: 'unreadable', value: address }]
  if (body === null || body.length > maxFileCharacters) return unreadable
  const reader = new LicenceReader()
  const parser = new Parser(reader, { xmlMode: true })
  parser.write(body)
  parser.end()
  if (!reader.isLicence) return unreadable
  const signals = new Map<string, HostSignal>()
  const add = (signal: HostSignal) => signals.set(JSON.stringify(signal), signal)
  add({ source: 'rsl', name: 'read', value: address })
  for (const { place, server, terms } of reader.contents) {
    const value = [...termsText(terms), ...(server ? ['server'] : []), address].join(' ')
    // Cut, the pattern matches more: as good as any licence that cannot be kept to.
    const name = filePattern(place).slice(0, maxPatternCharacters)
    add({ source: 'rsl', name, value })
  }
  return reader.isCut ? unreadable : [...signals.values()]
}

function addressWord(url: string): string {
  return `url=${url.slice(0, maxAddressCharacters)}`
}

class LicenceReader {
  isLicence = false
  /** More than is read: it may say anything. */
  isCut = false
  readonly contents: { place: string; server: boolean; terms: Terms }[] = []
  #isRoot = true
  #place: string | undefined
  #server = false
  #terms: Terms | undefined
  #list: string[] | undefined
  #text = ''

  onopentag(tag: string, attributes: Record<string, string>): void {
    const [name, prefix] = tag.split(':').reverse() as [string, string | undefined]
    if (this.#isRoot) {
      this.#isRoot = false
      const namespace = attributes[prefix === undefined ? 'xmlns' : `xmlns:${prefix}`]
      this.isLicence = name === 'rsl' && namespace?.trim() === rslNamespace
    }
    switch (name) {
      case 'content':
        this.#place = attributes.url ?? '/'
        this.#server = attributes.server !== undefined
        break
      case 'license':
        this.#terms = { permits: [], prohibits: [], payment: undefined, conditional: false }
        break
      case 'permits':
      case 'prohibits':
        if (this.#terms === undefined) break
        if (attributes.type === 'usage') {
          this.#list = this.#terms[name]
          this.#text = ''
        } else {
          // Of a country or a kind of user: whether we are one of them, we do not know.
          this.#terms.conditional = true
        }
        break
      case 'payment':
        this.#pays(attributes.type ?? 'free')
        break
      case 'amount':
        // A price that the kind of payment does not speak of.
        if (this.#terms?.payment === 'free') this.#pays('purchase')
    }
  }

  /** Of several kinds of payment the one that asks most: none, then credit, then anything else. */
  #pays(type: string): void {
    if (this.#terms === undefined) return
    const order = (one: string) => (one === 'free' ? 0 : one === 'attribution' ? 1 : 2)
    const { payment } = this.#terms
    if (payment === undefined || order(token(type)) > order(payment)) {
      this.#terms.payment = token(type)
    }
  }

  ontext(text: string): void {
    // Tokens are short; who writes more says nothing that is known.
    if (this.#list && this.#text.length < 1_000) this.#text += text
  }

  onclosetag(tag: string, isImplied: boolean): void {
    switch (tag.split(':').at(-1)) {
      case 'rsl':
        // The file ends before its root does.
        if (isImplied) this.isCut = true
        break
      case 'permits':
      case 'prohibits':
        this.#list?.push(
          ...this.#text
            .split(/[\s,]+/)
            .map(token)
            .filter((one) => one !== ''),
        )
        this.#list = undefined
        break
      case 'license':
        if (this.#terms && this.#place !== undefined) {
          if (this.contents.length === maxRules) this.isCut = true
          else this.contents.push({ place: this.#place, server: this.#server, terms: this.#terms })
        }
        this.#terms = undefined
        break
      case 'content':
        this.#place = undefined
    }
  }
}

/** A word of a vocabulary, so that terms can be told apart again. */
function token(word: string): string {
  return word
    .toLowerCase()
    .replace(/[^a-z0-9-]/g, '')
    .slice(0, 20)
}

function termsText({ permits, prohibits, payment, conditional }: Terms): string[] {
  // The known tokens of RSL are six.
  const list = (tokens: readonly string[]) => [...new Set(tokens)].slice(0, 8).join('+')
  return [
    ...(prohibits.length > 0 ? [`prohibits=${list(prohibits)}`] : []),
    ...(permits.length > 0 ? [`permits=${list(permits)}`] : []),
    ...(payment === undefined ? [] : [`payment=${payment}`]),
    ...(conditional ? ['conditional'] : []),
  ]
}

/**
 * A place as a pattern of RFC 9309 §2.2.3, escaped and in ASCII: of a whole address its path. What
 * need not be escaped is not (TDMRep §5, RFC 3986 §6.2.2.2).
 */
function filePattern(place: string): string {
  const path = place.trim().replace(/^https?:\/\/[^/]*/i, '') || '/'
  const pattern = escapePattern(path).replace(/%[0-9A-F]{2}/g, (triplet) => {
    const character = String.fromCharCode(Number.parseInt(triplet.slice(1), 16))
    return /[A-Za-z0-9._~-]/.test(character) ? character : triplet
  })
  return pattern.startsWith('/') || pattern.startsWith('*') ? pattern : `/${pattern}`
}
