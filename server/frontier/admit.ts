import { canonicalUrl } from '../../lib/capture/canonical-url.ts'
import { covers, type ScopeRules } from '../../lib/consent/scope.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'

export interface Candidate {
  url: string
  urlDigest: Uint8Array
  origin: string
  depth: number
}

/** Addresses of seeds or attested links that the campaign covers, canonical, each once. */
export function admit(
  campaign: Campaign,
  urls: readonly string[],
  depth: number,
  rules: ScopeRules,
): Candidate[] {
  if (depth > campaign.limits.depth) return []
  const admitted = new Map<string, Candidate>()
  for (const url of urls) {
    const canonical = canonicalUrl(url)
    if (!canonical.ok || !covers(campaign, 'page', canonical.url, rules, null).ok) continue
    admitted.set(canonical.url, {
      url: canonical.url,
      urlDigest: sha256(canonical.url),
      origin: new URL(canonical.url).origin,
      depth,
    })
  }
  return [...admitted.values()]
}
