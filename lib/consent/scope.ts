import { hostRefusal, parseIpv4 } from '../capture/public-host.ts'
import type { Campaign, Site } from '../protocol/campaign.ts'
import type { Lease } from '../protocol/lease.ts'
import type { LeaseRefusalReason } from '../protocol/refusal.ts'
import type { ListedDomain } from './domain-list.ts'

/** How a build judges hosts. Only the lab build's constant file says `true`. */
export interface ScopeRules {
  /** Loopback names and addresses count as public, on any port. */
  loopbackAllowed: boolean
}

export type ScopeReason = Extract<
  LeaseRefusalReason,
  'out-of-scope' | 'scheme-not-allowed' | 'port-not-allowed' | 'host-not-public'
>

export type Coverage = { ok: true; site: Site } | { ok: false; reason: ScopeReason }

/**
 * Whether a campaign that the person agreed to covers this address (protocol README §4). A host
 * that is not public is refused before anything else, whatever the manifest says.
 *
 * @param kind for `robots`, robots.txt of a site's origin is covered beside the site's own paths
 * @param listed in a wide campaign, the domain that was shown to be on its list; it and the names
 *   below it are covered beside the named sites
 */
export function covers(
  campaign: Pick<Campaign, 'sites' | 'wide'>,
  kind: Lease['kind'],
  url: string,
  rules: ScopeRules,
  listed: ListedDomain | null,
): Coverage {
  const parsed = parse(url)
  // A name and password are a way to log in, which no campaign includes.
  if (parsed === null || parsed.username !== '' || parsed.password !== '') {
    return { ok: false, reason: 'out-of-scope' }
  }
  if (parsed.protocol !== 'https:' && parsed.protocol !== 'http:') {
    return { ok: false, reason: 'scheme-not-allowed' }
  }
  const loopback = rules.loopbackAllowed && isLoopback(parsed.hostname)
  if (!loopback && hostRefusal(url) !== null) return { ok: false, reason: 'host-not-public' }

  const wide = wideSite(campaign, parsed.hostname, listed)
  const sitesOfHost = [
    ...campaign.sites.filter(({ host }) => host === parsed.hostname),
    ...(wide === null ? [] : [wide]),
  ]
  if (sitesOfHost.length === 0) return { ok: false, reason: 'out-of-scope' }
  const sites = sitesOfHost.filter(({ scheme }) => `${scheme}:` === parsed.protocol)
  if (sites.length === 0) return { ok: false, reason: 'scheme-not-allowed' }
  // The parser leaves out a scheme's default port.
  if (parsed.port !== '' && !loopback) return { ok: false, reason: 'port-not-allowed' }

  const site =
    sites.find(({ pathPrefixes }) =>
      pathPrefixes.some((prefix) => parsed.pathname.startsWith(prefix)),
    ) ?? (kind === 'robots' && isRobots(parsed) ? sites[0] : undefined)
  return site === undefined ? { ok: false, reason: 'out-of-scope' } : { ok: true, site }
}

/**
 * The host as a site of its own, if it is on the list: all its paths, at the pace that the manifest
 * gives each host, and never faster than what it says of this host by name.
 */
function wideSite(
  { wide, sites }: Pick<Campaign, 'sites' | 'wide'>,
  host: string,
  listed: ListedDomain | null,
): Site | null {
  if (wide === undefined || listed === null) return null
  if (listed.root !== wide.root || !listed.covers(host)) return null
  const paces = [wide, ...sites.filter((site) => site.host === host)]
  return {
    host,
    scheme: wide.scheme,
    pathPrefixes: ['/'],
    requestsPerSecond: Math.min(...paces.map((pace) => pace.requestsPerSecond)),
    requestsInFlight: Math.min(...paces.map((pace) => pace.requestsInFlight)),
  }
}

function parse(url: string): URL | null {
  try {
    return new URL(url)
  } catch {
    // The constructor's only failure is an address that does not parse, which is an answer here.
    return null
  }
}

function isRobots({ pathname, search }: URL): boolean {
  return pathname === '/robots.txt' && search === ''
}

function isLoopback(host: string): boolean {
  if (host === 'localhost' || host.endsWith('.localhost') || host === '[::1]') return true
  const ipv4 = parseIpv4(host)
  return ipv4 !== null && ipv4 >>> 24 === 127
}
