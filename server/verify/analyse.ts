import { Readability } from '@mozilla/readability'
import { parseHTML } from 'linkedom'
import { contentBlocks } from '../../lib/capture/agreement.ts'
import { contentKind } from '../../lib/capture/content-kind.ts'
import { payloadText, readPayload } from '../../lib/capture/read-payload.ts'
import { extractSentences, type Sentence } from '../../lib/capture/sentences.ts'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import type { PageAnalysis } from './facts.ts'

/**
 * Everything that the server reads in a payload: the list and digests that the
 * observer must have sent, the sentences, and which of them are main text.
 * Runs in a worker thread that can be killed: hostile HTML is expected.
 */
export function analyse(
  payload: Uint8Array,
  as: { type: string; charset: string | null; url: string },
): PageAnalysis {
  const read = readPayload(payload, as)
  if (!read.ok) return { ok: false, reason: read.reason }
  const { page, digests } = read
  const kind = contentKind(as.type)
  return {
    ok: true,
    sentences: page.sentences.map((sentence) => sentence.text),
    main:
      kind === 'html'
        ? mainText(payloadText(payload, as) ?? '', page.sentences)
        : page.sentences.map(() => true),
    list: read.sentenceList,
    listDigest: toBase64Url(read.sentenceListDigest),
    count: page.sentences.length,
    // Servers label robots.txt carelessly: what nobody has a name for is text, too.
    text: kind === 'text' || kind === null ? payloadText(payload, as) : null,
    title: page.title,
    canonical: page.canonical,
    language: page.language,
    signals: page.signals.map(([source, name, value]) => ({ source, name, value })),
    links: page.links.filter((link) => !link.nofollow).map((link) => link.url),
    digests: {
      title: toBase64Url(digests.title),
      canonical: toBase64Url(digests.canonical),
      language: toBase64Url(digests.language),
      signals: toBase64Url(digests.signals),
      links: toBase64Url(digests.links),
    },
  }
}

/**
 * Which of the page's own sentences are main text: those that the extractor's
 * article contains, in order. Where it finds no article, the estimate that
 * needs no payload stands in.
 */
function mainText(html: string, sentences: readonly Sentence[]): boolean[] {
  const article = articleSentences(html)
  if (article === null) return contentBlocks(sentences)
  const main = inOrder(sentences, article)
  // Link lists and picture credits inside the article (text-pipeline filters): measured better without.
  const kept = main.map((is, i) => is && !isAside(sentences, i))
  return kept.filter(Boolean).length >= 0.3 * main.filter(Boolean).length ? kept : main
}

function articleSentences(html: string): Sentence[] | null {
  try {
    const { document } = parseHTML(html)
    const article = new Readability(
      document as unknown as ConstructorParameters<typeof Readability>[0],
      {
        maxElemsToParse: 100_000,
      },
    ).parse()
    if (!article?.content) return null
    return extractSentences(`<html><body>${article.content}</body></html>`).sentences
  } catch {
    // A page that the extractor cannot read still has sentences; the estimate takes over.
    return null
  }
}

/**
 * Marks sentences of the page that occur in the article in the same order.
 * Greedy from the front, looking ahead a bounded way: articles are
 * subsequences of their pages but for what the extractor moved.
 */
function inOrder(sentences: readonly Sentence[], article: readonly Sentence[]): boolean[] {
  const lookAhead = 400
  const main = sentences.map(() => false)
  const places = new Map<string, number[]>()
  for (const [i, sentence] of sentences.entries()) {
    const key = toBase64Url(sentence.digest)
    places.set(key, [...(places.get(key) ?? []), i])
  }
  let from = 0
  for (const sentence of article) {
    const at = (places.get(toBase64Url(sentence.digest)) ?? []).find(
      (i) => i >= from && (from === 0 || i < from + lookAhead),
    )
    if (at === undefined) continue
    main[at] = true
    from = at + 1
  }
  return main
}

function isAside(sentences: readonly Sentence[], i: number): boolean {
  const sentence = sentences[i]
  if (!sentence) return false
  if (sentence.role === 'caption') return true
  return sentence.linked && blockLength(sentences, i) < 200
}

function blockLength(sentences: readonly Sentence[], i: number): number {
  let first = i
  while (first > 0 && !sentences[first]?.startsBlock) first -= 1
  let length = sentences[first]?.length ?? 0
  for (let k = first + 1; k < sentences.length && !sentences[k]?.startsBlock; k += 1) {
    length += sentences[k]?.length ?? 0
  }
  return length
}
