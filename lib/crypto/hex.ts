/** Lower-case Base 16 (RFC 4648 §8), two characters a byte. */
export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0')
  return text
}

/**
 * Decodes lower-case Base 16. Capitals are refused, so that equal bytes have equal text.
 *
 * @throws SyntaxError on an odd length or any character outside `0-9a-f`
 */
export function fromHex(text: string): Uint8Array<ArrayBuffer> {
  if (text.length % 2 !== 0 || /[^0-9a-f]/.test(text)) {
    throw new SyntaxError('hex: not an even number of characters from 0-9a-f')
  }
  const bytes = new Uint8Array(text.length / 2)
  for (let at = 0; at < bytes.length; at++) {
    bytes[at] = Number.parseInt(text.slice(at * 2, at * 2 + 2), 16)
  }
  return bytes
}
