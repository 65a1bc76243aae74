/** Name by which sites address us. Part of the release format: verifiers parse use signals with it. */
export const ourName = 'gleaner'

/** A line of robots.txt that says something. */
export interface RobotsLine {
  /** From 1. */
  line: number
  kind:
    | 'user-agent'
    | 'allow'
    | 'disallow'
    | 'crawl-delay'
    | 'sitemap'
    | 'content-usage'
    | 'content-signal'
    | 'license'
    | 'unknown'
  /** As written, without comment and white space around. */
  value: string
}

/** A parsed robots.txt. */
export interface Robots {
  lines: readonly RobotsLine[]
  /** The file was longer than is read. */
  truncated: boolean
}

export interface RobotsVerdict {
  allowed: boolean
  /** Number of the line that decided; null when none applies, which allows. */
  line: number | null
  /** Its path pattern as written. */
  rule: string | null
}

/** A use signal in robots.txt, kept as written. */
export interface RobotsSignal {
  line: number
  name: 'content-usage' | 'content-signal' | 'license' | 'sitemap'
  value: string
  /** Robots that its group names, lower case; none outside of groups. */
  agents: readonly string[]
}

/** RFC 9309 §2.5: at least 500 kibibytes must be parsed; not more are. */
const MAX_ROBOTS_BYTES = 500 * 1_024

/** Google's parser cuts lines here, and its test cases ask for it: 2,083 characters a URL, eight of them. Bytes. */
const MAX_LINE_BYTES = 2_083 * 8

const MIN_CRAWL_DELAY_MS = 1_000
const MAX_CRAWL_DELAY_MS = 120_000

/**
 * Parses robots.txt (RFC 9309 §2.2), with the leniency of Google's parser where the RFC leaves room:
 * misspelt keys, a missing colon, CR alone as line end, a broken byte order mark. Anything can be
 * parsed; what is not understood is `unknown` and changes nothing.
 */
export function parseRobots(file: string | Uint8Array): Robots {
  const all = typeof file === 'string' ? new TextEncoder().encode(file) : file
  const bytes = byteString(all.subarray(markLength(all), MAX_ROBOTS_BYTES))
  const lines: RobotsLine[] = []
  for (const [at, text] of bytes.split(/\r\n|\n|\r/).entries()) {
    const parsed = parseLine(text.slice(0, MAX_LINE_BYTES - 1))
    if (parsed) lines.push({ line: at + 1, ...parsed })
  }
  return { lines, truncated: all.length > MAX_ROBOTS_BYTES }
}

/**
 * Whether a robot may fetch a URL (RFC 9309 §2.2.2): of the rules of all groups for its name, or of
 * those for `*` when no group names it, the longest match decides, and `Allow` on a tie.
 *
 * @param agentToken product token, compared without case
 * @param url canonical; only path and query count
 */
export function robotsVerdict(robots: Robots, agentToken: string, url: string): RobotsVerdict {
  const path = comparablePath(url)
  let best: RobotsLine | null = null
  let longest = 0
  for (const rule of linesFor(robots, agentToken)) {
    if (rule.kind !== 'allow' && rule.kind !== 'disallow') continue
    const length = matchLength(rule, path)
    // An empty pattern has length 0: it matches everything and decides nothing.
    const wins = length > longest || (length === longest && length > 0 && rule.kind === 'allow')
    if (!wins || (length === longest && best?.kind === 'allow')) continue
    best = rule
    longest = length
  }
  if (!best) return { allowed: true, line: null, rule: null }
  return { allowed: best.kind === 'allow', line: best.line, rule: best.value }
}

/**
 * Milliseconds between fetches that the file asks of this robot, between 1 s and 120 s; null when it
 * asks for none. Not in RFC 9309. Of several the longest.
 */
export function crawlDelayMs(robots: Robots, agentToken: string): number | null {
  let longest: number | null = null
  for (const { kind, value } of linesFor(robots, agentToken)) {
    if (kind !== 'crawl-delay' || !/^\d{1,9}(\.\d{0,9})?$|^\.\d{1,9}$/.test(value)) continue
    const delayMs = Math.ceil(Number(value) * 1_000)
    longest = Math.max(longest ?? 0, delayMs)
  }
  if (longest === null) return null
  return Math.min(Math.max(longest, MIN_CRAWL_DELAY_MS), MAX_CRAWL_DELAY_MS)
}

/**
 * The use signals that concern this robot, in file order: `License` and `Sitemap` wherever they
 * stand, `Content-Usage` and `Content-Signal` in groups that name it, in groups for `*`, and
 * outside of groups. Wider than the rules for fetching: the most restrictive signal wins.
 */
export function robotsSignals(robots: Robots, agentToken: string): RobotsSignal[] {
  const signals: RobotsSignal[] = []
  for (const { line, kind, value, agents } of grouped(robots, USE_RULES)) {
    const everyone = agents.length === 0 || agents.includes('*')
    if (kind === 'license' || kind === 'sitemap') signals.push({ line, name: kind, value, agents })
    else if (kind === 'content-usage' || kind === 'content-signal') {
      if (everyone || agents.includes(agentToken.toLowerCase())) {
        signals.push({ line, name: kind, value, agents })
      }
    }
  }
  return signals
}

/**
 * What the status of robots.txt means before its content is looked at (RFC 9309 §2.3.1), redirects
 * already followed. Stricter than the RFC: 401, 403 and 429 forbid, as does a redirect that was not
 * resolved. Never open on failure.
 */
export function robotsStatusVerdict(
  status: number | 'unreachable',
): 'parse' | 'allow-all' | 'disallow-all' {
  if (status === 'unreachable') return 'disallow-all'
  if (status >= 200 && status < 300) return 'parse'
  if (status === 401 || status === 403 || status === 429) return 'disallow-all'
  return status >= 400 && status < 500 ? 'allow-all' : 'disallow-all'
}

/** Whether an escaped pattern (`escapePattern`) matches a path as `comparablePath` gives it. */
export function patternMatches(pattern: string, path: string): boolean {
  return matches(pattern, path)
}

/** Path and query of a URL, one character an octet, as patterns are compared with. */
export function comparablePath(url: string): string {
  return byteString(new TextEncoder().encode(pathAndQuery(url)))
}

/** Path and query as RFC 9309 §2.2.2 compares them, of anything that looks like a URL. */
export function pathAndQuery(url: string): string {
  const scheme = url.startsWith('//') ? 2 : 0
  const early = /[/?;]/.exec(url.slice(scheme))
  const colon = url.indexOf('://', scheme)
  const firstSeparator = early ? scheme + early.index : -1
  const hostAt = colon >= 0 && (firstSeparator < 0 || firstSeparator > colon) ? colon + 3 : scheme
  const found = /[/?;]/.exec(url.slice(hostAt))
  if (!found) return '/'
  const start = hostAt + found.index
  const hash = url.indexOf('#', hostAt)
  if (hash >= 0 && hash < start) return '/'
  const path = url.slice(start, hash < 0 ? undefined : hash)
  return path.startsWith('/') ? path : `/${path}`
}

/** A pattern with non-ASCII octets encoded and escapes in upper case (RFC 9309 §2.2.2). */
export function escapePattern(pattern: string): string {
  return escapeBytes(byteString(new TextEncoder().encode(pattern)))
}

function escapeBytes(bytes: string): string {
  return bytes
    .replace(/%[0-9a-fA-F]{2}/g, (triplet) => triplet.toUpperCase())
    .replace(/[\x80-\xff]/g, (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase()}`)
}

/** Keys as people write them. A key counts by its beginning, like in Google's parser. */
const KEYS: readonly (readonly [RegExp, RobotsLine['kind']])[] = [
  [/^user-agent|^useragent|^user agent/i, 'user-agent'],
  [/^allow/i, 'allow'],
  [/^disallow|^dissallow|^dissalow|^disalow|^diasllow|^disallaw/i, 'disallow'],
  [/^crawl-?delay$/i, 'crawl-delay'],
  [/^sitemap|^site-map/i, 'sitemap'],
  [/^content-usage$/i, 'content-usage'],
  [/^content-signals?$/i, 'content-signal'],
  [/^license$/i, 'license'],
]

function parseLine(bytes: string): Omit<RobotsLine, 'line'> | null {
  const text = trim(bytes.split('#', 1)[0] ?? '')
  let at = text.indexOf(':')
  if (at < 0) {
    // Google: white space may stand for the colon when there are exactly two words.
    at = text.search(/[ \t]/)
    if (at < 0 || /[ \t]/.test(trim(text.slice(at)))) return null
  }
  const key = trim(text.slice(0, at))
  if (key === '') return null
  const kind = KEYS.find(([pattern]) => pattern.test(key))?.[1] ?? 'unknown'
  return { kind, value: fromByteString(trim(text.slice(at + 1))) }
}

/** Without C's isspace at both ends; other Unicode white space stays. A loop: a pattern is quadratic here. */
function trim(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isSpace(text.charCodeAt(start))) start++
  while (end > start && isSpace(text.charCodeAt(end - 1))) end--
  return text.slice(start, end)
}

function isSpace(code: number): boolean {
  return code === 0x20 || (code >= 0x09 && code <= 0x0d)
}

interface GroupedLine extends RobotsLine {
  /** Robots that the line's group names, lower case; none before the first group. */
  agents: readonly string[]
}

const FETCH_RULES: readonly RobotsLine['kind'][] = ['allow', 'disallow']
/** AIPREF attachment §3 makes Content-Usage a rule of its group; Content-Signal stands in the same place. */
const USE_RULES: readonly RobotsLine['kind'][] = [...FETCH_RULES, 'content-usage', 'content-signal']

/** RFC 9309 §2.2.1: consecutive user-agent lines share a group; what is no rule does not end their row. */
function grouped(robots: Robots, rules = FETCH_RULES): GroupedLine[] {
  const lines: GroupedLine[] = []
  let agents: string[] = []
  let hasRules = false
  for (const line of robots.lines) {
    if (line.kind === 'user-agent') {
      if (hasRules) agents = []
      hasRules = false
      // Lines between two names of one group hold the same array, so both names reach them.
      agents.push(agentName(line.value))
    } else {
      if (rules.includes(line.kind)) hasRules = true
      lines.push({ ...line, agents: agents.length === 0 ? [] : agents })
    }
  }
  return lines
}

/** "*", alone or with words behind it, is everyone; else the product token at the beginning counts. */
function agentName(value: string): string {
  if (/^\*(?:$|[ \t])/.test(value)) return '*'
  return (/^[a-zA-Z_-]*/.exec(value)?.[0] ?? '').toLowerCase()
}

/** Lines of the groups that name this robot, or of those for everyone when none does. */
function linesFor(robots: Robots, agentToken: string): RobotsLine[] {
  const agent = agentToken.toLowerCase()
  const isNamed = robots.lines.some(
    (line) => line.kind === 'user-agent' && line.value !== '' && agentName(line.value) === agent,
  )
  const name = isNamed ? agent : '*'
  return grouped(robots).filter((line) => line.agents.includes(name))
}

/** Octets of the pattern when it matches, as RFC 9309 compares specificity; else 0. */
function matchLength(rule: RobotsLine, path: string): number {
  const pattern = escapePattern(rule.value)
  if (matches(pattern, path)) return pattern.length
  if (rule.kind !== 'allow') return 0
  // Google: "Allow: /x/index.html" allows "/x/" as well.
  const slash = pattern.lastIndexOf('/')
  if (slash < 0 || !pattern.startsWith('/index.htm', slash)) return 0
  const folder = `${pattern.slice(0, slash + 1)}$`
  return matches(folder, path) ? folder.length : 0
}

/**
 * RFC 9309 §2.2.3: `*` stands for any octets, `$` at the end for the end. The leftmost place for each
 * piece between stars is always as good as any other, so there is no backtracking.
 */
function matches(pattern: string, path: string): boolean {
  const anchored = pattern.endsWith('$')
  const pieces = (anchored ? pattern.slice(0, -1) : pattern).split('*')
  const first = pieces.shift() ?? ''
  if (!path.startsWith(first)) return false
  const last = anchored ? pieces.pop() : undefined
  let at = first.length
  for (const piece of pieces) {
    const found = path.indexOf(piece, at)
    if (found < 0) return false
    at = found + piece.length
  }
  if (!anchored) return true
  if (last === undefined) return at === path.length
  return path.length - last.length >= at && path.endsWith(last)
}

/** UTF-8's mark, or what is left of it: Google skips as many of its bytes as are there. */
function markLength(bytes: Uint8Array): number {
  const mark = [0xef, 0xbb, 0xbf]
  const differs = mark.findIndex((byte, at) => bytes[at] !== byte)
  return differs < 0 ? mark.length : differs
}

/** One character an octet: RFC 9309 compares octets. In pieces: an argument list has a limit. */
function byteString(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length; at += 8_192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8_192))
  }
  return text
}

function fromByteString(text: string): string {
  if (/^[\0-\x7f]*$/.test(text)) return text
  return new TextDecoder().decode(Uint8Array.from(text, (byte) => byte.charCodeAt(0)))
}
