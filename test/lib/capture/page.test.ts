import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { linkDigests, pageDigests, readPage, readPlainPage } from '../../../lib/capture/page.ts'
import { extractSentences, shortDigest } from '../../../lib/capture/sentences.ts'
import { toHex } from '../../../lib/crypto/hex.ts'
import { hostileHtml } from './hostile-html.ts'

const url = 'https://example.com/a/b'
const read = (html: string) => readPage(html, url)

describe('a page', () => {
  test('says its title, language, canonical address and use signals', () => {
    const page = read(`<!doctype html><html lang=" De-AT "><head>
      <title>\n Caf&eacute; &amp;  more </title><title>second</title>
      <link rel="alternate canonical" href="/A?utm_source=x#y"><link rel=canonical href=/other>
      <meta name=robots content="noindex,  NoAI"><meta name=GPTBot content=none>
      <meta name=description content=no><meta name="tdm-reservation" content=1>
      <link rel=license href="https://example.com/terms"><body><a rel="license" href=/cc>cc</a>`)
    expect(page).toMatchObject({
      title: 'Café & more',
      language: 'de-at',
      canonical: 'https://example.com/A',
      base: url,
      signals: [
        ['meta', 'robots', 'noindex, NoAI'],
        ['meta', 'gptbot', 'none'],
        ['meta', 'tdm-reservation', '1'],
        ['link', 'license', 'https://example.com/terms'],
        ['a', 'license', '/cc'],
      ],
    })
  })

  test('without any of them says so', () => {
    expect(read('<p>x')).toMatchObject({
      title: null,
      language: null,
      canonical: null,
      base: url,
      signals: [],
      links: [],
    })
  })

  test('has its links canonical, once each, in order, with nofollow only if all say so', () => {
    const { links } = read(`<a href=c>1</a><a href="/d?utm_medium=x" rel="ugc NoFollow">2</a>
      <a href="./c#top" rel=nofollow>3</a><map><area href=//other.example></map>
      <a href="mailto:a@b.example">no</a><a href="javascript:x">no</a><a name=x>no</a>
      <template><a href=t>no</a></template><svg><a href=s>yes</a></svg><p hidden><a href=h>yes</a>`)
    expect(links).toEqual([
      { url: 'https://example.com/a/c', nofollow: false },
      { url: 'https://example.com/d', nofollow: true },
      { url: 'https://other.example/', nofollow: false },
      { url: 'https://example.com/a/s', nofollow: false },
      { url: 'https://example.com/a/h', nofollow: false },
    ])
  })

  test('lists links without the session that each reader gets of its own', () => {
    const { links } = read(
      '<a href="/cart;jsessionid=0A1B2C">1</a><a href="/cart">2</a><a href="/t?sid=0a1b2c3d4e5f60718293">3</a>',
    )
    expect(links.map(({ url }) => new URL(url).pathname + new URL(url).search)).toEqual([
      '/cart',
      '/t',
    ])
  })

  test('links what its head names as other pages, and neither parts nor other formats of it', () => {
    const { links } = read(`<link rel=canonical href=/tea><link rel="canonical" href=/second>
      <link rel=alternate hreflang=de href=/de><link rel=next href=?p=2><link rel="prev nofollow" href=?p=0>
      <link rel=alternate type="application/rss+xml; charset=utf-8" href=/rss>
      <link rel=ALTERNATE type=application/atom+xml href=/atom>
      <link rel=alternate media=print href=/print><link rel=alternate type=application/json href=/json>
      <link rel=stylesheet href=/style><link rel=amphtml href=/amp><link rel=icon href=/icon>
      <iframe src=/frame></iframe><template><link rel=next href=/template></template>`)
    expect(
      links.map(({ url, nofollow }) => [url.slice('https://example.com'.length), nofollow]),
    ).toEqual([
      ['/tea', false],
      ['/second', false],
      ['/de', false],
      ['/a/b?p=2', false],
      ['/a/b?p=0', true],
      ['/rss', false],
      ['/atom', false],
    ])
  })

  test.each([
    ['5;url=/next', '/next'],
    ['0; URL=/next', '/next'],
    [' 0.5 , url = "/a b" ignored', '/a%20b'],
    ["3;url='/next", '/next'],
    ['3 /next', '/next'],
    ['3; "/next"', '/next'],
    ['3;URLs', '/a/URLs'],
    ['.;url=next', '/a/next'],
    ['5', null],
    ['5;', null],
    ['5;url=', null],
    ['5x;url=/next', null],
    ['url=/next', null],
    [`${'5'.repeat(8_000)}x`, null],
    ['0;url=javascript:alert(1)', null],
  ])('links where a refresh of %j leads', (content, path) => {
    const { links } = read(
      `<meta http-equiv=Refresh content="${content.replaceAll('"', '&quot;')}">`,
    )
    expect(links.map((link) => link.url)).toEqual(
      path === null ? [] : [`https://example.com${path}`],
    )
  })

  test.each([
    ['robots', 'index, NOFOLLOW', true],
    ['Robots', 'none', true],
    ['gleaner', 'nofollow', true],
    ['gptbot', 'nofollow', false],
    ['robots', 'noindex', false],
    ['robots', 'nofollowing', false],
  ])('whose meta %s says "%s" wants its links followed or not', (name, content, nofollow) => {
    const { links } = read(`<a href=1>1</a><meta name=${name} content="${content}"><a href=2>2</a>`)
    expect(links.map((link) => link.nofollow)).toEqual([nofollow, nofollow])
  })

  test('with a base on another host has its relative links there', () => {
    const page = read(
      '<base href="https://other.example/x/"><a href=y>y</a><link rel=canonical href=z>',
    )
    expect(page.links.map((link) => link.url)).toEqual([
      'https://other.example/x/y',
      'https://other.example/x/z',
    ])
    expect(page.canonical).toBe('https://other.example/x/z')
  })

  test('resolves its links against the first base, wherever it stands', () => {
    const page = read('<a href=x>x</a><base target=_top><base href="/deep/"><base href=/no/>')
    expect(page.base).toBe('https://example.com/deep/')
    expect(page.links.map((link) => link.url)).toEqual(['https://example.com/deep/x'])
    expect(read('<base href="ftp://example.com/"><a href=x>x</a>').links[0]?.url).toBe(
      'https://example.com/a/x',
    )
  })

  test('of plain text has the digests of a page that says nothing', () => {
    const page = readPlainPage('<title>no</title>', url)
    expect(page.sentences.map(({ text }) => text)).toEqual(['<title>no</title>'])
    expect(pageDigests(page)).toEqual(pageDigests(read('')))
  })

  test('lists at most 2,000 links and 64 signals', () => {
    const many = (piece: (i: number) => string) => Array.from({ length: 3_000 }, (_, i) => piece(i))
    expect(read(many((i) => `<a href=${i}>x</a>`).join('')).links).toHaveLength(2_000)
    expect(read(many((i) => `<meta name=robots content=${i}>`).join('')).signals).toHaveLength(64)
  })

  test('takes no title from a drawing', () => {
    expect(read('<svg><title>no</title></svg><title>yes</title>').title).toBe('yes')
  })

  test('has the same sentences as without its metadata, and never throws', () => {
    fc.assert(
      fc.property(hostileHtml, (html) => {
        const { sentences, truncated } = read(html)
        expect({ sentences, truncated }).toEqual(extractSentences(html))
        pageDigests(read(html))
      }),
      { numRuns: 1_000 },
    )
  })
})

describe('the digests of a page', () => {
  const hex = (input: string | Uint8Array) =>
    createHash('sha256').update(input).digest('hex').slice(0, 32)

  test('are the first half of SHA-256', () => {
    const page = read(
      '<html lang=en><title>T</title><link rel=canonical href=/c><meta name=robots content=none><meta name=license content=x><a href=/1>1</a><a href=/2>2</a>',
    )
    const digests = pageDigests(page)
    const sorted = ['https://example.com/1', 'https://example.com/2', 'https://example.com/c']
      .map(hex)
      .sort()
    expect(toHex(digests.title)).toBe(hex('T'))
    expect(toHex(digests.canonical)).toBe(hex('https://example.com/c'))
    expect(toHex(digests.language)).toBe(hex('en'))
    expect(toHex(digests.signals)).toBe(hex('[["meta","license","x"],["meta","robots","none"]]'))
    expect(toHex(digests.links)).toBe(hex(Buffer.from(sorted.join(''), 'hex')))
    expect(linkDigests(page.links)).toEqual(page.links.map((link) => shortDigest(link.url)))
  })

  test('do not depend on the order of links and signals, nor on nofollow', () => {
    const one = read(
      '<meta name=robots content=a><meta name=rights content=b><a href=1>1</a><a href=2>2</a>',
    )
    const two = read(
      '<meta name=rights content=b><meta name=robots content=a><a href=2 rel=nofollow>2</a><a href=1>1</a>',
    )
    expect(pageDigests(two)).toEqual(pageDigests(one))
  })
})
