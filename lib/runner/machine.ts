import { type MayWork, mayFetch, type RunnerState, type WaitingReason } from '../consent/limits.ts'
import type { Site } from '../protocol/campaign.ts'
import type { TaskState } from './ports.ts'

/** Everything that the next step depends on. Plain values: no clock, no store, no network. */
export interface MachineFacts {
  nowMs: number
  work: MayWork
  fetchesAtOnce: number
  networks: readonly NetworkFacts[]
  /** When a request to a site last began, by host. */
  lastStartMs: ReadonlyMap<string, number>
}

/** One joined network. */
export interface NetworkFacts {
  id: string
  /** Whether the server showed the pinned key since this runner started; null while not asked. */
  trusted: boolean | null
  doorbell: DoorbellFacts
  campaigns: readonly CampaignFacts[]
  tasks: readonly TaskFacts[]
  /** Calls under way: at most one of each kind. */
  calls: ReadonlySet<CallKind>
  /** No call before this. Why, for the state that the person sees. */
  backoff: { untilMs: number; reason: WaitingReason } | null
  /** The same for one kind of call. */
  callNotBeforeMs: ReadonlyMap<CallKind, number>
  /** When the server wants to be asked for work again. */
  leaseAtMs: number
  /** When the doorbell last rang for this and was not yet answered; null when it did not. */
  followUpsRangMs: number | null
  outcomesRangMs: number | null
  followUpsAskedMs: number | null
  outcomesAskedMs: number | null
  /** Choices that the server has not acknowledged. */
  consentNotices: number
  /** When the oldest refusal began to wait, and how many do. */
  refusals: { count: number; sinceMs: number } | null
}

export type DoorbellFacts =
  | {
      isOpen: true
      /** When the last thing was asked that the server answered. */
      heardMs: number
      /** When something was asked that is not answered yet. */
      askedMs: number | null
    }
  | { isOpen: false; sinceMs: number }

export interface CampaignFacts {
  digest: string
  /** `ready` may be leased; the others say why not. */
  standing: 'ready' | 'not-yet-told' | 'outside-validity' | 'halted' | 'refused'
  pageBytes: number
}

export interface TaskFacts {
  id: string
  state: TaskState
  host: string
  pace: Pick<Site, 'requestsPerSecond' | 'requestsInFlight'>
  maxBytes: number
  expiresAtMs: number
  /** When the call began that brought it; 0 when that was in an earlier life. */
  askedAtMs: number
  /** Its fetch or its upload is under way. */
  busy: boolean
  /** When the statement was stored; 0 when that was in an earlier life. */
  observedAtMs: number
  keptUntilMs: number
  bodyBytes: number
}

export type CallKind =
  | 'check-network'
  | 'tell-consents'
  | 'send-observations'
  | 'send-refusals'
  | 'answer-follow-ups'
  | 'ask-outcomes'
  | 'lease'

export type Action =
  | { kind: 'check-network' | 'tell-consents' | 'send-refusals'; network: string }
  | { kind: 'answer-follow-ups' | 'ask-outcomes'; network: string }
  | { kind: 'send-observations'; network: string; tasks: string[] }
  | { kind: 'lease'; network: string; campaigns: string[]; max: number }
  | { kind: 'fetch'; network: string; task: string }
  /** Its answer says that nothing is halted which this node does not know of. */
  | { kind: 'ask-doorbell'; network: string }
  /** Expired before its turn came: tell the server and forget it. */
  | { kind: 'give-back'; network: string; task: string }
  /** Its time or its room is over: the body goes, and the task with it. */
  | { kind: 'let-go'; network: string; task: string }

export interface Decision {
  actions: Action[]
  /** Look again then, unless something happens before. */
  wakeAtMs: number
  state: RunnerState
}

// Eight statements compress to about 560 bytes each; waiting longer for more gains little, and
// 400 ms is short against the seconds that a quorum takes.
export const BATCH_SIZE = 8
export const BATCH_WAIT_MS = 400
// Protocol README §7: the body is kept this long, all bodies together in this much room.
export const KEEP_MS = 15 * 60_000
export const KEEP_BYTES = 64 * 1024 * 1024
/** The most that one call carries (observationBatch). */
const LARGEST_BATCH = 32
/** The most that one call asks for (leaseRequest). */
const MOST_LEASES = 32
const MOST_CAMPAIGNS = 100
// Leases in stock for each fetch at once: enough to hide the round trip, too few to let any expire.
const STOCK = 2
// The operator's halt must hold within 5 s on a node that does not hear it, too. A lease says that
// nothing was halted when it was asked for, a pong when the ping was sent, save the 2 s that the
// server itself may be behind (protocol README §9); half a second is for the way to the site.
export const LEASE_FRESH_MS = 4_000
export const HEARD_FRESH_MS = 2_500
// Asking while half of the time is left hides the ping's round trip. Asked only when a page could
// start: an idle node pings every 20 s.
const ASK_AGAIN_MS = HEARD_FRESH_MS / 2
// A page that may not start holds its site's slot for the whole network. So long a doorbell may be
// away and come back (socket.ts tries again within seconds).
export const UNHEARD_MS = 15_000
// The doorbell tells at once; these are for a doorbell that is broken.
const FOLLOW_UPS_EVERY_MS = 15_000
const OUTCOMES_EVERY_MS = 10 * 60_000
// Device and usage are looked at this often even when nothing happens.
const LOOK_EVERY_MS = 15_000

/** Decides everything that should begin now. Each action changes the facts that led to it. */
export function decide(facts: MachineFacts): Decision {
  const plan = new Plan(facts)
  letGoOfBodies(plan)
  for (const network of facts.networks) {
    giveBackExpired(plan, network)
    callServer(plan, network)
  }
  const lacksBytes = startFetches(plan)
  return { actions: plan.actions, wakeAtMs: plan.wakeAtMs, state: stateOf(plan, lacksBytes) }
}

/** Actions decided so far, and the earliest time at which another could become due. */
class Plan {
  readonly actions: Action[] = []
  readonly gone = new Set<string>()
  wakeAtMs: number
  readonly facts: MachineFacts

  constructor(facts: MachineFacts) {
    this.facts = facts
    this.wakeAtMs = facts.nowMs + LOOK_EVERY_MS
    if (!facts.work.ok && facts.work.untilMs !== null) this.isDue(facts.work.untilMs)
  }

  /** Whether the time has come; if not, it is a time to look again. */
  isDue(atMs: number): boolean {
    if (atMs <= this.facts.nowMs) return true
    this.wakeAtMs = Math.min(this.wakeAtMs, atMs)
    return false
  }

  remove(kind: 'give-back' | 'let-go', network: string, task: string): void {
    this.actions.push({ kind, network, task })
    this.gone.add(task)
  }
}

function letGoOfBodies(plan: Plan): void {
  const kept = plan.facts.networks
    .flatMap((network) => network.tasks.map((task) => ({ network: network.id, task })))
    .filter(({ task }) => task.state === 'kept')
    .sort((a, b) => b.task.keptUntilMs - a.task.keptUntilMs)
  let room = KEEP_BYTES
  // Newest first: what no longer fits is the oldest, of which most has been asked already.
  for (const { network, task } of kept) {
    room -= task.bodyBytes
    if (task.busy) continue
    if (plan.isDue(task.keptUntilMs) || room < 0) plan.remove('let-go', network, task.id)
  }
}

function giveBackExpired(plan: Plan, network: NetworkFacts): void {
  for (const task of network.tasks) {
    if (task.busy) continue
    if (
      task.state === 'leased' &&
      (plan.isDue(task.expiresAtMs) || isUnheard(plan, network, task))
    ) {
      plan.remove('give-back', network.id, task.id)
    }
    // A statement that could not be sent so long after its lease ended will not be taken any more.
    if (task.state === 'observed' && plan.isDue(task.expiresAtMs + KEEP_MS)) {
      plan.remove('let-go', network.id, task.id)
    }
  }
}

/** Nobody says whether it may still be fetched, and nobody will soon. */
function isUnheard(plan: Plan, { doorbell }: NetworkFacts, task: TaskFacts): boolean {
  const silentMs = doorbell.isOpen ? doorbell.askedMs : doorbell.sinceMs
  return silentMs !== null && plan.isDue(Math.max(silentMs, task.askedAtMs) + UNHEARD_MS)
}

function callServer(plan: Plan, network: NetworkFacts): void {
  const { facts, actions } = plan
  const { id, calls } = network
  // A changed pin stops everything with this network (protocol README §2).
  if (network.trusted === false) return
  if (network.backoff !== null && !plan.isDue(network.backoff.untilMs)) return
  const may = (kind: CallKind) =>
    !calls.has(kind) && plan.isDue(network.callNotBeforeMs.get(kind) ?? 0)

  if (network.trusted === null) {
    if (mayTalk(facts, network) && may('check-network')) {
      actions.push({ kind: 'check-network', network: id })
    }
    return
  }
  if (mayTalk(facts, network) && network.consentNotices > 0 && may('tell-consents')) {
    actions.push({ kind: 'tell-consents', network: id })
  }
  if (!facts.work.ok) return

  if (may('lease')) leaseMore(plan, network)
  if (may('send-observations')) {
    const ready = network.tasks.filter(
      (task) => task.state === 'observed' && !task.busy && !plan.gone.has(task.id),
    )
    const oldestMs = Math.min(...ready.map((task) => task.observedAtMs))
    // To the server a page is in flight until it hears of it: with nothing else to come, waiting
    // would only keep the host's slot from others. An answer under way may bring more.
    const moreToCome =
      calls.has('lease') ||
      actions.some((action) => action.kind === 'lease' && action.network === id) ||
      network.tasks.some((task) => task.state === 'leased' && !plan.gone.has(task.id))
    const isFull = ready.length >= BATCH_SIZE
    if (ready.length > 0 && (isFull || !moreToCome || plan.isDue(oldestMs + BATCH_WAIT_MS))) {
      const tasks = ready.slice(0, LARGEST_BATCH).map((task) => task.id)
      actions.push({ kind: 'send-observations', network: id, tasks })
    }
  }
  if (network.refusals !== null && may('send-refusals')) {
    const { count, sinceMs } = network.refusals
    if (count >= BATCH_SIZE || plan.isDue(sinceMs + BATCH_WAIT_MS)) {
      actions.push({ kind: 'send-refusals', network: id })
    }
  }
  const keepsSome = network.tasks.some((task) => task.state === 'kept' && !plan.gone.has(task.id))
  const rang = network.followUpsRangMs
  // After a bell also without a body: the server should hear soon that it is gone, and ask another.
  if ((keepsSome || rang !== null) && may('answer-follow-ups')) {
    const askedMs = network.followUpsAskedMs
    const isDue =
      askedMs === null ||
      // The wait after the bell lets requests gather, so that their answers share one call.
      (rang !== null && plan.isDue(rang + BATCH_WAIT_MS)) ||
      plan.isDue(askedMs + FOLLOW_UPS_EVERY_MS)
    if (isDue) actions.push({ kind: 'answer-follow-ups', network: id })
  }
  if (may('ask-outcomes')) {
    const { outcomesAskedMs, outcomesRangMs } = network
    const isDue =
      outcomesAskedMs === null ||
      (outcomesRangMs !== null && plan.isDue(outcomesRangMs + BATCH_WAIT_MS)) ||
      plan.isDue(outcomesAskedMs + OUTCOMES_EVERY_MS)
    if (isDue) actions.push({ kind: 'ask-outcomes', network: id })
  }
}

/** Telling a choice is the person's right at any time but while they paused or are offline. */
function mayTalk(facts: MachineFacts, network: NetworkFacts): boolean {
  if (facts.work.ok) return true
  const { state } = facts.work
  if (state.kind === 'paused') return false
  return network.consentNotices > 0 && !(state.kind === 'waiting' && state.reason === 'offline')
}

function leaseMore(plan: Plan, network: NetworkFacts): void {
  const { facts, actions } = plan
  if (!facts.work.ok) return
  const stock = facts.networks
    .flatMap(({ tasks }) => tasks)
    .filter((task) => task.state === 'leased' && !task.busy && !plan.gone.has(task.id)).length
  const asked = actions.reduce(
    (sum, action) => (action.kind === 'lease' ? sum + action.max : sum),
    0,
  )
  // Without a doorbell only what begins at once may begin at all: no stock.
  const inFlight = [...fetching(facts)].length
  const { isOpen } = network.doorbell
  const most = isOpen ? facts.fetchesAtOnce * STOCK : facts.fetchesAtOnce - inFlight
  const room = most - stock - asked
  // Half empty: one call for several, instead of one for each page.
  if (room < (isOpen ? facts.fetchesAtOnce : 1)) return
  const campaigns = network.campaigns
    .filter(({ standing }) => standing === 'ready')
    .filter(({ pageBytes }) => pageBytes + reservedBytes(facts) <= bytesLeft(facts))
    .slice(0, MOST_CAMPAIGNS)
    .map(({ digest }) => digest)
  if (campaigns.length === 0 || !plan.isDue(network.leaseAtMs)) return
  actions.push({ kind: 'lease', network: network.id, campaigns, max: Math.min(room, MOST_LEASES) })
}

/** Starts what may start; true when a page waits only because too few bytes are left. */
function startFetches(plan: Plan): boolean {
  const { facts } = plan
  if (!facts.work.ok) return false
  const inFlightAt = new Map<string, number>()
  const lastStartMs = new Map(facts.lastStartMs)
  let inFlight = 0
  for (const task of fetching(facts)) {
    inFlight += 1
    inFlightAt.set(task.host, (inFlightAt.get(task.host) ?? 0) + 1)
  }
  let reserved = reservedBytes(facts)
  let lacksBytes = false

  const waiting = facts.networks
    .filter(({ trusted }) => trusted !== false)
    .flatMap((network) => network.tasks.map((task) => ({ network, task })))
    .filter(({ task }) => task.state === 'leased' && !task.busy && !plan.gone.has(task.id))
    .sort((a, b) => a.task.expiresAtMs - b.task.expiresAtMs)
  const asks = new Set<string>()
  for (const { network, task } of waiting) {
    const answer = mayFetch(task.pace, {
      nowMs: facts.nowMs,
      fetchesAtOnce: facts.fetchesAtOnce,
      bytesLeft: facts.work.bytesLeft,
      maxBytes: task.maxBytes,
      reservedBytes: reserved,
      inFlight,
      inFlightAtSite: inFlightAt.get(task.host) ?? 0,
      lastStartAtSiteMs: lastStartMs.get(task.host) ?? null,
    })
    if (answer.ok) {
      if (!isWithin(LEASE_FRESH_MS, task.askedAtMs, facts)) {
        const { doorbell } = network
        // It is looked at again when a notice comes, a pong too.
        if (!doorbell.isOpen) continue
        if (doorbell.askedMs === null && !isWithin(ASK_AGAIN_MS, doorbell.heardMs, facts)) {
          asks.add(network.id)
        }
        if (!isWithin(HEARD_FRESH_MS, doorbell.heardMs, facts)) continue
      }
      plan.actions.push({ kind: 'fetch', network: network.id, task: task.id })
      inFlight += 1
      inFlightAt.set(task.host, (inFlightAt.get(task.host) ?? 0) + 1)
      lastStartMs.set(task.host, facts.nowMs)
      reserved += task.maxBytes
    } else if (answer.reason === 'site-rate') {
      plan.isDue(answer.untilMs)
    } else if (answer.reason === 'cap-reached') {
      lacksBytes = true
    }
  }
  for (const network of asks) plan.actions.push({ kind: 'ask-doorbell', network })
  return lacksBytes
}

/** Less than `ms` ago. What lies in the future was written by a clock set back, and says nothing. */
function isWithin(ms: number, atMs: number, { nowMs }: MachineFacts): boolean {
  return nowMs >= atMs && nowMs - atMs < ms
}

/** The one truthful state: what stops the person's own device first, then what stops the rest. */
function stateOf({ facts, actions }: Plan, lacksBytes: boolean): RunnerState {
  if (!facts.work.ok && facts.work.state.kind === 'paused') return facts.work.state
  const inFlight =
    [...fetching(facts)].length + actions.filter(({ kind }) => kind === 'fetch').length
  if (inFlight > 0) return { kind: 'working', inFlight }
  if (!facts.work.ok) return facts.work.state

  const { networks } = facts
  const campaigns = networks
    .filter(({ trusted }) => trusted !== false)
    .flatMap((network) => network.campaigns)
  if (campaigns.length === 0) {
    const isChanged = networks.some(({ trusted }) => trusted === false)
    return waiting(isChanged ? 'network-changed' : 'no-campaign')
  }
  const ready = campaigns.filter(({ standing }) => standing === 'ready')
  const fitsNone = ready.every(({ pageBytes }) => pageBytes > bytesLeft(facts))
  if (lacksBytes || (ready.length > 0 && fitsNone)) {
    return { kind: 'capped', period: facts.work.tightest }
  }
  const backoff = networks.find((network) => network.backoff !== null)?.backoff
  if (backoff && backoff.untilMs > facts.nowMs) return waiting(backoff.reason)
  if (networks.some(({ tasks }) => tasks.some(({ state }) => state === 'leased'))) {
    return { kind: 'working', inFlight: 0 }
  }
  if (ready.length > 0) return waiting('no-work')
  if (campaigns.some(({ standing }) => standing === 'halted')) return waiting('halted-by-operator')
  if (campaigns.some(({ standing }) => standing === 'refused')) return waiting('server-refuses')
  if (campaigns.every(({ standing }) => standing === 'outside-validity')) {
    return waiting('no-campaign')
  }
  return waiting('no-work')
}

function waiting(reason: WaitingReason): RunnerState {
  return { kind: 'waiting', reason }
}

function* fetching(facts: MachineFacts): Generator<TaskFacts> {
  for (const { tasks } of facts.networks) {
    for (const task of tasks) if (task.state === 'leased' && task.busy) yield task
  }
}

function reservedBytes(facts: MachineFacts): number {
  let bytes = 0
  for (const { maxBytes } of fetching(facts)) bytes += maxBytes
  return bytes
}

function bytesLeft({ work }: MachineFacts): number {
  return work.ok ? work.bytesLeft : 0
}
