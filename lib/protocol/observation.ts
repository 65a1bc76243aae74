import * as z from 'zod/mini'
import {
  count,
  digest,
  envelope,
  pageUrl,
  publicKey,
  randomId,
  shortDigest,
  signature,
  text,
} from './fields.ts'
import { problem } from './problem.ts'

/** Response headers that an observation carries, lower case: freshness and every use signal. */
export const observedHeaders = [
  'content-language',
  'content-signal',
  'content-usage',
  'etag',
  'last-modified',
  /** Only its links of rel=license. */
  'link',
  'retry-after',
  'tdm-policy',
  'tdm-reservation',
  'x-robots-tag',
] as const

export const failureReason = z.enum([
  'timeout',
  'too-large',
  'connection',
  'private-address',
  'redirect-limit',
  'redirect-refused',
  'undecodable',
  'unsupported-type',
])
export type FailureReason = z.infer<typeof failureReason>

const headers = z.partialRecord(z.enum(observedHeaders), z.string().check(z.maxLength(256)))

/** What one node saw. Signed under the lease's one-use key. At most 600 bytes on the wire in a gzip batch. */
export const observation = z.discriminatedUnion('outcome', [
  z.strictObject({
    version: z.literal(1),
    outcome: z.literal('fetched'),
    lease: randomId,
    /** After the last redirect, canonical. */
    url: pageUrl,
    /** Status of each redirect followed. */
    hops: z.array(z.int().check(z.minimum(300), z.maximum(399))).check(z.maxLength(10)),
    status: z.int().check(z.minimum(200), z.maximum(599)),
    /** Media type without parameters, lower case. */
    type: z.string().check(z.maxLength(100)),
    /** The charset parameter of Content-Type, lower case, unquoted; the payload is decoded with it again. */
    charset: z.nullable(z.string().check(z.maxLength(40))),
    headers,
    payload: z.strictObject({ bytes: count, digest }),
    /** SHA-256(nonce ‖ payload): the payload was in hand after the lease was given. */
    freshness: digest,
    sentences: z.strictObject({ count, digest }),
    title: shortDigest,
    canonical: shortDigest,
    language: shortDigest,
    signals: shortDigest,
    links: shortDigest,
    firstByteMs: count,
    totalMs: count,
    /** Encoded body bytes, as the browser reports them; 0 where it does not say. */
    wireBytes: count,
  }),
  z.strictObject({
    version: z.literal(1),
    outcome: z.literal('failed'),
    lease: randomId,
    reason: failureReason,
    totalMs: count,
    wireBytes: count,
  }),
])
export type Observation = z.infer<typeof observation>
export type FetchedObservation = Extract<Observation, { outcome: 'fetched' }>

/**
 * A statement and its DSSE signature. The statement travels as text instead of
 * base64 so that gzip finds its repetitions; the signed bytes are the same.
 */
export const signedStatement = z.strictObject({
  statement: text(4096),
  key: publicKey,
  sig: signature,
})
export type SignedStatement = z.infer<typeof signedStatement>

/** Body of `POST /v1/observations`. */
export const observationBatch = z.strictObject({
  observations: z.array(signedStatement).check(z.minLength(1), z.maxLength(32)),
})

/** Signed by the receipt key: the operator holds this observation. The same for everyone. */
export const receipt = z.strictObject({
  version: z.literal(1),
  lease: randomId,
  /** SHA-256 of the statement's bytes. */
  statement: digest,
})
export type Receipt = z.infer<typeof receipt>

/** One answer for each item of the batch, in its order. A refused item changes nothing for the others. */
export const observationReply = z.strictObject({
  results: z
    .array(
      z.union([
        z.strictObject({ ok: z.literal(true), receipt: envelope }),
        z.strictObject({ ok: z.literal(false), problem }),
      ]),
    )
    .check(z.maxLength(32)),
})
export type ObservationReply = z.infer<typeof observationReply>
