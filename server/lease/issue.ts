import { toBase64Url } from '../../lib/crypto/base64.ts'
import { type Envelope, signEnvelope } from '../../lib/crypto/dsse.ts'
import type { SigningKey } from '../../lib/crypto/ed25519.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import { type Lease, robotsBytes } from '../../lib/protocol/lease.ts'
import { payloadType } from '../../lib/protocol/payload-type.ts'

export const grantWork = {
  /** Long enough for the slowest page a campaign allows (120 s) and a slow line. */
  validForMs: 150_000,
  retryAfterMs: 100,
  /** The doorbell rings when there is work again. */
  idleRetryMs: 15_000,
  /**
   * While there is work but every host is busy: this, times the nodes that
   * wait, so that all of them together ask some twenty times a second.
   */
  busyRetryMsPerNode: 50,
  /** RFC 9309 §2.3.1.2 asks for at least five. */
  maxRedirects: 5,
} as const

/** One fetch as the node receives it, within the limits that its campaign declares. */
export function leaseEnvelope(
  picked: {
    id: Uint8Array
    nonce: Uint8Array
    kind: 'page' | 'robots'
    url: string
    campaign: Uint8Array
    limits: Campaign['limits']
    paceMs: number
    /** In a wide campaign: what shows that the host's domain is listed. */
    domain: Lease['domain'] | null
  },
  validForMs: number,
  key: { keyid: string; privateKey: SigningKey },
): Promise<Envelope> {
  const { pageBytes, pageMs } = picked.limits
  const lease = canonicalJson({
    version: 1,
    id: toBase64Url(picked.id),
    campaign: toBase64Url(picked.campaign),
    kind: picked.kind,
    url: picked.url,
    nonce: toBase64Url(picked.nonce),
    validForMs,
    maxBytes: picked.kind === 'robots' ? robotsBytes : pageBytes,
    maxMs: pageMs,
    maxRedirects: grantWork.maxRedirects,
    paceMs: picked.paceMs,
    ...(picked.domain ? { domain: picked.domain } : {}),
  })
  return signEnvelope(payloadType.lease, new TextEncoder().encode(lease), [key])
}
