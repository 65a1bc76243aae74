import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonicalUrl } from '../../../lib/capture/canonical-url.ts'
import { withoutSession } from '../../../lib/capture/session-id.ts'
import { frontierKey, shapeDigest, shapeOf } from '../../../server/frontier/address.ts'

const site = 'https://barley.example'

/** Addresses with a path and parameters such as sites have, canonical. */
const address = fc
  .tuple(
    fc.array(fc.constantFrom('a', 'tea', '2024', '(S(x))', 'p;jsessionid=1', '%C3%A9'), {
      maxLength: 4,
    }),
    fc.array(
      fc.tuple(
        fc.constantFrom('a', 'b', 'B', 'sid', 'PHPSESSID', 'cfid', 'cftoken', 'f[0]', ''),
        fc.constantFrom('', '1', 'b=c', '0a1b2c3d4e5f60718293', '%26'),
      ),
      { maxLength: 6 },
    ),
  )
  .map(([segments, pairs]) => {
    const query = pairs.map(([name, value]) => `${name}=${value}`).join('&')
    const canonical = canonicalUrl(`${site}/${segments.join('/')}${query && `?${query}`}`)
    if (!canonical.ok) throw new Error(canonical.reason)
    return canonical.url
  })

describe('the key of an address', () => {
  test.each([
    ['/', '/'],
    ['/list?b=2&a=1', '/list?a=1&b=2'],
    ['/list?a=1&b=2', '/list?a=1&b=2'],
    // The order of equal names may be the reader's choice: it stays.
    ['/list?t=z&a=1&t=b&t=c', '/list?a=1&t=z&t=b&t=c'],
    ['/list?b&a=&a', '/list?a=&a&b'],
    ['/list?&&a=1&', '/list?a=1'],
    ['/list?&', '/list'],
    ['/list?B=1&a=1', '/list?B=1&a=1'],
    ['/list?a=x?y&A=/', '/list?A=/&a=x?y'],
    ['/b/a?q=b=a', '/b/a?q=b=a'],
  ])('of %s is %s', (path, key) => {
    expect(frontierKey(site + path)).toBe(site + key)
  })

  test('is the same for every permutation of different parameters, and for the key itself', () => {
    const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'page', 'sort', 'x'))
    const shuffled = names.chain((all) =>
      fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length })),
    )
    fc.assert(
      fc.property(shuffled, ([one, other]) => {
        const url = (order: readonly string[]) =>
          `${site}/list?${order.map((name) => `${name}=1`).join('&')}`
        expect(frontierKey(url(one))).toBe(frontierKey(url(other)))
      }),
    )
    fc.assert(
      fc.property(address, (url) => {
        expect(frontierKey(frontierKey(url))).toBe(frontierKey(url))
      }),
    )
  })

  test('keeps apart what differs in more than order', () => {
    const keys = ['/l?a=1&b=2', '/l?a=2&b=1', '/l?a=1', '/l?t=1&t=2', '/l?t=2&t=1', '/l/?a=1'].map(
      (path) => frontierKey(site + path),
    )
    expect(new Set(keys).size).toBe(keys.length)
  })
})

describe('a session', () => {
  test.each([
    ['/shop;jsessionid=0A1B?item=7', '/shop?item=7', 'jsessionid'],
    ['/shop;JSESSIONID=0A1B.node1/cart', '/shop/cart', 'JSESSIONID'],
    ['/shop;jsessionid=0A1B;v=2', '/shop;v=2', 'jsessionid'],
    ['/index.php?PHPSESSID=abc', '/index.php', 'PHPSESSID'],
    ['/index.php?a=1&phpsessid=abc&b=2', '/index.php?a=1&b=2', 'phpsessid'],
    ['/x?jsessionid=1', '/x', 'jsessionid'],
    ['/x.asp?ASPSESSIONIDQQBCSRBA=JHGFDSAPOIUYTREWQLKJHGFD', '/x.asp', 'ASPSESSIONIDQQBCSRBA'],
    ['/x.cfm?CFID=123&CFTOKEN=456&id=7', '/x.cfm?id=7', 'CFID, CFTOKEN'],
    ['/(S(lit3py55t21z5v55vlm25s55))/x.aspx', '/x.aspx', '(S(…))'],
    ['/(X(1)S(lit3py55t21z5v55vlm25s55))/x.aspx', '/x.aspx', '(S(…))'],
    ['/(S(lit3py55t21z5v55vlm25s55))', '/', '(S(…))'],
    ['/a/(S(lit3py55t21z5v55vlm25s55)F(tick-et_1))/', '/a/', '(S(…))'],
    // PHP's default, 26 of 0-9a-v; 32 hex digits; base62; a UUID.
    ['/forum?sid=7k2mv0q9s3bnc41up8e5ato6r2&t=5', '/forum?t=5', 'sid'],
    ['/forum?sid=d41d8cd98f00b204e9800998ecf8427e', '/forum', 'sid'],
    ['/forum?s=0123456789abcdef0123456789abcdef', '/forum', 's'],
    ['/forum?s=aB3dE6gH9jK2mN5p', '/forum', 's'],
    ['/forum?SessionId=550e8400-e29b-41d4-a716-446655440000', '/forum', 'SessionId'],
    ['/forum?session_id=aB3dE6gH9jK2mN5p', '/forum', 'session_id'],
    ['/a;jsessionid=1?sid=d41d8cd98f00b204e9800998ecf8427e', '/a', 'jsessionid, sid'],
  ])('in %s is removed', (path, rest, removed) => {
    expect(withoutSession(site + path)).toEqual({ url: site + rest, removed })
  })

  test.each([
    '/',
    '/forum?sid=42',
    '/shop?sid=red-tea-from-the-north',
    '/?s=internationalization',
    '/?s=covid19pandemic2020',
    '/?s=2024010112000000',
    '/?s=tea',
    '/talks?session_id=1042',
    '/talks?sessionid=opening-ceremony-2024',
    '/x.cfm?cfid=123',
    '/x.cfm?cftoken=123',
    '/jsessionid=5',
    '/a(S(x))b/c',
    '/f(x)/(s)/S(x)/',
    '/about?aspsession=1',
    '/x?token=d41d8cd98f00b204e9800998ecf8427e',
    '/x?id=d41d8cd98f00b204e9800998ecf8427e',
    '/x?a&&b=1&',
  ])('is not seen in %s', (path) => {
    expect(withoutSession(site + path)).toEqual({ url: site + path, removed: null })
  })

  test('never comes back: removing twice changes nothing, and the rest stays canonical', () => {
    fc.assert(
      fc.property(address, (url) => {
        const once = withoutSession(url)
        expect(withoutSession(once.url)).toEqual({ url: once.url, removed: null })
        expect(canonicalUrl(once.url)).toEqual({ ok: true, url: once.url })
        expect(once.removed === null).toBe(once.url === url)
      }),
      { numRuns: 1_000 },
    )
  })
})

describe('the shape of an address', () => {
  test.each([
    ['/', '/'],
    ['/articles/2024/05/17.html', '/articles/N/N/N.html'],
    ['/article-12345-7', '/article-N-N'],
    ['/tea/green', '/tea/green'],
    ['/v2beta3', '/vNbetaN'],
    ['/o/d41d8cd98f00b204e9800998ecf8427e', '/o/X'],
    ['/o/550e8400-e29b-41d4-a716-446655440000/raw', '/o/X/raw'],
    ['/o/aB3dE6gH9jK2mN5p', '/o/X'],
    ['/internationalization', '/internationalization'],
    // %C3%A9 is a letter, not three numbers; what follows it is read on its own.
    ['/caf%C3%A9/7', '/caf%C3%A9/N'],
    ['/%20123', '/%20N'],
    ['/list?sort=asc&page=7', '/list?page&sort'],
    ['/list?page=8&sort=desc', '/list?page&sort'],
    ['/list?f[0]=a&f[1]=b', '/list?f[N]'],
    ['/viewtopic?12345', '/viewtopic?N'],
    ['/list?&a=1&&', '/list?a'],
  ])('%s is %s', (path, shape) => {
    expect(shapeOf(site + path)).toBe(shape)
  })

  test('says nothing of scheme and host, and its digest has 16 bytes', () => {
    const there = 'http://oats.example:8080/list?page=1'
    expect(shapeOf(there)).toBe(shapeOf(`${site}/list?page=2`))
    expect(shapeDigest(there)).toHaveLength(16)
    expect(shapeDigest(there)).toEqual(shapeDigest(`${site}/list?page=2`))
    expect(shapeDigest(there)).not.toEqual(shapeDigest(`${site}/list?sort=2`))
  })

  test('is the same for an address and its key', () => {
    fc.assert(
      fc.property(address, (url) => {
        expect(shapeOf(frontierKey(url))).toBe(shapeOf(url))
      }),
    )
  })

  test('is found for hostile addresses in bounded time', () => {
    for (const piece of ['1a', 'X(1)', '(S(', ';jsessionid=', '%', '&sid=', '0123abcd-', '?']) {
      const url = `${site}/${piece.repeat(Math.floor(2_000 / piece.length))}`
      shapeOf(url)
      frontierKey(url)
      withoutSession(url)
      withoutSession(`${site}/(${piece.repeat(Math.floor(2_000 / piece.length))}`)
    }
    // All this takes a few milliseconds; with a pattern that backtracks it would not end.
  })
})
