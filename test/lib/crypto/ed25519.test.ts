import { describe, expect, test } from 'vitest'
import {
  fingerprint,
  generateKeyPair,
  importSeed,
  isUsablePublicKey,
  publicKeyBytes,
  seedOf,
  sign,
  verify,
} from '../../../lib/crypto/ed25519.ts'
import { fromHex, toHex } from '../../../lib/crypto/hex.ts'
import vectors from '../../vectors/ed25519.json'

const message = new TextEncoder().encode('three ears of barley')

describe('RFC 8032', () => {
  test.each(vectors.cases)('$name gives the published key and signature', async (vector) => {
    const pair = await importSeed(fromHex(vector.seed), { extractable: false })
    const publicKey = await publicKeyBytes(pair.publicKey)
    expect(toHex(publicKey)).toBe(vector.publicKey)
    const signature = await sign(pair.privateKey, fromHex(vector.message))
    expect(toHex(signature)).toBe(vector.signature)
    expect(await verify(publicKey, signature, fromHex(vector.message))).toBe(true)
  })
})

describe('keys', () => {
  test('a new key signs what its public key verifies', async () => {
    const pair = await generateKeyPair({ extractable: false })
    const signature = await sign(pair.privateKey, message)
    expect(await verify(await publicKeyBytes(pair.publicKey), signature, message)).toBe(true)
  })

  test('an extractable key gives its seed, and the seed gives the key back', async () => {
    const pair = await generateKeyPair({ extractable: true })
    const again = await importSeed(await seedOf(pair.privateKey), { extractable: true })
    expect(await publicKeyBytes(again.publicKey)).toEqual(await publicKeyBytes(pair.publicKey))
    expect(await sign(again.privateKey, message)).toEqual(await sign(pair.privateKey, message))
    expect(await seedOf(again.privateKey)).toEqual(await seedOf(pair.privateKey))
  })

  test('a key that is not extractable keeps its seed, made or imported', async () => {
    const made = await generateKeyPair({ extractable: false })
    const imported = await importSeed(new Uint8Array(32).fill(7), { extractable: false })
    for (const { privateKey } of [made, imported]) {
      expect(privateKey.extractable).toBe(false)
      await expect(seedOf(privateKey)).rejects.toThrow()
    }
  })

  test('a public key has no seed', async () => {
    const { publicKey } = await generateKeyPair({ extractable: true })
    await expect(seedOf(publicKey)).rejects.toThrow('not a private key')
  })

  test.each([0, 31, 33, 64])('a seed of %i bytes is refused', async (length) => {
    await expect(importSeed(new Uint8Array(length), { extractable: true })).rejects.toThrow(
      RangeError,
    )
  })

  test('a fingerprint is 43 characters that change with the key', () => {
    const publicKeys = vectors.cases.map((vector) => fromHex(vector.publicKey))
    const fingerprints = publicKeys.map(fingerprint)
    expect(new Set(fingerprints).size).toBe(publicKeys.length)
    for (const text of fingerprints) expect(text).toMatch(/^[A-Za-z0-9_-]{43}$/)
    // Computed with openssl.
    expect(fingerprints[0]).toBe('If4x36FUomFia_hUBG_SJxt77UtqvkWqWId-9H-XIbk')
  })
})

describe('verify answers false to', () => {
  const publicKey = fromHex(vectors.cases[2]?.publicKey ?? '')
  const signature = fromHex(vectors.cases[2]?.signature ?? '')
  const signed = fromHex(vectors.cases[2]?.message ?? '')

  test('any single changed bit of signature, key or message', async () => {
    expect(await verify(publicKey, signature, signed)).toBe(true)
    const parts = [publicKey, signature, signed]
    for (const part of parts) {
      for (let bit = 0; bit < part.length * 8; bit++) {
        const flip = () => {
          part[bit >> 3] = (part[bit >> 3] as number) ^ (1 << (bit & 7))
        }
        flip()
        expect(await verify(publicKey, signature, signed)).toBe(false)
        flip()
      }
    }
  })

  test.each([0, 31, 33, 64])('a key of %i bytes', async (length) => {
    expect(await verify(new Uint8Array(length).fill(9), signature, signed)).toBe(false)
  })

  test.each([0, 63, 65])('a signature of %i bytes', async (length) => {
    expect(await verify(publicKey, new Uint8Array(length), signed)).toBe(false)
  })

  test('the same signature with the group order added to S', async () => {
    // RFC 8032 §5.1.7: S must be below L, or one signature would have many spellings.
    const order = 2n ** 252n + 27742317777372353535851937790883648493n
    const shifted = Uint8Array.from(signature)
    shifted.set(littleEndian(bigint(signature.slice(32)) + order), 32)
    expect(await verify(publicKey, shifted, signed)).toBe(false)
  })

  test('a key of small order, under which one signature fits every message', async () => {
    const universal = new Uint8Array(64)
    universal[0] = 1
    const identity = Uint8Array.from(universal.slice(0, 32))
    // The platform itself accepts it; this is why the check exists.
    const key = await crypto.subtle.importKey('raw', identity, 'Ed25519', true, ['verify'])
    expect(await crypto.subtle.verify('Ed25519', key, universal, message)).toBe(true)
    expect(await verify(identity, universal, message)).toBe(false)
  })
})

describe('a usable public key', () => {
  const p = 2n ** 255n - 19n

  test('is any of the published ones', () => {
    for (const vector of vectors.cases)
      expect(isUsablePublicKey(fromHex(vector.publicKey))).toBe(true)
  })

  test('is no point whose order divides 8, in either sign and any spelling', () => {
    // By order: 1 and 2 have x = 0 and y = 1 or -1; 4 has y = 0; 8 has two more values of y.
    const ys = smallOrderYs()
    expect(ys).toHaveLength(5)
    for (const y of ys) {
      for (let spelling = y; spelling < 2n ** 255n; spelling += p) {
        for (const sign of [0n, 2n ** 255n]) {
          expect(isUsablePublicKey(littleEndian(spelling + sign))).toBe(false)
        }
      }
    }
  })

  /** Solved from the curve -x² + y² = 1 + d·x²·y², not copied from the code under test. */
  function smallOrderYs(): bigint[] {
    const mod = (value: bigint) => ((value % p) + p) % p
    const power = (base: bigint, exponent: bigint) => {
      let result = 1n
      for (let square = mod(base), rest = exponent; rest > 0n; rest >>= 1n) {
        if (rest & 1n) result = mod(result * square)
        square = mod(square * square)
      }
      return result
    }
    const invert = (value: bigint) => power(value, p - 2n)
    const root = (value: bigint) => {
      const candidate = power(value, (p + 3n) / 8n)
      const turned = mod(candidate * power(2n, (p - 1n) / 4n))
      return [candidate, turned].find((r) => mod(r * r) === mod(value))
    }
    const d = mod(-121665n * invert(121666n))
    // Doubling a point gives y' = 0 exactly when y² + x² = 0, that is x² = -y². On the curve then
    // 2y² = 1 - d·y⁴, a quadratic in y².
    const discriminant = root(mod(4n + 4n * d))
    if (discriminant === undefined) throw new Error('no points of order 8')
    const order8 = [1n, -1n]
      .map((s) => root(mod((-2n + s * discriminant) * invert(mod(2n * d)))))
      .flatMap((y) => (y === undefined ? [] : [y, mod(-y)]))
    return [0n, 1n, p - 1n, ...order8]
  }
})

function bigint(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => value * 256n + BigInt(byte), 0n)
}

function littleEndian(value: bigint): Uint8Array {
  return Uint8Array.from({ length: 32 }, (_, at) => Number((value >> BigInt(8 * at)) & 0xffn))
}
