import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { scrub } from '../../../lib/capture/scrub.ts'
import vectors from '../../vectors/scrub.json' with { type: 'json' }

describe('scrubbing', () => {
  test.each(vectors.cases)('of $input follows the vector', ({ input, text, counts }) => {
    expect(scrub(input)).toEqual({ text, counts })
  })

  const pieces = fc.constantFrom(
    ...'a|b.de|@|.|:|::|1|12|203|203.0.113.9|2001:db8|fe80::1|+|+49 |00|0049|212-555-0123|(|)| |  |-|/|,|v|Tel. |Fax:|[email]|[phone]|[address]|x@y.example|ä|\n|_|%'.split(
      '|',
    ),
  )

  test('twice changes nothing more, and finds nothing more', () => {
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 30 }), (parts) => {
        const once = scrub(parts.join(''))
        expect(scrub(once.text)).toEqual({
          text: once.text,
          counts: { email: 0, address: 0, phone: 0 },
        })
      }),
      { numRuns: 20_000 },
    )
  })

  test('leaves no public IPv4 address that stands between spaces', () => {
    const octet = fc.nat(255)
    fc.assert(
      fc.property(octet, octet, octet, octet, fc.string(), (a, b, c, d, around) => {
        const address = `${a}.${b}.${c}.${d}`
        expect(scrub(`${around} ${address} ${around}`).text).toContain(' [address] ')
      }),
    )
  })

  test('finds every spelling of an IPv6 address', () => {
    fc.assert(
      fc.property(fc.ipV6(), (address) => {
        if (!/\d/.test(address)) return
        expect(scrub(`You are ${address}, dear reader.`).text).toBe(
          'You are [address], dear reader.',
        )
      }),
    )
  })

  test.each([
    ['@', '@'],
    ['a', 'a'],
    ['a.', 'a.'],
    ['a@a.', 'a@a.'],
    ['a@', '-a.'],
    ['1', '1'],
    ['1.', '1.'],
    ['1:', ':'],
    ['f:', '.'],
    ['+', '+'],
    ['+1 ', '1 '],
    ['Tel. ', '1 ('],
    ['0', '0'],
    ['00', '1-'],
  ])('of a megabyte of %j and %j takes linear time', (head, body) => {
    const text = head.repeat(500_000) + body.repeat(500_000)
    expect(scrub(text).text.length).toBeGreaterThan(0)
  })
})
