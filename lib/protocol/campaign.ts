import * as z from 'zod/mini'
import { count, digest, envelope, instant, pageUrl, text } from './fields.ts'

/** One site of a campaign. The host is exact: a subdomain is another site. */
export const site = z.strictObject({
  host: z.string().check(z.maxLength(253), z.regex(/^(?=.*\.)[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/)),
  scheme: z.enum(['https', 'http']),
  pathPrefixes: z
    .array(z.string().check(z.maxLength(512), z.regex(/^\//)))
    .check(z.minLength(1), z.maxLength(50)),
  /** Of the whole network together. A node never goes above it alone either. */
  requestsPerSecond: z.number().check(z.positive(), z.maximum(100)),
  requestsInFlight: z.int().check(z.minimum(1), z.maximum(32)),
})
export type Site = z.infer<typeof site>

/** What a contributor agrees to. The exact signed bytes are the campaign; their SHA-256 names it. */
export const campaign = z
  .strictObject({
    version: z.literal(1),
    id: z.string().check(z.regex(/^[a-z0-9][a-z0-9-]{0,62}$/)),
    title: text(120),
    /** In plain words, for the person who is asked. */
    purpose: text(2000),
    operator: z.strictObject({ name: text(200), contact: text(200) }),
    use: z.enum(['research', 'search', 'ai-training', 'archive']),
    /** Empty only in a wide campaign. */
    sites: z.array(site).check(z.maxLength(100)),
    /** A published list of domains beside the sites; each lease then proves that its domain is listed. */
    wide: z.optional(
      z.strictObject({
        /** RFC 6962 root over the domains, sorted by their bytes, each once. */
        root: digest,
        size: z.int().check(z.minimum(1), z.maximum(1_000_000)),
        /** What the domains have in common, in plain words. */
        category: text(200),
        scheme: z.enum(['https', 'http']),
        /** For each host of a listed domain. */
        requestsPerSecond: z.number().check(z.positive(), z.maximum(100)),
        requestsInFlight: z.int().check(z.minimum(1), z.maximum(32)),
      }),
    ),
    /** Kinds of content that are read; others are refused by their header. Absent: html, text and feed. */
    types: z.optional(
      z
        .array(z.enum(['html', 'text', 'feed', 'json', 'pdf']))
        .check(z.minLength(1), z.maxLength(5)),
    ),
    canaryHosts: z.array(text(253)).check(z.maxLength(20)),
    seeds: z.array(pageUrl).check(z.minLength(1), z.maxLength(1000)),
    limits: z.strictObject({
      /** Decoded bytes of one page. */
      pageBytes: z.int().check(z.minimum(1024), z.maximum(16 * 1024 * 1024)),
      /** Wall clock of one page, every hop included. */
      pageMs: z.int().check(z.minimum(100), z.maximum(120_000)),
      pages: z.int().check(z.minimum(1), z.maximum(1_000_000_000)),
      /** The same for each host; absent: only `pages` counts. */
      pagesPerHost: z.optional(z.int().check(z.minimum(1), z.maximum(1_000_000_000))),
      /** Links away from a seed. */
      depth: z.int().check(z.minimum(0), z.maximum(1000)),
    }),
    retentionDays: z.int().check(z.minimum(1), z.maximum(36_500)),
    quorum: z.int().check(z.minimum(2), z.maximum(5)),
    points: z.strictObject({
      /** For a valid observation of new content. Integer points. */
      perPage: count,
      /** For a valid observation of what was already known, or of robots.txt. */
      perDuplicate: count,
      /** For the node whose payload was taken. */
      perPayload: count,
      /** The most that this campaign may ever credit. */
      budget: count,
      funding: z.enum(['subsidy', 'consumer']),
    }),
    validFrom: instant,
    validUntil: instant,
  })
  .check(
    z.refine(({ sites, wide }) => sites.length > 0 || wide !== undefined, {
      path: ['sites'],
      message: 'A campaign names sites, a list of domains (wide), or both',
    }),
  )
export type Campaign = z.infer<typeof campaign>

/** `GET /v1/campaigns`. Every campaign carries the proof that it is in the log. */
export const campaignList = z.strictObject({
  /** C2SP checkpoint, a signed note. */
  checkpoint: z.string().check(z.maxLength(8192)),
  campaigns: z
    .array(
      z.strictObject({
        manifest: envelope,
        leafIndex: count,
        /** Sibling hashes, leaf side first, RFC 6962 §2.1.1. */
        inclusionProof: z.array(digest).check(z.maxLength(63)),
      }),
    )
    .check(z.maxLength(1000)),
})
export type CampaignList = z.infer<typeof campaignList>
