import * as z from 'zod/mini'
import type { Site } from '../protocol/campaign.ts'

const minuteOfDay = z.int().check(z.minimum(0), z.maximum(1439))
// Below 1 MB no page fits; above 1 TB a typing error is likelier than a wish.
const byteCap = z.int().check(z.minimum(1_000_000), z.maximum(1_000_000_000_000))

/** What the person allows. Stored on the device and parsed by this schema each time it is read. */
export const limits = z.strictObject({
  /** Both directions together, per UTC day. */
  bytesPerDay: byteCap,
  /** Both directions together, per UTC month. */
  bytesPerMonth: byteCap,
  /** Minutes since local midnight, from included, to excluded; may pass midnight. Null: none. */
  quietHours: z.nullable(z.strictObject({ fromMinute: minuteOfDay, toMinute: minuteOfDay })),
  /** Whether to work while the device runs on its battery. */
  onBattery: z.boolean(),
  /** Whether to work on a connection that the platform calls metered. */
  onMetered: z.boolean(),
  /** Whether to work while the person uses the device. */
  whileInUse: z.boolean(),
  // 4 to 8 pages at once is where a browser's throughput ends (feasibility notes, row 9).
  fetchesAtOnce: z.int().check(z.minimum(1), z.maximum(8)),
})
export type Limits = z.infer<typeof limits>

/** Careful enough for someone who never opens the settings. */
export const defaultLimits: Limits = {
  bytesPerDay: 100_000_000,
  bytesPerMonth: 1_000_000_000,
  quietHours: null,
  onBattery: false,
  onMetered: false,
  whileInUse: true,
  fetchesAtOnce: 4,
}

/** The person pressed pause: until then, or until they resume when null. */
export interface Pause {
  untilMs: number | null
}

/** What the limits look at. `null` means that the platform does not say, and then does not stop work. */
export interface DeviceState {
  onBattery: boolean | null
  metered: boolean | null
  idle: boolean | null
  online: boolean | null
}

/** Bytes moved for sites and servers together, per UTC day `YYYY-MM-DD`. */
export interface Usage {
  day: string
  bytesUp: number
  bytesDown: number
}

/** Why nothing is fetched although the person has paused nothing and no cap is reached. */
export type WaitingReason =
  | 'no-campaign'
  | 'no-work'
  | 'server-unreachable'
  | 'offline'
  | 'on-battery'
  | 'metered'
  | 'not-idle'
  | 'quiet-hours'
  | 'halted-by-operator'
  | 'server-refuses'
  /** The server no longer shows the key that the join link pinned. */
  | 'network-changed'

/** The one truthful state, in the words the person sees. */
export type RunnerState =
  | { kind: 'working'; inFlight: number }
  | { kind: 'waiting'; reason: WaitingReason }
  | { kind: 'paused'; untilMs: number | null }
  | { kind: 'capped'; period: 'day' | 'month' }
  | { kind: 'off' }

export interface WorkFacts {
  nowMs: number
  /** Minutes since local midnight. */
  localMinute: number
  pause: Pause | null
  device: DeviceState
  /** At least every day of this UTC month that has usage. Others are ignored. */
  usage: readonly Usage[]
}

export type MayWork =
  | {
      ok: true
      bytesLeft: number
      /** The cap that leaves the least, and when it begins anew. */
      tightest: 'day' | 'month'
      freshMs: number
    }
  | {
      ok: false
      state: Extract<RunnerState, { kind: 'paused' | 'capped' | 'waiting' }>
      /** When the answer changes by the clock alone; null when something else must change. */
      untilMs: number | null
    }

/** Says whether this device may do anything for a campaign now, and how many bytes are left. */
export function mayWork(limits: Limits, facts: WorkFacts): MayWork {
  const { nowMs, pause, device } = facts
  if (pause !== null && (pause.untilMs === null || pause.untilMs > nowMs)) {
    return { ok: false, state: { kind: 'paused', untilMs: pause.untilMs }, untilMs: pause.untilMs }
  }
  if (device.online === false) return waiting('offline')

  const today = utcDay(nowMs)
  const usedToday = bytesOf(facts.usage.filter((usage) => usage.day === today))
  const usedThisMonth = bytesOf(facts.usage.filter((usage) => sameMonth(usage.day, today)))
  // The month first: it is the longer wait, and saying "tomorrow" would be untrue.
  if (usedThisMonth >= limits.bytesPerMonth) return capped('month', nowMs)
  if (usedToday >= limits.bytesPerDay) return capped('day', nowMs)

  const quietMinutes = minutesUntilQuietEnds(limits.quietHours, facts.localMinute)
  if (quietMinutes !== null) return waiting('quiet-hours', nowMs + quietMinutes * 60_000)
  if (device.onBattery === true && !limits.onBattery) return waiting('on-battery')
  if (device.metered === true && !limits.onMetered) return waiting('metered')
  if (device.idle === false && !limits.whileInUse) return waiting('not-idle')

  const leftToday = limits.bytesPerDay - usedToday
  const leftThisMonth = limits.bytesPerMonth - usedThisMonth
  const tightest = leftThisMonth <= leftToday ? 'month' : 'day'
  return {
    ok: true,
    bytesLeft: Math.min(leftToday, leftThisMonth),
    tightest,
    freshMs: periodEndMs(tightest, nowMs),
  }
}

export interface FetchFacts {
  nowMs: number
  fetchesAtOnce: number
  /** What `mayWork` left. */
  bytesLeft: number
  /** Decoded ceiling of this page: it is set aside whole, so that a cap is never passed. */
  maxBytes: number
  /** Ceilings of the pages in flight together. */
  reservedBytes: number
  inFlight: number
  inFlightAtSite: number
  /** When this device last began a request to the site; null when it has not since it started. */
  lastStartAtSiteMs: number | null
}

export type MayFetch =
  | { ok: true }
  | { ok: false; reason: 'busy' | 'site-busy' | 'cap-reached' }
  | { ok: false; reason: 'site-rate'; untilMs: number }

/** Says whether one more page of this site may be fetched now. */
export function mayFetch(
  site: Pick<Site, 'requestsPerSecond' | 'requestsInFlight'>,
  facts: FetchFacts,
): MayFetch {
  if (facts.inFlight >= facts.fetchesAtOnce) return { ok: false, reason: 'busy' }
  if (facts.inFlightAtSite >= site.requestsInFlight) return { ok: false, reason: 'site-busy' }
  if (facts.reservedBytes + facts.maxBytes > facts.bytesLeft) {
    return { ok: false, reason: 'cap-reached' }
  }
  if (facts.lastStartAtSiteMs !== null) {
    const gapMs = 1_000 / site.requestsPerSecond
    const sinceMs = facts.nowMs - facts.lastStartAtSiteMs
    // A start in the future is a clock set back: waiting for it could take for ever.
    if (sinceMs >= 0 && sinceMs < gapMs) {
      return {
        ok: false,
        reason: 'site-rate',
        untilMs: Math.ceil(facts.lastStartAtSiteMs + gapMs),
      }
    }
  }
  return { ok: true }
}

/** The UTC day of an instant, `YYYY-MM-DD`. */
export function utcDay(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10)
}

/** The first day of the UTC month of an instant, for reading the usage that the caps look at. */
export function firstDayOfMonth(atMs: number): string {
  return `${utcDay(atMs).slice(0, 7)}-01`
}

function sameMonth(day: string, other: string): boolean {
  return day.slice(0, 7) === other.slice(0, 7)
}

function bytesOf(usage: readonly Usage[]): number {
  return usage.reduce((sum, { bytesUp, bytesDown }) => sum + bytesUp + bytesDown, 0)
}

function waiting(reason: WaitingReason, untilMs: number | null = null): MayWork {
  return { ok: false, state: { kind: 'waiting', reason }, untilMs }
}

function capped(period: 'day' | 'month', nowMs: number): MayWork {
  return { ok: false, state: { kind: 'capped', period }, untilMs: periodEndMs(period, nowMs) }
}

function periodEndMs(period: 'day' | 'month', nowMs: number): number {
  const now = new Date(nowMs)
  return period === 'day'
    ? Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate() + 1)
    : Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1)
}

/** Null when it is not quiet now. Equal ends mean no quiet hours. */
function minutesUntilQuietEnds(quiet: Limits['quietHours'], localMinute: number): number | null {
  if (quiet === null || quiet.fromMinute === quiet.toMinute) return null
  const dayMinutes = 24 * 60
  const since = (localMinute - quiet.fromMinute + dayMinutes) % dayMinutes
  const length = (quiet.toMinute - quiet.fromMinute + dayMinutes) % dayMinutes
  return since < length ? length - since : null
}
