import { readPayload } from '../../../lib/capture/read-payload.ts'
import { rowText } from '../../../lib/capture/row-text.ts'
import { decodeSentenceList, type SentenceList } from '../../../lib/capture/sentence-list.ts'
import type { Sentence } from '../../../lib/capture/sentences.ts'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import type { FailureReason, FetchedObservation } from '../../../lib/protocol/observation.ts'
import { analyse } from '../../../server/verify/analyse.ts'
import { type Ask, type Decision, decide, type Settlement } from '../../../server/verify/decide.ts'
import type { Observer, PageAnalysis, TaskFacts } from '../../../server/verify/facts.ts'

export const pageUrl = 'https://barley.example/tea'

/** Somebody who fetched a page, and what it does when it is asked about it. */
export interface Witness {
  facts: Observer
  sentences: readonly Sentence[]
  list: SentenceList
  analysis: PageAnalysis
  /** What it never answers, although asked. */
  silentOn: readonly Ask['kind'][]
}

interface Said {
  seen?: Partial<FetchedObservation>
  silentOn?: readonly Ask['kind'][]
  /** Claims the list and metadata of this page instead of those of the one that it holds. */
  claims?: string
}

/** A witness of this HTML: every digest is what lib/capture makes of it. */
export function witness(lease: string, html: string, said: Said = {}): Witness {
  const payload = new TextEncoder().encode(html)
  const as = {
    type: said.seen?.type ?? 'text/html',
    charset: 'utf-8',
    url: said.seen?.url ?? pageUrl,
  }
  const read = readPayload(
    said.claims === undefined ? payload : new TextEncoder().encode(said.claims),
    as,
  )
  if (!read.ok) throw new Error(read.reason)
  const decoded = decodeSentenceList(read.sentenceList)
  if (!decoded.ok) throw new Error(decoded.reason)
  const { digests } = read
  return {
    sentences: read.page.sentences,
    list: decoded.list,
    analysis: analyse(payload, as),
    silentOn: said.silentOn ?? [],
    facts: {
      ...unheard(lease),
      observation: {
        version: 1,
        outcome: 'fetched',
        lease,
        hops: [],
        status: 200,
        headers: {},
        ...as,
        payload: { bytes: payload.length, digest: toBase64Url(sha256(payload)) },
        freshness: toBase64Url(sha256(lease)),
        sentences: {
          count: read.page.sentences.length,
          digest: toBase64Url(read.sentenceListDigest),
        },
        title: toBase64Url(digests.title),
        canonical: toBase64Url(digests.canonical),
        language: toBase64Url(digests.language),
        signals: toBase64Url(digests.signals),
        links: toBase64Url(digests.links),
        firstByteMs: 1,
        totalMs: 2,
        wireBytes: payload.length,
        ...said.seen,
      },
    },
  }
}

/** Somebody who got nothing. */
export function failedWitness(lease: string, reason: FailureReason): Witness {
  return {
    sentences: [],
    list: { sentences: [], links: [] },
    analysis: { ok: false, reason },
    silentOn: [],
    facts: {
      ...unheard(lease),
      observation: { version: 1, outcome: 'failed', lease, reason, totalMs: 1, wireBytes: 0 },
    },
  }
}

function unheard(lease: string): Omit<Observer, 'observation'> {
  return {
    lease,
    accountId: `account of ${lease}`,
    sentences: 'unasked',
    payload: 'unasked',
    attestations: new Map(),
    attestationsAsked: new Map(),
  }
}

export function task(witnesses: readonly Witness[], about: Partial<TaskFacts> = {}): TaskFacts {
  return {
    kind: 'page',
    url: pageUrl,
    use: 'research',
    hostSignals: [],
    quorum: 2,
    failures: 0,
    live: 0,
    available: 3,
    observers: witnesses.map((one) => one.facts),
    ...about,
  }
}

/** Decides again and again, and lets the witnesses answer what they are asked, until something else is needed. */
export function converse(
  witnesses: readonly Witness[],
  about: Partial<TaskFacts> = {},
  random: () => number = () => 0,
): { decision: Decision; asks: Ask[] } {
  const asks: Ask[] = []
  // Five witnesses, each asked for a list, a payload and a few texts.
  for (let round = 0; round < 40; round += 1) {
    const decision = decide(task(witnesses, about), random)
    if (decision.kind !== 'ask') return { decision, asks }
    for (const ask of decision.asks) {
      asks.push(ask)
      const asked = witnesses.find((one) => one.facts.lease === ask.lease)
      if (!asked) throw new Error(`${ask.lease} is nobody`)
      answer(asked, ask)
    }
  }
  throw new Error('the questions do not end')
}

/** The settlement that a conversation comes to. */
export function settlement(
  witnesses: readonly Witness[],
  about: Partial<TaskFacts> = {},
): Settlement & { invalid: readonly string[] } {
  const { decision } = converse(witnesses, about)
  if (decision.kind !== 'settle') throw new Error(`not settled: ${decision.kind}`)
  return { ...decision.settlement, invalid: decision.invalid }
}

function answer(asked: Witness, ask: Ask) {
  const silent = asked.silentOn.includes(ask.kind)
  const { facts } = asked
  switch (ask.kind) {
    case 'sentences':
      if (facts.sentences !== 'unasked') throw new Error('asked twice for a list')
      facts.sentences = silent ? 'gone' : asked.list
      return
    case 'payload':
      if (facts.payload !== 'unasked') throw new Error('asked twice for a payload')
      facts.payload = silent ? 'gone' : asked.analysis
      return
    case 'attest': {
      if (facts.attestationsAsked.has(ask.text)) throw new Error('asked twice for a signature')
      const row = rowText(asked.sentences, ask.indexes)
      const signs = !silent && row.ok && toBase64Url(sha256(row.text)) === ask.text
      facts.attestationsAsked = new Map([
        ...facts.attestationsAsked,
        [ask.text, signs ? 'asked' : 'gone'],
      ])
      if (signs) {
        facts.attestations = new Map([...facts.attestations, [ask.text, { gaps: row.gaps }]])
      }
      return
    }
  }
}
