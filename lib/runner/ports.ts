import type { Campaign } from '../protocol/campaign.ts'
import type { Lease } from '../protocol/lease.ts'
import type { Network } from '../protocol/network.ts'
import type { FailureReason, SignedStatement } from '../protocol/observation.ts'
import type { Outcome } from '../protocol/outcome.ts'
import type { LeaseRefusalReason } from '../protocol/refusal.ts'

/**
 * What the runner needs from the place it runs in. The extension implements
 * these over browser APIs and IndexedDB, `server/node` over Node and a folder.
 */
export interface RunnerPorts {
  hop: FetchHop
  server: ServerConnection
  store: RunnerStore
  device: () => Promise<DeviceState>
  /** Milliseconds since the epoch. */
  now: () => number
  /** Resolves after `ms`, or rejects with the signal's reason. */
  sleep: (ms: number, signal?: AbortSignal) => Promise<void>
  randomBytes: (length: number) => Uint8Array<ArrayBuffer>
  log: (event: RunnerEvent) => void
}

/** One GET, no redirect followed. Guards that need the platform (peer address, address space) live in the adapter. */
export type FetchHop = (request: {
  url: string
  /** Of the whole task; an abort must reject or end the body at once. */
  signal: AbortSignal
}) => Promise<Hop>

export type Hop =
  | { kind: 'redirect'; status: number; location: string }
  | {
      kind: 'response'
      status: number
      /** Lower-case names. */
      headers: ReadonlyMap<string, string>
      /** Decoded bytes. Reading may throw; the runner counts and cancels. */
      body: AsyncIterable<Uint8Array>
      /** Encoded bytes so far, 0 where the platform does not say. */
      wireBytes: () => number
    }
  | { kind: 'failed'; reason: FailureReason }

/** HTTP calls to one task server, under its session. */
export interface ServerConnection {
  /**
   * Sends and parses one call. Opens a session when there is none or it has
   * ended. Throws `ServerProblem` for a refusal and `ServerUnreachable` when
   * there was no answer.
   */
  get(path: string): Promise<unknown>
  postJson(path: string, body: unknown): Promise<unknown>
  postBytes(path: string, gzipBody: Uint8Array<ArrayBuffer>): Promise<unknown>
  /** Body bytes sent and received so far, for the caps. */
  traffic(): { bytesUp: number; bytesDown: number }
}

/** Who this node is in one network. Private keys never leave the platform's key store. */
export interface NodeIdentity {
  accountId: string
  nodeId: string
  accountKey: CryptoKeyPair
  nodeKey: CryptoKeyPair
}

/** A network this installation joined, with what was checked about it. */
export interface JoinedNetwork {
  origin: string
  fingerprint: string
  network: Network
}

/** A campaign the person said yes to. The digest binds the exact terms. */
export interface ConsentedCampaign {
  digest: string
  campaign: Campaign
  givenAt: string
  /** Digest of the full receipt kept in the store. */
  receipt: string
}

export type TaskState =
  /** Stored, not yet fetched. A node that died here fetches again or lets it expire. */
  | 'leased'
  /** Statement signed and stored, not yet acknowledged. Sending it again is safe. */
  | 'observed'
  /** Acknowledged; the body is kept for follow-ups. */
  | 'kept'
  /** Nothing more to do; the body is gone. */
  | 'closed'

/** One lease on the device. Written before each step is acted on. */
export interface RunnerTask {
  /** Lease id. */
  id: string
  network: string
  campaign: string
  lease: Lease
  state: TaskState
  /** Milliseconds since the epoch, by this device's clock. */
  receivedAtMs: number
  /** After this the server no longer accepts it (a hint: the server decides). */
  expiresAtMs: number
  oneUseKey: CryptoKeyPair
  statement?: SignedStatement
  /** Kept for follow-ups: decoded payload and its media type and charset header. */
  body?: { payload: Uint8Array<ArrayBuffer>; contentType: string; url: string }
  keptUntilMs?: number
}

/** One line of the journal: everything that left or reached the device for a task. */
export interface JournalEntry {
  /** Lease id, or a random one for what had no lease. */
  id: string
  atMs: number
  network: string
  campaign: string
  url: string
  /** What happened here: fetched with a status, failed, or refused by the device. */
  result:
    | { kind: 'fetched'; status: number }
    | { kind: 'failed'; reason: FailureReason }
    | { kind: 'refused'; reason: LeaseRefusalReason }
  bytesUp: number
  bytesDown: number
  totalMs: number
  /** Filled when the server tells. */
  outcome?: Outcome
}

/** Bytes moved for sites and servers together, per UTC day `YYYY-MM-DD`. */
export interface Usage {
  day: string
  bytesUp: number
  bytesDown: number
}

/** Durable state. Every promise resolves only when the write would survive the death of the worker. */
export interface RunnerStore {
  identity(network: string): Promise<NodeIdentity>
  tasks(network: string): Promise<RunnerTask[]>
  putTask(task: RunnerTask): Promise<void>
  /** Writes the task and its journal entry in one transaction. */
  putTaskAndEntry(task: RunnerTask, entry: JournalEntry): Promise<void>
  deleteTask(id: string): Promise<void>
  putEntry(entry: JournalEntry): Promise<void>
  entry(id: string): Promise<JournalEntry | undefined>
  addUsage(day: string, bytesUp: number, bytesDown: number): Promise<void>
  /** Days from `firstDay` on. */
  usage(firstDay: string): Promise<Usage[]>
  /** Last outcome sequence seen from this network. */
  outcomeCursor(network: string): Promise<number>
  setOutcomeCursor(network: string, sequence: number): Promise<void>
}

/** What the limits look at. `null` means that the platform does not say. */
export interface DeviceState {
  onBattery: boolean | null
  metered: boolean | null
  idle: boolean | null
  online: boolean | null
}

export type RunnerEvent =
  | { kind: 'state'; state: RunnerState }
  | { kind: 'problem'; where: string; error: unknown }

/** The one truthful state, in the words the person sees. */
export type RunnerState =
  | { kind: 'working'; inFlight: number }
  | { kind: 'waiting'; reason: WaitingReason }
  | { kind: 'paused'; untilMs: number | null }
  | { kind: 'capped'; period: 'day' | 'month' }
  | { kind: 'off' }

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
