import { createHash } from 'node:crypto'
import { fromBase64Url } from '../../lib/crypto/base64.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import { type AttestedRow, attestedRow, type Row, row } from '../../lib/protocol/release.ts'
import { parseJson } from './parse-json.ts'

/** Path of the rows within a release. */
export const attestationsPath = 'attestations.jsonl.gz'

/** A row of 64 KiB, escaped twice, and five envelopes; nothing real comes near. */
export const maxAttestedLineBytes = 1024 * 1024

/** A line of attestations.jsonl.gz, taken apart. */
export type AttestedLine = {
  attested: AttestedRow
  row: Row
  /** SHA-256(salt ‖ row). */
  commitment: Buffer
}

/** Undefined unless the line is a row as it was committed: canonical JSON of exactly its members. */
export function parseAttestedLine(line: Uint8Array): AttestedLine | undefined {
  const attested = attestedRow.safeParse(parseJson(line)).data
  const parsed = attested && row.safeParse(parseJson(attested.row)).data
  if (attested === undefined || parsed === undefined) return undefined
  if (canonicalJson(parsed) !== attested.row || !URL.canParse(parsed.url)) return undefined
  const commitment = createHash('sha256')
    .update(fromBase64Url(attested.salt))
    .update(attested.row)
    .digest()
  return { attested, row: parsed, commitment }
}
