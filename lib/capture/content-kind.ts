import type { Campaign } from '../protocol/campaign.ts'

/** What a body is read as. A campaign names the kinds that it wants. */
export type ContentKind = NonNullable<Campaign['types']>[number]

/** What a manifest means that names no kinds: what was read before there was a choice, and feeds. */
const USUAL_KINDS: readonly ContentKind[] = ['html', 'text', 'feed']

/** One table for worker and server. `application/xml` may be anything: `readFeed` looks inside. */
const KIND_OF: ReadonlyMap<string, ContentKind> = new Map([
  ['text/html', 'html'],
  ['application/xhtml+xml', 'html'],
  ['text/plain', 'text'],
  ['application/rss+xml', 'feed'],
  ['application/atom+xml', 'feed'],
  ['application/rdf+xml', 'feed'],
  ['application/xml', 'feed'],
  ['text/xml', 'feed'],
  ['application/json', 'json'],
  ['application/pdf', 'pdf'],
])

/**
 * Null for what nobody reads.
 *
 * @param type media type without parameters, lower case
 */
export function contentKind(type: string): ContentKind | null {
  // RFC 6839 §3.1: whatever ends so can be read as JSON.
  return KIND_OF.get(type) ?? (type.endsWith('+json') ? 'json' : null)
}

/**
 * Whether a campaign wants bodies of this media type.
 *
 * @param types of its manifest
 */
export function isWanted(type: string, types: Campaign['types']): boolean {
  const kind = contentKind(type)
  return kind !== null && (types ?? USUAL_KINDS).includes(kind)
}
