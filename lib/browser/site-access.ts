import type { Campaign } from '../protocol/campaign.ts'

/** Match patterns for every site there is, by scheme. */
export const everySite: readonly string[] = ['https://*/*', 'http://*/*']

/**
 * Match patterns of what a campaign covers: its named sites and, if it is wide, all sites of its
 * scheme, since nobody can be asked for a million. The proof in each lease is what keeps a wide
 * campaign to its list (protocol README §4).
 */
export function campaignOrigins({ sites, wide }: Pick<Campaign, 'sites' | 'wide'>): string[] {
  return [
    ...sites.map(({ scheme, host }) => `${scheme}://${host}/*`),
    ...(wide === undefined ? [] : [`${wide.scheme}://*/*`]),
  ]
}

/**
 * Which patterns can be given back. Browsers note nothing narrower that is asked for while all sites
 * are granted, so access to all sites stays as long as it carries access that is still needed.
 *
 * @param held as the browser lists them
 * @param unwanted what nobody may need any more; needed ones among them stay
 */
export function returnable(
  held: readonly string[],
  unwanted: readonly string[],
  needed: readonly string[],
): string[] {
  const carried = needed.filter((pattern) => !held.includes(pattern))
  return [...new Set(unwanted)].filter((pattern) => {
    if (!held.includes(pattern) || needed.includes(pattern)) return false
    const scheme = pattern.slice(0, pattern.indexOf('://'))
    return !everySite.includes(pattern) || !carried.some((one) => one.startsWith(`${scheme}://`))
  })
}
