import type { Requests } from '../browser/messages.ts'
import type { Campaign } from '../protocol/campaign.ts'

/** What pages need of the extension around them. Entry points hand it in; `lib/browser` has it. */
export interface Background {
  ask<K extends keyof Requests>(kind: K, given: Requests[K]['ask']): Promise<Requests[K]['answer']>
  /** Asks the browser for access to sites. Call it in the click, before any `await`. */
  requestOrigins(origins: string[], givenUp: AbortSignal): Promise<boolean>
  campaignOrigins(campaign: Pick<Campaign, 'sites' | 'wide'>): string[]
  serverOrigins(origin: string): string[]
  lab: boolean
}
