import { describe, expect, test } from 'vitest'
import { domainLeaf } from '../../../lib/consent/domain-list.ts'
import { rootHash } from '../../../lib/tlog/merkle.ts'
import { domainList, listableNames, readDomains } from '../../../server/frontier/domain-list.ts'

describe('a file of domains', () => {
  test('is sorted by bytes, each name once, without comments, blank lines and a byte order mark', () => {
    const text =
      '\ufeff# museums\r\nzoo.example\r\n\r\n  a-b.example \nab.example # twice\na.example\nab.example'
    expect(readDomains(text)).toEqual({
      ok: true,
      domains: ['a-b.example', 'a.example', 'ab.example', 'zoo.example'],
    })
  })

  test.each([
    ['https://example.org/', 'is not written as in a URL'],
    ['Example.org', 'is not written as in a URL'],
    ['m\u00fcsli.example', 'is not written as in a URL'],
    ['example.org:8080', 'is not written as in a URL'],
    ['example.org/docs', 'is not written as in a URL'],
    ['*.example.org', 'is not written as in a URL'],
    ['a_b.example.org', 'is not written as in a URL'],
    ['-a.example.org', 'is not written as in a URL'],
    ['a b.example', 'is no domain name'],
    [`${'a'.repeat(64)}.example`, 'is not written as in a URL'],
    ['xn--zzzzzz9999999.example', 'is no domain name'],
    ['example.org.', 'ends in a dot'],
    ['example', 'has a single label'],
    ['192.0.2.1', 'is an address'],
    ['0x7f.1', 'is an address'],
    ['[2001:db8::1]', 'is an address'],
    ['router.local', 'is a name of private networks'],
    ['abc.onion', 'is a name of private networks'],
    ['co.uk', 'is a public suffix'],
    ['github.io', 'is a public suffix'],
    ['foo.ck', 'is a public suffix'],
  ])('refuses %s and names its line', (name, why) => {
    const read = readDomains(`example.org\n# a comment\n${name}\n`)
    if (read.ok) throw new Error(`took ${JSON.stringify(read.domains)}`)
    expect(read.problems).toHaveLength(1)
    expect(read.problems[0]).toMatch(/^line 3: "/)
    expect(read.problems[0]).toContain(why)
  })

  test.each([
    'bbc.co.uk',
    'octocat.github.io',
    'xn--mgbh0fb.xn--kgbechtv',
    'xn--mller-kva.example',
  ])('takes %s', (name) => expect(readDomains(name)).toEqual({ ok: true, domains: [name] }))

  test('names every wrong line, up to twenty, and says how many more there are', () => {
    const read = readDomains(Array.from({ length: 30 }, (_, at) => `wrong${at}`).join('\n'))
    if (read.ok) throw new Error('took it')
    expect(read.problems).toHaveLength(21)
    expect(read.problems[19]).toContain('line 20: "wrong19"')
    expect(read.problems[20]).toBe('and 10 more lines')
  })

  test('that names no domain is refused', () => {
    expect(readDomains('# nothing yet\n')).toEqual({
      ok: false,
      problems: ['no line names a domain'],
    })
  })

  test('shows nothing that acts on a terminal', () => {
    const read = readDomains('\u001b[31mred.example\u001b[0m')
    expect(JSON.stringify(read)).not.toContain('\\u001b')
    expect(read.ok).toBe(false)
  })
})

test('a list’s root is that of RFC 6962 over its names', () => {
  for (const size of [1, 2, 255, 256, 257, 700]) {
    const domains = Array.from(
      { length: size },
      (_, at) => `d${String(at).padStart(4, '0')}.example`,
    )
    expect(domainList(domains).root).toEqual(rootHash(domains.map(domainLeaf)))
  }
})

test('a host may be listed under its own name or one above it, longest first', () => {
  expect(listableNames('a.b.example.org')).toEqual([
    'a.b.example.org',
    'b.example.org',
    'example.org',
  ])
  expect(listableNames('localhost')).toEqual([])
})
