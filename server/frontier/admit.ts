import { canonicalUrl } from '../../lib/capture/canonical-url.ts'
import { withoutSession } from '../../lib/capture/session-id.ts'
import type { ListedDomain } from '../../lib/consent/domain-list.ts'
import { covers, type ScopeRules } from '../../lib/consent/scope.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import { frontierKey, shapeDigest, shapeOf } from './address.ts'
import { type FoundAs, priorityOf } from './trap.ts'

/** An address as it was found. */
export interface FoundAddress {
  url: string
  as: FoundAs
  /** Links away from a seed. */
  depth: number
  /** A sitemap's own priority, 0 to 1; null where nobody said. */
  given?: number | null
  /** The page it was found on: a chain of addresses of one shape is how a trap looks. */
  on?: { url: string; chain: number }
}

/** An address that a campaign may visit, as the frontier keeps it. */
export interface Candidate {
  url: string
  /** SHA-256 of the frontier key: the order of parameters makes no new address. */
  urlDigest: Uint8Array
  origin: string
  depth: number
  priority: number
  foundAs: FoundAs
  shape: Uint8Array
  chain: number
  /** Whether the page it was found on has the same shape. */
  sameShape: boolean
}

/** Canonical addresses without session ids that the campaign covers, each once, the most urgent first. */
export function admit(
  campaign: Campaign,
  found: readonly FoundAddress[],
  rules: ScopeRules,
  listed: (host: string) => ListedDomain | null,
): Candidate[] {
  const admitted = new Map<string, Candidate>()
  for (const one of found) {
    if (one.depth > campaign.limits.depth) continue
    const canonical = canonicalUrl(one.url)
    if (!canonical.ok) continue
    const { url } = withoutSession(canonical.url)
    const { hostname, origin } = new URL(url)
    if (!covers(campaign, 'page', url, rules, listed(hostname)).ok) continue
    const key = frontierKey(url)
    if (admitted.has(key)) continue
    const shape = shapeOf(url)
    const sameShape =
      one.on !== undefined && originOf(one.on.url) === origin && shapeOf(one.on.url) === shape
    admitted.set(key, {
      url,
      urlDigest: sha256(key),
      origin,
      depth: one.depth,
      priority: priorityOf({ as: one.as, depth: one.depth, url, given: one.given ?? null }),
      foundAs: one.as,
      shape: shapeDigest(url),
      chain: sameShape && one.on ? one.on.chain + 1 : 0,
      sameShape,
    })
  }
  return [...admitted.values()].sort((a, b) => a.priority - b.priority)
}

function originOf(url: string): string {
  return new URL(url).origin
}
