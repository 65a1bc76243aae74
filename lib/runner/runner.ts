import type { Limits, Pause, RunnerState } from '../consent/limits.ts'
import type { ScopeRules } from '../consent/scope.ts'
import type { SocketNotice } from '../protocol/socket.ts'
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

/** Makes a runner; nothing happens before `start`. */
export function createRunner(_options: RunnerOptions): Runner {
  throw new Error('runner: being built')
}
