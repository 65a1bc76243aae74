import * as z from 'zod/mini'
import { count, digest, envelope, instant, publicKey, randomId, text } from './fields.ts'

/** Signed by the account key: this node key is mine. */
export const certificate = z.strictObject({
  version: z.literal(1),
  nodeKey: publicKey,
  createdAt: instant,
})
export type Certificate = z.infer<typeof certificate>

/** `POST /v1/challenges`. */
export const challenge = z.strictObject({ challenge: randomId, validForMs: count })

/** Signed by the node key. The fingerprint stops a relay of the session to another network. */
export const session = z.strictObject({
  version: z.literal(1),
  challenge: randomId,
  fingerprint: digest,
  client: text(60),
})
export type Session = z.infer<typeof session>

/** Body of `POST /v1/sessions`. */
export const sessionRequest = z.strictObject({ certificate: envelope, session: envelope })
export type SessionRequest = z.infer<typeof sessionRequest>

export const sessionGrant = z.strictObject({
  /** Bearer token of every later call, 32 random bytes. */
  token: digest,
  nodeId: digest,
  validForMs: count,
})
export type SessionGrant = z.infer<typeof sessionGrant>
