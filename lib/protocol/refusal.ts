import * as z from 'zod/mini'
import { randomId } from './fields.ts'
import { followUpRefusalReason } from './follow-up.ts'

/** Why a node will not do what a lease asks. Each is a check made on the device. */
export const leaseRefusalReason = z.enum([
  'bad-signature',
  'not-consented',
  'out-of-scope',
  'scheme-not-allowed',
  'port-not-allowed',
  'host-not-public',
  'over-limit',
  'site-rate',
  'paused',
  'cap-reached',
  'expired',
  'consent-withdrawn',
  'recalled',
])
export type LeaseRefusalReason = z.infer<typeof leaseRefusalReason>

/** Body of `POST /v1/refusals`. */
export const refusalBatch = z.strictObject({
  leases: z
    .array(z.strictObject({ lease: randomId, reason: leaseRefusalReason }))
    .check(z.maxLength(64)),
  followUps: z
    .array(z.strictObject({ followUp: randomId, reason: followUpRefusalReason }))
    .check(z.maxLength(64)),
})
export type RefusalBatch = z.infer<typeof refusalBatch>
