import type { DeviceState, RunnerState, Usage } from '../consent/limits.ts'
import type { SigningKeyPair } from '../crypto/ed25519.ts'
import type { Campaign } from '../protocol/campaign.ts'
import type { Consent } from '../protocol/consent.ts'
import type { EnvelopeMessage } from '../protocol/fields.ts'
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
  store: RunnerStore
  device: () => Promise<DeviceState>
  /** Milliseconds since the epoch. */
  now: () => number
  /** Resolves after `ms`, or rejects with the signal's reason. */
  sleep: (ms: number, signal?: AbortSignal) => Promise<void>
  randomBytes: (length: number) => Uint8Array<ArrayBuffer>
  /** The doorbell of a network, by its fingerprint; undefined where there is none. */
  doorbell: (network: string) => HeardDoorbell | undefined
  log: (event: RunnerEvent) => void
}

/** What the runner asks of a doorbell: whether its silence means that nothing was rung. `socket.ts` has it. */
export interface HeardDoorbell {
  /** When the last thing was asked that the server answered; null while there is no connection. */
  heardMs(): number | null
  /** When something was asked that is not answered yet. */
  askedMs(): number | null
  /** Sends a ping, unless one is under way. The answer is a notice, `pong`. */
  ask(): void
}

/** One GET, no redirect followed. Guards that need the platform (peer address, address space) live in the adapter. */
export type FetchHop = (request: {
  url: string
  /** Of the whole task; an abort must reject or end the body at once. */
  signal: AbortSignal
}) => Promise<Hop>

export type Hop =
  | {
      kind: 'redirect'
      status: number
      /** As the site wrote it or already resolved; the runner resolves it against the hop's URL. */
      location: string
    }
  | {
      kind: 'response'
      status: number
      /** Lower-case names. */
      headers: ReadonlyMap<string, string>
      /**
       * Decoded bytes. Reading may throw: `HopFailure` (hop-failure.ts) names the reason,
       * anything else counts as `connection`. The runner counts, and cancels by the signal.
       */
      body: AsyncIterable<Uint8Array>
      /** Encoded bytes so far, 0 where the platform does not say. */
      wireBytes: () => number
    }
  | { kind: 'failed'; reason: FailureReason }

/** HTTP calls to one task server, under its session. `createServerConnection` implements it. */
export interface ServerConnection {
  /**
   * Sends and parses one call. Opens a session when there is none or it has
   * ended. Throws `ServerProblem` for a refusal and `ServerUnreachable` when
   * there was no answer.
   */
  get(path: string, signal?: AbortSignal): Promise<unknown>
  /** The same for what needs no session, so that a server is checked before one is opened. */
  getWithoutSession(path: string, signal?: AbortSignal): Promise<unknown>
  postJson(path: string, body: unknown, signal?: AbortSignal): Promise<unknown>
  postBytes(path: string, gzipBody: Uint8Array<ArrayBuffer>, signal?: AbortSignal): Promise<unknown>
  /** Token of the running session, opened when there is none: for the doorbell and the meter. */
  token(): Promise<string>
  /** Body bytes sent and received so far, for the caps. */
  traffic(): { bytesUp: number; bytesDown: number }
}

/** Who this node is in one network. Private keys never leave the platform's key store. */
export interface NodeIdentity {
  accountId: string
  nodeId: string
  accountKey: SigningKeyPair
  nodeKey: SigningKeyPair
}

/** A network this installation joined, with what was checked about it. */
export interface JoinedNetwork {
  origin: string
  /** Names the network everywhere on the device. */
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
  /** Acknowledged; the body is kept for follow-ups. Afterwards the task is deleted. */
  | 'kept'

/** One lease on the device. Written before each step is acted on. Bodies are stored apart. */
export interface RunnerTask {
  /** Lease id. */
  id: string
  /** Fingerprint of the network. */
  network: string
  /** Manifest digest. */
  campaign: string
  lease: Lease
  state: TaskState
  /** Milliseconds since the epoch, by this device's clock. */
  receivedAtMs: number
  /** After this the server no longer accepts it (a hint: the server decides). */
  expiresAtMs: number
  oneUseKey: SigningKeyPair
  /** From `observed` on. */
  statement?: SignedStatement
  /** What is known of the stored body; absent when there was none or it was let go. */
  body?: { bytes: number; digest: string; type: string; charset: string | null; url: string }
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
  /** The server's signed acknowledgement: it holds this node's observation. */
  receipt?: EnvelopeMessage
  /** Filled when the server tells. */
  outcome?: Outcome
}

/** A choice of the person that the server has not acknowledged yet. */
export interface ConsentNotice extends Omit<Consent, 'version'> {
  /** Fingerprint of the network. */
  network: string
}

/** Durable state. Every promise resolves only when the write would survive the death of the worker. */
export interface RunnerStore {
  /** The same keys each time; made at the first call for a network. */
  identity(network: string): Promise<NodeIdentity>
  tasks(network: string): Promise<RunnerTask[]>
  putTask(task: RunnerTask): Promise<void>
  /** Writes the task and its journal entry in one transaction. */
  putTaskAndEntry(task: RunnerTask, entry: JournalEntry): Promise<void>
  /** The task and its body. Silent when there is none. */
  deleteTask(id: string): Promise<void>
  /** Written before the task that names it, so a body without such a task may be deleted. */
  putBody(id: string, payload: Uint8Array<ArrayBuffer>): Promise<void>
  body(id: string): Promise<Uint8Array<ArrayBuffer> | undefined>
  putEntry(entry: JournalEntry): Promise<void>
  entry(id: string): Promise<JournalEntry | undefined>
  addUsage(day: string, bytesUp: number, bytesDown: number): Promise<void>
  /** Days from `firstDay` on. */
  usage(firstDay: string): Promise<Usage[]>
  /** Last outcome sequence seen from this network; 0 at first. */
  outcomeCursor(network: string): Promise<number>
  setOutcomeCursor(network: string, sequence: number): Promise<void>
  consentNotices(network: string): Promise<ConsentNotice[]>
  /** Replaces a waiting notice of the same network and campaign: only the last choice counts. */
  putConsentNotice(notice: ConsentNotice): Promise<void>
  /** Only if the stored notice has this `at`: a newer choice stays. */
  deleteConsentNotice(notice: ConsentNotice): Promise<void>
}

export type RunnerEvent =
  | { kind: 'state'; state: RunnerState }
  /** An entry was written or its outcome filled in. */
  | { kind: 'journal'; entry: JournalEntry }
  /** The operator changed keys under the same campaign key: store it, it was checked. */
  | { kind: 'network'; joined: JoinedNetwork }
  | { kind: 'problem'; where: string; error: unknown }
