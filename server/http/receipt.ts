import { toBase64Url } from '../../lib/crypto/base64.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import { type Envelope, signEnvelope } from '../../lib/crypto/dsse.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import { payloadType } from '../../lib/protocol/payload-type.ts'
import type { OperatorKey } from '../store/operator-keys.ts'

/** The acknowledgement of a durable observation: deterministic, the same each time it is asked for. */
export function signReceipt(
  accepted: { leaseId: Uint8Array; statement: string },
  key: OperatorKey,
): Promise<Envelope> {
  const receipt = canonicalJson({
    version: 1,
    lease: toBase64Url(accepted.leaseId),
    statement: toBase64Url(sha256(accepted.statement)),
  })
  return signEnvelope(payloadType.receipt, new TextEncoder().encode(receipt), [key])
}
