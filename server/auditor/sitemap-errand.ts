import { getDomain } from 'tldts'
import { createSitemapReader, type SitemapItem, urgencyOf } from '../frontier/sitemap.ts'
import { takeIn } from '../intake.ts'
import { type AuditorTask, addAuditorTasks, campaignOfTask } from '../store/auditor-tasks.ts'
import type { AuditorTools, Outcome } from './errand.ts'
import type { Answer } from './fetch-as-auditor.ts'
import { BrokenGzip, sitemapText } from './sitemap-text.ts'

/** sitemaps.org: 50 MB, unpacked. */
const maxBytes = 50 * 1_024 * 1_024
/** 1 MB a second, and the database's time for 50,000 addresses. Below `taskMs` of run-auditor.ts. */
const maxMs = 80_000
const maxRedirects = 5
/** Handed on together: a transaction of some tens of milliseconds. */
const batchSize = 500
/** An index of indexes is the most that anybody uses; sitemaps.org allows one level. */
const deepestSitemap = 2
/** Sitemaps are read again when robots.txt is, about daily; two indexes that share one read it once. */
const againAfterMs = 12 * 3_600_000

/**
 * Reads a sitemap and takes what it names into the campaign's frontier, as far as the campaign covers
 * it; sitemaps of an index become errands of their own. What was taken in stays when the rest cannot
 * be read.
 */
export async function sitemapErrand(
  task: AuditorTask,
  tools: AuditorTools,
  signal: AbortSignal,
): Promise<Outcome> {
  const { database } = tools
  const digest = task.campaign
  const manifest = digest && (await campaignOfTask(database.pool, digest))
  if (!digest || !manifest) return { kind: 'failed', reason: 'Its campaign is over.' }
  const counts = { found: 0, taken: 0, sitemaps: 0 }

  async function handOn(items: readonly SitemapItem[], { base, isFeed }: Origin) {
    const nowMs = tools.now()
    const pages = items.flatMap((item) => {
      const url = item.kind === 'page' ? absolute(item.url, isFeed ? base : undefined) : null
      if (item.kind !== 'page' || url === null) return []
      // Nobody linked to it: as far from a seed as a page that a seed links.
      return [{ url: url.href, as: 'sitemap' as const, depth: 1, given: urgencyOf(item, nowMs) }]
    })
    const sitemaps = items.flatMap((item) => {
      const url = item.kind === 'sitemap' ? absolute(item.url, undefined) : null
      return url !== null && isSameOwner(url, base) ? [url.href] : []
    })
    const taken = await database.transaction(async (tx) => {
      if (task.depth < deepestSitemap) {
        await addAuditorTasks(
          tx,
          sitemaps.map((target) => ({
            kind: 'sitemap' as const,
            target,
            campaign: digest as Buffer,
            depth: task.depth + 1,
            ...(task.hostId === null ? {} : { hostId: task.hostId }),
          })),
          { unlessDoneWithinMs: againAfterMs },
        )
      }
      return manifest
        ? takeIn(tx, { campaign: digest as Buffer, manifest }, pages, tools.scopeRules, nowMs)
        : 0
    })
    counts.found += pages.length
    counts.taken += taken
    counts.sitemaps += sitemaps.length
  }

  async function read(answer: Answer): Promise<Outcome> {
    if (answer.status === 404 || answer.status === 410)
      return { kind: 'done', reason: 'none there' }
    if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) {
      return { kind: 'done', reason: `status ${answer.status}: not for us to read` }
    }
    if (answer.status < 200 || answer.status > 299) {
      return { kind: 'retry', reason: `status ${answer.status}` }
    }
    const reader = createSitemapReader()
    const notes: string[] = []
    const tell = { isCut: false }
    const waiting: SitemapItem[] = []
    const origin = (): Origin => ({
      base: answer.url,
      isFeed: reader.format === 'rss' || reader.format === 'atom',
    })
    try {
      for await (const text of sitemapText(answer.body, maxBytes, tell)) {
        waiting.push(...reader.write(text))
        while (waiting.length >= batchSize) await handOn(waiting.splice(0, batchSize), origin())
        if (reader.stopped !== null) break
      }
      // Of an element that was cut the rest is missing: it counts for nothing.
      if (!tell.isCut && !answer.isCut()) waiting.push(...reader.end())
    } catch (error) {
      if (!(error instanceof BrokenGzip)) throw error
      notes.push(error.message)
    }
    while (waiting.length > 0) await handOn(waiting.splice(0, batchSize), origin())
    if (reader.format === null) {
      const why = reader.stopped ?? notes[0] ?? 'it is neither XML nor a list of addresses'
      return { kind: 'done', reason: `no sitemap: ${why}` }
    }
    if (reader.stopped !== null) notes.push(reader.stopped)
    if (tell.isCut || answer.isCut()) notes.push('only its first 50 MB are read')
    if (counts.sitemaps > 0 && task.depth >= deepestSitemap) {
      notes.push(`an index below ${deepestSitemap} others is not followed`)
    }
    return { kind: 'done', reason: [summary(), ...notes].join('; ') }
  }

  function summary(): string {
    if (counts.sitemaps > 0) return `index of ${counts.sitemaps} sitemaps`
    return `${counts.found} addresses, ${counts.taken} of them new`
  }

  const limits = {
    maxBytes,
    maxMs,
    maxRedirects,
    signal,
    permit: (url: URL) => tools.permit(url, signal),
  }
  const fetched = await tools.fetch(task.target, limits, read)
  if (fetched.kind === 'answered') return fetched.value
  const reason =
    counts.found + counts.sitemaps === 0
      ? fetched.sentence
      : `${fetched.sentence} Before: ${summary()}`
  switch (fetched.reason) {
    case 'not-public':
    case 'not-web':
    // Asked for again when its robots.txt was read again.
    case 'not-permitted':
    case 'redirect-limit':
      return { kind: 'failed', reason }
    default:
      return { kind: 'retry', reason }
  }
}

/** Addresses in a sitemap are whole; those of feeds need not be. */
interface Origin {
  base: string
  isFeed: boolean
}

function absolute(given: string, base: string | undefined): URL | null {
  return URL.canParse(given, base) ? new URL(given, base) : null
}

/** An index speaks for its own domain: it must not send the auditor round the web. */
function isSameOwner(url: URL, base: string): boolean {
  if (!/^https?:$/.test(url.protocol) || url.href.length > 2_048) return false
  const { hostname } = new URL(base)
  if (url.hostname === hostname) return true
  const owner = getDomain(hostname, { allowPrivateDomains: true })
  return owner !== null && owner === getDomain(url.hostname, { allowPrivateDomains: true })
}
