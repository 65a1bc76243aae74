import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodePage } from '../../../lib/capture/decode.ts'

const utf8 = (text: string) => new TextEncoder().encode(text)
const bytes = (...parts: (string | number[])[]) =>
  new Uint8Array(parts.flatMap((part) => (typeof part === 'string' ? [...utf8(part)] : part)))

describe('the encoding', () => {
  test.each([
    [
      'is that of the byte order mark first',
      bytes([0xef, 0xbb, 0xbf], 'ä'),
      'text/html; charset=koi8-r',
      'ä',
      'utf-8',
      'bom',
    ],
    [
      'may be UTF-16 by its mark',
      bytes([0xff, 0xfe, 0xe4, 0]),
      'text/html',
      'ä',
      'utf-16le',
      'bom',
    ],
    ['may be big-endian by its mark', bytes([0xfe, 0xff, 0, 0xe4]), '', 'ä', 'utf-16be', 'bom'],
    [
      'is that of the header next',
      bytes('<meta charset=koi8-r>', [0xc3, 0xa4]),
      'text/html;Charset="UTF-8"',
      '<meta charset=koi8-r>ä',
      'utf-8',
      'http',
    ],
    [
      'is that of meta charset',
      bytes(
        '<!--<meta charset=koi8-r>--><p a="<meta charset=koi8-r>"><META CharSet = \'latin2\'>',
        [0xb1],
      ),
      'text/html',
      /ą$/,
      'iso-8859-2',
      'meta',
    ],
    [
      'is that of meta http-equiv',
      bytes('<meta content="text/html; charset=windows-1251" http-equiv=Content-Type>', [0xe4]),
      'text/html',
      /д$/,
      'windows-1251',
      'meta',
    ],
    [
      'is not that of content without http-equiv',
      bytes('<meta content="text/html; charset=windows-1251">', [0xe4]),
      'text/html',
      /ä$/,
      'windows-1252',
      'default',
    ],
    [
      'is UTF-8 where meta says UTF-16',
      bytes('<meta charset=utf-16>ä'),
      'text/html',
      /ä$/,
      'utf-8',
      'meta',
    ],
    [
      'passes an unknown label for the next',
      bytes('<meta charset=nonsense><meta charset=utf-8>ä'),
      'text/html; charset=none',
      /ä$/,
      'utf-8',
      'meta',
    ],
    [
      'is that of an XML declaration',
      bytes('<?xml version="1.0" encoding="koi8-r"?><p>', [0xc1]),
      'application/xhtml+xml',
      /а$/,
      'koi8-r',
      'meta',
    ],
    [
      'is windows-1252 in HTML that says nothing',
      bytes([0x80, 0x9f, 0x81, 0xe4]),
      'text/html',
      '€Ÿ\u0081ä',
      'windows-1252',
      'default',
    ],
    [
      'is windows-1252 where the label says ISO-8859-1',
      bytes([0x93]),
      'text/html; charset=ISO-8859-1',
      '“',
      'windows-1252',
      'http',
    ],
    [
      'is UTF-8 in plain text that says nothing',
      bytes('ä<meta charset=koi8-r>'),
      'text/plain',
      'ä<meta charset=koi8-r>',
      'utf-8',
      'default',
    ],
    [
      'is not looked for past 1,024 bytes',
      bytes(' '.repeat(1_010), '<meta charset=utf-8>ä'),
      'text/html',
      /Ã¤$/,
      'windows-1252',
      'default',
    ],
    [
      'may be Ukrainian, with the letters that ICU lacks',
      bytes([0xae, 0xbe]),
      'text/html; charset=koi8-u',
      'ўЎ',
      'koi8-u',
      'http',
    ],
    [
      'may be Chinese',
      bytes([0xc4, 0xe3, 0xba, 0xc3, 0x81, 0x30, 0x84, 0x36, 0xa2, 0xe3]),
      'text/html; charset=gb2312',
      '你好¥€',
      'gbk',
      'http',
    ],
    [
      'may be Japanese',
      bytes([0x93, 0xfa, 0x96, 0x7b, 0xb1, 0x5c]),
      'text/html; charset=shift_jis',
      '日本ｱ\\',
      'shift_jis',
      'http',
    ],
    [
      'may be Korean',
      bytes('a', [0xb0, 0xa1], 'b'),
      'text/html; charset=euc-kr',
      'a가b',
      'euc-kr',
      'http',
    ],
    [
      'may be Taiwanese',
      bytes([0xa4, 0x40, 0xc6, 0x7e]),
      'text/html; charset=big5',
      '一籲',
      'big5',
      'http',
    ],
    [
      'keeps what is broken in UTF-8 visible',
      bytes([0x61, 0xff, 0x62]),
      'text/html; charset=utf-8',
      'a\ufffdb',
      'utf-8',
      'http',
    ],
  ])('%s', (_, body, contentType, text, encoding, from) => {
    const decoded = decodePage(body, contentType)
    expect(decoded).toMatchObject({ ok: true, encoding, from })
    if (decoded.ok) {
      if (typeof text === 'string') expect(decoded.text).toBe(text)
      else expect(decoded.text).toMatch(text)
    }
  })

  test.each([
    ['no known label', bytes('<meta charset=nonsense>'), 'text/html', 'unknown-charset'],
    [
      'no known label in the header of plain text',
      bytes('x'),
      'text/plain; charset=x',
      'unknown-charset',
    ],
    [
      'a label for which browsers show nothing',
      bytes('x'),
      'text/html; charset=iso-2022-kr',
      'unknown-charset',
    ],
    ['EUC-JP', bytes('x'), 'text/html; charset=euc-jp', 'unsupported-charset'],
    ['ISO-2022-JP', bytes('x'), 'text/html; charset=iso-2022-jp', 'unsupported-charset'],
    [
      'a Korean syllable of windows-949',
      bytes([0x81, 0x41]),
      'text/html; charset=euc-kr',
      'malformed',
    ],
    ['a Hong Kong character', bytes([0x87, 0x40]), 'text/html; charset=big5', 'malformed'],
    ['a broken pair', bytes([0xc4, 0x20]), 'text/html; charset=gbk', 'malformed'],
    ['half a pair at the end', bytes([0xc4]), 'text/html; charset=gbk', 'malformed'],
  ])('with %s is an error', (_, body, contentType, reason) => {
    expect(decodePage(body, contentType)).toEqual({ ok: false, reason })
  })

  test('is found or not, without an exception, whatever the bytes', () => {
    const tags = fc.constantFrom(
      '<meta ',
      'charset=',
      '"',
      "'",
      '<!--',
      '-->',
      '>',
      '<',
      '/',
      '<?xml encoding="',
    )
    const body = fc.array(fc.oneof(tags.map(utf8), fc.uint8Array({ maxLength: 9 })), {
      maxLength: 30,
    })
    fc.assert(
      fc.property(body, fc.string(), (parts, contentType) => {
        decodePage(bytes(...parts.map((part) => [...part])), contentType)
      }),
    )
  })
})
