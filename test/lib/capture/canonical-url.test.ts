import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonicalUrl } from '../../../lib/capture/canonical-url.ts'
import vectors from '../../vectors/canonical-url.json' with { type: 'json' }

interface Case {
  input: string
  base?: string
  url?: string
  refusal?: string
}

describe('the canonical URL', () => {
  test.each(vectors.cases as Case[])('of $input follows the vector', (vector) => {
    const expected =
      vector.url === undefined
        ? { ok: false, reason: vector.refusal }
        : { ok: true, url: vector.url }
    expect(canonicalUrl(vector.input, vector.base)).toEqual(expected)
  })

  test('may have 2,048 bytes and not one more', () => {
    const start = 'https://example.com/'
    expect(canonicalUrl(start + 'a'.repeat(2_048 - start.length)).ok).toBe(true)
    expect(canonicalUrl(start + 'a'.repeat(2_049 - start.length))).toEqual({
      ok: false,
      reason: 'too-long',
    })
    expect(canonicalUrl(start + 'ä'.repeat(400))).toEqual({ ok: false, reason: 'too-long' })
    expect(canonicalUrl(`${start}#${'a'.repeat(9_000)}`).ok).toBe(false)
  })

  test('does not change when it is taken again', () => {
    const rest = fc.string({
      unit: fc.constantFrom(...'ab%2eEfF/.?&=#ä^|[]{}\\ \'"<>+~:@;'.split(''), 'utm_', 'gclid'),
      maxLength: 60,
    })
    fc.assert(
      fc.property(rest, (path) => {
        const once = canonicalUrl(`https://example.com/${path}`)
        if (once.ok) expect(canonicalUrl(once.url)).toEqual(once)
      }),
      { numRuns: 2_000 },
    )
  })

  test('never throws', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), (input, base) => {
        canonicalUrl(input)
        canonicalUrl(input, base)
      }),
    )
  })
})
