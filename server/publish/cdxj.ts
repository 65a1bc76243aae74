import * as z from 'zod/mini'
import { decodeUtf8, parseJson } from './parse-json.ts'
import type { RecordLocation } from './warc.ts'
import { decimal } from './warc-record.ts'

/** One record of the index: how a page is found by its address. */
export type CdxjEntry = {
  surt: string
  /** YYYY-MM-DD. */
  day: string
  url: string
  /** Media type of the response; `warc/revisit` for a revisit. */
  mime: string
  status: number
  /** `sha256:` and hex. */
  digest: string
  location: RecordLocation
}

/** Media type that CDX writers give a revisit. */
export const revisitMime = 'warc/revisit'

/**
 * A line of CDXJ 0.1.0 without its line feed. The timestamp has 14 digits as readers expect, the
 * time of day being 0: only the day is published. Numbers are strings, as pywb writes them.
 */
export function formatCdxj(entry: CdxjEntry): string {
  const { file, offset, length } = entry.location
  const fields = {
    url: entry.url,
    mime: entry.mime,
    status: String(entry.status),
    digest: entry.digest,
    length: String(length),
    offset: String(offset),
    filename: file,
  }
  return `${entry.surt} ${entry.day.replaceAll('-', '')}000000 ${JSON.stringify(fields)}`
}

/** Reads a line. Undefined when it is not one that `formatCdxj` could have written. */
export function parseCdxj(line: Uint8Array): CdxjEntry | undefined {
  const text = decodeUtf8(line)
  if (text === undefined) return undefined
  const parts = /^(\S+) (\d{4})(\d{2})(\d{2})000000 (\{.*\})$/.exec(text)
  if (parts === null) return undefined
  const [, surt = '', year, month, dayOfMonth, json = ''] = parts
  const fields = fieldsSchema.safeParse(parseJson(json)).data
  if (fields === undefined) return undefined
  const offset = decimal(fields.offset)
  const length = decimal(fields.length)
  if (offset === undefined || length === undefined) return undefined
  return {
    surt,
    day: `${year}-${month}-${dayOfMonth}`,
    url: fields.url,
    mime: fields.mime,
    status: Number(fields.status),
    digest: fields.digest,
    location: { file: fields.filename, offset, length },
  }
}

const short = z.string().check(z.maxLength(200))

const fieldsSchema = z.strictObject({
  url: z.string().check(z.maxLength(2048)),
  mime: short,
  status: z.string().check(z.regex(/^[1-9]\d{2}$/)),
  digest: z.string().check(z.regex(/^sha256:[0-9a-f]{64}$/)),
  length: short,
  offset: short,
  filename: short,
})
