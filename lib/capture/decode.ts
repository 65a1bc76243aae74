/** How a body became text, or why it did not. */
export type Decoded =
  | { ok: true; text: string; encoding: string; from: 'bom' | 'http' | 'meta' | 'default' }
  | { ok: false; reason: 'unknown-charset' | 'unsupported-charset' | 'malformed' }

/**
 * Bytes to text by the rules of WHATWG: byte order mark, then the charset of Content-Type, then, in
 * HTML, `<meta charset>` in the first 1,024 bytes; else windows-1252 for HTML and UTF-8 for the rest.
 * https://html.spec.whatwg.org/#determining-the-character-encoding
 * In XML the declaration stands in the place of meta (RFC 7303 §3).
 *
 * The text is the same in every engine, which takes more than calling TextDecoder: Node's, built on
 * ICU, differs from browsers in some legacy encodings (Node 20 even in windows-1252). So single-byte
 * tables are corrected here; multi-byte Chinese, Korean and Japanese bodies are read when they stay
 * in the part that engines agree on, and are otherwise `malformed` everywhere; EUC-JP and
 * ISO-2022-JP, where none was found, are `unsupported-charset`. UTF-8 and UTF-16 always decode, with
 * U+FFFD for what is broken.
 *
 * A label that nobody knows is passed over, as browsers do; it is `unknown-charset` only when
 * nothing else names an encoding.
 *
 * @param contentType the header as received, or empty
 */
export function decodePage(bytes: Uint8Array, contentType: string): Decoded {
  const mark = byteOrderMark(bytes)
  if (mark) return decodeAs(bytes.subarray(mark.length), mark.encoding, 'bom')

  const mediaType = contentType.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  let named = false
  const httpLabel = charsetIn(contentType)
  if (httpLabel !== null) {
    named = true
    const encoding = encodingOf(httpLabel)
    if (encoding !== null) return decodeAs(bytes, encoding, 'http')
  }
  if (mediaType !== 'text/plain') {
    const head = latin1(bytes.subarray(0, PRESCAN_BYTES))
    const found = isXml(mediaType) ? xmlDeclaration(head) : prescan(head)
    if (found.encoding !== null) return decodeAs(bytes, found.encoding, 'meta')
    named ||= found.named
  }
  if (named) return { ok: false, reason: 'unknown-charset' }
  const isHtml = mediaType === 'text/html' || mediaType === ''
  return decodeAs(bytes, isHtml ? 'windows-1252' : 'utf-8', 'default')
}

/** HTML Standard §13.2.3.2: a declaration must be complete within these. */
const PRESCAN_BYTES = 1_024

/** Where engines agree on every byte, or are made to below. */
const SINGLE_BYTE = new Set(
  `ibm866 iso-8859-2 iso-8859-3 iso-8859-4 iso-8859-5 iso-8859-6 iso-8859-7 iso-8859-8 iso-8859-8-i
  iso-8859-10 iso-8859-13 iso-8859-14 iso-8859-15 koi8-r koi8-u macintosh windows-874 windows-1250
  windows-1251 windows-1252 windows-1253 windows-1254 windows-1255 windows-1256 windows-1257
  windows-1258 x-mac-cyrillic`.split(/\s+/),
)

const UNICODE = new Set(['utf-8', 'utf-16le', 'utf-16be'])

/** A two-byte encoding and which pairs every engine reads alike. */
type IsPlainPair = (lead: number, trail: number) => boolean

const DOUBLE_BYTE: ReadonlyMap<string, IsPlainPair> = new Map<string, IsPlainPair>([
  ['gb18030', () => true],
  ['gbk', () => true],
  ['shift_jis', () => true],
  // KS X 1001 alone, without the euro and registered signs of its second edition: Node's ICU does
  // not know these nor the syllables that windows-949 added.
  [
    'euc-kr',
    (lead, trail) =>
      lead >= 0xa1 && trail >= 0xa1 && !(lead === 0xa2 && (trail === 0xe6 || trail === 0xe7)),
  ],
  // Big5 without the Hong Kong and ETEN extensions, which ICU maps to private use.
  [
    'big5',
    (lead, trail) =>
      lead >= 0xa1 && lead <= 0xf9 && lead !== 0xc6 && lead !== 0xc7 && lead !== 0xc8
        ? !(lead === 0xa3 && trail >= 0xc0) && !(lead === 0xf9 && trail === 0xfe)
        : lead === 0xc6 && trail <= 0x7e,
  ],
])

/** What a decoder makes of bytes that the encoding does not have: replacement, private use, controls. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: ICU swaps three of them in Shift_JIS
const UNCLEAN = /[\x1a\x1c\x7f-\x9f\ufffd\ue000-\uf8ff]|[\u{f0000}-\u{10ffff}]/u

/** Upper halves in which ICU and the WHATWG indexes differ, as [byte, code point]. */
const CORRECTIONS: Readonly<Record<string, readonly (readonly [number, number])[]>> = {
  'koi8-u': [
    [0xae, 0x45e],
    [0xbe, 0x40e],
  ],
  'windows-874': [0xdb, 0xdc, 0xdd, 0xde, 0xfc, 0xfd, 0xfe, 0xff].map((byte) => [byte, 0xfffd]),
  'windows-1252': [
    0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039,
    0x152, 0x8d, 0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc,
    0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178,
  ].map((codepoint, at) => [0x80 + at, codepoint]),
  'windows-1253': [[0xaa, 0xfffd]],
  'windows-1255': [[0xca, 0x5ba]],
}

function decodeAs(
  bytes: Uint8Array,
  encoding: string,
  from: 'bom' | 'http' | 'meta' | 'default',
): Decoded {
  if (UNICODE.has(encoding)) {
    const text = new TextDecoder(encoding, { ignoreBOM: true }).decode(bytes)
    return { ok: true, text, encoding, from }
  }
  if (SINGLE_BYTE.has(encoding)) {
    return { ok: true, text: decodeSingleByte(bytes, encoding), encoding, from }
  }
  const isPlain = DOUBLE_BYTE.get(encoding)
  if (!isPlain) return { ok: false, reason: 'unsupported-charset' }
  if (!isPlainText(bytes, isPlain)) return { ok: false, reason: 'malformed' }
  // WHATWG decodes GBK with the decoder of GB18030; ICU has an older one by that name.
  const text = new TextDecoder(encoding === 'gbk' ? 'gb18030' : encoding).decode(bytes)
  return UNCLEAN.test(text)
    ? { ok: false, reason: 'malformed' }
    : { ok: true, text, encoding, from }
}

function isPlainText(bytes: Uint8Array, isPlain: IsPlainPair): boolean {
  for (let at = 0; at < bytes.length; at++) {
    const lead = bytes[at] ?? 0
    if (lead < 0x80) continue
    // Shift_JIS and GB18030 have other lengths too; they take any pair, so the pace is no matter.
    at++
    if (!isPlain(lead, bytes[at] ?? 0)) return false
  }
  return true
}

function decodeSingleByte(bytes: Uint8Array, encoding: string): string {
  const upper = Uint8Array.from({ length: 128 }, (_, at) => 0x80 + at)
  const table = Array.from({ length: 128 }, (_, at) => at)
  for (const character of new TextDecoder(encoding).decode(upper)) {
    table.push(character.codePointAt(0) ?? 0xfffd)
  }
  for (const [byte, codepoint] of CORRECTIONS[encoding] ?? []) table[byte] = codepoint
  return fromCodes(bytes, (byte) => table[byte] ?? 0xfffd)
}

function latin1(bytes: Uint8Array): string {
  return fromCodes(bytes, (byte) => byte)
}

/** One UTF-16 code unit a byte. In pieces: an argument list has a limit. */
function fromCodes(bytes: Uint8Array, codeOf: (byte: number) => number): string {
  const pieces: string[] = []
  for (let at = 0; at < bytes.length; at += 8_192) {
    const piece = Uint16Array.from(bytes.subarray(at, at + 8_192), codeOf)
    pieces.push(String.fromCharCode(...piece))
  }
  return pieces.join('')
}

function byteOrderMark(bytes: Uint8Array): { encoding: string; length: number } | null {
  const [a, b, c] = bytes
  if (a === 0xef && b === 0xbb && c === 0xbf) return { encoding: 'utf-8', length: 3 }
  if (a === 0xfe && b === 0xff) return { encoding: 'utf-16be', length: 2 }
  if (a === 0xff && b === 0xfe) return { encoding: 'utf-16le', length: 2 }
  return null
}

/** The encoding a label means (https://encoding.spec.whatwg.org/#names-and-labels), if it is known everywhere. */
function encodingOf(label: string): string | null {
  let encoding: string
  try {
    encoding = new TextDecoder(label).encoding
  } catch {
    // The constructor's only failure is an unknown label, which is an answer here.
    return null
  }
  // Node does not know these two, so nobody does. The replacement encoding has no TextDecoder at all.
  return encoding === 'iso-8859-16' || encoding === 'x-user-defined' ? null : encoding
}

/** `charset=` in a Content-Type header or in the content of a meta element. */
function charsetIn(value: string): string | null {
  const match = /charset[\t\n\f\r ]*=[\t\n\f\r ]*(?:"([^"]*)"|'([^']*)'|([^\t\n\f\r ;"']+))/i.exec(
    value.slice(0, PRESCAN_BYTES),
  )
  return match ? (match[1] ?? match[2] ?? match[3] ?? null) : null
}

/** XML as such. XHTML is read as HTML, which looks for a meta element first. */
function isXml(mediaType: string): boolean {
  if (mediaType === 'application/xhtml+xml') return false
  return /^(?:text|application)\/(?:xml|.+\+xml)$/.test(mediaType)
}

/** The encoding of `<?xml encoding=…?>`; named is also one that nobody knows. */
function xmlDeclaration(head: string): { encoding: string | null; named: boolean } {
  const label = xmlLabel(head)
  if (label === null) return { encoding: null, named: false }
  const encoding = encodingOf(label)
  // As in HTML: who can read these bytes as ASCII does not have UTF-16 before him.
  return { encoding: encoding?.startsWith('utf-16') ? 'utf-8' : encoding, named: true }
}

function xmlLabel(head: string): string | null {
  const xml = /^<\?xml[^>]*?[\t\n\r ]encoding[\t\n\r ]*=[\t\n\r ]*["']([^"'>]*)["']/.exec(head)
  return xml?.[1] ?? null
}

/** HTML Standard, "prescan a byte stream to determine its encoding". */
function prescan(head: string): { encoding: string | null; named: boolean } {
  let named = false
  const take = (label: string | null): string | null => {
    if (label === null) return null
    named = true
    if (label.trim().toLowerCase() === 'x-user-defined') return 'windows-1252'
    const encoding = encodingOf(label)
    return encoding?.startsWith('utf-16') ? 'utf-8' : encoding
  }
  for (let at = head.indexOf('<'); at >= 0; at = head.indexOf('<', at)) {
    if (head.startsWith('<!--', at)) {
      const end = head.indexOf('-->', at + 2)
      if (end < 0) break
      at = end + 3
    } else if (/^<\/?[a-z]/i.test(head.slice(at, at + 3))) {
      const isMeta = /^<meta[\t\n\f\r /]/i.test(head.slice(at, at + 6))
      const tag = attributesAt(head, at)
      if (!tag) break
      const encoding = isMeta ? take(metaCharset(tag.attributes)) : null
      if (encoding !== null) return { encoding, named }
      at = tag.end
    } else if (/^<[!/?]/.test(head.slice(at, at + 2))) {
      const end = head.indexOf('>', at)
      if (end < 0) break
      at = end + 1
    } else {
      at++
    }
  }
  return { encoding: take(xmlLabel(head)), named }
}

function metaCharset(attributes: ReadonlyMap<string, string>): string | null {
  const charset = attributes.get('charset')
  if (charset !== undefined) return charset
  if (attributes.get('http-equiv')?.toLowerCase() !== 'content-type') return null
  return charsetIn(attributes.get('content') ?? '')
}

/** Attributes of the tag that begins at `at`; null when the tag does not end in time. */
function attributesAt(head: string, at: number) {
  const attributes = new Map<string, string>()
  const attribute =
    /[\t\n\f\r /]*(?:(>)|([^\t\n\f\r />][^\t\n\f\r />=]*)(?:[\t\n\f\r ]*=[\t\n\f\r ]*(?:"([^"]*)"|'([^']*)'|([^\t\n\f\r >"'][^\t\n\f\r >]*)?))?)/y
  const name = /<\/?[^\t\n\f\r />]*/y
  name.lastIndex = at
  name.test(head)
  attribute.lastIndex = name.lastIndex
  for (let match = attribute.exec(head); match; match = attribute.exec(head)) {
    if (match[1] !== undefined) return { attributes, end: attribute.lastIndex }
    const key = (match[2] ?? '').toLowerCase()
    if (!attributes.has(key)) attributes.set(key, match[3] ?? match[4] ?? match[5] ?? '')
  }
  return null
}
