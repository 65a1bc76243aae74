import { expect, test } from 'vitest'
import { decodeSentenceList } from '../../../lib/capture/sentence-list.ts'
import { generateKeyPair } from '../../../lib/crypto/ed25519.ts'
import { observation } from '../../../lib/protocol/observation.ts'
import { observePage } from '../../../lib/runner/observe.ts'
import { analyse } from '../../../server/verify/analyse.ts'

// What a node states and what the server reads in the same bytes must be one and the same.

const url = 'https://barley.example/news/feed'
const lease = { id: 'AAECAwQFBgcICQoLDA0ODw', nonce: 'EBESExQVFhcYGRobHB0eHw' }
const utf8 = (text: string) => new TextEncoder().encode(text)
const latin1 = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0))
const rss = (title: string, head = '') =>
  `${head}<rss version="2.0"><channel><title>${title}</title><link>/</link>
   <item><title>Tea</title><link>tea</link></item></channel></rss>`

const bodies: [string, string, Uint8Array<ArrayBuffer>, string[], string[]][] = [
  ['HTML', 'text/html', utf8('<title>T</title><p>Tea.</p><a href=x>x</a>'), ['Tea.', 'x'], ['x']],
  ['plain text', 'text/plain; charset=utf-8', utf8('One.\nTwo.'), ['One.', 'Two.'], []],
  ['a feed', 'application/rss+xml', utf8(rss('Café')), ['Café', 'Tea'], ['../', 'tea']],
  [
    'a feed in the encoding of its declaration',
    'text/xml',
    latin1(rss('Café', '<?xml version="1.0" encoding="ISO-8859-1"?>')),
    ['Café', 'Tea'],
    ['../', 'tea'],
  ],
  [
    'a feed whose header names a charset that nobody knows',
    'application/rss+xml; charset=klingon',
    latin1(rss('Café', '<?xml version="1.0" encoding="ISO-8859-1"?>')),
    ['Café', 'Tea'],
    ['../', 'tea'],
  ],
  [
    'a feed whose header names the wrong charset',
    'application/rss+xml; charset=utf-8',
    latin1(rss('Café', '<?xml version="1.0" encoding="ISO-8859-1"?>')),
    ['Caf\ufffd', 'Tea'],
    ['../', 'tea'],
  ],
  [
    'a feed whose byte order mark contradicts everything',
    'application/rss+xml; charset=iso-8859-1',
    utf8(`\ufeff${rss('Café', '<?xml version="1.0" encoding="windows-1251"?>')}`),
    ['Café', 'Tea'],
    ['../', 'tea'],
  ],
  [
    'a feed that says meta and means nothing by it',
    'application/atom+xml',
    utf8('<feed><meta charset="iso-8859-1"/><title>Café</title></feed>'),
    ['Café'],
    [],
  ],
  [
    'HTML that is labelled XML',
    'application/xml',
    utf8('<html><p>x</p><a href="y"/></html>'),
    [],
    [],
  ],
  [
    'JSON, whatever charset it claims',
    'application/ld+json; charset=iso-8859-1',
    utf8('{\n"a": "é"}'),
    ['{', '"a": "é"}'],
    [],
  ],
  ['a PDF', 'application/pdf', latin1('%PDF-1.7\n\xff\xfe\0stream'), [], []],
  ['a PDF with a charset that nobody knows', 'application/pdf; charset=x', latin1('%PDF-'), [], []],
  ['what has no type', '', utf8('User-agent: *'), ['User-agent: *'], []],
  [
    'binary without a type',
    '',
    Uint8Array.from({ length: 4_096 }, (_, i) => (i * 73) % 251),
    [],
    [],
  ],
]

test.each(bodies)(
  '%s is one thing to node and server',
  async (name, header, payload, texts, links) => {
    const key = await generateKeyPair({ extractable: false })
    const type = header.split(';', 1)[0] ?? ''
    const { statement, body } = await observePage(
      lease,
      {
        kind: 'fetched',
        url,
        hops: [],
        status: 200,
        type,
        headers: new Map([['content-type', header]]),
        payload,
        firstByteMs: 1,
        totalMs: 2,
        wireBytes: payload.length,
        statedWireBytes: payload.length,
      },
      key,
    )
    const said = observation.parse(JSON.parse(statement.statement))
    if (said.outcome !== 'fetched' || body === undefined) throw new Error('it was not read')
    const read = analyse(payload, body)
    if (!read.ok) throw new Error(read.reason)
    expect({ ...read.digests, digest: read.listDigest, count: read.count }).toEqual({
      title: said.title,
      canonical: said.canonical,
      language: said.language,
      signals: said.signals,
      links: said.links,
      ...said.sentences,
    })
    expect(decodeSentenceList(read.list).ok).toBe(true)
    expect(read.main).toHaveLength(read.count)
    if (!name.startsWith('binary')) expect(read.sentences).toEqual(texts)
    expect(read.links).toEqual(links.map((link) => new URL(link, url).href))
  },
)

test.each([
  ['text/plain', true],
  ['', true],
  ['application/octet-stream', true],
  ['text/html', false],
  ['application/xml', false],
  ['application/pdf', false],
])('robots.txt of type "%s" has rules to read: %s', (type, has) => {
  const page = analyse(utf8('User-agent: *\nDisallow: /'), { type, charset: null, url })
  expect(page.ok && page.text !== null).toBe(has)
})
