import { createHash } from 'node:crypto'
import { gzipMember } from './gzip-member.ts'
import { decodeUtf8 } from './parse-json.ts'

/** A WARC 1.1 record: named fields in order, and its block. Content-Length is added when written. */
export type WarcRecord = {
  fields: readonly (readonly [name: string, value: string])[]
  block: Uint8Array
}

/** A record that was read. Fields in their order, by names as they stand there. */
export type ParsedRecord = { fields: ReadonlyMap<string, string>; block: Buffer }

/** A record as one gzip member. */
export function encodeRecord({ fields, block }: WarcRecord): Buffer {
  const lines = [...fields, ['Content-Length', String(block.length)] as const].map(
    ([name, value]) => {
      // A line feed here would let a value write fields of its own.
      if (hasControl(value)) throw new Error(`warc: control character in ${name}`)
      return `${name}: ${value}\r\n`
    },
  )
  return gzipMember(
    Buffer.concat([
      Buffer.from(`WARC/1.1\r\n${lines.join('')}\r\n`),
      block,
      Buffer.from(crlfTwice),
    ]),
  )
}

/** Takes an unpacked record apart. Undefined unless the bytes are one record and nothing else. */
export function parseRecord(bytes: Buffer): ParsedRecord | undefined {
  const headEnd = bytes.indexOf(crlfTwice)
  if (headEnd < 0 || headEnd > maxHeadBytes) return undefined
  const head = decodeUtf8(bytes.subarray(0, headEnd))
  const fields = head === undefined ? undefined : parseFields(head)
  const length = decimal(fields?.get('Content-Length'))
  if (fields === undefined || length === undefined) return undefined
  // WARC 1.1 §5: these are mandatory, as is Content-Length.
  if (!['WARC-Type', 'WARC-Record-ID', 'WARC-Date'].every((name) => fields.has(name))) {
    return undefined
  }
  const start = headEnd + crlfTwice.length
  const end = start + length
  if (bytes.toString('latin1', end) !== crlfTwice) return undefined
  return { fields, block: bytes.subarray(start, end) }
}

/** `sha256:` and lower-case hex, as every digest in our WARC and CDXJ files is written. */
export function labelledDigest(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** The body after an HTTP head. Undefined when there is no end of a head. */
export function httpBody(block: Buffer): Buffer | undefined {
  const end = block.indexOf(crlfTwice)
  return end < 0 ? undefined : block.subarray(end + crlfTwice.length)
}

/** Non-negative decimal without leading zeros, below 2^53. */
export function decimal(text: string | undefined): number | undefined {
  if (text === undefined || !/^(0|[1-9][0-9]{0,15})$/.test(text)) return undefined
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : undefined
}

/** C0, DEL and C1 controls. */
export function hasControl(text: string): boolean {
  return /\p{Cc}/u.test(text)
}

const crlfTwice = '\r\n\r\n'
// Two addresses of 2,048 bytes and a dozen short fields.
const maxHeadBytes = 16 * 1024

function parseFields(head: string): Map<string, string> | undefined {
  const [version, ...lines] = head.split('\r\n')
  if (version !== 'WARC/1.1') return undefined
  const fields = new Map<string, string>()
  for (const line of lines) {
    const parts = /^([A-Za-z0-9-]+): (.*)$/.exec(line)
    const name = parts?.[1]
    const value = parts?.[2]
    // No field that we write may occur twice, so a second one is somebody's trick.
    if (name === undefined || value === undefined || fields.has(name) || hasControl(value)) {
      return undefined
    }
    fields.set(name, value)
  }
  return fields
}
