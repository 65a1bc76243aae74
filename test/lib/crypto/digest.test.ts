import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { concatBytes, equalBytes, Sha256, sha256 } from '../../../lib/crypto/digest.ts'
import { toHex } from '../../../lib/crypto/hex.ts'

describe('digest', () => {
  // FIPS 180-2 appendix B.1, and the digest of nothing.
  test.each([
    ['', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
    ['abc', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
  ])('the SHA-256 of %j is the published one', (text, digest) => {
    expect(toHex(sha256(text))).toBe(digest)
  })

  test('text is hashed as UTF-8', () => {
    expect(sha256('żółw')).toEqual(sha256(new TextEncoder().encode('żółw')))
  })

  test('any bytes hash as the platform hashes them, whole or in pieces', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 150 })), async (pieces) => {
        const whole = concatBytes(...pieces)
        const expected = new Uint8Array(await crypto.subtle.digest('SHA-256', whole))
        expect(sha256(whole)).toEqual(expected)
        const hash = new Sha256()
        for (const piece of pieces) hash.update(piece)
        expect(hash.digest()).toEqual(expected)
      }),
    )
  })

  test('a spent incremental hash refuses more', () => {
    const hash = new Sha256()
    hash.digest()
    expect(() => hash.update(new Uint8Array(1))).toThrow()
    expect(() => hash.digest()).toThrow()
  })

  test.each([
    [[], [], true],
    [[1, 2], [1, 2], true],
    [[1, 2], [1, 3], false],
    [[0, 2], [1, 2], false],
    [[1], [1, 0], false],
    [[], [0], false],
  ])('%j and %j are equal: %j', (a, b, equal) => {
    expect(equalBytes(Uint8Array.from(a), Uint8Array.from(b))).toBe(equal)
  })
})
