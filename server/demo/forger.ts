import { extractSentences } from '../../lib/capture/sentences.ts'
import type { FetchHop, Hop } from '../../lib/runner/ports.ts'

/** What a forger has put into its observations. */
export interface Forgery {
  hop: FetchHop
  /** Sentences that no page of the site has. */
  sentences: ReadonlySet<string>
}

/**
 * Wraps a node's fetch so that it changes a digit on every page before the
 * honest code sees it. The rest of the node is unchanged: what it observes,
 * signs and sends fits together, and only other observers can tell.
 */
export function forgeDigits(hop: FetchHop): Forgery {
  const sentences = new Set<string>()
  return {
    sentences,
    hop: async (request): Promise<Hop> => {
      const honest = await hop(request)
      const isPage =
        honest.kind === 'response' &&
        honest.status === 200 &&
        honest.headers.get('content-type')?.startsWith('text/html')
      if (!isPage) return honest
      const parts: Uint8Array[] = []
      for await (const part of honest.body) parts.push(part)
      const html = Buffer.concat(parts).toString('utf8')
      const forged = withDigitChanged(html)
      for (const sentence of forged.sentences) sentences.add(sentence)
      return {
        ...honest,
        body: (async function* () {
          yield new TextEncoder().encode(forged.html)
        })(),
      }
    },
  }
}

/** Changes one digit in a sentence of running text, or adds one where there is none. */
export function withDigitChanged(html: string): { html: string; sentences: string[] } {
  const before = new Set(extractSentences(html).sentences.map((sentence) => sentence.text))
  for (const candidate of candidates(html)) {
    const after = extractSentences(candidate).sentences.map((sentence) => sentence.text)
    // Short ones, such as a lone number, occur elsewhere by chance and would prove nothing.
    const fresh = after.filter((text) => !before.has(text) && text.length >= 25)
    if (fresh.length > 0) return { html: candidate, sentences: fresh }
  }
  return { html, sentences: [] }
}

function* candidates(html: string): Generator<string> {
  const body = html.indexOf('</h1>')
  const digits = [...html.slice(Math.max(0, body)).matchAll(/(?<=>[^<>]{20,200})\d/g)].slice(0, 20)
  for (const match of digits) {
    const at = Math.max(0, body) + match.index
    yield `${html.slice(0, at)}${(Number(match[0]) + 1) % 10}${html.slice(at + 1)}`
  }
  const words = [...html.slice(Math.max(0, body)).matchAll(/(?<=<p>[^<>]{30,300}) (?=[a-z])/g)]
  const [first] = words
  if (first) {
    const at = Math.max(0, body) + first.index
    yield `${html.slice(0, at)} 7${html.slice(at)}`
  }
}
