import { sha256 } from '../crypto/digest.ts'
import { contentKind } from './content-kind.ts'
import { decodePage } from './decode.ts'
import { readFeed } from './feed.ts'
import {
  linkDigests,
  type Page,
  type PageDigests,
  pageDigests,
  readPage,
  readPlainPage,
} from './page.ts'
import { encodeSentenceList } from './sentence-list.ts'

/** A payload as everyone reads it again: the node, the server, the auditor. */
export interface ReadPayload {
  ok: true
  page: Page
  /** Binary sentence list, lib/protocol/README.md §8. */
  sentenceList: Uint8Array<ArrayBuffer>
  sentenceListDigest: Uint8Array
  digests: PageDigests
}

/**
 * Bytes to sentences and metadata. Depends on nothing but its arguments, which an observation
 * carries, so whoever holds the payload gets the same. HTML and feeds are read as such, PDF is not
 * read at all (its bytes are what is observed), everything else is plain text.
 *
 * @param type media type without parameters, lower case
 * @param charset of Content-Type, null when it named none
 * @param url final address of the page, canonical
 */
export function readPayload(
  payload: Uint8Array,
  as: { type: string; charset: string | null; url: string },
): ReadPayload | { ok: false; reason: 'undecodable' } {
  const page = pageOf(payload, as)
  if (page === null) return { ok: false, reason: 'undecodable' }
  const sentenceList = encodeSentenceList(page.sentences, linkDigests(page.links))
  return {
    ok: true,
    page,
    sentenceList,
    sentenceListDigest: sha256(sentenceList),
    digests: pageDigests(page),
  }
}

/** The decoded text of a payload; null when it does not decode. */
export function payloadText(
  payload: Uint8Array,
  { type, charset }: { type: string; charset: string | null },
): string | null {
  const kind = contentKind(type)
  const readAs = kind === 'html' || kind === 'feed' ? type : 'text/plain'
  // RFC 8259 §8.1, §11: JSON is UTF-8, and a charset parameter says nothing.
  const label = charset === null || kind === 'json' ? '' : `; charset="${charset}"`
  const decoded = decodePage(payload, `${readAs}${label}`)
  return decoded.ok ? decoded.text : null
}

function pageOf(
  payload: Uint8Array,
  as: { type: string; charset: string | null; url: string },
): Page | null {
  const kind = contentKind(as.type)
  if (kind === 'pdf') return readPlainPage('', as.url)
  const text = payloadText(payload, as)
  if (text === null) return null
  if (kind === 'html') return isBinary(text) ? null : readPage(text, as.url)
  return kind === 'feed' ? readFeed(text, as.url) : readPlainPage(text, as.url)
}

/** Enough to know a picture by, whatever its type says. UTF-16 code units. */
const HEAD = 8_192

/**
 * Whether this is no text that somebody wrote: of its head, more than one in fifty units are
 * controls that HTML has no use for. Pictures have one in ten, pages none, also those whose charset
 * is not what they say.
 */
function isBinary(text: string): boolean {
  const head = text.slice(0, HEAD)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  const controls = head.match(/[\0-\x08\x0e-\x1a\x1c-\x1f]/g)?.length ?? 0
  return 50 * controls > head.length
}
