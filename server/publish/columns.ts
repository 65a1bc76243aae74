import {
  BIGINT,
  BOOLEAN,
  DOUBLE,
  DuckDBTimestampValue,
  type DuckDBType,
  type DuckDBValue,
  INTEGER,
  LIST,
  listValue,
  SMALLINT,
  STRUCT,
  structValue,
  TIMESTAMP,
  VARCHAR,
} from '@duckdb/node-api'
import { surt } from '../../lib/capture/surt.ts'
import { useOfRow } from '../../lib/capture/use-signals.ts'
import { fromBase64Url } from '../../lib/crypto/base64.ts'
import { toHex } from '../../lib/crypto/hex.ts'
import type { Row } from '../../lib/protocol/release.ts'
import { hostParts } from './public-suffix.ts'
import type { RecordLocation } from './warc.ts'

/** Everything that a row of the Parquet file says, before it is spread over columns. */
export type ColumnFacts = {
  row: Row
  release: string
  /** SHA-256(salt ‖ row), hex. */
  commitment: string
  leafIndex: number
  attestations: number
  warc: RecordLocation
  /** Null for a duplicate. */
  text: string | null
}

export type Column = {
  name: string
  type: DuckDBType
  /** For the card and the specification. */
  meaning: string
  /**
   * Rests on a list or rule that changes with the years (public suffixes, sort keys), so it is a
   * convenience for look-ups that no verifier compares.
   */
  lookup?: true
  value: (facts: ColumnFacts, url: URL) => DuckDBValue
}

/** The columns of the Parquet file, in order. */
export const columns: readonly Column[] = [
  {
    name: 'id',
    type: VARCHAR,
    meaning: 'the row’s commitment in the log, SHA-256(salt ‖ row), lower-case hex',
    value: ({ commitment }) => commitment,
  },
  {
    name: 'text',
    type: VARCHAR,
    meaning: 'the attested text; null when `duplicate`',
    value: ({ text }) => text,
  },
  {
    name: 'url',
    type: VARCHAR,
    meaning: 'canonical address',
    value: ({ row }) => row.url,
  },
  {
    name: 'title',
    type: VARCHAR,
    meaning: 'title as two observers agree; may be null',
    value: ({ row }) => row.title,
  },
  {
    name: 'language',
    type: VARCHAR,
    meaning: 'BCP 47 tag that the page states; may be null',
    value: ({ row }) => row.language,
  },
  {
    name: 'date',
    type: VARCHAR,
    meaning: 'day of the fetch, UTC, `YYYY-MM-DD`',
    value: ({ row }) => row.day,
  },
  {
    name: 'dump',
    type: VARCHAR,
    meaning: 'name of the release',
    value: ({ release }) => release,
  },
  {
    name: 'file_path',
    type: VARCHAR,
    meaning: 'same as `warc_filename`',
    value: ({ warc }) => warc.file,
  },
  {
    name: 'token_count',
    type: BIGINT,
    meaning:
      'words: runs of characters other than space and line feed (no model’s tokens); null when `text` is',
    value: ({ text }) => (text === null ? null : BigInt(wordCount(text))),
  },
  {
    name: 'grade',
    type: VARCHAR,
    meaning:
      '`exact`: all observers got the same bytes; `sentences`: they agree on these sentences',
    value: ({ row }) => row.grade,
  },
  {
    name: 'agreement',
    type: DOUBLE,
    meaning: '`agreementPermille` / 1000',
    value: ({ row }) => row.agreementPermille / 1000,
  },
  {
    name: 'gaps',
    type: BIGINT,
    meaning: 'sentences left out inside published blocks, the most that a signer counted',
    value: ({ row }) => BigInt(row.gaps),
  },
  {
    name: 'quorum',
    type: INTEGER,
    meaning: 'observers that had to agree',
    value: ({ row }) => row.quorum,
  },
  {
    name: 'attestations',
    type: INTEGER,
    meaning: 'observers that signed this text for this address and day',
    value: ({ attestations }) => attestations,
  },
  {
    name: 'use_signals',
    type: LIST(STRUCT({ source: VARCHAR, name: VARCHAR, value: VARCHAR })),
    meaning: 'what the site says on use, unparsed, as seen on `date`',
    value: ({ row }) =>
      listValue(row.signals.map(({ source, name, value }) => structValue({ source, name, value }))),
  },
  {
    name: 'use_train',
    type: VARCHAR,
    meaning: '`y`, `n` or `unknown`: training of models, by all signals together',
    value: ({ row }) => useOfRow(row).train,
  },
  {
    name: 'use_search',
    type: VARCHAR,
    meaning: 'the same of search',
    value: ({ row }) => useOfRow(row).search,
  },
  {
    name: 'use_ai_input',
    type: VARCHAR,
    meaning: 'the same of grounding a model’s answers',
    value: ({ row }) => useOfRow(row).aiInput,
  },
  {
    name: 'use_tdm',
    type: VARCHAR,
    meaning: 'the same of text and data mining',
    value: ({ row }) => useOfRow(row).tdm,
  },
  {
    name: 'duplicate',
    type: BOOLEAN,
    meaning: 'an earlier row has the same text, or, where the text is empty, the same payload',
    value: ({ row }) => row.duplicate,
  },
  {
    name: 'text_sha256',
    type: VARCHAR,
    meaning: 'SHA-256 of the UTF-8 text, lower-case hex: equal for a duplicate and its first',
    value: ({ row }) => hexOf(row.text),
  },
  {
    name: 'robots_sha256',
    type: VARCHAR,
    meaning: 'SHA-256 of the robots.txt that allowed the fetch; null when the site has none',
    value: ({ row }) => (row.robots === null ? null : hexOf(row.robots)),
  },
  {
    name: 'campaign',
    type: VARCHAR,
    meaning: 'SHA-256 of the campaign manifest, base64url',
    value: ({ row }) => row.campaign,
  },
  {
    name: 'leaf_index',
    type: BIGINT,
    meaning: 'place of the commitment in the log',
    value: ({ leafIndex }) => BigInt(leafIndex),
  },
  {
    name: 'url_surtkey',
    type: VARCHAR,
    meaning: 'sort key of the address, as in `warc/index.cdxj`',
    lookup: true,
    value: ({ row }) => surt(row.url),
  },
  {
    name: 'url_host_name',
    type: VARCHAR,
    meaning: 'host',
    value: (_, url) => url.hostname,
  },
  {
    name: 'url_host_tld',
    type: VARCHAR,
    meaning:
      'last label of the host; this and the other host parts are null for an address literal',
    value: (_, url) => hostParts(url.hostname).tld,
  },
  {
    name: 'url_host_2nd_last_part',
    type: VARCHAR,
    meaning: 'label before it',
    value: (_, url) => hostParts(url.hostname).secondLast,
  },
  {
    name: 'url_host_3rd_last_part',
    type: VARCHAR,
    meaning: 'label before it',
    value: (_, url) => hostParts(url.hostname).thirdLast,
  },
  {
    name: 'url_host_4th_last_part',
    type: VARCHAR,
    meaning: 'label before it',
    value: (_, url) => hostParts(url.hostname).fourthLast,
  },
  {
    name: 'url_host_5th_last_part',
    type: VARCHAR,
    meaning: 'label before it',
    value: (_, url) => hostParts(url.hostname).fifthLast,
  },
  {
    name: 'url_host_registry_suffix',
    type: VARCHAR,
    meaning: 'public suffix, ICANN section',
    lookup: true,
    value: (_, url) => hostParts(url.hostname).registrySuffix,
  },
  {
    name: 'url_host_registered_domain',
    type: VARCHAR,
    meaning: 'domain below it',
    lookup: true,
    value: (_, url) => hostParts(url.hostname).registeredDomain,
  },
  {
    name: 'url_host_private_suffix',
    type: VARCHAR,
    meaning: 'public suffix, both sections',
    lookup: true,
    value: (_, url) => hostParts(url.hostname).privateSuffix,
  },
  {
    name: 'url_host_private_domain',
    type: VARCHAR,
    meaning: 'domain below it',
    lookup: true,
    value: (_, url) => hostParts(url.hostname).privateDomain,
  },
  {
    name: 'url_host_name_reversed',
    type: VARCHAR,
    meaning: 'labels in reverse order; an address literal as it is',
    value: (_, url) => hostParts(url.hostname).reversed,
  },
  {
    name: 'url_protocol',
    type: VARCHAR,
    meaning: '`https` or `http`',
    value: (_, url) => url.protocol.slice(0, -1),
  },
  {
    name: 'url_port',
    type: INTEGER,
    meaning: 'null for the default port',
    value: (_, url) => (url.port === '' ? null : Number(url.port)),
  },
  {
    name: 'url_path',
    type: VARCHAR,
    meaning: 'path',
    value: (_, url) => url.pathname,
  },
  {
    name: 'url_query',
    type: VARCHAR,
    meaning: 'what follows `?`; null without one',
    value: (_, url) => (url.search === '' ? null : url.search.slice(1)),
  },
  {
    name: 'fetch_time',
    type: TIMESTAMP,
    meaning: 'midnight, UTC, of `date`: exact times are not published',
    value: ({ row }) => new DuckDBTimestampValue(BigInt(Date.parse(row.day)) * 1000n),
  },
  {
    name: 'fetch_status',
    type: SMALLINT,
    meaning: 'HTTP status',
    value: ({ row }) => row.status,
  },
  {
    name: 'content_digest',
    type: VARCHAR,
    meaning: 'SHA-256 of the payload, lower-case hex; null unless `exact`',
    value: ({ row }) => (row.payload === null ? null : hexOf(row.payload)),
  },
  {
    name: 'content_mime_type',
    type: VARCHAR,
    meaning: 'media type of the response',
    value: ({ row }) => row.type,
  },
  {
    name: 'warc_filename',
    type: VARCHAR,
    meaning: 'file with the conversion record (the text); for a duplicate, that of the first',
    value: ({ warc }) => warc.file,
  },
  {
    name: 'warc_record_offset',
    type: BIGINT,
    meaning: 'first byte of its gzip member',
    value: ({ warc }) => BigInt(warc.offset),
  },
  {
    name: 'warc_record_length',
    type: BIGINT,
    meaning: 'bytes of its gzip member',
    value: ({ warc }) => BigInt(warc.length),
  },
  {
    name: 'crawl',
    type: VARCHAR,
    meaning: 'same as `dump`',
    value: ({ release }) => release,
  },
  {
    name: 'subset',
    type: VARCHAR,
    meaning: '`warc`',
    value: () => 'warc',
  },
]

/** The cells of one row, in the order of `columns`. */
export function cellsOf(facts: ColumnFacts): DuckDBValue[] {
  const url = new URL(facts.row.url)
  return columns.map(({ value }) => value(facts, url))
}

/** Runs of characters other than space and line feed, the only white space in a row text. */
function wordCount(text: string): number {
  return text.match(/[^ \n]+/g)?.length ?? 0
}

function hexOf(digest: string): string {
  return toHex(fromBase64Url(digest))
}
