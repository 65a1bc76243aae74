import type { Signal } from '../protocol/release.ts'
import {
  comparablePath,
  escapePattern,
  ourName,
  patternMatches,
  type Robots,
  type RobotsSignal,
  robotsSignals,
} from './robots.ts'
import { type HostSignal, rowSignal } from './use-files.ts'
import { combineUse, dimensions, parseSignal, type Use, type UseStatement } from './use-signals.ts'

/** What a host says of all its pages, parsed once, to be asked page by page. */
export interface SiteUse {
  /** Wherever the page is. */
  readonly everywhere: readonly UseStatement[]
  /** Of Content-Usage and of Content-Signal: those with the longest path that matches count. */
  readonly robots: readonly (readonly PlacedRule[])[]
  /** The first that matches counts. */
  readonly tdm: readonly PlacedRule[]
  /** Of each licence those with the longest place that matches count. */
  readonly licences: readonly (readonly PlacedRule[])[]
}

interface PlacedRule {
  /** Escaped, of RFC 9309; null is everywhere. */
  pattern: string | null
  statement: UseStatement
}

/** Each is compared with every address of the host; a file of more is no file for robots. */
const maxRobotsRules = 1_000

/**
 * Parses what robots.txt and the files beside it say about use.
 *
 * @param hostSignals as `hostFileSignals` gave them, in any order
 */
export function siteUse(
  robots: Robots | null,
  hostSignals: readonly HostSignal[] = [],
  agent: string = ourName,
): SiteUse {
  const everywhere: UseStatement[] = []
  const said = robots === null ? [] : robotsSignals(robots, agent)
  for (const { name, value, line } of said) {
    if (name === 'license') everywhere.push(parseSignal({ source: 'robots', name, value }, line))
  }
  const placed: PlacedRule[][] = []
  for (const name of ['content-usage', 'content-signal'] as const) {
    const rules = addressed(
      said.filter((one) => one.name === name),
      agent,
    )
    placed.push(rules.slice(0, maxRobotsRules).map(robotsRule))
    everywhere.push(...refusals(rules.slice(maxRobotsRules)))
  }
  const tdm: (PlacedRule & { order: string })[] = []
  const licences = new Map<string, PlacedRule[]>()
  for (const signal of hostSignals) {
    const statement = parseSignal(rowSignal(signal))
    const { source, name } = signal
    if (source === 'tdmrep' && name !== 'unreadable') {
      tdm.push({ order: name.slice(0, 4), pattern: name.slice(5), statement })
    } else if (source === 'rsl' && name !== 'unreadable' && name !== 'read') {
      const topic = statement.topic ?? ''
      licences.set(topic, [...(licences.get(topic) ?? []), { pattern: name, statement }])
    } else everywhere.push(statement)
  }
  tdm.sort((a, b) => (a.order < b.order ? -1 : 1))
  return { everywhere, robots: placed, tdm, licences: [...licences.values()] }
}

/** What a host says of one of its pages. */
export function siteStatementsAt(url: string, site: SiteUse): UseStatement[] {
  const path = comparablePath(url)
  const reservation = site.tdm.find(({ pattern }) => patternMatches(pattern ?? '', unescaped(path)))
  return [
    ...site.robots.flatMap((rules) => longest(rules, path)),
    ...(reservation ? [reservation.statement] : []),
    ...site.licences.flatMap((rules) => longest(rules, unescaped(path))),
    ...site.everywhere,
  ]
}

/**
 * What may be done with a page, by all that is known: its host's robots.txt and files, and the
 * signals of its headers and markup as any observer saw them.
 *
 * @returns also the raw signals that apply, for its row
 */
export function useAt(
  url: string,
  site: SiteUse,
  page: readonly Signal[],
): { use: Use; signals: Signal[]; statements: UseStatement[] } {
  const statements = [...siteStatementsAt(url, site), ...page.map((signal) => parseSignal(signal))]
  return {
    use: combineUse(statements),
    signals: statements.map(({ signal }) => signal),
    statements,
  }
}

/**
 * Rules of the groups that name us, or else those for everyone (RFC 9309 §2.2.1), and in either case
 * what stands outside of groups. A group that names us and says nothing on use changes nothing.
 */
function addressed(rules: readonly RobotsSignal[], agent: string): RobotsSignal[] {
  const names = (rule: RobotsSignal) => rule.agents.includes(agent.toLowerCase())
  if (!rules.some(names)) return [...rules]
  return rules.filter((rule) => names(rule) || rule.agents.length === 0)
}

function robotsRule({ name, value, line }: RobotsSignal): PlacedRule {
  const path = value.startsWith('/') ? (value.split(/[ \t]/, 1)[0] ?? '') : ''
  return {
    pattern: path === '' ? null : escapePattern(path),
    statement: parseSignal({ source: 'robots', name, value }, line),
  }
}

/** The noes among rules too many to be compared, each once and without its place: they hold everywhere. */
function refusals(rules: readonly RobotsSignal[]): UseStatement[] {
  const found = new Map<string, UseStatement>()
  for (const rule of rules) {
    const { statement } = robotsRule(rule)
    const value = dimensions
      .flatMap((one) => (statement[one] === 'n' ? [statement.said[one]] : []))
      .join(', ')
    if (value === '' || found.has(value)) continue
    found.set(value, parseSignal({ source: 'robots', name: rule.name, value }, rule.line))
  }
  return [...found.values()]
}

/** Of the rules that match, those with the longest pattern: several when they name one place. */
function longest(rules: readonly PlacedRule[], path: string): UseStatement[] {
  let most = -1
  let found: UseStatement[] = []
  for (const { pattern, statement } of rules) {
    const length = pattern?.length ?? 0
    if (length < most || (pattern !== null && !patternMatches(pattern, path))) continue
    if (length > most) found = []
    most = length
    found.push(statement)
  }
  return found
}

/** The path as the patterns of use-files.ts are written. */
function unescaped(path: string): string {
  return path.replace(/%[0-9A-Fa-f]{2}/g, (triplet) => {
    const character = String.fromCharCode(Number.parseInt(triplet.slice(1), 16))
    return /[A-Za-z0-9._~-]/.test(character) ? character : triplet.toUpperCase()
  })
}
