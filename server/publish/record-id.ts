import { createHash } from 'node:crypto'

/**
 * WARC-Record-ID derived from what the record is: the same record of the same facts has the same
 * name wherever and however often it is written, and no other has it.
 *
 * A version 8 UUID (RFC 9562 §5.8) from the first 16 bytes of SHA-256.
 *
 * @param subject what the record is about: a row's commitment, or a WARC file of a release
 */
export function recordId(type: string, subject: string): string {
  const bytes = createHash('sha256')
    .update(`gleaner warc record\n${type}\n${subject}`)
    .digest()
    .subarray(0, 16)
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x80
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  const groups = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ]
  return `<urn:uuid:${groups.join('-')}>`
}
