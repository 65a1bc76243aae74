import { describe, expect, test } from 'vitest'
import type { OptOutScope } from '../../../lib/protocol/opt-out.ts'
import {
  namesAbove,
  nextLookMs,
  optOutCovers,
  proofPlaces,
  readTarget,
  targetText,
} from '../../../server/frontier/opt-out.ts'

/** The target as it is read; throws what was wrong. */
function target(scope: OptOutScope, given: string) {
  const read = readTarget(scope, given)
  if (!read.ok) throw new Error(read.problem)
  return read.target
}

describe('what an opt-out covers', () => {
  const cases: [scope: OptOutScope, of: string, url: string, covered: boolean][] = [
    ['host', 'www.example.org', 'https://www.example.org/', true],
    ['host', 'www.example.org', 'http://www.example.org/a?b', true],
    ['host', 'www.example.org', 'https://www.example.org:8443/a', true],
    ['host', 'www.example.org', 'https://www.example.org./a', true],
    ['host', 'www.example.org', 'https://www.example.org/robots.txt', true],
    ['host', 'www.example.org', 'https://example.org/', false],
    ['host', 'example.org', 'https://www.example.org/', false],
    ['host', 'example.org', 'https://notexample.org/', false],
    ['host', 'example.org', 'https://example.org.evil.net/', false],
    ['host', 'example.org', 'https://other.net/example.org', false],
    ['domain', 'example.org', 'https://example.org/', true],
    ['domain', 'example.org', 'https://a.b.example.org/x', true],
    ['domain', 'example.org', 'http://example.org./x', true],
    ['domain', 'example.org', 'https://notexample.org/', false],
    ['domain', 'example.org', 'https://org/', false],
    ['domain', 'a.example.org', 'https://example.org/', false],
    ['domain', 'a.example.org', 'https://b.a.example.org/', true],
    ['prefix', 'example.org/blog', 'https://example.org/blog', true],
    ['prefix', 'example.org/blog', 'https://example.org/blog/', true],
    ['prefix', 'example.org/blog', 'http://example.org/blog/a/b', true],
    ['prefix', 'example.org/blog', 'https://example.org/blog?page=2', true],
    ['prefix', 'example.org/blog/', 'https://example.org/blog', true],
    ['prefix', 'example.org/blog', 'https://example.org/blogger', false],
    ['prefix', 'example.org/blog', 'https://example.org/Blog', false],
    ['prefix', 'example.org/blog', 'https://example.org/', false],
    ['prefix', 'example.org/blog', 'https://example.org/a/blog', false],
    ['prefix', 'example.org/blog', 'https://www.example.org/blog', false],
    ['prefix', 'example.org/%7Eann', 'https://example.org/~ann/cv', true],
    ['prefix', 'example.org/straße', 'https://example.org/stra%C3%9Fe/1', true],
    ['prefix', 'example.org/a.html', 'https://example.org/a.html', true],
    ['prefix', 'example.org/a.html', 'https://example.org/a.html5', false],
    ['host', 'example.org', 'no address', false],
  ]
  test.each(cases)('%s %s and %s: %s', (scope, of, url, covered) => {
    expect(optOutCovers(target(scope, of), url)).toBe(covered)
  })

  test('an opt-out that covers an address is found under one of the names above it', () => {
    for (const [scope, of, url, covered] of cases) {
      if (covered) expect(namesAbove(url)).toContain(target(scope, of).host)
    }
    expect(namesAbove('https://a.b.example.org./x')).toEqual([
      'a.b.example.org',
      'b.example.org',
      'example.org',
      'org',
    ])
  })
})

describe('what people type', () => {
  test.each<[OptOutScope, string, string]>([
    ['host', 'www.example.org', 'www.example.org'],
    ['host', '  WWW.Example.ORG. ', 'www.example.org'],
    ['host', 'https://www.example.org/some/page?x=1#top', 'www.example.org'],
    ['host', 'HTTP://example.org:8080', 'example.org'],
    ['host', '//example.org/', 'example.org'],
    ['host', '<https://example.org/>', 'example.org'],
    ['host', '“example.org”', 'example.org'],
    ['host', 'bücher.example', 'xn--bcher-kva.example'],
    ['host', 'ｅｘａｍｐｌｅ.org', 'example.org'],
    ['host', '_dmarc.example.org', '_dmarc.example.org'],
    ['host', 'co.uk', 'co.uk'],
    ['domain', '*.example.org', 'example.org'],
    ['domain', '.example.org', 'example.org'],
    ['domain', 'https://www.example.co.uk/', 'www.example.co.uk'],
    ['domain', 'ann.github.io', 'ann.github.io'],
    ['prefix', 'https://example.org/blog/?', 'example.org/blog'],
    ['prefix', 'example.org/a/../b//', 'example.org/b'],
    ['prefix', 'example.org/blog#top', 'example.org/blog'],
  ])('%s “%s” is %s', (scope, given, read) => {
    expect(targetText(target(scope, given))).toBe(read)
    expect(target(scope, given).scope).toBe(scope)
  })

  test('a prefix that is a whole host becomes that host', () => {
    expect(target('prefix', 'https://example.org/')).toEqual({
      scope: 'host',
      host: 'example.org',
      path: '/',
    })
  })

  test.each<[OptOutScope, string, RegExp]>([
    ['host', '', /Give the name of your host/],
    ['host', '   ', /Give the name of your host/],
    ['host', 'two words.org', /no host name/],
    ['host', 'ftp://example.org/', /only fetch http and https/],
    ['host', 'webmaster@example.org', /e-mail address/],
    ['host', 'https://user:secret@example.org/', /password/],
    ['host', '192.0.2.7', /network address/],
    ['host', '0x7f.1', /network address/],
    ['host', '[2001:db8::1]', /network address/],
    ['host', 'localhost', /not a public name/],
    ['host', 'printer.local', /not a public name/],
    ['host', 'example..org', /no host name/],
    ['host', '-example.org', /no host name/],
    ['host', `${'a'.repeat(64)}.org`, /no host name/],
    ['host', `${'abc.'.repeat(80)}org`, /no host name/],
    ['host', '*.example.org', /Choose the scope “domain”/],
    ['host', 'x'.repeat(3000), /3000 characters/],
    ['domain', 'co.uk', /public suffix/],
    ['domain', '*.kawasaki.jp', /public suffix/],
    ['prefix', 'example.org/index.php?id=7', /has a query/],
  ])('%s “%s” is refused: %s', (scope, given, problem) => {
    expect(readTarget(scope, given)).toEqual({
      ok: false,
      problem: expect.stringMatching(problem) as string,
    })
  })
})

describe('where control is proved', () => {
  const places = (scope: OptOutScope, given: string) => proofPlaces(target(scope, given))

  test('the DNS speaks at the host and at its parents down to the registrable domain', () => {
    expect(places('host', 'a.b.example.co.uk').dns).toEqual([
      '_gleaner.a.b.example.co.uk',
      '_gleaner.b.example.co.uk',
      '_gleaner.example.co.uk',
    ])
  })

  test('a name under which others get subdomains speaks for none of them', () => {
    expect(places('host', 'ann.github.io').dns).toEqual(['_gleaner.ann.github.io'])
    expect(places('domain', 'ann.github.io').files).toEqual([
      'https://ann.github.io/.well-known/gleaner-opt-out.txt',
    ])
  })

  test('a file speaks for its host, and the registrable domain’s for a domain below it', () => {
    const file = (host: string) => `https://${host}/.well-known/gleaner-opt-out.txt`
    expect(places('host', 'www.example.org').files).toEqual([file('www.example.org')])
    expect(places('prefix', 'www.example.org/a').files).toEqual([file('www.example.org')])
    expect(places('domain', 'shop.example.org').files).toEqual([
      file('shop.example.org'),
      file('example.org'),
    ])
    expect(places('domain', 'example.org').files).toEqual([file('example.org')])
  })

  test('a deep name costs five look-ups, its own and the highest', () => {
    expect(places('host', 'g.f.e.d.c.b.a.example.org').dns).toEqual([
      '_gleaner.g.f.e.d.c.b.a.example.org',
      '_gleaner.c.b.a.example.org',
      '_gleaner.b.a.example.org',
      '_gleaner.a.example.org',
      '_gleaner.example.org',
    ])
  })

  test('looks come each minute for ten minutes, then each hour', () => {
    const minute = 60_000
    expect(nextLookMs(0, 0)).toBe(minute)
    expect(nextLookMs(0, 9 * minute)).toBe(10 * minute)
    expect(nextLookMs(0, 10 * minute)).toBe(70 * minute)
  })
})
