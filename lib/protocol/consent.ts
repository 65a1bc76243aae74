import * as z from 'zod/mini'
import { digest, instant } from './fields.ts'

/** Signed by the node key; tells the server what the person chose. The full receipt stays on the device. */
export const consent = z.strictObject({
  version: z.literal(1),
  campaign: digest,
  act: z.enum(['given', 'withdrawn']),
  at: instant,
  /** SHA-256 of the consent receipt (ISO/IEC TS 27560 fields) kept on the device. */
  receipt: digest,
})
export type Consent = z.infer<typeof consent>
