import * as z from 'zod/mini'
import { count, randomId } from './fields.ts'

/** What became of a lease, told when its task is closed. */
export const outcome = z.strictObject({
  sequence: count,
  lease: randomId,
  verdict: z.enum(['valid', 'invalid', 'divergent', 'unpublished', 'unresolved']),
  grade: z.nullable(z.enum(['exact', 'sentences'])),
  duplicate: z.boolean(),
  /** Pending points credited for this lease. */
  points: count,
})
export type Outcome = z.infer<typeof outcome>

/** `GET /v1/outcomes?after=N`, ascending. */
export const outcomeList = z.strictObject({ outcomes: z.array(outcome).check(z.maxLength(500)) })

/** `GET /v1/account`. */
export const accountBalance = z.strictObject({ pendingPoints: count, postedPoints: count })
export type AccountBalance = z.infer<typeof accountBalance>
