import type { ProblemReason } from '../protocol/problem.ts'
import type { NodeIdentity, ServerConnection } from './ports.ts'

/** The server answered and refused. */
export class ServerProblem extends Error {
  readonly reason: ProblemReason
  readonly detail: string
  /** From Retry-After; null when the server did not say. */
  readonly retryAfterMs: number | null

  constructor(reason: ProblemReason, detail: string, retryAfterMs: number | null) {
    super(`server: ${reason}: ${detail}`)
    this.name = 'ServerProblem'
    this.reason = reason
    this.detail = detail
    this.retryAfterMs = retryAfterMs
  }
}

/** No answer, or one that is not of this protocol. */
export class ServerUnreachable extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(`server: ${message}`, options)
    this.name = 'ServerUnreachable'
  }
}

/** The part of the global fetch that is used; an adapter may bind it to an address or a proxy. */
export type ServerFetch = (
  url: string,
  init: {
    method: string
    headers: Record<string, string>
    body?: Uint8Array<ArrayBuffer> | string
    credentials: 'omit'
    cache: 'no-store'
    redirect: 'error'
    referrerPolicy: 'no-referrer'
    signal: AbortSignal
  },
) => Promise<Response>

export interface ServerConnectionOptions {
  origin: string
  fingerprint: string
  identity: () => Promise<NodeIdentity>
  /** Name and version of this client, for the operator's statistics. At most 60 characters. */
  client: string
  fetch: ServerFetch
}

/** Calls of one task server under sessions that it opens by itself. */
export function createServerConnection(_options: ServerConnectionOptions): ServerConnection {
  throw new Error('server connection: being built')
}
