import type { RunnerState, WaitingReason } from '../consent/limits.ts'
import type { CapacityFailure } from '../meter/capacity-test.ts'
import type { Campaign } from '../protocol/campaign.ts'
import type { JournalEntry } from '../runner/ports.ts'

/** Names the state in one or two words. */
export function stateName(state: RunnerState): string {
  switch (state.kind) {
    case 'working':
      return 'Working'
    case 'waiting':
      return 'Waiting'
    case 'paused':
      return 'Paused'
    case 'capped':
      return 'Cap reached'
    case 'off':
      return 'Off'
  }
}

/** Says why the state is as it is, and what changes it. */
export function stateSentence(state: RunnerState): string {
  switch (state.kind) {
    case 'working':
      return state.inFlight === 1
        ? 'You share: 1 page is being fetched.'
        : `You share: ${state.inFlight} pages are being fetched.`
    case 'waiting':
      return waitingSentence[state.reason]
    case 'paused':
      return state.untilMs === null
        ? 'You paused. Nothing is fetched until you resume.'
        : `You paused until ${clock(state.untilMs)}.`
    case 'capped':
      return state.period === 'day'
        ? 'Today’s data cap is used up. Sharing goes on tomorrow (UTC).'
        : 'This month’s data cap is used up. Sharing goes on next month (UTC).'
    case 'off':
      return 'Nothing is shared.'
  }
}

const waitingSentence: Record<WaitingReason, string> = {
  'no-campaign': 'You agreed to no campaign yet. Join a network to choose one.',
  'no-work': 'Connected. No page is due right now; the server rings when one is.',
  'server-unreachable': 'The server does not answer. Gleaner tries again by itself.',
  offline: 'This device is offline. Sharing goes on when it is back.',
  'on-battery': 'This device runs on its battery. Sharing goes on when it is plugged in.',
  metered: 'The connection is metered or saves data. Sharing goes on on another one.',
  'not-idle': 'You are using the device. Sharing goes on when it is idle.',
  'quiet-hours': 'These are your quiet hours. Sharing goes on when they end.',
  'halted-by-operator': 'The operator stopped this work. You need to do nothing.',
  'server-refuses': 'The server refuses this installation. Ask the operator why.',
  'network-changed':
    'The server shows another key than the one you joined. Work stopped; ask the operator for a new link.',
}

/** What a result in the journal means. */
export function resultWords(entry: JournalEntry): string {
  const { result } = entry
  switch (result.kind) {
    case 'fetched':
      return `Fetched (${result.status})`
    case 'failed':
      return failureWords[result.reason]
    case 'refused':
      return `Refused: ${refusalWords[result.reason]}`
  }
}

const failureWords: Record<Extract<JournalEntry['result'], { kind: 'failed' }>['reason'], string> =
  {
    timeout: 'Took too long',
    'too-large': 'Too large',
    connection: 'No connection',
    'private-address': 'Stopped: private address',
    'redirect-limit': 'Too many redirects',
    'redirect-refused': 'Stopped: redirect outside the campaign',
    undecodable: 'Not decodable',
    'unsupported-type': 'Not a text page',
  }

const refusalWords: Record<Extract<JournalEntry['result'], { kind: 'refused' }>['reason'], string> =
  {
    'bad-signature': 'not signed by the operator',
    'not-consented': 'you did not agree to it',
    'out-of-scope': 'outside the campaign',
    'scheme-not-allowed': 'scheme not in the campaign',
    'port-not-allowed': 'unusual port',
    'host-not-public': 'not a public host',
    'over-limit': 'above the campaign’s limits',
    'site-rate': 'too fast for the site',
    paused: 'the operator paused it',
    'cap-reached': 'data cap reached',
    expired: 'too late',
    'consent-withdrawn': 'you withdrew',
    recalled: 'the site’s owner asked not to be read',
  }

/** The server's verdict, as far as it is told. */
export function verdictWords(entry: JournalEntry): string {
  const { outcome } = entry
  if (!outcome) return entry.result.kind === 'refused' ? '–' : 'Open'
  const words = {
    valid: outcome.grade === 'exact' ? 'Agreed exactly' : 'Agreed',
    invalid: 'Not confirmed',
    divergent: 'Sites differ',
    unpublished: 'Not published',
    unresolved: 'Unresolved',
  }[outcome.verdict]
  return outcome.duplicate ? `${words}, known already` : words
}

/** What the gathered pages are for. */
export const useWords: Record<Campaign['use'], string> = {
  research: 'Research',
  search: 'A search engine',
  'ai-training': 'Training of AI models',
  archive: 'An archive',
}

/** Why a measurement gave no number. */
export const meterFailureWords: Record<CapacityFailure, string> = {
  'no-session': 'the server did not know this device',
  busy: 'the server was busy',
  'rate-limited': 'it was too soon for another test',
  stalled: 'the line stalled',
  protocol: 'the server sent something unexpected',
  unavailable: 'the server offers no test',
  aborted: 'it was stopped',
  unreachable: 'the server could not be reached',
  'timed-out': 'it took too long',
  closed: 'the connection was closed',
  budget: 'its data budget was too small',
}

/** Bytes with a unit, powers of ten as on data plans. */
export function bytesWords(bytes: number): string {
  if (bytes < 1_000) return `${bytes} B`
  const units = ['kB', 'MB', 'GB', 'TB']
  let value = bytes
  let unit = 'B'
  for (const next of units) {
    if (value < 1_000) break
    value /= 1_000
    unit = next
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${unit}`
}

/** A rate of the line with its unit. */
export function rateWords(bitsPerSecond: number): string {
  const mbit = bitsPerSecond / 1_000_000
  return `${mbit < 10 ? mbit.toFixed(1) : Math.round(mbit)} Mbit/s`
}

/** Requests per second, in words a person reads without thinking. */
export function requestRateWords(requestsPerSecond: number): string {
  if (requestsPerSecond === 1) return '1 request a second'
  if (requestsPerSecond > 1) return `${requestsPerSecond} requests a second`
  return `1 request every ${Math.round(1 / requestsPerSecond)} seconds`
}

/** How long ago, coarsely. */
export function agoWords(atMs: number, nowMs: number): string {
  const minutes = Math.floor((nowMs - atMs) / 60_000)
  if (minutes < 1) return 'just now'
  if (minutes < 60) return `${minutes} min ago`
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return `${hours} h ago`
  return `${Math.floor(hours / 24)} days ago`
}

/** A number of points with its unit. */
export function pointsWords(points: number): string {
  return points === 1 ? '1 point' : `${points.toLocaleString('en')} points`
}

/** A number of days as people count retention. */
export function daysWords(days: number): string {
  if (days % 365 === 0) return days === 365 ? '1 year' : `${days / 365} years`
  return days === 1 ? '1 day' : `${days} days`
}

/** Hour and minute, local. */
export function clock(atMs: number): string {
  return new Date(atMs).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
}

/** Date and time to the second, local, sortable by eye. */
export function timestamp(atMs: number): string {
  const at = new Date(atMs)
  const two = (part: number) => String(part).padStart(2, '0')
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`
}
