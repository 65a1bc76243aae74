import type { SentenceList } from '../../lib/capture/sentence-list.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import type { Observation } from '../../lib/protocol/observation.ts'
import type { Signal } from '../../lib/protocol/release.ts'

/** What the server read in one payload. Bytes are as in the observation: base64url. */
export type PageAnalysis =
  | {
      ok: true
      /** Texts of all sentences, in order. */
      sentences: string[]
      /** Which of them are main text. */
      main: boolean[]
      list: Uint8Array
      listDigest: string
      count: number
      title: string | null
      /** Decoded text, only of plain text (robots.txt). */
      text: string | null
      canonical: string | null
      language: string | null
      signals: Signal[]
      /** Canonical, without nofollow. */
      links: string[]
      digests: {
        title: string
        canonical: string
        language: string
        signals: string
        links: string
      }
    }
  | { ok: false; reason: string }

/** Where a follow-up stands: never asked, asked, or nothing will come. */
export type Standing = 'unasked' | 'asked' | 'gone'

/** One observer of a task and everything it has said so far. */
export interface Observer {
  lease: string
  accountId: string
  observation: Observation
  sentences: SentenceList | Standing
  /** `asked` also while the payload is here and its analysis is not. */
  payload: PageAnalysis | Standing
  /** Attestations by text digest. */
  attestations: ReadonlyMap<string, { gaps: number }>
  /** Texts that it was asked to attest and has not: pending, or never will. */
  attestationsAsked: ReadonlyMap<string, 'asked' | 'gone'>
}

export interface TaskFacts {
  kind: 'page' | 'robots'
  url: string
  /** What the campaign gathers pages for. */
  use: Campaign['use']
  /** What robots.txt and the files beside it say on the use of this page, raw. */
  hostSignals: Signal[]
  quorum: number
  /** Visits in a row that brought nothing, before this one. */
  failures: number
  observers: Observer[]
  /** Leases that may still be answered. */
  live: number
  /** Other contributors, on network blocks of their own, who could be asked now. */
  available: number
}
