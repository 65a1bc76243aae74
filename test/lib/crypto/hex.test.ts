import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, toHex } from '../../../lib/crypto/hex.ts'

describe('hex', () => {
  test('bytes are two lower-case characters each', () => {
    expect(toHex(Uint8Array.of(0, 1, 0xab, 0xff))).toBe('0001abff')
  })

  test('any bytes survive', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        expect(fromHex(toHex(bytes))).toEqual(Uint8Array.from(bytes))
      }),
    )
  })

  test.each(['0', 'AB', '0x', ' 0', '0\n', 'zz', '1é'])('%j is refused', (text) => {
    expect(() => fromHex(text)).toThrow(SyntaxError)
  })
})
