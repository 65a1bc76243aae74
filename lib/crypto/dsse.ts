import { fromBase64, fromBase64Url, toBase64 } from './base64.ts'
import { concatBytes } from './digest.ts'
import { type SigningKey, sign, verify } from './ed25519.ts'

/** A DSSE v1 JSON envelope (secure-systems-lab/dsse, envelope.md). */
export type Envelope = {
  payloadType: string
  /** Base 64 of the exact bytes that were signed. */
  payload: string
  signatures: {
    /** A hint which key signed. Unauthenticated: no decision may rest on it. */
    keyid: string
    /** Base 64 of the signature over the pre-authentication encoding. */
    sig: string
  }[]
}

export type EnvelopeSigner = { keyid: string; privateKey: SigningKey }

export type EnvelopeVerdict =
  | { ok: true; payload: Uint8Array<ArrayBuffer> }
  | { ok: false; reason: 'payload-type' | 'no-signature' | 'bad-signature' | 'malformed' }

// Gleaner's envelopes carry one signature, two while a key is rotated. The bound keeps a stranger's
// envelope from costing a thousand verifications.
const maxSignatures = 16

/**
 * Wraps bytes in an envelope and signs them, once per signer, in the order given.
 *
 * @param payloadType says how to read the payload; a media type of this application's own
 */
export async function signEnvelope(
  payloadType: string,
  payload: Uint8Array,
  signers: readonly EnvelopeSigner[],
): Promise<Envelope> {
  const message = preAuthEncoding(payloadType, payload)
  const signatures = await Promise.all(
    signers.map(async ({ keyid, privateKey }) => ({
      keyid,
      sig: toBase64(await sign(privateKey, message)),
    })),
  )
  return { payloadType, payload: toBase64(payload), signatures }
}

/**
 * Opens an envelope for one trusted key. It is good when any of its signatures is that key's; the
 * `keyid` is not consulted. Never throws for a malformed envelope.
 *
 * Use the returned payload, never the envelope's: only the former is what the signature covers.
 *
 * Reasons: `payload-type` is not the expected one; `no-signature` at all; `malformed` Base 64 or
 * more than 16 signatures; `bad-signature` when none is the key's.
 *
 * @param publicKey raw 32-byte Ed25519 key
 */
export async function verifyEnvelope(
  envelope: Envelope,
  expectedPayloadType: string,
  publicKey: Uint8Array,
): Promise<EnvelopeVerdict> {
  if (envelope.payloadType !== expectedPayloadType) return { ok: false, reason: 'payload-type' }
  if (envelope.signatures.length === 0) return { ok: false, reason: 'no-signature' }
  const decoded = decodeEnvelope(envelope)
  if (decoded === undefined) return { ok: false, reason: 'malformed' }
  const message = preAuthEncoding(envelope.payloadType, decoded.payload)
  for (const signature of decoded.signatures) {
    if (await verify(publicKey, signature, message)) return { ok: true, payload: decoded.payload }
  }
  return { ok: false, reason: 'bad-signature' }
}

/**
 * PAE of the DSSE protocol: the bytes a signature covers. Lengths are in bytes, so no two pairs of
 * type and payload share an encoding.
 */
export function preAuthEncoding(payloadType: string, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const utf8 = new TextEncoder()
  const type = utf8.encode(payloadType)
  return concatBytes(
    utf8.encode(`DSSEv1 ${type.length} `),
    type,
    utf8.encode(` ${payload.length} `),
    payload,
  )
}

function decodeEnvelope(envelope: Envelope) {
  if (envelope.signatures.length > maxSignatures) return undefined
  try {
    return {
      payload: decodeEither(envelope.payload),
      signatures: envelope.signatures.map(({ sig }) => decodeEither(sig)),
    }
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

/** DSSE protocol.md: a verifier accepts the standard and the URL-safe alphabet alike. */
function decodeEither(text: string): Uint8Array<ArrayBuffer> {
  return /[-_]/.test(text) ? fromBase64Url(text.replace(/={1,2}$/, '')) : fromBase64(text)
}
