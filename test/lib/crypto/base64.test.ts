import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromBase64, fromBase64Url, toBase64, toBase64Url } from '../../../lib/crypto/base64.ts'

const utf8 = new TextEncoder()

describe('base64', () => {
  // RFC 4648 §10.
  test.each([
    ['', ''],
    ['f', 'Zg=='],
    ['fo', 'Zm8='],
    ['foo', 'Zm9v'],
    ['foob', 'Zm9vYg=='],
    ['fooba', 'Zm9vYmE='],
    ['foobar', 'Zm9vYmFy'],
  ])('%j is %j, with padding only in the standard spelling', (text, base64) => {
    const bytes = utf8.encode(text)
    expect(toBase64(bytes)).toBe(base64)
    expect(fromBase64(base64)).toEqual(bytes)
    expect(toBase64Url(bytes)).toBe(base64.replaceAll('=', ''))
    expect(fromBase64Url(base64.replaceAll('=', ''))).toEqual(bytes)
  })

  test('the two alphabets differ in the last two characters', () => {
    const bytes = Uint8Array.of(0xfb, 0xef, 0xff)
    expect(toBase64(bytes)).toBe('++//')
    expect(toBase64Url(bytes)).toBe('--__')
    expect(() => fromBase64('--__')).toThrow(SyntaxError)
    expect(() => fromBase64Url('++//')).toThrow(SyntaxError)
  })

  test.each([
    ['missing padding', 'Zg'],
    ['half the padding', 'Zg='],
    ['too much padding', 'Zm8=='],
    ['padding alone', '===='],
    ['padding in the middle', 'Zg==Zg=='],
    ['white space', 'Zm9v\n'],
    ['white space that fills up a group', ' Zm9v   '],
    ['a foreign character', 'Zm9$'],
    ['a character beyond ASCII', 'Zm9\u0142'],
    ['trailing bits after one byte', 'Zh=='],
    ['trailing bits after two bytes', 'Zm9='],
  ])('the standard spelling refuses %s', (_, text) => {
    expect(() => fromBase64(text)).toThrow(SyntaxError)
  })

  test.each([
    ['padding', 'Zg=='],
    ['a lone character', 'Zm9vY'],
    ['white space', 'Zm9v\n'],
    ['a foreign character', 'Zm9$'],
    ['trailing bits after one byte', 'Zh'],
    ['trailing bits after two bytes', 'Zm9'],
  ])('the URL spelling refuses %s', (_, text) => {
    expect(() => fromBase64Url(text)).toThrow(SyntaxError)
  })

  test('any bytes survive, and agree with the platform', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(toBase64(bytes)).toBe(btoa(String.fromCharCode(...bytes)))
        expect(fromBase64(toBase64(bytes))).toEqual(Uint8Array.from(bytes))
        expect(fromBase64Url(toBase64Url(bytes))).toEqual(Uint8Array.from(bytes))
      }),
    )
  })

  test('whatever decodes encodes to the same text', () => {
    const text = fc.string({ unit: fc.constantFrom(...'AQgwZz09+/-_= '), maxLength: 8 })
    fc.assert(
      fc.property(text, (candidate) => {
        for (const [decode, encode] of [
          [fromBase64, toBase64],
          [fromBase64Url, toBase64Url],
        ] as const) {
          let bytes: Uint8Array
          try {
            bytes = decode(candidate)
          } catch {
            continue // Refused, which is the other allowed outcome.
          }
          expect(encode(bytes)).toBe(candidate)
        }
      }),
      { numRuns: 2000 },
    )
  })
})
