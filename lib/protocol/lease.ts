import * as z from 'zod/mini'
import { count, digest, envelope, pageUrl, randomId, text } from './fields.ts'

/** Body of `POST /v1/leases`. */
export const leaseRequest = z.strictObject({
  /** Manifest digests that this node consented to and can work on now. */
  campaigns: z.array(digest).check(z.minLength(1), z.maxLength(100)),
  max: z.int().check(z.minimum(1), z.maximum(32)),
})
export type LeaseRequest = z.infer<typeof leaseRequest>

/**
 * Bytes of robots.txt that a lease may name, whatever the manifest says of pages; longer files are
 * read to here. RFC 9309 §2.5: at least 500 KiB.
 */
export const robotsBytes = 512_000

/** One fetch for one node, signed by the lease key. */
export const lease = z.strictObject({
  version: z.literal(1),
  id: randomId,
  campaign: digest,
  kind: z.enum(['page', 'robots']),
  url: pageUrl,
  nonce: randomId,
  /** From receipt. The server's own receipt time alone decides expiry. */
  validForMs: count,
  maxBytes: count,
  maxMs: count,
  maxRedirects: count,
  /** Between two requests of this one fetch to the same host: a redirect waits its turn, too. */
  paceMs: z.optional(count),
  /** In a wide campaign: the listed domain that the URL's host is or lies below, and its proof. */
  domain: z.optional(
    z.strictObject({
      name: text(253),
      index: count,
      /** RFC 6962 §2.1.1 sibling hashes, leaf side first, joined: at most 20 × 32 bytes, base64url. */
      proof: z.string().check(z.regex(/^[A-Za-z0-9_-]{0,854}$/)),
    }),
  ),
})
export type Lease = z.infer<typeof lease>

export const leaseGrant = z.strictObject({
  leases: z.array(envelope).check(z.maxLength(32)),
  /** When to ask again if the doorbell stays silent. */
  retryAfterMs: count,
})
export type LeaseGrant = z.infer<typeof leaseGrant>
