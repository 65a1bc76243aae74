import { sha256 } from '../crypto/digest.ts'
import { decodePage } from './decode.ts'
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
 * carries, so whoever holds the payload gets the same. HTML is read as such, everything else as
 * plain text.
 *
 * @param type media type without parameters, lower case
 * @param charset of Content-Type, null when it named none
 * @param url final address of the page, canonical
 */
export function readPayload(
  payload: Uint8Array,
  { type, charset, url }: { type: string; charset: string | null; url: string },
): ReadPayload | { ok: false; reason: 'undecodable' } {
  const isHtml = type === 'text/html' || type === 'application/xhtml+xml'
  const readAs = isHtml ? type : 'text/plain'
  const decoded = decodePage(payload, charset === null ? readAs : `${readAs}; charset="${charset}"`)
  if (!decoded.ok) return { ok: false, reason: 'undecodable' }
  const page = isHtml ? readPage(decoded.text, url) : readPlainPage(decoded.text, url)
  const sentenceList = encodeSentenceList(page.sentences, linkDigests(page.links))
  return {
    ok: true,
    page,
    sentenceList,
    sentenceListDigest: sha256(sentenceList),
    digests: pageDigests(page),
  }
}
