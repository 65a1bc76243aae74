import { contentKind } from '../../lib/capture/content-kind.ts'
import { rowText } from '../../lib/capture/row-text.ts'
import { decodeSentenceList } from '../../lib/capture/sentence-list.ts'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import type { PageAnalysis } from './facts.ts'

export interface Selection {
  text: string
  textDigest: string
}

/** The row text of these places in the payload's sentences, or null when nothing is left to publish. */
export function selectText(
  analysis: Extract<PageAnalysis, { ok: true }>,
  indexes: readonly number[],
): Selection | null {
  const decoded = decodeSentenceList(analysis.list)
  if (!decoded.ok) throw new Error(`our own sentence list does not decode: ${decoded.reason}`)
  const sentences = decoded.list.sentences.map((sentence, i) => ({
    ...sentence,
    text: analysis.sentences[i] ?? '',
  }))
  const row = rowText(sentences, indexes)
  if (!row.ok) throw new Error(`our own indexes do not fit: ${row.reason}`)
  if (row.text.trim() === '') return null
  return { text: row.text, textDigest: toBase64Url(sha256(row.text)) }
}

/**
 * What is published of a payload that nobody reads, a PDF: no text, but bytes that the quorum
 * attests beside it. Null for every other kind, where no text means nothing to publish.
 */
export function selectBytes(type: string): Selection | null {
  return contentKind(type) === 'pdf' ? { text: '', textDigest: toBase64Url(sha256('')) } : null
}
