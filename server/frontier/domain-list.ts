import { getPublicSuffix } from 'tldts'
import { type DomainRefusal, domainLeaf, domainRefusal } from '../../lib/consent/domain-list.ts'
import { digestBytes } from '../../lib/crypto/digest.ts'
import { levelsOf, rootFromNodes } from '../../lib/tlog/stored-tree.ts'

/** The list of a wide campaign (protocol README §4): what its root commits to. */
export interface DomainList {
  /** Sorted by their bytes, each once. */
  domains: readonly string[]
  /** RFC 6962 root, 32 bytes. */
  root: Uint8Array
  /** Its tree, as `levelsOf` gives it. */
  levels: readonly Uint8Array[]
}

/** `campaign.wide.size` goes no further. */
export const mostDomains = 1_000_000

export type ReadDomains =
  | { ok: true; domains: string[] }
  /** What is wrong, a line each, ready to be shown. */
  | { ok: false; problems: string[] }

// Enough to see what kind of mistake it is; a list of another kind would be wrong in every line.
const MOST_PROBLEMS = 20

/**
 * Reads a file of domains, one a line; what follows `#` is a comment. Sorts them and drops
 * repetitions, so that two people who list the same domains commit to the same root.
 */
export function readDomains(text: string): ReadDomains {
  const domains = new Set<string>()
  const problems: string[] = []
  let wrong = 0
  let number = 0
  for (const line of linesOf(text.replace(/^\ufeff/, ''))) {
    number++
    const name = line.replace(/#.*/, '').trim()
    if (name === '') continue
    const problem = problemOf(name)
    if (problem === null) domains.add(name)
    else if (++wrong <= MOST_PROBLEMS) problems.push(`line ${number}: ${shown(name)} ${problem}`)
  }
  if (wrong > MOST_PROBLEMS) problems.push(`and ${wrong - MOST_PROBLEMS} more lines`)
  if (wrong === 0 && domains.size === 0) problems.push('no line names a domain')
  if (domains.size > mostDomains) {
    problems.push(`${domains.size} domains, and a list has ${mostDomains} at most`)
  }
  // Code units are bytes here: every name is ASCII.
  return problems.length > 0 ? { ok: false, problems } : { ok: true, domains: [...domains].sort() }
}

/** Builds the tree over domains as `readDomains` gives them: some 10 µs a domain. */
export function domainList(domains: readonly string[]): DomainList {
  const leaves = new Uint8Array(domains.length * digestBytes)
  for (const [at, name] of domains.entries()) leaves.set(domainLeaf(name), at * digestBytes)
  const levels = levelsOf(leaves)
  const root = rootFromNodes(domains.length, ({ level, index }) =>
    (levels[level] as Uint8Array).subarray(index * digestBytes, (index + 1) * digestBytes),
  )
  return { domains, root, levels }
}

/**
 * The names under which a host may be listed: its own and those above it, longest first, without
 * the top level, which no list holds.
 */
export function listableNames(host: string): string[] {
  const labels = host.split('.')
  return labels.slice(0, -1).map((_, at) => labels.slice(at).join('.'))
}

function problemOf(name: string): string | null {
  const refusal = domainRefusal(name)
  if (refusal !== null) return sentences[refusal]
  // Private suffixes too: whoever lists github.io lists what a million strangers publish there.
  if (getPublicSuffix(name, { allowPrivateDomains: true }) === name) {
    return 'is a public suffix, under which anybody registers names. Name the domains below it.'
  }
  return null
}

const sentences: Record<DomainRefusal, string> = {
  unparsable: 'is no domain name. Write a bare name such as example.org.',
  'ip-literal': 'is an address. Only names are listed.',
  'trailing-dot': 'ends in a dot. Leave the dot out.',
  'single-label': 'has a single label. Name a domain below it.',
  'private-name': 'is a name of private networks or outside the DNS, which no node asks for.',
  'not-canonical':
    'is not written as in a URL. Write lower-case ASCII (xn--… for other letters), without scheme, port or path.',
  'read-differently': 'is an international name that not all browsers read alike.',
}

/** As much of a wrong line as helps to find it, with nothing that acts on a terminal. */
function shown(name: string): string {
  const plain = name.replace(/[^\x20-\x7e]/gu, '?')
  return `"${plain.length > 80 ? `${plain.slice(0, 80)}…` : plain}"`
}

/** Without an array of all lines beside the set of all names. */
function* linesOf(text: string): Generator<string> {
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf('\n', at)
    yield text.slice(at, end < 0 ? text.length : end)
    at = end < 0 ? text.length : end + 1
  }
}
