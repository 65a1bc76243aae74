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
    const sorted = ['https://example.com/1', 'https://example.com/2'].map(hex).sort()
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
