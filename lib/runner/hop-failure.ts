import type { FailureReason } from '../protocol/observation.ts'

/** Thrown by a hop's body when the adapter knows why reading failed, a broken gzip stream for example. */
export class HopFailure extends Error {
  readonly reason: FailureReason

  constructor(reason: FailureReason, options?: ErrorOptions) {
    super(`hop: ${reason}`, options)
    this.name = 'HopFailure'
    this.reason = reason
  }
}
