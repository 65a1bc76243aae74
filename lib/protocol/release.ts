import * as z from 'zod/mini'
import { count, day, digest, envelope, instant, pageUrl, text } from './fields.ts'

/** One use signal as it was seen on the row's day, unparsed: where, which, what. */
export const signal = z.strictObject({
  source: z.enum(['header', 'meta', 'link', 'a', 'robots', 'tdmrep', 'rsl', 'ai-txt']),
  name: text(60),
  value: z.string().check(z.maxLength(256)),
})
export type Signal = z.infer<typeof signal>

/** Yes, no, or not said. */
const preference = z.enum(['y', 'n', 'unknown'])

/** What the log commits to for each published row. RFC 8785 JSON; only strings, integers, null and lists. */
export const row = z.strictObject({
  /** Agreement over the main text, in thousandths, rounded down. 1000 for `exact`. */
  agreementPermille: count,
  campaign: digest,
  day,
  /** True when an earlier row of the dataset has the same text. Its text is then null in the files. */
  duplicate: z.boolean(),
  gaps: count,
  grade: z.enum(['exact', 'sentences']),
  /** BCP 47, as two observers agree that the page states it. */
  language: z.nullable(text(35)),
  /** SHA-256 of the payload, only for `exact`. */
  payload: z.nullable(digest),
  quorum: count,
  /** SHA-256 of the robots.txt that allowed the fetch, null when the site has none. */
  robots: z.nullable(digest),
  signals: z.array(signal).check(z.maxLength(100)),
  status: count,
  /** SHA-256 of the UTF-8 text column. */
  text: digest,
  title: z.nullable(z.string().check(z.maxLength(1000))),
  type: text(100),
  url: pageUrl,
  /**
   * What the signals say together: never less restrictive than they are, unknown where they are
   * silent. Absent in rows that were committed before signals were parsed.
   */
  use: z.optional(
    z.strictObject({
      aiInput: preference,
      search: preference,
      tdm: preference,
      train: preference,
    }),
  ),
})
export type Row = z.infer<typeof row>

/** One line of attestations.jsonl.gz. */
export const attestedRow = z.strictObject({
  /** The exact bytes that were committed, as a string. */
  row: text(65536),
  /** 32 random bytes, base64url. */
  salt: digest,
  leafIndex: count,
  /** DSSE envelopes, each under another one-use key; at least `quorum` of them. */
  attestations: z.array(envelope).check(z.minLength(1), z.maxLength(5)),
  /** Where the text is: a conversion record, or for a duplicate the record of the first. */
  warc: z.strictObject({ file: text(200), offset: count, length: count }),
})
export type AttestedRow = z.infer<typeof attestedRow>

/** release.json. */
export const release = z.strictObject({
  version: z.literal(1),
  name: text(200),
  campaigns: z.array(digest).check(z.minLength(1), z.maxLength(100)),
  createdAt: instant,
  rows: count,
  duplicates: count,
  generator: text(100),
})
export type Release = z.infer<typeof release>
