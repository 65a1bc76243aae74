/** What a trap is recognised by. */
export type TrapRule =
  | 'repeating-segments'
  | 'too-many-segments'
  | 'too-many-parameters'
  | 'calendar'
  | 'long-chain'
  | 'shape-budget'

/** The reason is a sentence for the operator. */
export type TrapVerdict = { kind: 'none' } | { kind: 'trap'; rule: TrapRule; reason: string }

export interface Suspect {
  /** Canonical. */
  url: string
  foundAs: FoundAs
  /** Links away from a seed; 0 only for what the operator named. */
  depth: number
  /** Addresses of its shape, one after another, that led to it. */
  chain: number
  /** Whether the page it was found on has its shape. */
  sameShape: boolean
  /** Addresses of its shape on its host: in the frontier, and of these with new text. */
  shape: { known: number; fresh: number }
  nowMs: number
}

/** Heritrix' PathologicalPathDecideRule: maxRepetitions 2, so the third in a row is too many. */
const ROW_OF_SEGMENTS = 3

/** Segments that repeat together: `/a/b/c/a/b/c/…`. Relative links that lead round are this short. */
const LONGEST_REPEATED = 3

/**
 * The same segment, wherever it stands. Nutch (regex-urlfilter.txt, "to break loops") draws the line
 * at the third, every other segment; the fourth anywhere leaves `/de/x/de/y/de` alone.
 */
const SAME_SEGMENTS = 4

/** Heritrix' TooManyPathSegmentsDecideRule: maxPathDepth 20. */
const MAX_SEGMENTS = 20

/**
 * Our own choice. Search forms of libraries and shops have up to a dozen fields; every facet added
 * on top doubles the addresses of the same things.
 */
const MAX_PARAMETERS = 12

/** A year ahead is what event calendars and timetables are filled for; two is generous. */
const CALENDAR_FUTURE_MS = 2 * 365.25 * 24 * 60 * 60 * 1_000

/** Months: two years of them, back or forth. What is older is reached by lists, sitemaps and feeds. */
const MAX_CALENDAR_CHAIN = 24

/**
 * Addresses of one shape, each found on the one before. Pages of a list are such a chain, and a list
 * of a thousand pages is rare; what never ends is stopped here, whatever it looks like.
 */
const MAX_CHAIN = 1_000

/**
 * Addresses of one shape before any of them has to have shown something new. Finding goes before
 * visiting: a long index, or a list's pages, must fit in.
 */
const UNPROVEN_ADDRESSES = 500

/**
 * And for each with new text this many more. So a shape may go on for ever of which a twentieth is
 * new, as a site of 100,000 articles is; ways to sort and narrow the same list end after some
 * hundreds. Below a twentieth a new text costs 20 fetches of each observer.
 */
const ADDRESSES_PER_FRESH = 20

/**
 * Whether an address leads into a trap: a place where addresses never end and texts do. Rules about
 * the look of an address do not hold for what the operator named (depth 0).
 *
 * All answers but one are for good. `shape-budget` is the state of things: ask again when `fresh`
 * has grown.
 */
export function trapOf(suspect: Suspect): TrapVerdict {
  const rules = suspect.depth === 0 ? [shapeBudget] : ALL_RULES
  for (const rule of rules) {
    const verdict = rule(suspect)
    if (verdict) return { kind: 'trap', ...verdict }
  }
  return { kind: 'none' }
}

type Rule = (suspect: Suspect) => { rule: TrapRule; reason: string } | null

const repeatingSegments: Rule = ({ url }) => {
  const segments = segmentsOf(url)
  for (let length = 1; length <= LONGEST_REPEATED; length++) {
    for (let start = 0; start + ROW_OF_SEGMENTS * length <= segments.length; start++) {
      const piece = segments.slice(start, start + length)
      // Book 1, chapter 1, verse 1: numbers have to repeat more often to say anything.
      if (piece.every((segment) => /^\d+$/.test(segment))) continue
      const isRow = segments
        .slice(start, start + ROW_OF_SEGMENTS * length)
        .every((segment, at) => segment === piece[at % length])
      if (isRow) {
        return {
          rule: 'repeating-segments',
          reason: `Its path has "${piece.join('/')}" ${ROW_OF_SEGMENTS} times in a row, as relative links that lead round make it.`,
        }
      }
    }
  }
  const counts = new Map<string, number>()
  for (const segment of segments) counts.set(segment, (counts.get(segment) ?? 0) + 1)
  const [most, times] = [...counts].find(([, count]) => count >= SAME_SEGMENTS) ?? []
  if (most === undefined) return null
  return {
    rule: 'repeating-segments',
    reason: `Its path has "${most}" ${times} times; pages that are not made in a loop have it less than ${SAME_SEGMENTS} times.`,
  }
}

const tooManySegments: Rule = ({ url }) => {
  const count = segmentsOf(url).length
  if (count <= MAX_SEGMENTS) return null
  return {
    rule: 'too-many-segments',
    reason: `Its path has ${count} segments, more than ${MAX_SEGMENTS}.`,
  }
}

const tooManyParameters: Rule = ({ url }) => {
  const count = parametersOf(url).length
  if (count <= MAX_PARAMETERS) return null
  return {
    rule: 'too-many-parameters',
    reason: `Its query has ${count} parameters, more than ${MAX_PARAMETERS}: ways to sort and narrow a list rather than pages.`,
  }
}

const calendar: Rule = ({ url, chain, sameShape, nowMs }) => {
  const date = dateIn(url, sameShape)
  if (!date) return null
  if (date.atMs > nowMs + CALENDAR_FUTURE_MS) {
    return {
      rule: 'calendar',
      reason: `It names ${date.text}, more than two years from now: a calendar that never ends.`,
    }
  }
  // The zero of Unix time, where scripts count from; before it is only what they make up.
  if (date.atMs < 0) {
    return {
      rule: 'calendar',
      reason: `It names ${date.text}, before 1970: a calendar that never ends.`,
    }
  }
  if (sameShape && chain > MAX_CALENDAR_CHAIN) {
    return {
      rule: 'calendar',
      reason: `It names ${date.text}, and ${chain} dated addresses, each found on the one before, led to it; more than ${MAX_CALENDAR_CHAIN} are a calendar.`,
    }
  }
  return null
}

const longChain: Rule = ({ chain, sameShape }) => {
  if (!sameShape || chain <= MAX_CHAIN) return null
  return {
    rule: 'long-chain',
    reason: `${chain} addresses like it, each found on the one before, led to it; more than ${MAX_CHAIN} do not end.`,
  }
}

/** Addresses of one shape that may be known on a host of which so many brought new text. */
export function shapeBudgetOf(fresh: number): number {
  return UNPROVEN_ADDRESSES + ADDRESSES_PER_FRESH * fresh
}

const shapeBudget: Rule = ({ foundAs, shape: { known, fresh } }) => {
  // The site itself says that these are its pages; the campaign's budgets hold all the same.
  if (foundAs === 'sitemap' || foundAs === 'feed') return null
  const most = shapeBudgetOf(fresh)
  if (known < most) return null
  return {
    rule: 'shape-budget',
    reason: `${known} addresses like it are known on its host, and ${fresh === 0 ? 'none' : `only ${fresh}`} of them brought new text, which allows ${most}. It is for later, when more do.`,
  }
}

const ALL_RULES: readonly Rule[] = [
  repeatingSegments,
  tooManySegments,
  tooManyParameters,
  calendar,
  longChain,
  shapeBudget,
]

/** Segments of the path; a slash at the end begins none, two slashes have an empty one between. */
function segmentsOf(url: string): string[] {
  const address = url.split('?', 1)[0] ?? ''
  const path = address.slice(address.indexOf('/', address.indexOf('://') + 3) + 1)
  return path === '' ? [] : path.replace(/\/$/, '').split('/')
}

/** Name, lower case, and value of each parameter, decoded as forms write them. */
function parametersOf(url: string): (readonly [string, string])[] {
  const at = url.indexOf('?')
  if (at < 0) return []
  return [...new URLSearchParams(url.slice(at + 1))].map(
    ([name, value]) => [name.toLowerCase(), value] as const,
  )
}

interface NamedDate {
  /** Its first moment, in UTC. */
  atMs: number
  /** For people. */
  text: string
}

/** Years in which two numbers of a path are read as a date. Beyond, they are more likely numbers. */
const [FIRST_PATH_YEAR, LAST_PATH_YEAR] = [1900, 2199]

const CALENDAR_WORD =
  /calend|event|month|week|agenda|schedule|archive|date|kalender|termin|evenement/

/**
 * The date that an address is about. In a path only at its end: `/2019/05/12/title` is an article.
 *
 * @param sameShape found on a page of its shape: then two numbers more likely are year and month
 */
function dateIn(url: string, sameShape: boolean): NamedDate | null {
  return dateInParameters(parametersOf(url)) ?? dateInPath(segmentsOf(url), sameShape)
}

function dateInPath(segments: readonly string[], sameShape: boolean): NamedDate | null {
  const path = segments.join('/').toLowerCase()
  const whole = /(?:^|\/)(\d{4})-(\d{2})(?:-(\d{2}))?(?:\.[a-z]{1,5})?$/.exec(path)
  if (whole) return date(whole[1], whole[2], whole[3])
  const week = /(?:^|\/)(\d{4})-?w(\d{2})(?:\.[a-z]{1,5})?$/.exec(path)
  if (week && Number(week[2]) >= 1 && Number(week[2]) <= 53) {
    const atMs = Date.UTC(Number(week[1]), 0, 1 + 7 * (Number(week[2]) - 1))
    return { atMs, text: `week ${week[2]} of ${week[1]}` }
  }
  const parts = /(?:^|\/)(\d{4})\/(\d{1,2})(?:\/(\d{1,2}))?(?:\.[a-z]{1,5})?$/.exec(path)
  if (!parts) return null
  const year = Number(parts[1])
  const isLikely =
    year >= FIRST_PATH_YEAR &&
    year <= LAST_PATH_YEAR &&
    // Page 7 of thread 2031 is no July.
    (CALENDAR_WORD.test(path) || (sameShape && parts[2]?.length === 2))
  return isLikely ? date(parts[1], parts[2], parts[3]) : null
}

const DATE_NAME = /date|day|month|week|^cal|ymd|start|from|until|^(?:d|m|ym|to|end)$/

/** Of names behind which a bare number is a date. `start=203105` begins a list there. */
const BARE_DATE_NAME = /date|day|month|week|^cal|^ymd?$/

function dateInParameters(parameters: readonly (readonly [string, string])[]): NamedDate | null {
  const numberOf = (pattern: RegExp) =>
    parameters.find(([name, value]) => pattern.test(name) && /^\d{1,4}$/.test(value))?.[1]
  const year = numberOf(/(?:year|yr)$|^y$/)
  const month = numberOf(/(?:month|mon)$|^m$/)
  if (year?.length === 4 && month !== undefined) {
    const named = date(year, month, numberOf(/day$|^d$/)) ?? date(year, month, undefined)
    if (named) return named
  }
  for (const [name, value] of parameters) {
    // Moodle's calendar and others count seconds.
    if (/^(?:time|timestamp|date|cal_?time)$/.test(name) && /^-?\d{9,11}$/.test(value)) {
      const atMs = Number(value) * 1_000
      return { atMs, text: new Date(atMs).toISOString().slice(0, 10) }
    }
    if (!DATE_NAME.test(name)) continue
    const parts =
      /^(\d{4})[-/](\d{1,2})(?:[-/](\d{1,2}))?(?:[T ].*)?$/.exec(value) ??
      (BARE_DATE_NAME.test(name) ? /^(\d{4})(\d{2})(\d{2})?$/.exec(value) : null)
    const named = parts && date(parts[1], parts[2], parts[3])
    if (named) return named
  }
  return null
}

function date(
  year: string | undefined,
  month: string | undefined,
  day: string | undefined,
): NamedDate | null {
  const [y, m, d] = [Number(year), Number(month), day === undefined ? 1 : Number(day)]
  // Calendars name 31 February too; only what is no date at all is none.
  if (!(m >= 1 && m <= 12 && d >= 1 && d <= 31)) return null
  const time = new Date(0)
  // Date.UTC would take year 50 for 1950.
  time.setUTCFullYear(y, m - 1, d)
  const text = [year, month?.padStart(2, '0'), day?.padStart(2, '0')].filter(Boolean).join('-')
  return { atMs: time.getTime(), text }
}

/** Addresses of one host with one text, from which on "not found" in the title is believed. */
const SAME_TEXTS_WITH_WORDS = 5

/** And from which on it does not take the words. A text of that many addresses is no page of any. */
const SAME_TEXTS = 20

/** What sites say in the languages that most of the web is in; of the text in lower case. */
const NOT_FOUND = new RegExp(
  [
    '\\b404\\b',
    "not found|(?:could not|couldn't|cannot|can't) (?:be )?f(?:i|ou)nd|(?:does not|doesn't|no longer) exist|no longer available",
    'nicht gefunden|existiert nicht|nicht (?:mehr )?(?:vorhanden|verfügbar)',
    "introuvable|n'existe (?:pas|plus)|non trouvée?",
    'no encontrad[ao]|no (?:se )?(?:ha )?(?:podido )?encontra|no existe',
    'non trovat[ao]|non esiste',
    'não (?:foi )?encontrad[ao]|não existe',
    'niet gevonden|bestaat niet',
    'hittades inte|finns inte|ikke fundet|ikke funnet|findes ikke|finnes ikke|ei löyd|ei löyt',
    'nie znaleziono|nie istnieje|nenalezen|neexistuje|nem található|nu a fost găsit',
    'не найден|не существует|не знайден|не існує',
    'bulunamadı|δεν βρέθηκε',
    'لم يتم العثور|غير موجود|לא נמצא',
    '見つかりません|存在しません|找不到|未找到|不存在|찾을 수 없|không tìm thấy|tidak ditemukan',
  ].join('|'),
  'u',
)

/**
 * Why a page that was answered with 200 says that there is none (a soft 404); null when it is a page
 * as far as can be told. Never by words alone: people write about what was not found.
 *
 * @param title title and first words
 * @param sameTextCount other addresses of its host with exactly its text
 */
export function softNotFound({
  title,
  sameTextCount,
  status,
}: {
  title: string
  sameTextCount: number
  status: number
}): string | null {
  // Anything else already says what it is.
  if (status !== 200) return null
  if (sameTextCount >= SAME_TEXTS) {
    return `${sameTextCount} other addresses of its host have the same text: it stands for pages that are not there.`
  }
  if (sameTextCount < SAME_TEXTS_WITH_WORDS) return null
  const words = NOT_FOUND.exec(title.normalize('NFC').replaceAll('’', "'").toLowerCase())?.[0]
  if (words === undefined) return null
  return `It begins with "${words}", and ${sameTextCount} other addresses of its host have the same text.`
}

/** How an address was found. */
export type FoundAs = 'seed' | 'link' | 'canonical' | 'sitemap' | 'feed' | 'redirect'

/**
 * Where an address starts. What stands in for another address (redirect, canonical) takes its turn;
 * a feed's entries are what is newest; a sitemap's are pages for sure, a link's may be anything.
 */
const FIRST_PRIORITY = {
  seed: 0,
  redirect: 0,
  canonical: 0,
  feed: 50,
  sitemap: 100,
  link: 500,
} as const satisfies Record<FoundAs, number>

/** What the least of a sitemap's own priorities adds (sitemaps.org: 0.0 to 1.0, 0.5 when not said). */
const SITEMAP_SPREAD = 700

/** A step away from the seeds: wide before deep, so that every part of a site has its turn. */
const DEPTH_STEP = 400

/** A query, and each parameter in it: lists and searches come after pages, never a whole step after. */
const [QUERY, PARAMETER, MOST_FOR_QUERY] = [100, 50, 350]

const LAST_PRIORITY = 10_000

/**
 * When an address has its turn among those of its campaign on its host: 0 to 10,000, lower is sooner.
 *
 * @param given the sitemap's priority, 0 to 1; null where nobody said
 */
export function priorityOf({
  as,
  depth,
  url,
  given,
}: {
  as: FoundAs
  depth: number
  url: string
  given: number | null
}): number {
  if (as === 'seed') return FIRST_PRIORITY.seed
  const said = given === null || Number.isNaN(given) ? 0.5 : Math.min(Math.max(given, 0), 1)
  const forSitemap = as === 'sitemap' ? Math.round(SITEMAP_SPREAD * (1 - said)) : 0
  const parameters = parametersOf(url).length
  const forQuery = parameters === 0 ? 0 : Math.min(QUERY + PARAMETER * parameters, MOST_FOR_QUERY)
  const sum = FIRST_PRIORITY[as] + DEPTH_STEP * depth + forSitemap + forQuery
  return Math.min(Math.round(sum), LAST_PRIORITY)
}
