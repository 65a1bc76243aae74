import { describe, expect, test } from 'vitest'
import { canonicalUrl } from '../../../lib/capture/canonical-url.ts'
import { surt } from '../../../lib/capture/surt.ts'
import vectors from '../../vectors/surt.json' with { type: 'json' }

describe('the SURT key', () => {
  test.each(vectors.cases)('of $url is that of other archives', (vector) => {
    expect(surt(vector.url)).toBe(vector.surt)
    expect(canonicalUrl(vector.url)).toEqual({ ok: true, url: vector.url })
  })

  test('is the same for http and https', () => {
    expect(surt('http://example.com/a')).toBe(surt('https://example.com/a'))
  })
})
