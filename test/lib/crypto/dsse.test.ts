import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  type Envelope,
  preAuthEncoding,
  signEnvelope,
  verifyEnvelope,
} from '../../../lib/crypto/dsse.ts'
import {
  fingerprint,
  generateKeyPair,
  publicKeyBytes,
  type SigningKey,
} from '../../../lib/crypto/ed25519.ts'
import vector from '../../vectors/dsse.json'

const utf8 = new TextEncoder()
const payloadType = 'application/vnd.gleaner.example+json'
// The last two bytes give '/' in standard Base 64 and '_' in the URL alphabet.
const payload = Uint8Array.of(1, 2, 3, 0xfe, 0xff, 0xff)

let ours: { keyid: string; privateKey: SigningKey; publicKey: Uint8Array }
let other: typeof ours
let envelope: Envelope

beforeAll(async () => {
  const key = async () => {
    const pair = await generateKeyPair({ extractable: false })
    const publicKey = await publicKeyBytes(pair.publicKey)
    return { keyid: fingerprint(publicKey), privateKey: pair.privateKey, publicKey }
  }
  ours = await key()
  other = await key()
  envelope = await signEnvelope(payloadType, payload, [ours])
})

describe('pre-authentication encoding', () => {
  test("the protocol's example encodes as published", () => {
    const encoded = preAuthEncoding(vector.payloadType, utf8.encode(vector.payload))
    expect(new TextDecoder().decode(encoded)).toBe(vector.preAuthEncoding)
  })

  test('lengths count bytes, not characters', () => {
    const encoded = preAuthEncoding('ż', utf8.encode('łó'))
    expect(new TextDecoder().decode(encoded)).toBe('DSSEv1 2 ż 4 łó')
  })

  test('different pairs never encode alike', () => {
    const text = fc.string({ unit: fc.constantFrom(' ', '0', '1', 'a'), maxLength: 5 })
    fc.assert(
      fc.property(text, text, text, text, (typeA, bodyA, typeB, bodyB) => {
        fc.pre(typeA !== typeB || bodyA !== bodyB)
        expect(preAuthEncoding(typeA, utf8.encode(bodyA))).not.toEqual(
          preAuthEncoding(typeB, utf8.encode(bodyB)),
        )
      }),
    )
  })
})

describe('an envelope', () => {
  test("carries the example's payload as published", async () => {
    const signed = await signEnvelope(vector.payloadType, utf8.encode(vector.payload), [ours])
    expect(signed.payload).toBe(vector.envelopePayload)
  })

  test('opens for its key and gives the signed bytes', async () => {
    expect(await verifyEnvelope(envelope, payloadType, ours.publicKey)).toEqual({
      ok: true,
      payload,
    })
  })

  test('opens for each of its signers', async () => {
    const both = await signEnvelope(payloadType, payload, [other, ours])
    expect(both.signatures.map(({ keyid }) => keyid)).toEqual([other.keyid, ours.keyid])
    for (const { publicKey } of [ours, other]) {
      expect((await verifyEnvelope(both, payloadType, publicKey)).ok).toBe(true)
    }
  })

  test('opens whatever its key hints claim', async () => {
    const misnamed = withSignature({ keyid: other.keyid })
    expect((await verifyEnvelope(misnamed, payloadType, ours.publicKey)).ok).toBe(true)
  })

  test.each(['padded', 'unpadded'])('opens in the URL alphabet, %s', async (padding) => {
    const url = (text: string) => {
      const spelled = text.replaceAll('+', '-').replaceAll('/', '_')
      return padding === 'padded' ? spelled : spelled.replaceAll('=', '')
    }
    // Ed25519 is deterministic for one key, so look for a signature that has such a character.
    const signed = await signUntil((sig) => /[+/]/.test(sig))
    const respelled = {
      ...signed,
      payload: url(signed.payload),
      signatures: signed.signatures.map(({ keyid, sig }) => ({ keyid, sig: url(sig) })),
    }
    expect((await verifyEnvelope(respelled, payloadType, ours.publicKey)).ok).toBe(true)
  })

  test('survives JSON, with members this version does not know', async () => {
    const parsed = JSON.parse(JSON.stringify({ ...envelope, later: true })) as Envelope
    expect((await verifyEnvelope(parsed, payloadType, ours.publicKey)).ok).toBe(true)
  })
})

describe('an envelope is refused', () => {
  const cases: [string, () => Envelope, string][] = [
    ['of another type', () => ({ ...envelope, payloadType: 'text/plain' }), 'payload-type'],
    ['without a signature', () => ({ ...envelope, signatures: [] }), 'no-signature'],
    ['with another payload', () => ({ ...envelope, payload: 'AQID' }), 'bad-signature'],
    ['with a short signature', () => withSignature({ sig: 'AAAA' }), 'bad-signature'],
    ['with a broken payload', () => ({ ...envelope, payload: '!' }), 'malformed'],
    ['with an unpadded payload', () => ({ ...envelope, payload: 'AQ' }), 'malformed'],
    ['with a broken signature', () => withSignature({ sig: 'AA=A' }), 'malformed'],
    [
      'with more signatures than anybody needs',
      () => ({ ...envelope, signatures: Array(17).fill(envelope.signatures[0]) }),
      'malformed',
    ],
  ]
  test.each(cases)('%s', async (_, make, reason) => {
    expect(await verifyEnvelope(make(), payloadType, ours.publicKey)).toEqual({ ok: false, reason })
  })

  test('by a stranger', async () => {
    expect(await verifyEnvelope(envelope, payloadType, other.publicKey)).toEqual({
      ok: false,
      reason: 'bad-signature',
    })
  })

  test('when its signature was made for another type', async () => {
    const renamed = { ...envelope, payloadType: 'text/plain' }
    expect(await verifyEnvelope(renamed, 'text/plain', ours.publicKey)).toEqual({
      ok: false,
      reason: 'bad-signature',
    })
  })
})

function withSignature(change: Partial<Envelope['signatures'][number]>): Envelope {
  return { ...envelope, signatures: envelope.signatures.map((line) => ({ ...line, ...change })) }
}

async function signUntil(wanted: (sig: string) => boolean): Promise<Envelope> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const bytes = Uint8Array.of(attempt, 0xfe, 0xff, 0xff)
    const signed = await signEnvelope(payloadType, bytes, [ours])
    if (signed.signatures.every(({ sig }) => wanted(sig)) && /[+/]/.test(signed.payload)) {
      return signed
    }
  }
  throw new Error('no signature of the wanted form in 50 attempts')
}
