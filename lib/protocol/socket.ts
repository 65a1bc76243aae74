import * as z from 'zod/mini'
import { digest, randomId } from './fields.ts'

/** From the node, on `/v1/socket`. The token comes first, within 5 s, never in the URL. */
export const socketRequest = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('authenticate'), token: digest }),
  z.strictObject({ type: z.literal('ping') }),
])
export type SocketRequest = z.infer<typeof socketRequest>

/** To the node: a doorbell. What it announces is then asked for over HTTP. */
export const socketNotice = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('ready') }),
  z.strictObject({ type: z.literal('pong') }),
  z.strictObject({ type: z.literal('work') }),
  z.strictObject({ type: z.literal('follow-ups') }),
  z.strictObject({ type: z.literal('outcomes') }),
  /** Stop and abort: one campaign, or everything when null. */
  z.strictObject({ type: z.literal('halt'), campaign: z.nullable(digest) }),
  /** The halt is over: of one campaign, or of everything when null. */
  z.strictObject({ type: z.literal('resume'), campaign: z.nullable(digest) }),
  /** Abort these and forget them: the site's owner opted out. */
  z.strictObject({
    type: z.literal('recall'),
    leases: z.array(randomId).check(z.minLength(1), z.maxLength(64)),
  }),
])
export type SocketNotice = z.infer<typeof socketNotice>
