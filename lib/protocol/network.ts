import * as z from 'zod/mini'
import { instant, publicKey, text } from './fields.ts'

/** The operator's keys, signed by the campaign key that the join link pins. First entry of the log. */
export const network = z.strictObject({
  version: z.literal(1),
  name: text(100),
  operator: z.strictObject({ name: text(200), contact: text(200) }),
  campaignKey: publicKey,
  leaseKey: publicKey,
  receiptKey: publicKey,
  /** C2SP signed-note verifier key of the log; its name is the checkpoint's origin. */
  logKey: text(300),
  createdAt: instant,
})
export type Network = z.infer<typeof network>
