import type { Campaign } from '../protocol/campaign.ts'
import { combineUse, type UseStatement, type UseTerm } from './use-signals.ts'
import { type SiteUse, siteStatementsAt } from './use-site.ts'

export type CampaignUse = Campaign['use']

/** One line of the published table: what a site's no keeps out of which campaigns. */
export interface UseRule {
  /** What is said: a no to this kind of use, or this wish. */
  term: UseTerm
  /** Campaigns by their declared use. Known before the fetch, the page is not fetched; after it, not published. */
  forbids: readonly CampaignUse[]
  /** For people. */
  meaning: string
  /** What says so. */
  source: string
}

const everyUse: readonly CampaignUse[] = ['research', 'search', 'ai-training', 'archive']

/** The table, in full. Only a no forbids: what a site does not say is unknown, and the row says so. */
export const useRules: readonly UseRule[] = [
  {
    term: 'noindex',
    forbids: everyUse,
    meaning: 'the page is to be in no index, and a release is one',
    source: 'X-Robots-Tag, meta robots: noindex, none',
  },
  {
    term: 'noarchive',
    forbids: everyUse,
    meaning: 'no copy of the page is to be given out, and a release holds its text',
    source: 'X-Robots-Tag, meta robots: noarchive, nocache',
  },
  {
    term: 'train',
    forbids: ['ai-training'],
    meaning: 'no model is to be trained with the page',
    source:
      'AIPREF Content-Usage train-ai=n; Content-Signal ai-train=no; noai, noimageai; an RSL licence that prohibits it, costs, or cannot be read; ai.txt Disallow: /',
  },
  {
    term: 'tdm',
    forbids: ['ai-training', 'research'],
    meaning: 'text and data mining is reserved (directive (EU) 2019/790, Article 4)',
    source: 'TDMRep tdm-reservation 1: /.well-known/tdmrep.json, header, meta',
  },
  {
    term: 'search',
    forbids: ['search'],
    meaning: 'the page is to be in no search application',
    source: 'AIPREF Content-Usage search=n; Content-Signal search=no; RSL',
  },
  {
    term: 'aiInput',
    forbids: [],
    meaning: 'no model is to answer from the page; no campaign does that, and the row says it',
    source: 'Content-Signal ai-input=no; RSL',
  },
  {
    term: 'nofollow',
    forbids: [],
    meaning: 'the page is published, its links are not followed',
    source: 'X-Robots-Tag, meta robots: nofollow, none',
  },
]

export type UseVerdict =
  | { kind: 'allowed' }
  | {
      kind: 'forbidden'
      term: UseTerm
      /** Such as `use: train-ai=n in robots.txt line 4`. */
      reason: string
    }

/** Whether a campaign of this use may publish a page of which this is said. */
export function usePolicy(
  campaignUse: CampaignUse,
  statements: readonly UseStatement[],
): UseVerdict {
  const use = combineUse(statements)
  for (const { term, forbids } of useRules) {
    if (!forbids.includes(campaignUse) || (use[term] !== 'n' && use[term] !== true)) continue
    const by = statements.find((one) => one[term] === use[term])
    const words = by === undefined ? term : `${by.said[term] ?? term} in ${placeOf(by)}`
    return { kind: 'forbidden', term, reason: `use: ${words}`.slice(0, 300) }
  }
  return { kind: 'allowed' }
}

/**
 * Whether a page is to be fetched at all, by what its host says of it. A reservation in TDMRep's file
 * is enough, although the page itself might lift it: nobody can know that without fetching it.
 *
 * @param site `siteUse` of robots.txt and the stored signals of its files, parsed once a host
 */
export function useBeforeFetch(url: string, site: SiteUse, campaignUse: CampaignUse): UseVerdict {
  return usePolicy(campaignUse, siteStatementsAt(url, site))
}

function placeOf({ signal: { source, name, value }, line }: UseStatement): string {
  switch (source) {
    case 'robots':
      return line === null ? 'robots.txt' : `robots.txt line ${line}`
    case 'header':
      return `header ${name}`
    case 'tdmrep':
      return '/.well-known/tdmrep.json'
    case 'ai-txt':
      return 'ai.txt'
    case 'rsl':
      return `licence ${value.split(' url=').at(-1)?.replace(/^url=/, '') ?? ''}`
    case 'meta':
    case 'link':
    case 'a':
      return `${source} ${name}`
  }
}
