import { canonicalUrl } from '../lib/capture/canonical-url.ts'
import { parseRobots, robotsVerdict } from '../lib/capture/robots.ts'
import { withoutSession } from '../lib/capture/session-id.ts'
import { surt } from '../lib/capture/surt.ts'
import { ListedDomain } from '../lib/consent/domain-list.ts'
import { covers, type ScopeRules } from '../lib/consent/scope.ts'
import { fromBase64Url } from '../lib/crypto/base64.ts'
import { sha256 } from '../lib/crypto/digest.ts'
import type { Campaign } from '../lib/protocol/campaign.ts'
import { frontierKey, shapeDigest, shapeOf } from './frontier/address.ts'
import { type FoundAs, trapOf } from './frontier/trap.ts'
import { OperatorProblem } from './operator.ts'
import { campaigns, type StoredCampaign } from './store/campaigns.ts'
import { findListed } from './store/domain-list.ts'
import { hostsInCampaign, shapesOf, visitsOf } from './store/frontier.ts'
import { hostFacts } from './store/hosts.ts'
import { optOutsCovering } from './store/opt-outs.ts'
import type { Queryable } from './store/queryable.ts'

export interface Explanation {
  url: string
  /** What was taken out of the address because it names a session, null when nothing was. */
  sessionRemoved: string | null
  surt: string
  shape: string
  optedOut: boolean
  host: Awaited<ReturnType<typeof hostFacts>>
  /** By the robots.txt in force; null when none is known. */
  robots: { allowed: boolean; line: number | null; rule: string | null } | null
  campaigns: {
    id: string
    state: StoredCampaign['state']
    scope: string
    trap: string | null
    pages: { campaign: number; host: number; ofCampaign: number; ofHost: number | null }
    visits: Awaited<ReturnType<typeof visitsOf>>
    /** One sentence: what happens with this address next, and why. */
    verdict: string
  }[]
}

/** Everything that decides about an address, recomputed by the same functions that decide. */
export async function explain(
  db: Queryable,
  asked: { url: string; campaignId?: string | undefined },
  { scopeRules, agent, nowMs }: { scopeRules: ScopeRules; agent: string; nowMs: number },
): Promise<Explanation> {
  const canonical = canonicalUrl(asked.url)
  if (!canonical.ok) {
    throw new OperatorProblem(
      `"${asked.url}" has no canonical form (${canonical.reason}). Give a whole address such as https://example.org/page.`,
    )
  }
  const { url, removed } = withoutSession(canonical.url)
  const { origin, hostname } = new URL(url)
  const stored = (await campaigns(db)).filter(
    ({ manifest }) => asked.campaignId === undefined || manifest.id === asked.campaignId,
  )
  if (stored.length === 0) {
    throw new OperatorProblem(
      asked.campaignId === undefined
        ? 'There is no campaign yet. Make one with: gleaner campaign create --help'
        : `There is no campaign ${asked.campaignId} here. See: gleaner campaign list`,
    )
  }
  const host = await hostFacts(db, origin)
  const robots =
    host?.robots.state === 'rules'
      ? robotsVerdict(parseRobots(host.robots.text ?? ''), agent, url)
      : null
  const optedOut = (await optOutsCovering(db, [{ url }])).size > 0
  const about = { url, hostname, origin, nowMs, scopeRules, host, robots, optedOut }
  const explained: Explanation['campaigns'] = []
  for (const one of stored) explained.push(await inCampaign(db, one, about))
  return {
    url,
    sessionRemoved: removed,
    surt: surt(url),
    shape: shapeOf(url),
    optedOut,
    host,
    robots,
    campaigns: explained,
  }
}

async function inCampaign(
  db: Queryable,
  { digest, manifest, state, pages: campaignPages }: StoredCampaign,
  about: Pick<Explanation, 'url' | 'host' | 'robots' | 'optedOut'> & {
    hostname: string
    origin: string
    nowMs: number
    scopeRules: ScopeRules
  },
): Promise<Explanation['campaigns'][number]> {
  const { url, origin, host } = about
  const listed = await listedFor(db, manifest, about.hostname)
  const coverage = covers(manifest, 'page', url, about.scopeRules, listed)
  const place = (await hostsInCampaign(db, digest, [origin])).get(origin)
  const shape = place
    ? [
        ...(
          await shapesOf(db, digest, [{ hostId: place.hostId, shape: shapeDigest(url) }])
        ).values(),
      ][0]
    : undefined
  const visits = await visitsOf(db, digest, sha256(frontierKey(url)))
  const [last] = visits
  const trap = trapOf({
    url,
    depth: last?.depth ?? 1,
    chain: last?.chain ?? 0,
    sameShape: (last?.chain ?? 0) > 0,
    foundAs: (last?.foundAs ?? 'link') as FoundAs,
    shape: shape ?? { known: 0, fresh: 0 },
    nowMs: about.nowMs,
  })
  const pages = {
    campaign: campaignPages,
    host: place?.pages ?? 0,
    ofCampaign: manifest.limits.pages,
    ofHost: manifest.limits.pagesPerHost ?? null,
  }
  const trapReason = trap.kind === 'trap' ? `${trap.rule}: ${trap.reason}` : null
  const scope = coverage.ok
    ? `in scope by ${coverage.site.scheme}://${coverage.site.host}`
    : coverage.reason
  const verdict = !coverage.ok
    ? `Not fetched: ${coverage.reason}.`
    : last
      ? ofVisit(last, state, host, about)
      : trapReason
        ? `Would be kept out when found: ${trapReason}`
        : pages.campaign >= pages.ofCampaign
          ? `Would be kept out when found: the campaign has its ${pages.ofCampaign} pages.`
          : 'Not found yet: no seed, attested link, sitemap or feed has named it.'
  return { id: manifest.id, state, scope, trap: trapReason, pages, visits, verdict }
}

function ofVisit(
  visit: Awaited<ReturnType<typeof visitsOf>>[number],
  state: StoredCampaign['state'],
  host: Explanation['host'],
  { nowMs, optedOut }: { nowMs: number; optedOut: boolean },
): string {
  const again =
    visit.dueAt === null
      ? 'It is not visited again.'
      : `It is visited again after ${visit.dueAt.toISOString()}.`
  if (visit.state === 'closed') {
    if (visit.verdict === 'refused') return `Not fetched: ${visit.reason}.`
    return `Fetched, ${visit.verdict}${visit.reason === null ? '' : ` (${visit.reason})`}. ${again}`
  }
  if (optedOut) return 'Not fetched: opted-out.'
  if (state !== 'running') return `Waits: the campaign is ${state}.`
  if (visit.state === 'held' || visit.state === 'found') {
    return `Waits for robots.txt (${host?.robots.state ?? 'unknown'}${host?.robots.reason ? `, ${host.robots.reason}` : ''}).`
  }
  if (host?.holdUntil && host.holdUntil.getTime() > nowMs) {
    return `Waits: the host is left alone until ${host.holdUntil.toISOString()} (${host.holdReason}).`
  }
  if (visit.granted < visit.wanted) {
    return `Waits for ${visit.wanted - visit.granted} more of ${visit.wanted} observers.`
  }
  return `Is being observed by ${visit.granted} nodes.`
}

async function listedFor(db: Queryable, { wide }: Campaign, host: string) {
  if (!wide) return null
  const [place] = await findListed(db, [{ root: fromBase64Url(wide.root), host }])
  return place ? ListedDomain.held(wide.root, place.name) : null
}

/** The same for a person. */
export function explanationText(one: Explanation): string {
  const { host, robots } = one
  const lines = [one.url]
  if (one.sessionRemoved) lines.push(`  without the session id ${one.sessionRemoved}`)
  lines.push(`  index key   ${one.surt}`, `  shape       ${one.shape}`)
  if (one.optedOut) lines.push('  OPTED OUT by its owner')
  if (host) {
    const at = host.robots.at ? `, read ${host.robots.at.toISOString()}` : ''
    const why = host.robots.reason ? ` (${host.robots.reason})` : ''
    lines.push(`Host ${host.origin}`, `  robots.txt  ${host.robots.state}${why}${at}`)
    if (robots) {
      const by = robots.line === null ? 'no rule applies' : `line ${robots.line}: ${robots.rule}`
      lines.push(`              ${robots.allowed ? 'allows' : 'disallows'} this address: ${by}`)
    }
    lines.push(
      `  pace        one request every ${host.paceMs} ms (campaigns ${host.intervalMs}, Crawl-delay ${host.crawlDelayMs}, response times ${host.adaptiveMs}), ${host.inFlight} of ${host.maxInFlight} in flight`,
    )
    if (host.holdUntil)
      lines.push(`  last hold   until ${host.holdUntil.toISOString()} (${host.holdReason})`)
    for (const signal of host.signals) {
      lines.push(`  use signal  ${signal.source} ${signal.name}: ${signal.value.slice(0, 80)}`)
    }
  } else lines.push('Host: not known here')
  for (const campaign of one.campaigns) {
    const { pages } = campaign
    lines.push(
      `Campaign ${campaign.id} (${campaign.state})`,
      `  ${campaign.verdict}`,
      `  scope       ${campaign.scope}`,
      `  trap        ${campaign.trap ?? 'none'}`,
      `  budget      ${pages.campaign} of ${pages.ofCampaign} pages, ${pages.host}${pages.ofHost === null ? '' : ` of ${pages.ofHost}`} on this host`,
    )
    for (const visit of campaign.visits) {
      lines.push(
        `  visit ${visit.visit}     found as ${visit.foundAs} at depth ${visit.depth}, priority ${visit.priority}: ${visit.state}${visit.verdict ? `, ${visit.verdict}` : ''}${visit.reason ? ` (${visit.reason})` : ''}`,
      )
      if (visit.foundAddress !== one.url)
        lines.push(`              fetched as ${visit.foundAddress}`)
    }
  }
  return `${lines.join('\n')}\n`
}
