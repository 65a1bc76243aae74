import { sha256 } from '../crypto/digest.ts'
import { type ListedSentence, MAX_SENTENCES, ROLES } from './sentences.ts'

/** What an observer keeps and, when asked, sends of a page: no text, only what can be compared. */
export interface SentenceList {
  sentences: ListedSentence[]
  /** 16-byte digests of the canonical URLs of the page's links, ascending, unique. */
  links: Uint8Array[]
}

export type DecodedSentenceList =
  | { ok: true; list: SentenceList }
  | { ok: false; reason: SentenceListFault }

export type SentenceListFault =
  | 'version'
  | 'length'
  | 'too-many-sentences'
  | 'too-many-links'
  | 'flags'
  | 'links-out-of-order'

const VERSION = 1

/** Bytes a sentence takes: digest, path, flags, length. */
const SENTENCE_BYTES = 16 + 4 + 1 + 2

/** Links listed of one page: what `page.ts` keeps. */
export const MAX_LINKS = 2_000

const ROLE_BITS = 0b0000_0111
const STARTS_BLOCK = 0b0000_1000
const SUSPICIOUS = 0b0001_0000
const LINKED = 0b0010_0000

/**
 * The binary sentence list, lib/protocol/README.md §8: little-endian, in columns so that gzip finds
 * the repetitions of each. The same list has exactly one encoding, so its digest names it.
 *
 * @param links 16-byte digests in any order, with or without repetition
 */
export function encodeSentenceList(
  sentences: readonly ListedSentence[],
  links: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const sorted = sortedUnique(links)
  const n = sentences.length
  const bytes = new Uint8Array(1 + 4 + n * SENTENCE_BYTES + 4 + sorted.length * 16)
  const view = new DataView(bytes.buffer)
  const at = columns(n)
  bytes[0] = VERSION
  view.setUint32(1, n, true)
  for (const [i, sentence] of sentences.entries()) {
    bytes.set(sentence.digest, at.digests + 16 * i)
    bytes.set(sentence.path, at.paths + 4 * i)
    bytes[at.flags + i] =
      ROLES.indexOf(sentence.role) |
      (sentence.startsBlock ? STARTS_BLOCK : 0) |
      (sentence.suspicious ? SUSPICIOUS : 0) |
      (sentence.linked ? LINKED : 0)
    view.setUint16(at.lengths + 2 * i, Math.min(sentence.length, 0xffff), true)
  }
  view.setUint32(at.links, sorted.length, true)
  for (const [i, link] of sorted.entries()) bytes.set(link, at.links + 4 + 16 * i)
  return bytes
}

/**
 * Reads a list that somebody sent. Strict: the length fits exactly, counts are within bounds, no
 * unknown role or bit is set, links ascend. What decodes encodes to the same bytes again. The
 * digests are views into `bytes`.
 */
export function decodeSentenceList(bytes: Uint8Array): DecodedSentenceList {
  if (bytes.length < 9) return fault('length')
  if (bytes[0] !== VERSION) return fault('version')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const n = view.getUint32(1, true)
  if (n > MAX_SENTENCES) return fault('too-many-sentences')
  const at = columns(n)
  if (bytes.length < at.links + 4) return fault('length')
  const m = view.getUint32(at.links, true)
  if (m > MAX_LINKS) return fault('too-many-links')
  if (bytes.length !== at.links + 4 + 16 * m) return fault('length')

  const sentences: ListedSentence[] = []
  for (let i = 0; i < n; i++) {
    const flags = bytes[at.flags + i] ?? 0
    const role = ROLES[flags & ROLE_BITS]
    if (role === undefined || flags >= 2 * LINKED) return fault('flags')
    sentences.push({
      digest: bytes.subarray(at.digests + 16 * i, at.digests + 16 * (i + 1)),
      path: bytes.subarray(at.paths + 4 * i, at.paths + 4 * (i + 1)),
      role,
      startsBlock: (flags & STARTS_BLOCK) !== 0,
      suspicious: (flags & SUSPICIOUS) !== 0,
      linked: (flags & LINKED) !== 0,
      length: view.getUint16(at.lengths + 2 * i, true),
    })
  }

  const links: Uint8Array[] = []
  for (let i = 0; i < m; i++) {
    const link = bytes.subarray(at.links + 4 + 16 * i, at.links + 4 + 16 * (i + 1))
    const previous = links.at(-1)
    if (previous && compareBytes(previous, link) >= 0) return fault('links-out-of-order')
    links.push(link)
  }
  return { ok: true, list: { sentences, links } }
}

/** SHA-256 of an encoded list, as an observation names it. */
export function sentenceListDigest(bytes: Uint8Array): Uint8Array {
  return sha256(bytes)
}

/** Where each column of a list of n sentences begins, in bytes. */
function columns(n: number) {
  const digests = 5
  const paths = digests + 16 * n
  const flags = paths + 4 * n
  const lengths = flags + n
  return { digests, paths, flags, lengths, links: lengths + 2 * n }
}

/** Byte strings in ascending order, each once. */
export function sortedUnique(strings: readonly Uint8Array[]): Uint8Array[] {
  const sorted = [...strings].sort(compareBytes)
  return sorted.filter((bytes, i) => {
    const previous = sorted[i - 1]
    return previous === undefined || compareBytes(previous, bytes) !== 0
  })
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

function fault(reason: SentenceListFault): DecodedSentenceList {
  return { ok: false, reason }
}
