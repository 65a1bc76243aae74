import * as z from 'zod/mini'
import { count, randomId, signature } from './fields.ts'
import { problem } from './problem.ts'

/**
 * Body of `POST /v1/attestations`. The server knows every member of the
 * statement but `gaps`, so only that and the signature travel.
 */
export const attestationBatch = z.strictObject({
  attestations: z
    .array(z.strictObject({ followUp: randomId, gaps: count, sig: signature }))
    .check(z.minLength(1), z.maxLength(64)),
})
export type AttestationBatch = z.infer<typeof attestationBatch>

/** One answer for each item, in its order. */
export const batchReply = z.strictObject({
  results: z
    .array(
      z.union([
        z.strictObject({ ok: z.literal(true) }),
        z.strictObject({ ok: z.literal(false), problem }),
      ]),
    )
    .check(z.maxLength(64)),
})
export type BatchReply = z.infer<typeof batchReply>
