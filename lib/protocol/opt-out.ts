import * as z from 'zod/mini'
import { count, digest, instant, randomId, text } from './fields.ts'

/** One host; one path of a host and what is below it; a domain and every host below it. */
export const optOutScope = z.enum(['host', 'prefix', 'domain'])
export type OptOutScope = z.infer<typeof optOutScope>

/** A host name, or with a prefix a name and a path. */
export const optOutTarget = text(2400)

/** `POST /v1/opt-outs`, by a site's owner. What is given is read forgivingly: names, URLs, any script. */
export const optOutRequest = z.strictObject({
  scope: optOutScope,
  target: text(4096),
})
export type OptOutRequest = z.infer<typeof optOutRequest>

/** Where a request to leave a site alone stands. The answer to the request, and `GET /v1/opt-outs/ID`. */
export const optOut = z.strictObject({
  id: randomId,
  scope: optOutScope,
  target: optOutTarget,
  state: z.enum(['waiting', 'verified', 'failed', 'withdrawn']),
  token: randomId,
  /** Either proves control. `looks` has the other places that count. */
  proofs: z.strictObject({
    dns: z.strictObject({ name: text(253), type: z.literal('TXT'), value: text(100) }),
    file: z.strictObject({ url: text(400), body: randomId }),
  }),
  /** The page for people. */
  status: text(400),
  requestedAt: instant,
  /** Without a proof until then, the request fails. */
  expiresAt: instant,
  /** From then on nothing new is leased. */
  verifiedAt: z.nullable(instant),
  /** What the proof was, or why there is none. */
  reason: z.nullable(text(1000)),
  /** What was stopped; final once there is a leaf index. */
  stopped: z.strictObject({ tasks: count, leases: count, records: count }),
  leafIndex: z.nullable(count),
  /** Where a proof is looked for, and what was found there last. */
  looks: z
    .array(
      z.strictObject({
        kind: z.enum(['dns', 'file']),
        at: text(400),
        lookedAt: z.nullable(instant),
        found: z.nullable(text(1000)),
      }),
    )
    .check(z.maxLength(10)),
})
export type OptOut = z.infer<typeof optOut>

/** `GET /v1/sites?host=`: what is known of a host, for its owner. */
export const siteReport = z.strictObject({
  host: text(253),
  /** At most https and http; empty when the host was never met. */
  origins: z
    .array(
      z.strictObject({
        origin: text(270),
        robots: z.strictObject({
          state: z.enum(['unknown', 'rules', 'allow-all', 'disallow-all']),
          reason: z.nullable(text(1000)),
          fetchedAt: z.nullable(instant),
          digest: z.nullable(digest),
        }),
        /** Between two requests of the whole network. */
        paceMs: count,
        holdUntil: z.nullable(instant),
        holdReason: z.nullable(text(1000)),
      }),
    )
    .check(z.maxLength(2)),
  campaigns: z
    .array(
      z.strictObject({
        id: text(63),
        title: text(120),
        use: z.enum(['research', 'search', 'ai-training', 'archive']),
        state: z.enum(['running', 'paused', 'exhausted', 'stopped']),
        /** Addresses of this host in the frontier. */
        pages: count,
      }),
    )
    .check(z.maxLength(50)),
  /** The opt-out with the widest reach that covers the host or a part of it. */
  optedOut: z.nullable(
    z.strictObject({ id: randomId, scope: optOutScope, target: optOutTarget, since: instant }),
  ),
})
export type SiteReport = z.infer<typeof siteReport>
