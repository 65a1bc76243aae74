import * as z from 'zod/mini'

/** SHA-256, 32 bytes, as unpadded base64url (RFC 4648 §5). */
export const digest = z.string().check(z.regex(/^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/))

/** The first 16 bytes of a SHA-256. Only where a second pre-image is the sole threat. */
export const shortDigest = z.string().check(z.regex(/^[A-Za-z0-9_-]{21}[AQgw]$/))

/** 16 random bytes as base64url: a lease, a follow-up, a nonce, a challenge. */
export const randomId = shortDigest

/** Ed25519 public key, 32 raw bytes as base64url. Also the `keyid` of every envelope. */
export const publicKey = digest

/** Ed25519 signature, 64 raw bytes as base64url. */
export const signature = z.string().check(z.regex(/^[A-Za-z0-9_-]{85}[AQgw]$/))

/** 2,048 bytes is the longest URL that Google's sitemaps and most browsers' tools accept. */
export const pageUrl = z.string().check(z.maxLength(2048), z.regex(/^https?:\/\/[^\s]+$/))

/** UTC calendar day, RFC 3339 full-date. */
export const day = z.string().check(z.regex(/^\d{4}-\d{2}-\d{2}$/))

/** UTC instant, RFC 3339 with `Z`. */
export const instant = z
  .string()
  .check(z.regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,3})?Z$/))

export const count = z.int().check(z.nonnegative())

export const text = (maxLength: number) => z.string().check(z.minLength(1), z.maxLength(maxLength))

/** A DSSE v1 envelope. 64 KiB of base64 is more than any statement here needs. */
export const envelope = z.strictObject({
  payloadType: text(100),
  payload: z.string().check(z.maxLength(65536)),
  signatures: z
    .array(z.strictObject({ keyid: publicKey, sig: z.string().check(z.maxLength(120)) }))
    .check(z.minLength(1), z.maxLength(8)),
})
export type EnvelopeMessage = z.infer<typeof envelope>
