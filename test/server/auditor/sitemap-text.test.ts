import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { BrokenGzip, sitemapText } from '../../../server/auditor/sitemap-text.ts'
import { createSitemapReader } from '../../../server/frontier/sitemap.ts'

async function* pieces(bytes: Uint8Array, size = 7): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function textOf(bytes: Uint8Array, maxBytes = 100_000) {
  const tell = { isCut: false }
  let text = ''
  for await (const piece of sitemapText(pieces(bytes), maxBytes, tell)) text += piece
  return { text, isCut: tell.isCut }
}

const xml = '<?xml version="1.0" encoding="UTF-8"?><urlset>ä€😀</urlset>'

describe('the text of a sitemap', () => {
  test.each([
    ['as UTF-8', Buffer.from(xml), xml],
    ['without anything', Buffer.alloc(0), ''],
    ['of one byte', Buffer.from('x'), 'x'],
    ['unpacked, by its first bytes', gzipSync(xml), xml],
    ['of several gzip members', Buffer.concat([gzipSync(xml), gzipSync('end')]), `${xml}end`],
    ['with a byte order mark', Buffer.from(`\ufeff${xml}`), xml],
    [
      'in UTF-16',
      Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from('<a>ä', 'utf16le')]),
      '<a>ä',
    ],
    [
      'in the encoding that it declares',
      Buffer.from('<?xml version="1.0" encoding="iso-8859-1"?><a>\xe4</a>', 'latin1'),
      '<?xml version="1.0" encoding="iso-8859-1"?><a>ä</a>',
    ],
    [
      'in UTF-8 where the label is unknown',
      Buffer.from('<?xml version="1.0" encoding="nonsense"?>ä'),
      '<?xml version="1.0" encoding="nonsense"?>ä',
    ],
    [
      'in UTF-8 where the label cannot be true',
      Buffer.from('<?xml version="1.0" encoding="utf-16"?>ä'),
      '<?xml version="1.0" encoding="utf-16"?>ä',
    ],
  ])('is read %s', async (_, bytes, text) => {
    expect(await textOf(bytes)).toEqual({ text, isCut: false })
  })

  test('ends at the most bytes, packed or not', async () => {
    for (const bytes of [Buffer.alloc(5_000, 'a'), gzipSync(Buffer.alloc(5_000, 'a'))]) {
      const { text, isCut } = await textOf(bytes, 4_000)
      expect(text.length).toBe(4_000)
      expect(isCut).toBe(true)
    }
    expect((await textOf(Buffer.alloc(4_000, 'a'), 4_000)).isCut).toBe(false)
  })

  test('of a damaged or cut gzip file is what came before', async () => {
    const packed = gzipSync(Array.from({ length: 20_000 }, (_, at) => `line ${at}\n`).join(''))
    let text = ''
    await expect(async () => {
      const half = pieces(packed.subarray(0, packed.length / 2))
      for await (const piece of sitemapText(half, 10_000_000, { isCut: false })) text += piece
    }).rejects.toThrow(BrokenGzip)
    expect(text.startsWith('line 0\nline 1\n')).toBe(true)
  })

  test('what the body throws is thrown on, packed or not', async () => {
    for (const first of [Buffer.from('<a>'), gzipSync(xml).subarray(0, 20)]) {
      const body = async function* () {
        yield first
        throw new RangeError('the line broke')
      }
      await expect(async () => {
        for await (const _ of sitemapText(body(), 1_000, { isCut: false }));
      }).rejects.toThrow('the line broke')
    }
  })
})

test('fifty megabytes are read in the memory of one piece', async () => {
  setFlagsFromString('--expose-gc')
  const gc: () => void = runInNewContext('gc')
  const live = () => {
    gc()
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    return heapUsed + arrayBuffers
  }
  async function* body(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('<urlset>')
    // Some 22 kB each: a sitemap that is mostly pictures.
    for (let at = 0; ; at += 1) {
      const pictures = `<image:image><image:loc>http://a.example/${at}.png</image:loc></image:image>`
      yield Buffer.from(`<url><loc>http://a.example/${at}</loc>${pictures.repeat(300)}</url>`)
    }
  }
  const reader = createSitemapReader()
  const tell = { isCut: false }
  const most = 50 * 1_024 * 1_024
  const before = live()
  let [characters, found, peak, next] = [0, 0, 0, 5_000_000]
  for await (const text of sitemapText(body(), most, tell)) {
    characters += text.length
    found += reader.write(text).length
    if (characters < next) continue
    next += 5_000_000
    peak = Math.max(peak, live() - before)
  }
  expect(tell.isCut).toBe(true)
  expect(characters).toBe(most)
  expect(found).toBeGreaterThan(1_500)
  expect(peak).toBeLessThan(3_000_000)
})
