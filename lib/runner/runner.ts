import {
  firstDayOfMonth,
  type Limits,
  type MayWork,
  mayWork,
  type Pause,
  type RunnerState,
  type Usage,
  utcDay,
} from '../consent/limits.ts'
import type { ScopeRules } from '../consent/scope.ts'
import type { SocketNotice } from '../protocol/socket.ts'
import { decide } from './machine.ts'
import { NetworkLine } from './network-line.ts'
import type { ConsentedCampaign, JoinedNetwork, RunnerPorts, ServerConnection } from './ports.ts'

/** A network with what the person agreed to there and the way to reach it. */
export interface RunnerNetwork {
  joined: JoinedNetwork
  server: ServerConnection
  campaigns: readonly ConsentedCampaign[]
}

export interface RunnerOptions {
  ports: RunnerPorts
  networks: readonly RunnerNetwork[]
  limits: Limits
  pause: Pause | null
  /** Of the build; see ScopeRules. */
  scope: ScopeRules
}

/**
 * Works through the straight line's middle: lease, fetch, observe, attest. Every step is stored
 * before it is acted on, so the runner may die on any line; a new one over the same store goes on.
 * The caller stores networks, campaigns, limits and pause itself, before it tells the runner.
 */
export interface Runner {
  /** Loads what is stored and begins. Resolves when loaded; work goes on in the background. */
  start(): Promise<void>
  /** Aborts what runs. Resolves when nothing of this runner will touch ports again. */
  stop(): Promise<void>
  /** A notice of the network's socket. */
  doorbell(network: string, notice: SocketNotice): void
  /** Something outside changed (device, alarm): look again now. */
  wake(): void
  /** Aborts running fetches; their leases are fetched again if they are still good at resume. */
  pause(untilMs: number | null): void
  resume(): void
  setLimits(limits: Limits): void
  /** Adds a network, or replaces it with all its campaigns. */
  join(network: RunnerNetwork): Promise<void>
  /** Ends everything of a network. Resolves when its tasks are gone from the store. */
  leave(network: string): Promise<void>
  /** The person said yes. The server is told, again and again until it acknowledges. */
  consent(network: string, campaign: ConsentedCampaign): Promise<void>
  /** Aborts the campaign's running fetches at once, then lets go of its tasks and tells the server. */
  withdraw(network: string, campaign: string): Promise<void>
  state(): RunnerState
}

// Other parts of the extension add usage too (the meter): theirs is seen this much later at most.
const USAGE_EVERY_MS = 15_000
// A loop that would spin without pause is a fault; this keeps it from burning the battery.
const SHORTEST_SLEEP_MS = 5

/** Makes a runner; nothing happens before `start`. */
export function createRunner(options: RunnerOptions): Runner {
  return new LineRunner(options)
}

class LineRunner implements Runner {
  readonly #ports: RunnerPorts
  readonly #scope: ScopeRules
  readonly #initial: readonly RunnerNetwork[]
  readonly #lines = new Map<string, NetworkLine>()
  readonly #stopping = new AbortController()
  readonly #lastStartMs = new Map<string, number>()
  #limits: Limits
  #pause: Pause | null
  #state: RunnerState = { kind: 'off' }
  #loop: Promise<void> | null = null
  #sleep = new AbortController()
  #isWoken = false
  #usage: Usage[] = []
  #usageReadMs = Number.NEGATIVE_INFINITY

  constructor({ ports, networks, limits, pause, scope }: RunnerOptions) {
    this.#ports = ports
    this.#initial = networks
    this.#limits = limits
    this.#pause = pause
    this.#scope = scope
  }

  async start(): Promise<void> {
    if (this.#loop !== null) return
    for (const network of this.#initial) await this.#addLine(network)
    this.#loop = this.#work()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.wake()
    await this.#loop
    await Promise.all([...this.#lines.values()].map((line) => line.retire()))
    this.#say({ kind: 'off' })
  }

  doorbell(network: string, notice: SocketNotice): void {
    this.#lines.get(network)?.ring(notice)
    this.wake()
  }

  wake(): void {
    this.#isWoken = true
    this.#sleep.abort()
  }

  pause(untilMs: number | null): void {
    this.#pause = { untilMs }
    this.#abortFetches()
    this.wake()
  }

  resume(): void {
    this.#pause = null
    this.wake()
  }

  setLimits(limits: Limits): void {
    this.#limits = limits
    this.wake()
  }

  async join(network: RunnerNetwork): Promise<void> {
    await this.#addLine(network)
    this.wake()
  }

  async leave(network: string): Promise<void> {
    const line = this.#lines.get(network)
    this.#lines.delete(network)
    await line?.leave()
    await line?.retire()
    this.wake()
  }

  async consent(network: string, campaign: ConsentedCampaign): Promise<void> {
    await this.#line(network).consent(campaign)
    this.wake()
  }

  async withdraw(network: string, campaign: string): Promise<void> {
    const withdrawal = this.#line(network).withdraw(campaign)
    this.wake()
    await withdrawal
    this.wake()
  }

  state(): RunnerState {
    return this.#state
  }

  async #addLine({ joined, server, campaigns }: RunnerNetwork): Promise<void> {
    await this.#lines.get(joined.fingerprint)?.retire()
    const line = new NetworkLine(joined, server, campaigns, {
      ports: this.#ports,
      scope: this.#scope,
      lastStartMs: this.#lastStartMs,
      used: (bytesUp, bytesDown) => this.#addUsage(bytesUp, bytesDown),
      wake: () => this.wake(),
    })
    await line.load()
    this.#lines.set(line.id, line)
  }

  #line(network: string): NetworkLine {
    const line = this.#lines.get(network)
    if (line === undefined) throw new Error(`runner: network ${network} was not joined`)
    return line
  }

  /** Decides, begins what was decided, sleeps; until stopped. */
  async #work(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      this.#isWoken = false
      let sleepMs = USAGE_EVERY_MS
      try {
        sleepMs = await this.#step()
      } catch (error) {
        // The store or the device failed to answer; the next look may find them better.
        this.#ports.log({ kind: 'problem', where: 'step', error })
      }
      if (this.#isWoken || signal.aborted) continue
      this.#sleep = new AbortController()
      // Woken, stopped or slept through: each means to look again.
      await this.#ports.sleep(sleepMs, this.#sleep.signal).catch(() => {})
    }
  }

  /** One decision. Returns how long to sleep. */
  async #step(): Promise<number> {
    const nowMs = this.#ports.now()
    const work = await this.#mayWork(nowMs)
    if (this.#stopping.signal.aborted) return 0
    // What the person's device needs now ends fetches at once; a cap was set aside beforehand.
    if (!work.ok && work.state.kind !== 'capped') this.#abortFetches()
    const decision = decide({
      nowMs,
      work,
      fetchesAtOnce: this.#limits.fetchesAtOnce,
      networks: [...this.#lines.values()].map((line) => line.facts(nowMs)),
      lastStartMs: this.#lastStartMs,
    })
    this.#say(decision.state)
    for (const action of decision.actions) {
      this.#lines.get(action.network)?.perform(action)
    }
    return Math.max(SHORTEST_SLEEP_MS, decision.wakeAtMs - this.#ports.now())
  }

  async #mayWork(nowMs: number): Promise<MayWork> {
    const firstDay = firstDayOfMonth(nowMs)
    if (nowMs - this.#usageReadMs >= USAGE_EVERY_MS || nowMs < this.#usageReadMs) {
      this.#usage = await this.#ports.store.usage(firstDay)
      this.#usageReadMs = nowMs
    }
    const local = new Date(nowMs)
    return mayWork(this.#limits, {
      nowMs,
      localMinute: local.getHours() * 60 + local.getMinutes(),
      pause: this.#pause,
      device: await this.#ports.device(),
      usage: this.#usage,
    })
  }

  async #addUsage(bytesUp: number, bytesDown: number): Promise<void> {
    const day = utcDay(this.#ports.now())
    this.#usage = [...this.#usage, { day, bytesUp, bytesDown }]
    await this.#ports.store.addUsage(day, bytesUp, bytesDown)
  }

  #abortFetches(): void {
    for (const line of this.#lines.values()) line.abortFetches()
  }

  #say(state: RunnerState): void {
    if (JSON.stringify(state) === JSON.stringify(this.#state)) return
    this.#state = state
    this.#ports.log({ kind: 'state', state })
  }
}
