import { type Problem, type ProblemReason, problemStatus } from '../../lib/protocol/problem.ts'

/** A refusal on its way to the client. Thrown by handlers, turned into a response in one place. */
export class HttpProblem extends Error {
  override name = 'HttpProblem'
  readonly reason: ProblemReason
  readonly retryAfterSeconds: number | undefined

  constructor(reason: ProblemReason, detail: string, retryAfterSeconds?: number) {
    super(detail)
    this.reason = reason
    this.retryAfterSeconds = retryAfterSeconds
  }
}

const titles: Record<ProblemReason, string> = {
  malformed: 'The request does not have the form of the protocol',
  'unknown-challenge': 'This challenge is not known, used or too old',
  'bad-signature': 'A signature does not fit',
  'no-session': 'No session',
  'wrong-network': 'This was signed for another network',
  'unknown-campaign': 'No such campaign here',
  'no-consent': 'This node has not consented to the campaign',
  'not-your-lease': 'This lease is another node’s',
  'unknown-lease': 'No such lease',
  'unknown-follow-up': 'No such open follow-up for this node',
  'not-found': 'Not found',
  'lease-expired': 'The lease has expired',
  'lease-used': 'The lease was answered with another statement',
  'key-reused': 'A one-use key was used before',
  'nonce-mismatch': 'The payload was not bound to this lease’s nonce',
  'digest-mismatch': 'These are not the bytes that were observed',
  'attestation-mismatch': 'The signature does not fit the text that was asked for',
  'too-large': 'Too large',
  'too-many-requests': 'Too many requests',
  overloaded: 'The server has too much to do',
  internal: 'The server failed',
}

const details: Partial<Record<ProblemReason, string>> = {
  'unknown-lease': 'The lease id is not one that this server gave. Drop the task.',
  'not-your-lease': 'Answer only leases that this node received.',
  'lease-expired': 'The task was given back. Drop it; there will be other work.',
  'lease-used':
    'An answer is recorded and stays. Send the first statement again to get its receipt.',
  'key-reused': 'Make a fresh key for each lease.',
  'no-session': 'Open a session: POST /v1/challenges, then POST /v1/sessions.',
}

/** RFC 9457 body of a refusal. */
export function problemBody(reason: ProblemReason, detail?: string): Problem {
  return {
    type: `urn:gleaner:problem:${reason}`,
    title: titles[reason],
    status: problemStatus[reason],
    detail: (detail ?? details[reason] ?? titles[reason]).slice(0, 1000),
  }
}
