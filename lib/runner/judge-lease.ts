import { ListedDomain } from '../consent/domain-list.ts'
import { validity } from '../consent/manifest.ts'
import { type Coverage, covers, type ScopeRules } from '../consent/scope.ts'
import type { Campaign, Site } from '../protocol/campaign.ts'
import { type Lease, robotsBytes } from '../protocol/lease.ts'
import type { LeaseRefusalReason } from '../protocol/refusal.ts'

/**
 * Whether this device will do what a lease asks. The lease is signed, yet the server may be
 * compromised: only what the person agreed to counts (protocol README §5).
 */
export function judgeLease(
  lease: Lease,
  consented: ReadonlyMap<string, Campaign>,
  nowMs: number,
  scope: ScopeRules,
): { ok: true; site: Site } | { ok: false; reason: LeaseRefusalReason } {
  const campaign = consented.get(lease.campaign)
  if (campaign === undefined || validity(campaign, nowMs) !== null) {
    return { ok: false, reason: 'not-consented' }
  }
  const covered = leaseCoverage(lease, campaign, scope)
  if (!covered.ok) return covered
  const { pageBytes, pageMs } = campaign.limits
  const mostBytes = lease.kind === 'robots' ? Math.max(robotsBytes, pageBytes) : pageBytes
  if (lease.maxBytes > mostBytes || lease.maxMs > pageMs) return { ok: false, reason: 'over-limit' }
  if (lease.validForMs === 0) return { ok: false, reason: 'expired' }
  return covered
}

/** Whether the campaign covers the lease's address, by the proof that the lease carries. */
export function leaseCoverage(lease: Lease, campaign: Campaign, scope: ScopeRules): Coverage {
  const listed = ListedDomain.proven(campaign, lease.domain)
  return covers(campaign, lease.kind, lease.url, scope, listed)
}
