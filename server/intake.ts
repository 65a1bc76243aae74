import { ListedDomain } from '../lib/consent/domain-list.ts'
import type { ScopeRules } from '../lib/consent/scope.ts'
import { fromBase64Url, toBase64Url } from '../lib/crypto/base64.ts'
import type { Campaign } from '../lib/protocol/campaign.ts'
import { admit, type Candidate, type FoundAddress } from './frontier/admit.ts'
import { trapOf } from './frontier/trap.ts'
import { findListed } from './store/domain-list.ts'
import {
  addHosts,
  addPages,
  countRefused,
  hostsInCampaign,
  knownAddresses,
  mostRefusalsKept,
  mostShapesKept,
  shapeKey,
  shapeRefusal,
  shapesOf,
} from './store/frontier.ts'
import type { Queryable } from './store/queryable.ts'

/** A campaign that takes addresses in. */
export interface TakingCampaign {
  campaign: Uint8Array
  manifest: Campaign
}

/**
 * Takes addresses into a campaign's frontier, from wherever they were found:
 * what its scope covers, what it does not know, what is no trap, as far as its
 * budgets go. What a rule keeps out is written down with the reason. Returns
 * how many now wait for their turn. May be called again: nothing is added twice.
 */
export async function takeIn(
  tx: Queryable,
  { campaign, manifest }: TakingCampaign,
  found: readonly FoundAddress[],
  scopeRules: ScopeRules,
  nowMs: number,
): Promise<number> {
  if (found.length === 0) return 0
  const listed = await listedHosts(tx, manifest, found)
  const admitted = admit(manifest, found, scopeRules, (host) => listed.get(host) ?? null)
  if (admitted.length === 0) return 0
  const known = await knownAddresses(
    tx,
    campaign,
    admitted.map((one) => one.urlDigest),
  )
  const fresh = admitted.filter((one) => !known.has(toBase64Url(one.urlDigest)))
  if (fresh.length === 0) return 0
  if (manifest.wide) await addHosts(tx, [...new Set(fresh.map((one) => one.origin))], manifest.wide)
  const judged = await judge(tx, { campaign, manifest }, fresh, nowMs)
  await countRefused(tx, campaign, judged.uncounted)
  return addPages(tx, campaign, manifest.quorum, judged.pages)
}

/** Of a wide campaign: the listed domain of each host that was found. */
async function listedHosts(
  tx: Queryable,
  { wide }: Campaign,
  found: readonly FoundAddress[],
): Promise<Map<string, ListedDomain>> {
  if (!wide) return new Map()
  const hosts = [
    ...new Set(found.flatMap(({ url }) => (URL.canParse(url) ? [new URL(url).hostname] : []))),
  ]
  const root = fromBase64Url(wide.root)
  const places = await findListed(
    tx,
    hosts.map((host) => ({ root, host })),
  )
  return new Map(
    hosts.flatMap((host, at) => {
      const place = places[at]
      return place ? [[host, ListedDomain.held(wide.root, place.name)] as const] : []
    }),
  )
}

/** Budgets and traps, in the order of urgency: what comes first gets what is left. */
async function judge(
  tx: Queryable,
  { campaign, manifest }: TakingCampaign,
  fresh: readonly Candidate[],
  nowMs: number,
) {
  const hosts = await hostsInCampaign(tx, campaign, [...new Set(fresh.map((one) => one.origin))])
  const shapes = await shapesOf(
    tx,
    campaign,
    fresh.flatMap((one) => {
      const host = hosts.get(one.origin)
      return host ? [{ hostId: host.hostId, shape: one.shape }] : []
    }),
  )
  const { rows } = await tx.query<{ pages: number }>(
    'select pages from campaign where digest = $1',
    [campaign],
  )
  let left = manifest.limits.pages - (rows[0]?.pages ?? 0)
  const uncounted = new Map<number, number>()
  const pages: (Candidate & { refusal: string | null })[] = []
  for (const one of fresh) {
    const host = hosts.get(one.origin)
    if (!host) continue
    const key = shapeKey(host.hostId, one.shape)
    const shape = shapes.get(key) ?? { known: 0, fresh: 0 }
    const trap = trapOf({ ...one, shape, nowMs })
    const refusal =
      trap.kind === 'trap'
        ? `trap: ${trap.rule}: ${trap.reason}`
        : left <= 0
          ? `budget: the campaign takes ${manifest.limits.pages} pages`
          : host.pages >= (manifest.limits.pagesPerHost ?? Number.POSITIVE_INFINITY)
            ? `budget: the campaign takes ${manifest.limits.pagesPerHost} pages of a host`
            : null
    if (refusal === null) {
      left -= 1
      host.pages += 1
      shapes.set(key, { ...shape, known: shape.known + 1 })
      pages.push({ ...one, refusal })
    } else if (
      host.refused < (refusal.startsWith(shapeRefusal) ? mostShapesKept : mostRefusalsKept)
    ) {
      host.refused += 1
      pages.push({ ...one, refusal })
    } else uncounted.set(host.hostId, (uncounted.get(host.hostId) ?? 0) + 1)
  }
  return { pages, uncounted }
}
