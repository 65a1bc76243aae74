import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  createSitemapReader,
  mostPages,
  mostSitemaps,
  type SitemapItem,
  urgencyOf,
} from '../../../server/frontier/sitemap.ts'

function read(...pieces: string[]) {
  const reader = createSitemapReader()
  const items: SitemapItem[] = []
  for (const piece of pieces) items.push(...reader.write(piece))
  items.push(...reader.end())
  return { items, format: reader.format, stopped: reader.stopped }
}
const urls = (items: readonly SitemapItem[]) => items.map(({ url }) => url)

const urlset = `\ufeff<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
  <!-- <url><loc>http://a.example/comment</loc></url> -->
  <url>
    <loc>
      http://a.example/?a=1&amp;b=2
    </loc>
    <lastmod>2026-11-20</lastmod><priority>0.8</priority>
    <image:image><image:loc>http://a.example/picture.png</image:loc></image:image>
  </url>
  <url><image:loc>http://a.example/other.png</image:loc><loc><![CDATA[http://a.example/<b>]]></loc><priority>7</priority></url>
  <url><loc>http://a.example/1</loc><loc>http://a.example/second</loc></url>
  <url><priority>1.0</priority></url>
  <url><loc>http://a.example/ä</loc><priority>1</priority></url>
</urlset>`

describe('a list of addresses', () => {
  const expected = [
    { kind: 'page', url: 'http://a.example/?a=1&b=2', priority: 0.8, lastModified: '2026-11-20' },
    { kind: 'page', url: 'http://a.example/<b>', priority: null, lastModified: null },
    { kind: 'page', url: 'http://a.example/1', priority: null, lastModified: null },
    { kind: 'page', url: 'http://a.example/ä', priority: 1, lastModified: null },
  ]

  test('is read without comments, pictures and second addresses', () => {
    expect(read(urlset)).toEqual({ items: expected, format: 'sitemap', stopped: null })
  })

  test('says the same wherever it is cut into pieces', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: urlset.length }), { maxLength: 12 }),
        (places) => {
          const cuts = [0, ...places.sort((a, b) => a - b), urlset.length]
          const pieces = cuts.slice(1).map((end, at) => urlset.slice(cuts[at], end))
          expect(read(...pieces).items).toEqual(expected)
        },
      ),
    )
  })

  test('may carry a prefix', () => {
    const { items } = read(
      '<sm:urlset xmlns:sm="x"><sm:url><sm:loc>http://a.example/</sm:loc><loc>http://no.example/</loc></sm:url></sm:urlset>',
    )
    expect(urls(items)).toEqual(['http://a.example/'])
  })

  test('counts up to fifty thousand, and says so', () => {
    const reader = createSitemapReader()
    let count = reader.write('<urlset>').length
    for (let at = 0; at < mostPages + 10; at += 1) {
      count += reader.write(`<url><loc>http://a.example/${at}</loc></url>`).length
    }
    expect(count).toBe(mostPages)
    expect(reader.stopped).toContain('50,000')
  })

  test('that breaks off names what was whole', () => {
    const { items } = read('<urlset><url><loc>http://a.example/1</loc></url><url><loc>http://a.exa')
    expect(urls(items)).toEqual(['http://a.example/1'])
  })

  test('expands no entity that a document type declares', () => {
    const { items } = read(
      '<!DOCTYPE u [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><urlset><url><loc>http://a.example/&b;</loc></url></urlset>',
    )
    expect(urls(items)).toEqual(['http://a.example/&b;'])
  })
})

test('an index names sitemaps, five hundred at most', () => {
  const entry = (at: number) => `<sitemap><loc>http://a.example/${at}.xml</loc></sitemap>`
  const few = read(`<sitemapindex>${entry(1)}${entry(2)}</sitemapindex>`)
  expect(few.items).toEqual([
    { kind: 'sitemap', url: 'http://a.example/1.xml' },
    { kind: 'sitemap', url: 'http://a.example/2.xml' },
  ])
  const many = read(`<sitemapindex>${Array.from({ length: 600 }, (_, at) => entry(at)).join('')}`)
  expect(many.items.length).toBe(mostSitemaps)
  expect(many.stopped).toContain('500')
})

describe('feeds', () => {
  test.each([
    [
      'RSS 2.0',
      `<rss version="2.0" xmlns:atom="x"><channel><link>http://a.example/</link><atom:link rel="self" href="http://a.example/feed"/>
       <item><title>One</title><link>http://a.example/1</link><pubDate>Fri, 20 Nov 2026 08:00:00 GMT</pubDate></item></channel></rss>`,
      'rss',
    ],
    [
      'RSS 1.0',
      '<rdf:RDF xmlns:rdf="x"><channel><link>http://a.example/</link></channel><item><link>http://a.example/1</link></item></rdf:RDF>',
      'rss',
    ],
    [
      'Atom',
      `<feed><link href="http://a.example/"/><entry><link rel="edit" href="http://a.example/edit"/>
       <link href="http://a.example/1"/><updated>2026-11-20T08:00:00Z</updated></entry></feed>`,
      'atom',
    ],
  ])('%s names the pages of its entries', (_, text, format) => {
    const seen = read(text)
    expect(seen.format).toBe(format)
    expect(urls(seen.items)).toEqual(['http://a.example/1'])
  })
})

test('text names an address a line, and leaves out what is none', () => {
  const { items, format } = read(
    '\ufeff\r\nhttp://a.example/1\r',
    '\nnot an address\nhttps://b.exam',
    'ple/2',
  )
  expect(urls(items)).toEqual(['http://a.example/1', 'https://b.example/2'])
  expect(format).toBe('text')
})

describe('what is no sitemap names nothing', () => {
  test.each([
    ['', null],
    ['<!doctype html><html><body><url><loc>http://a.example/</loc></url></body></html>', 'html'],
    ['\0\x01\x02 binary \xff', null],
    [`<urlset><!-- ${'x'.repeat(600_000)}`, 'without an end'],
    [`<urlset ${'a="b" '.repeat(100_000)}`, 'without an end'],
    [`${'<a>'.repeat(10)}`, 'root is <a>'],
    [`<urlset>${'<a>'.repeat(1_000_000)}`, 'too deep'],
    [`${'x'.repeat(3_000_000)}`, null],
  ])('%.40s', (text, why) => {
    const seen = read(...(text.match(/[\s\S]{1,65536}/g) ?? []))
    expect(seen.items).toEqual([])
    if (why === null) expect(seen.format).toBeNull()
    else expect(seen.stopped).toContain(why)
  })

  test('any text at all', () => {
    const parts = [
      '<urlset>',
      '<url>',
      '<loc>',
      'http://a.example/',
      '</loc>',
      '</url>',
      '<',
      '&',
      '>',
      '-->',
      ']]>',
      '"',
    ]
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...parts)), (pieces) => {
        expect(read(...pieces).items.every(({ url }) => url !== '')).toBe(true)
      }),
    )
  })
})

test('urgency is the sitemap’s priority, and a little more for what changed within a week', () => {
  const nowMs = Date.parse('2026-11-22T00:00:00Z')
  const urgency = (priority: number | null, lastModified: string | null) =>
    urgencyOf({ priority, lastModified }, nowMs)
  expect(urgency(null, null)).toBeNull()
  expect(urgency(null, 'yesterday')).toBeNull()
  expect(urgency(0.3, '2020-01-01')).toBe(0.3)
  expect(urgency(0.3, '2026-11-20')).toBeCloseTo(0.5)
  expect(urgency(null, 'Fri, 20 Nov 2026 08:00:00 GMT')).toBeCloseTo(0.7)
  expect(urgency(1, '2026-11-20')).toBe(1)
  // A date in the future is no news.
  expect(urgency(0.3, '2030-01-01')).toBe(0.3)
})
