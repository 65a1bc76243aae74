import * as z from 'zod/mini'
import { count, text } from './fields.ts'

/** Every reason with which the server refuses, and the HTTP status it travels with. */
export const problemStatus = {
  malformed: 400,
  'unknown-challenge': 401,
  'bad-signature': 401,
  'no-session': 401,
  'wrong-network': 403,
  'unknown-campaign': 403,
  'no-consent': 403,
  'not-your-lease': 403,
  'unknown-lease': 404,
  'unknown-follow-up': 404,
  'not-found': 404,
  'lease-expired': 410,
  'lease-used': 409,
  'key-reused': 409,
  'nonce-mismatch': 409,
  'digest-mismatch': 422,
  'attestation-mismatch': 422,
  'too-large': 413,
  'too-many-requests': 429,
  overloaded: 503,
  internal: 500,
} as const
export type ProblemReason = keyof typeof problemStatus

/** RFC 9457 problem details, `application/problem+json`. */
export const problem = z.strictObject({
  /** `urn:gleaner:problem:` and the reason. */
  type: z.string().check(z.regex(/^urn:gleaner:problem:[a-z-]+$/)),
  title: text(200),
  status: count,
  /** What was wrong and what to do. */
  detail: text(1000),
})
export type Problem = z.infer<typeof problem>

/** The reason inside a problem's type, or `internal` for a type that this version does not know. */
export function problemReason(given: Problem): ProblemReason {
  const reason = given.type.slice('urn:gleaner:problem:'.length)
  return Object.hasOwn(problemStatus, reason) ? (reason as ProblemReason) : 'internal'
}
