import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readFeed } from '../../../lib/capture/feed.ts'
import { pageDigests } from '../../../lib/capture/page.ts'
import { encodeSentenceList } from '../../../lib/capture/sentence-list.ts'

const url = 'https://barley.example/news/feed.xml'

/** What a feed says, in short. */
function read(xml: string) {
  const page = readFeed(xml, url)
  return {
    title: page.title,
    language: page.language,
    sentences: page.sentences.map((sentence) => sentence.text),
    links: page.links.map((link) => link.url),
  }
}
const nothing = { title: null, language: null, sentences: [], links: [] }

describe('a feed is read', () => {
  test('in RSS 2.0, with escaped and quoted markup, a guid for a link, and Atom links', () => {
    const xml = `<?xml version="1.0"?>
      <rss version="2.0" xmlns:atom="http://www.w3.org/2005/Atom" xmlns:media="http://search.yahoo.com/mrss/">
      <channel><title>Barley &amp; malt</title><link>/</link><description>All of it.</description>
      <language>en-GB</language><atom:link rel="self" href="feed.xml"/>
      <atom:link rel="next" href="?page=2"/>
      <image><title>Logo</title><url>/logo.png</url><link>/logo</link></image>
      <item><title><![CDATA[Malt is <b>grain</b>]]></title><link>malt?utm_source=rss#top</link>
        <media:title>Picture</media:title><enclosure url="/malt.mp3" type="audio/mpeg" length="1"/>
        <description>&lt;p&gt;It germinates.&lt;/p&gt;&lt;p&gt;Then it&amp;nbsp;dries.&lt;/p&gt;</description>
        <content:encoded>The whole article.</content:encoded><guid>https://barley.example/?id=1</guid></item>
      <item><title>Hops</title><guid>https://barley.example/hops</guid></item>
      <item><content:encoded><![CDATA[<script>no</script>Only all of it.]]></content:encoded>
        <guid isPermaLink="false">https://barley.example/no</guid></item>
      <item><guid>tag:barley.example,2026:3</guid></item></channel></rss>`
    expect(read(xml)).toEqual({
      title: 'Barley & malt',
      language: 'en-gb',
      sentences: [
        'Barley & malt',
        'All of it.',
        'Malt is grain',
        'It germinates.',
        'Then it dries.',
        'Hops',
        'Only all of it.',
      ],
      links: [
        'https://barley.example/',
        'https://barley.example/news/feed.xml?page=2',
        'https://barley.example/news/malt',
        'https://barley.example/hops',
      ],
    })
  })

  test('in RSS 1.0, whose entries stand beside the channel', () => {
    const xml = `<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/">
      <channel rdf:about="/"><title>Barley</title><link>https://barley.example/</link>
      <items><rdf:Seq><rdf:li rdf:resource="https://barley.example/listed"/></rdf:Seq></items>
      <dc:language>en</dc:language></channel>
      <image><title>Logo</title><link>/logo</link></image>
      <item rdf:about="x"><title>Malt</title><link>/malt</link><description>Grain.</description></item></rdf:RDF>`
    expect(read(xml)).toEqual({
      title: 'Barley',
      language: 'en',
      sentences: ['Barley', 'Malt', 'Grain.'],
      links: ['https://barley.example/', 'https://barley.example/malt'],
    })
  })

  test('in RSS 0.91', () => {
    const xml = `<rss version="0.91"><channel><title>B</title><item><title>Malt</title><link>/m</link>
      </item></channel></rss>`
    expect(read(xml)).toMatchObject({
      sentences: ['B', 'Malt'],
      links: ['https://barley.example/m'],
    })
  })

  test('in Atom, with its text constructs, xml:base and link relations', () => {
    const xml = `<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="de-AT" xml:base="/base/">
      <title type="html">A &lt;i&gt;b&lt;/i&gt;</title><subtitle>Alles.</subtitle>
      <link href="./"/><link rel="self" href="me"/><link rel="next" href="?after=1"/>
      <link rel="license" href="/cc"/><link rel="prev-archive" href="old"/>
      <entry xml:base="e/"><title>x &lt;y&gt; z &amp; w</title><link href="1"/>
        <link rel="enclosure" href="a.mp3"/><link rel="replies" href="c"/>
        <summary type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml"><p>One.</p><p>Two&#33;</p></div></summary>
        <content type="html">Long.</content>
        <source><title>Elsewhere</title><link href="/elsewhere"/></source></entry>
      <entry><id>https://barley.example/id</id><content type="image/png">AAAA</content>
        <link rel="alternate" href="https://other.example/"/></entry></feed>`
    expect(read(xml)).toEqual({
      title: 'A b',
      language: 'de-at',
      sentences: ['A b', 'Alles.', 'x <y> z & w', 'One.', 'Two!'],
      links: [
        'https://barley.example/base/',
        'https://barley.example/base/?after=1',
        'https://barley.example/base/old',
        'https://barley.example/base/e/1',
        'https://other.example/',
      ],
    })
  })

  test('in Atom under a prefix', () => {
    const xml =
      '<atom:feed xmlns:atom="a"><atom:entry><atom:title>T</atom:title><atom:link href="/t"/></atom:entry></atom:feed>'
    expect(read(xml)).toMatchObject({ sentences: ['T'], links: ['https://barley.example/t'] })
  })

  test('as far as it came, when it is cut', () => {
    expect(read('<rss><channel><item><link>/malt</link><title>Mal')).toMatchObject({
      sentences: ['Mal'],
      links: ['https://barley.example/malt'],
    })
  })

  test('without what its document type declares', () => {
    const xml = `<!DOCTYPE rss [<!ENTITY a "aaaa"><!ENTITY f SYSTEM "file:///etc/passwd">]>
      <rss><channel><title>&a;&f;&amp;</title></channel></rss>`
    expect(read(xml).sentences).toEqual(['&a;&f;&'])
  })
})

test.each([
  ['HTML', '<!doctype html><title>T</title><p>Text.</p><a href=/x>x</a>'],
  ['XHTML', '<?xml version="1.0"?><html xmlns="x"><body><p>Text.</p></body></html>'],
  ['a sitemap', '<urlset><url><loc>https://barley.example/x</loc></url></urlset>'],
  ['a feed inside something else', '<x><rss><channel><title>T</title></channel></rss></x>'],
  ['JSON', '{"title":"<T>"}'],
  ['nothing', ''],
])('%s under the name of XML has neither text nor links', (_, xml) => {
  expect(read(xml)).toEqual(nothing)
})

test('a feed of 10 MB is read to its first 2 MiB, with 2,000 links and 20,000 sentences', () => {
  let xml = '<rss><channel>'
  for (let i = 0; xml.length < 10_000_000; i += 1) {
    xml += `<item><title>${i}</title><link>/${i}</link></item>`
  }
  const page = readFeed(xml, url)
  expect(page.links).toHaveLength(2_000)
  expect(page.links.at(-1)?.url).toBe('https://barley.example/1999')
  expect(page.sentences).toHaveLength(20_000)
  expect(page.truncated).toBe(true)

  const long = readFeed(`<rss><channel><description>${'Malt. '.repeat(1_700_000)}`, url)
  const read = long.sentences.reduce((sum, sentence) => sum + sentence.length + 1, 0)
  expect(read).toBeLessThanOrEqual(2 * 1_024 * 1_024)
})

test('whatever the bytes, it does not throw, and its list can be encoded', () => {
  const pieces = fc.oneof(
    fc.constantFrom(
      ...'<rss>|<rss><channel>|<feed>|<feed xml:base="/a/">|<rdf:RDF>|<channel>|</channel>|<item>|</item>|<entry>|</entry>|<title>|</title>|<title type="html">|<title type="xhtml">|<link>|</link>|<link href="/x"/>|<link rel="next" href="?2">|<description>|</description>|<content:encoded>|<guid>|<![CDATA[|]]>|<!--|-->|&lt;p&gt;|&amp;|&#x0;|&#xd800;|&nosuch;|<!DOCTYPE x [|<?xml encoding="x"?>|</|<|>|/>|<p>|</p>|"'.split(
        '|',
      ),
    ),
    fc.string({ unit: 'binary', maxLength: 6 }),
  )
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 60 }), (parts) => {
      const page = readFeed(`<feed>${parts.join('')}`, url)
      pageDigests(page)
      encodeSentenceList(page.sentences, [])
      expect(readFeed(`<feed>${parts.join('')}`, url)).toEqual(page)
    }),
    { numRuns: 1_000 },
  )
})
