import * as z from 'zod/mini'
import { count, day, digest, envelope, text } from './fields.ts'
import { optOutScope, optOutTarget } from './opt-out.ts'

/** Leaves of the log, as RFC 8785 JSON. Rows are commitments; everything else is in clear. */
export const logEntry = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('network'), envelope }),
  z.strictObject({ type: z.literal('campaign'), envelope }),
  /** SHA-256(salt ‖ row): see `row` in release.ts. */
  z.strictObject({ type: z.literal('row'), commitment: digest }),
  z.strictObject({
    type: z.literal('epoch'),
    number: count,
    day,
    /** Merkle root (RFC 6962) over the epoch's transfers. */
    transfersRoot: digest,
    transfers: count,
    /** Merkle root over every account's balance when sealed. */
    balancesRoot: digest,
    accounts: count,
  }),
  z.strictObject({
    type: z.literal('release'),
    name: text(200),
    /** SHA-256 of the file SHA256SUMS. */
    sums: digest,
    rows: count,
  }),
  /** A site's owner said no, and proved control; `day` is when. */
  z.strictObject({ type: z.literal('opt-out'), scope: optOutScope, target: optOutTarget, day }),
])
export type LogEntry = z.infer<typeof logEntry>
