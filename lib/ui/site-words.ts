import type { Campaign } from '../protocol/campaign.ts'

/** Where a campaign fetches, on one line. */
export function placesWords({ sites, wide }: Pick<Campaign, 'sites' | 'wide'>): string {
  return [
    ...sites.map(({ host }) => host),
    ...(wide === undefined ? [] : [`${domainsWords(wide.size)} (${wide.category})`]),
  ].join(', ')
}

export function domainsWords(size: number): string {
  return size === 1 ? '1 domain' : `${size.toLocaleString('en')} domains`
}
