/**
 * Judges a log of grants by what the protocol and the manifests promise. Written from those words
 * alone (README §5 and §6, ARCHITECTURE "Politeness is a row"), apart from the code that leases.
 */

/** One address given to one node, as one witness saw it. Times in ms, of one clock. */
export interface Grant {
  node: string
  account: string
  block: string
  url: string
  host: string
  /** What was granted together: one call's addresses of one host are paced by the node itself. */
  call: string
  /** It was granted between these. A witness that knows exactly says the same twice. */
  earliestMs: number
  latestMs: number
  /** Certainly in flight from here … */
  heldFromMs: number
  /** … to here; null while nothing was heard of it. */
  heldUntilMs: number | null
}

/** What the manifests declare of a host, Crawl-delay included. */
export interface Manners {
  paceMs: number
  inFlight: number
}

export interface Judgement {
  /** Grants of an address to a node that had it, or whose account or network block had it. */
  doubleLeases: number
  /** Grants before the host's turn, or beyond what may be in flight. Only what is certain counts. */
  earlyRequests: number
  /** The first few of both, in words. */
  examples: string[]
}

/**
 * @param grants of one visit of each address, in any order
 * @param mannersOf what a host is owed; a host that nobody declared is a fault of the caller
 */
export function judge(
  grants: readonly Grant[],
  mannersOf: (host: string) => Manners | undefined,
): Judgement {
  const faults: { kind: 'double' | 'early'; text: string }[] = []
  for (const [url, given] of groupedBy(grants, (grant) => grant.url)) {
    for (const text of repeats(given)) faults.push({ kind: 'double', text: `${url}: ${text}` })
  }
  for (const [host, given] of groupedBy(grants, (grant) => grant.host)) {
    const manners = mannersOf(host)
    if (manners === undefined) throw new Error(`nobody declared the manners of ${host}`)
    for (const text of [...hurried(given, manners), ...crowded(given, manners)]) {
      faults.push({ kind: 'early', text: `${host}: ${text}` })
    }
  }
  return {
    doubleLeases: faults.filter(({ kind }) => kind === 'double').length,
    earlyRequests: faults.filter(({ kind }) => kind === 'early').length,
    // Enough to find the cause, few enough to read.
    examples: (['double', 'early'] as const).flatMap((kind) =>
      faults.flatMap((fault) => (fault.kind === kind ? fault.text : [])).slice(0, 5),
    ),
  }
}

function repeats(grants: readonly Grant[]): string[] {
  const found: string[] = []
  const had = { node: new Set<string>(), account: new Set<string>(), block: new Set<string>() }
  for (const grant of inOrder(grants)) {
    const shared = (['node', 'account', 'block'] as const).find((by) => had[by].has(grant[by]))
    if (shared !== undefined) found.push(`twice to ${shared} ${grant[shared]}`)
    for (const by of ['node', 'account', 'block'] as const) had[by].add(grant[by])
  }
  return found
}

/** Each call's addresses take their turns one after another; the next call waits for the last turn. */
function hurried(grants: readonly Grant[], { paceMs, inFlight }: Manners): string[] {
  const found: string[] = []
  // At most a second's worth at once: a crawl delay of ten seconds is kept between any two.
  const most = Math.min(inFlight, Math.max(1, Math.floor(1000 / paceMs)))
  let freeAtMs = Number.NEGATIVE_INFINITY
  for (const [, together] of groupedBy(inOrder(grants), (grant) => grant.call)) {
    const earliestMs = Math.min(...together.map((grant) => grant.earliestMs))
    const latestMs = Math.max(...together.map((grant) => grant.latestMs))
    for (let extra = most; extra < together.length; extra += 1) {
      found.push(`${together.length} at once, where ${most} may be`)
    }
    if (latestMs < freeAtMs) found.push(`${Math.ceil(freeAtMs - latestMs)} ms before its turn`)
    freeAtMs = Math.max(freeAtMs, earliestMs) + together.length * paceMs
  }
  return found
}

function crowded(grants: readonly Grant[], { inFlight }: Manners): string[] {
  const found: string[] = []
  const steps = grants.flatMap((grant) => {
    const untilMs = grant.heldUntilMs ?? Number.POSITIVE_INFINITY
    // Ended before it was certainly begun, by a witness who knows neither exactly: says nothing.
    if (untilMs <= grant.heldFromMs) return []
    return [
      { atMs: grant.heldFromMs, change: 1 },
      { atMs: untilMs, change: -1 },
    ]
  })
  // At one instant what ends goes first.
  steps.sort((a, b) => a.atMs - b.atMs || a.change - b.change)
  let flying = 0
  for (const { change } of steps) {
    flying += change
    if (change > 0 && flying > inFlight) {
      found.push(`${flying} in flight, where ${inFlight} may be`)
    }
  }
  return found
}

function inOrder(grants: readonly Grant[]): Grant[] {
  return [...grants].sort((a, b) => a.latestMs - b.latestMs || a.earliestMs - b.earliestMs)
}

function groupedBy(
  grants: readonly Grant[],
  keyOf: (grant: Grant) => string,
): Map<string, Grant[]> {
  const groups = new Map<string, Grant[]>()
  for (const grant of grants) {
    const group = groups.get(keyOf(grant))
    if (group) group.push(grant)
    else groups.set(keyOf(grant), [grant])
  }
  return groups
}
