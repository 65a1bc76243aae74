import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { decodeSentenceList } from '../../../lib/capture/sentence-list.ts'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { analyse } from '../../../server/verify/analyse.ts'
import { type Analyser, createAnalyser } from '../../../server/verify/analyser.ts'
import { paragraphs, teaPage } from './tea-page.ts'

const url = 'https://barley.example/tea'
const as = { type: 'text/html', charset: 'utf-8', url }
const bytes = (text: string) => new TextEncoder().encode(text)
const read = (html: string, changes: Partial<typeof as> = {}) => {
  const page = analyse(bytes(html), { ...as, ...changes })
  if (!page.ok) throw new Error(page.reason)
  return page
}
const mainText = (page: ReturnType<typeof read>) =>
  page.sentences.filter((_, i) => page.main[i]).join(' ')

describe('analyse', () => {
  test('finds the article, and neither menu nor footer', () => {
    const page = read(teaPage({ promotion: 'Visitor 7 reads this.' }))
    expect(mainText(page)).toBe(paragraphs.join(' '))
    expect(page.sentences).toContain('Visitor 7 reads this.')
  })

  test('gives the list and its digest as an honest observer sends them', () => {
    const page = read(teaPage())
    expect(page.listDigest).toBe(toBase64Url(sha256(page.list)))
    const decoded = decodeSentenceList(page.list)
    expect(decoded.ok && decoded.list.sentences.length).toBe(page.count)
    expect(page.main).toHaveLength(page.count)
  })

  test('reads title, language, signals, and links without those that say nofollow', () => {
    const page = read(
      teaPage({
        language: 'en-GB',
        head: '<meta name="robots" content="noai"><link rel="canonical" href="/on-tea">',
        links: '<a rel="nofollow" href="/paid">Paid</a><a href="/roses">Roses</a>',
      }),
    )
    expect(page).toMatchObject({
      title: 'On tea',
      language: 'en-gb',
      canonical: 'https://barley.example/on-tea',
      signals: [{ source: 'meta', name: 'robots', value: 'noai' }],
      links: [
        'https://barley.example/on-tea',
        'https://barley.example/',
        'https://barley.example/coffee',
        'https://barley.example/roses',
      ],
      text: null,
    })
  })

  test('of plain text everything is main, and the text itself is there', () => {
    const page = read('User-agent: *\nDisallow: /x\n', { type: 'text/plain' })
    expect(page.text).toBe('User-agent: *\nDisallow: /x\n')
    expect(page.main.every(Boolean)).toBe(true)
  })

  test('where the extractor finds no article the estimate stands in', () => {
    const page = read(`<body><table><tr><td>${paragraphs[0]}</td></tr></table></body>`)
    expect(mainText(page)).toBe(paragraphs[0])
  })

  test('leaves picture credits and lists of links out of the article', () => {
    const page = read(
      teaPage().replace(
        '</article>',
        '<figure><img src="/pot.png"><figcaption>A pot. Picture: the author.</figcaption></figure><ul><li><a href="/a">More about water</a></li></ul></article>',
      ),
    )
    expect(mainText(page)).not.toContain('Picture: the author.')
    expect(mainText(page)).not.toContain('More about water')
  })

  test('a page without any text is read, and has nothing', () => {
    expect(read('')).toMatchObject({ count: 0, sentences: [], main: [], links: [] })
  })

  test('a charset that nobody knows is refused with the reason', () => {
    expect(analyse(bytes('x'), { ...as, charset: 'no-such-charset' })).toEqual({
      ok: false,
      reason: 'undecodable',
    })
  })
})

describe('the worker pool', () => {
  let analyser: Analyser
  beforeAll(() => {
    analyser = createAnalyser(1)
  })
  afterAll(() => analyser.close())
  const job = (html: string) => ({ payload: bytes(html), ...as })

  test('reads a page as the stage itself does', async () => {
    const page = await analyser.analyse(job(teaPage()))
    if (!page.ok) throw new Error(page.reason)
    expect(mainText(page)).toBe(paragraphs.join(' '))
    expect(page.listDigest).toBe(read(teaPage()).listDigest)
  })

  test('a page that takes too long costs its thread and not the server', async () => {
    const slow = new TextDecoder().decode(hostilePage())
    const before = Date.now()
    const hostile = analyser.analyse(job(slow))
    let turns = 0
    const heartbeat = setInterval(() => {
      turns += 1
    }, 50)
    const page = await hostile
    clearInterval(heartbeat)
    expect(page).toEqual({ ok: false, reason: 'not read within 5000 ms' })
    expect(Date.now() - before).toBeLessThan(15_000)
    // The server's own thread went on meanwhile.
    expect(turns).toBeGreaterThan(10)
    expect(await analyser.analyse(job(teaPage()))).toMatchObject({ ok: true, title: 'On tea' })
  }, 60_000)
})

/** Markup over which the extractor broods: many small blocks, deeply nested. */
function hostilePage(): Uint8Array {
  return bytes(`<body>${'<div><p>A, b, c, d, e, f, g, h.'.repeat(10_000)}</body>`)
}
