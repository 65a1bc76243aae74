import { browser } from 'wxt/browser'
import type { RunnerState } from '../consent/limits.ts'
import type { Campaign } from '../protocol/campaign.ts'
import type { AccountBalance } from '../protocol/outcome.ts'
import type { JournalEntry } from '../runner/ports.ts'
import type { MeterRecord } from './line-meter.ts'
import type { JournalQuery } from './store.ts'

/** All that a page shows of this installation. */
export interface Overview {
  /** Why this browser cannot be used, in words, or null. */
  unsupported: string | null
  terms: 'unasked' | 'yes' | 'no'
  state: RunnerState
  networks: NetworkView[]
  today: { bytesUp: number; bytesDown: number; capBytes: number }
  meter: Pick<MeterRecord, 'last' | 'failure'> | null
}

export interface NetworkView {
  fingerprint: string
  origin: string
  name: string
  operator: { name: string; contact: string }
  /** As the server last told; null before it did. */
  points: (AccountBalance & { atMs: number }) | null
  campaigns: AgreedCampaign[]
}

export interface AgreedCampaign {
  digest: string
  campaign: Campaign
  givenAt: string
}

/** A campaign that passed every check and may be agreed to, or one that did not and says why. */
export type OfferView =
  | { ok: true; digest: string; campaign: Campaign; agreed: boolean }
  | { ok: false; title: string | null; sentence: string }

/** A network and what it offers, or a sentence for the person. */
export type NetworkAnswer =
  | { ok: true; network: NetworkView; offers: OfferView[] }
  | { ok: false; sentence: string }

/** What pages ask of the background, by name. */
export interface Requests {
  overview: { ask: null; answer: Overview }
  'answer-terms': { ask: 'yes' | 'no'; answer: Overview }
  /** Needs the host permission for the server. Stores the network, contacts it, agrees to nothing. */
  'join-network': { ask: { link: string }; answer: NetworkAnswer }
  offers: { ask: { network: string }; answer: NetworkAnswer }
  /** `act` is what the person pressed, in words, for the receipt. */
  agree: { ask: { network: string; digest: string; act: string }; answer: NetworkAnswer }
  withdraw: { ask: { network: string; digest: string; act: string }; answer: NetworkAnswer }
  leave: { ask: { network: string }; answer: Overview }
  pause: { ask: null; answer: Overview }
  resume: { ask: null; answer: Overview }
  journal: { ask: JournalQuery; answer: JournalEntry[] }
  'delete-journal': { ask: null; answer: null }
}

export type Handlers = {
  [K in keyof Requests]: (ask: Requests[K]['ask']) => Promise<Requests[K]['answer']>
}

/** Asks the background, waking it when it sleeps. Rejects with the background's error message. */
export async function ask<K extends keyof Requests>(
  kind: K,
  given: Requests[K]['ask'],
): Promise<Requests[K]['answer']> {
  const answer = (await browser.runtime.sendMessage({ kind, given })) as
    | { ok: true; value: Requests[K]['answer'] }
    | { ok: false; message: string }
  if (!answer.ok) throw new Error(answer.message)
  return answer.value
}

/**
 * Answers pages of this extension. Call once and at once at start. Nobody else can send: there are
 * no content scripts, and no site is externally connectable.
 */
export function answerRequests(handlers: Handlers): void {
  browser.runtime.onMessage.addListener((message: unknown) => {
    if (!isRequest(message, handlers)) return undefined
    return answer(handlers, message)
  })
}

type Request<K extends keyof Requests = keyof Requests> = { kind: K; given: Requests[K]['ask'] }

async function answer<K extends keyof Requests>(handlers: Handlers, { kind, given }: Request<K>) {
  try {
    return { ok: true, value: await handlers[kind](given) }
  } catch (error) {
    // Browsers disagree on how much of an error a message carries, so it travels as text.
    console.error(`gleaner: ${kind}`, error)
    return { ok: false, message: error instanceof Error ? error.message : String(error) }
  }
}

function isRequest(message: unknown, handlers: Handlers): message is Request {
  return (
    typeof message === 'object' &&
    message !== null &&
    'kind' in message &&
    typeof message.kind === 'string' &&
    Object.hasOwn(handlers, message.kind)
  )
}
