import * as z from 'zod/mini'
import { count, day, digest, pageUrl, randomId } from './fields.ts'

const common = { id: randomId, lease: randomId, validForMs: count }

/**
 * What the server asks of a node that still keeps a body. Sentences and payload
 * are answered with gzip bytes, attest with a signature.
 */
export const followUp = z.discriminatedUnion('kind', [
  z.strictObject({ ...common, kind: z.literal('sentences') }),
  z.strictObject({ ...common, kind: z.literal('payload') }),
  z.strictObject({
    ...common,
    kind: z.literal('attest'),
    url: pageUrl,
    day,
    /** Into this node's own sentence list, strictly ascending. Empty for a payload that is not read. */
    indexes: z.array(count).check(z.maxLength(20_000)),
    /** True when all observers of the quorum hold the same payload. */
    exact: z.boolean(),
  }),
])
export type FollowUp = z.infer<typeof followUp>

/** `GET /v1/follow-ups`. */
export const followUpList = z.strictObject({
  followUps: z.array(followUp).check(z.maxLength(64)),
  /** Leases whose body may be let go: nothing more will be asked. */
  released: z.array(randomId).check(z.maxLength(1000)),
})
export type FollowUpList = z.infer<typeof followUpList>

export const followUpRefusalReason = z.enum([
  'body-gone',
  'indexes-out-of-order',
  'index-out-of-range',
  'wrong-url',
  'wrong-day',
  'consent-withdrawn',
])
export type FollowUpRefusalReason = z.infer<typeof followUpRefusalReason>

/** Statement that an observer signs under its one-use key. Serialised by RFC 8785. */
export const attestation = z.strictObject({
  campaign: digest,
  day,
  gaps: count,
  payload: z.optional(digest),
  text: digest,
  transform: z.literal('gleaner-text/1'),
  url: pageUrl,
})
export type Attestation = z.infer<typeof attestation>
