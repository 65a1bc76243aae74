import { fromBase64 } from '../../lib/crypto/base64.ts'
import { type Envelope, type EnvelopeVerdict, verifyEnvelope } from '../../lib/crypto/dsse.ts'
import { parseJson } from './parse-json.ts'

/**
 * Opens an envelope of a release for one key. DSSE lets a reader take either alphabet of base64;
 * README §1 has one, so that an envelope has one spelling.
 */
export async function verifyReleaseEnvelope(
  envelope: Envelope,
  payloadType: string,
  publicKey: Uint8Array,
): Promise<EnvelopeVerdict> {
  const texts = [envelope.payload, ...envelope.signatures.map(({ sig }) => sig)]
  if (texts.some((text) => decoded(text) === undefined)) return { ok: false, reason: 'malformed' }
  return verifyEnvelope(envelope, payloadType, publicKey)
}

/** The payload of an envelope as JSON, not yet believed. Undefined when it is none. */
export function payloadOf(envelope: Envelope): unknown {
  const bytes = decoded(envelope.payload)
  return bytes && parseJson(bytes)
}

function decoded(text: string): Uint8Array | undefined {
  try {
    return fromBase64(text)
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
