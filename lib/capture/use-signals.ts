import { parseDictionary, Token } from 'structured-headers'
import type { Row, Signal } from '../protocol/release.ts'
import { ourName } from './robots.ts'

/** What a site says of one kind of use. Silence is `unknown`, and never a yes. */
export type Preference = 'y' | 'n' | 'unknown'

/**
 * Kinds of use. `train`: training of generative models (AIPREF train-ai, Content-Signal ai-train,
 * noai). `search`: an index that leads to the page. `aiInput`: grounding of answers at the time of
 * the question. `tdm`: text and data mining, as reserved under Article 4 of directive (EU) 2019/790.
 */
export const dimensions = ['train', 'search', 'aiInput', 'tdm'] as const
export type Dimension = (typeof dimensions)[number]

/** Wishes of robots meta and X-Robots-Tag that are said or not. */
export const wishes = ['noarchive', 'noindex', 'nofollow'] as const
export type Wish = (typeof wishes)[number]

export type UseTerm = Dimension | Wish

export type Use = Record<Dimension, Preference> & Record<Wish, boolean>

/** What one signal says. */
export interface UseStatement extends Use {
  signal: Signal
  /** Line of robots.txt; null where there is none. */
  line: number | null
  /**
   * Statements of one topic are stages: the highest that is there counts, the others do not. TDMRep
   * has its file, the header and the page (§6); a licence that was read stands for its bare address.
   */
  topic: string | null
  stage: number
  /** Something is missing here that might say no: then nobody's yes counts. */
  doubtful: boolean
  /** The words that say it, for a reason that people read. */
  said: Partial<Record<UseTerm, string>>
}

/** Bound of a signal in a row and of a header in an observation; a value as long as this was cut. */
export const maxSignalCharacters = 256
/** Bound of a signal in a page (page.ts). */
const maxPageSignalCharacters = 1_024

/** Parses one signal as far as it is addressed to everyone or to us. Never throws. */
export function parseSignal(signal: Signal, line: number | null = null): UseStatement {
  const statement: UseStatement = {
    ...nothing,
    signal,
    line,
    topic: null,
    stage: 0,
    doubtful: false,
    said: {},
  }
  const { source, name } = signal
  const value = uncut(signal, statement)
  switch (source) {
    case 'header':
    case 'meta':
      if (name === 'content-usage') contentUsage(value, statement)
      else if (name === 'content-signal') contentSignal(value, statement)
      else if (name === 'tdm-reservation')
        reservation(value, source === 'header' ? 1 : 2, statement)
      else if (source === 'header' && name === 'x-robots-tag') robotsDirectives(value, statement)
      else if (source === 'meta' && (name === 'robots' || name === ourName)) {
        robotsDirectives(value, statement)
      } else if (source === 'meta' && name === 'observers-differ') statement.doubtful = true
      break
    case 'robots':
      if (name === 'content-usage') contentUsage(withoutPath(value), statement)
      else if (name === 'content-signal') contentSignal(withoutPath(value), statement)
      else if (name === 'license') {
        // RSL: a licence has to be read before its terms can be kept. Read, it is of source rsl.
        statement.topic = `licence ${signal.value}`
        say(statement, 'train', 'n', 'a licence that was not read')
      }
      break
    case 'tdmrep':
      if (name === 'tdm-reservation') reservation(value, 0, statement)
      break
    case 'rsl':
      licenceTerms(name, value, statement)
      break
    case 'ai-txt':
      if (name === 'disallow') say(statement, 'train', 'n', `Disallow: ${value}`)
      break
    case 'link':
    case 'a':
      // rel=license names a licence of any kind; its address is kept and says nothing by itself.
      break
  }
  return statement
}

/**
 * What statements say together (AIPREF vocabulary §5.1): a no of anybody is a no, else a yes of
 * anybody is a yes, else it is unknown. Where a statement is doubtful, no yes counts, and no
 * reservation is overridden.
 */
export function combineUse(statements: readonly UseStatement[]): Use {
  const doubtful = statements.some((one) => one.doubtful)
  const highest = new Map<string, number>()
  for (const { topic, stage } of statements) {
    if (topic !== null) highest.set(topic, Math.max(highest.get(topic) ?? 0, stage))
  }
  const use: Use = { ...nothing }
  for (const one of statements) {
    const isOverridden = one.topic !== null && one.stage < (highest.get(one.topic) ?? 0)
    if (isOverridden && !(doubtful && one.topic === 'tdm')) continue
    for (const dimension of dimensions) {
      if (one[dimension] === 'n') use[dimension] = 'n'
      else if (one[dimension] === 'y' && !doubtful && use[dimension] === 'unknown') {
        use[dimension] = 'y'
      }
    }
    for (const wish of wishes) use[wish] ||= one[wish]
  }
  return use
}

/** What raw signals say together: those of one page by all its observers, and of its host at it. */
export function useOf(signals: readonly Signal[]): Use {
  return combineUse(signals.map((signal) => parseSignal(signal)))
}

/**
 * What a row says of its use. One of before signals were parsed states none: not all that its host
 * said is among its signals, so of these the noes count and no yes does.
 */
export function useOfRow({ use, signals }: Pick<Row, 'use' | 'signals'>): NonNullable<Row['use']> {
  if (use !== undefined) return use
  const said = useOf(signals)
  const no = (dimension: Dimension) => (said[dimension] === 'n' ? 'n' : 'unknown')
  return { aiInput: no('aiInput'), search: no('search'), tdm: no('tdm'), train: no('train') }
}

/** The kind of use for which the first is less restrictive than the second; undefined if none. */
export function lessRestrictive(
  stated: Record<Dimension, Preference>,
  needed: Record<Dimension, Preference>,
): Dimension | undefined {
  const order = ['y', 'unknown', 'n']
  return dimensions.find((one) => order.indexOf(stated[one]) < order.indexOf(needed[one]))
}

/** A signal within the bounds of a row. */
export function boundedSignal({ source, name, value }: Signal): Signal {
  return { source, name: name.slice(0, 60), value: value.slice(0, maxSignalCharacters) }
}

const nothing: Use = {
  train: 'unknown',
  search: 'unknown',
  aiInput: 'unknown',
  tdm: 'unknown',
  noarchive: false,
  noindex: false,
  nofollow: false,
}

function say(statement: UseStatement, term: Dimension, value: 'y' | 'n', words: string): void {
  // Of one statement, too, the no counts.
  if (statement[term] === 'n') return
  statement[term] = value
  statement.said[term] = words
}

/** What is left of a value that was cut: its whole members. The rest may have said no. */
function uncut({ source, value }: Signal, statement: UseStatement): string {
  const isCut =
    value.length === maxSignalCharacters ||
    (source === 'meta' && value.length >= maxPageSignalCharacters)
  if (!isCut) return value
  statement.doubtful = true
  const comma = value.lastIndexOf(',')
  return comma < 0 ? '' : value.slice(0, comma)
}

/** AIPREF: a dictionary of tokens `y` and `n`; anything else is unknown, and so is what cannot be parsed. */
function contentUsage(value: string, statement: UseStatement): void {
  const labels = { 'train-ai': 'train', search: 'search' } as const
  let members: ReturnType<typeof parseDictionary>
  try {
    members = parseDictionary(value)
  } catch {
    return
  }
  for (const [label, dimension] of Object.entries(labels)) {
    const item = members.get(label)?.[0]
    const token = item instanceof Token ? item.toString() : ''
    if (token === 'y' || token === 'n') say(statement, dimension, token, `${label}=${token}`)
  }
}

/** Content Signals: `search=yes, ai-train=no`. What is not named is not stated. */
function contentSignal(value: string, statement: UseStatement): void {
  const labels: ReadonlyMap<string, Dimension> = new Map([
    ['ai-train', 'train'],
    ['search', 'search'],
    ['ai-input', 'aiInput'],
  ])
  for (const part of value.toLowerCase().replace(/[ \t]/g, '').split(/[,;]/)) {
    const [label = '', said = '', ...more] = part.split('=')
    const dimension = labels.get(label)
    if (dimension === undefined || more.length > 0) continue
    if (said === 'yes') say(statement, dimension, 'y', `${label}=yes`)
    if (said === 'no') say(statement, dimension, 'n', `${label}=no`)
  }
}

/** TDMRep: 1 reserves, 0 does not; other values are as if it were absent, so they override nothing. */
function reservation(value: string, stage: number, statement: UseStatement): void {
  // Two observers, or two headers joined: each value is a statement, and the no counts.
  const values = value.replace(/[ \t]/g, '').split(',')
  if (!values.some((one) => one === '0' || one === '1')) return
  statement.topic = 'tdm'
  statement.stage = stage
  const reserved = values.includes('1')
  say(statement, 'tdm', reserved ? 'n' : 'y', `tdm-reservation=${reserved ? 1 : 0}`)
}

/** Rules of robots meta that take a value, and so look like one addressed to a crawler. */
const valuedDirectives = new Set([
  'max-image-preview',
  'max-snippet',
  'max-video-preview',
  'unavailable_after',
])

/**
 * Robots meta and X-Robots-Tag. A rule behind a crawler's name is addressed to it alone. Several
 * headers arrive joined by commas, where nobody can tell whether `a: noindex, noai` was one header
 * or two: only the first rule behind another's name is left to that other, the next is for everyone.
 */
function robotsDirectives(value: string, statement: UseStatement): void {
  for (const part of value.toLowerCase().split(',')) {
    const [, name = '', rest = ''] = /^[ \t]*([a-z0-9_.*-]{1,60})[ \t]*:(.*)$/s.exec(part) ?? []
    const isScoped = name !== '' && !valuedDirectives.has(name)
    if (isScoped && name !== ourName && name !== '*' && name !== 'robots') continue
    // Pages also part them by spaces.
    for (const word of (isScoped ? rest : part).split(/[ \t;]+/)) directive(word, statement)
  }
}

function directive(word: string, statement: UseStatement): void {
  const wish = (name: Wish) => {
    statement[name] = true
    statement.said[name] ??= word
  }
  switch (word) {
    case 'noai':
    // Of pictures; but a payload may be a document that holds some.
    case 'noimageai':
      say(statement, 'train', 'n', word)
      break
    case 'noarchive':
    case 'nocache':
      wish('noarchive')
      break
    case 'noindex':
      wish('noindex')
      break
    case 'nofollow':
      wish('nofollow')
      break
    case 'none':
      wish('noindex')
      wish('nofollow')
  }
}

/** AIPREF attachment §3: a rule in robots.txt may begin with a path. */
function withoutPath(value: string): string {
  return value.startsWith('/') ? value.replace(/^[^ \t]*[ \t]*/, '') : value
}

/** What the terms of a licence, as use-files.ts writes them, say. */
function licenceTerms(name: string, value: string, statement: UseStatement): void {
  const words = value.split(' ')
  const after = (label: string) =>
    words.find((word) => word.startsWith(`${label}=`))?.slice(label.length + 1)
  // As written: where the value was cut, its address stands at the end.
  const address = statement.signal.value.split(' ').find((word) => word.startsWith('url='))
  if (address !== undefined) {
    statement.topic = `licence ${address.slice(4)}`
    statement.stage = 1
  }
  if (name === 'unreadable') {
    say(statement, 'train', 'n', 'a licence that cannot be read')
    return
  }
  if (name !== 'terms') return
  const listed = (label: string) => after(label)?.split('+') ?? []
  const covers = (tokens: readonly string[], dimension: Dimension) =>
    tokens.some((token) => rslUsage[token]?.includes(dimension) ?? false)
  const permits = listed('permits')
  const prohibits = listed('prohibits')
  const payment = after('payment')
  const isPaid = payment !== undefined && payment !== 'free' && payment !== 'attribution'
  // A server that grants the licence, readers of some kind or country, credit: a yes with a condition.
  const isFree = !isPaid && payment !== 'attribution' && !words.includes('conditional')
  for (const dimension of ['train', 'search', 'aiInput'] as const) {
    const permitted = permits.length === 0 || covers(permits, dimension)
    if (covers(prohibits, dimension))
      say(statement, dimension, 'n', `prohibits ${after('prohibits')}`)
    // A list of uses that leaves training out does not permit it.
    else if (!permitted && dimension === 'train') {
      say(statement, dimension, 'n', `permits only ${after('permits')}`)
    } else if (isPaid && (permitted || dimension === 'train')) {
      say(statement, dimension, 'n', `payment ${payment}`)
    } else if (words.includes('server') && dimension === 'train') {
      say(statement, dimension, 'n', 'a licence to be asked for')
    } else if (isFree && covers(permits, dimension)) {
      say(statement, dimension, 'y', `permits ${after('permits')}`)
    }
  }
}

/** Usage tokens of RSL 1.0, and AIPREF's label that its guide uses. */
const rslUsage: Readonly<Record<string, readonly Dimension[]>> = {
  all: ['train', 'search', 'aiInput'],
  'ai-all': ['train', 'aiInput'],
  'ai-train': ['train'],
  'train-ai': ['train'],
  'ai-input': ['aiInput'],
  search: ['search'],
}
