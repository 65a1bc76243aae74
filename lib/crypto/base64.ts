/**
 * Base 64 as DSSE and C2SP notes use it: standard alphabet, padded (RFC 4648 §4).
 */
export function toBase64(bytes: Uint8Array): string {
  const text = encode(bytes, standardAlphabet)
  return text + '='.repeat(-text.length & 3)
}

/**
 * Decodes padded standard Base 64.
 *
 * One byte string has exactly one spelling: wrong or missing padding, white space, foreign
 * characters and non-zero trailing bits are refused (RFC 4648 §3.2, §3.3, §3.5), so a digest of the
 * text and a digest of the bytes stand for the same thing.
 *
 * @throws SyntaxError when the text is not canonical Base 64
 */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  if (text.length % 4 !== 0) throw new SyntaxError('base64: length is not a multiple of 4')
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0
  return decode(text.slice(0, text.length - padding), standardValues)
}

/** Base 64 for addresses and file names: URL alphabet, unpadded (RFC 4648 §5, §3.2). */
export function toBase64Url(bytes: Uint8Array): string {
  return encode(bytes, urlAlphabet)
}

/**
 * Decodes unpadded URL-safe Base 64, as strictly as `fromBase64`; padding is refused.
 *
 * @throws SyntaxError when the text is not canonical unpadded Base 64 of the URL alphabet
 */
export function fromBase64Url(text: string): Uint8Array<ArrayBuffer> {
  return decode(text, urlValues)
}

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
const standardAlphabet = `${letters}+/`
const urlAlphabet = `${letters}-_`
const standardValues = valuesOf(standardAlphabet)
const urlValues = valuesOf(urlAlphabet)

/** Six-bit value by character code; -1 for every other ASCII character. */
function valuesOf(alphabet: string): Int8Array {
  const values = new Int8Array(128).fill(-1)
  for (let value = 0; value < 64; value++) values[alphabet.charCodeAt(value)] = value
  return values
}

function encode(bytes: Uint8Array, alphabet: string): string {
  let text = ''
  let buffer = 0
  let bits = 0
  for (const byte of bytes) {
    // At most 5 bits wait here, so the buffer never exceeds 13 bits.
    buffer = ((buffer << 8) | byte) & 0x1fff
    bits += 8
    while (bits >= 6) {
      bits -= 6
      text += alphabet.charAt((buffer >> bits) & 63)
    }
  }
  return bits === 0 ? text : text + alphabet.charAt((buffer << (6 - bits)) & 63)
}

function decode(text: string, values: Int8Array): Uint8Array<ArrayBuffer> {
  if (text.length % 4 === 1) throw new SyntaxError('base64: a single character is left over')
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4))
  let buffer = 0
  let bits = 0
  let end = 0
  for (let at = 0; at < text.length; at++) {
    const value = values[text.charCodeAt(at)] ?? -1
    if (value < 0) throw new SyntaxError(`base64: unexpected character at ${at}`)
    buffer = ((buffer << 6) | value) & 0x3fff
    bits += 6
    if (bits >= 8) {
      bits -= 8
      bytes[end++] = buffer >> bits
    }
  }
  if ((buffer & ((1 << bits) - 1)) !== 0)
    throw new SyntaxError('base64: trailing bits are not zero')
  return bytes
}
