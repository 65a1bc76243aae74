import { readPayload } from '../capture/read-payload.ts'
import { rowText } from '../capture/row-text.ts'
import { toBase64Url } from '../crypto/base64.ts'
import { sha256 } from '../crypto/digest.ts'
import { preAuthEncoding } from '../crypto/dsse.ts'
import { sign } from '../crypto/ed25519.ts'
import { canonicalJson } from '../protocol/canonical-json.ts'
import type { Attestation, FollowUp, FollowUpRefusalReason } from '../protocol/follow-up.ts'
import { payloadType } from '../protocol/payload-type.ts'
import { gzip } from './gzip.ts'
import type { RunnerTask } from './ports.ts'

/** What goes back for one follow-up. */
export type FollowUpAnswer =
  | { kind: 'upload'; gzipBody: Uint8Array<ArrayBuffer> }
  | { kind: 'attestation'; statement: Attestation; gaps: number; sig: string }
  | { kind: 'refused'; reason: FollowUpRefusalReason }

const DAY_MS = 86_400_000

/**
 * Answers what the server asks about a body that is still here (protocol README §7). What is signed
 * is built from this node's own sentences alone; the server only says which.
 *
 * @param payload the stored body; undefined when it was let go
 */
export async function answerFollowUp(
  followUp: FollowUp,
  task: Pick<RunnerTask, 'campaign' | 'lease' | 'body' | 'oneUseKey'>,
  payload: Uint8Array<ArrayBuffer> | undefined,
  nowMs: number,
): Promise<FollowUpAnswer> {
  const { body } = task
  if (body === undefined || payload === undefined) return { kind: 'refused', reason: 'body-gone' }
  if (followUp.kind === 'payload') return { kind: 'upload', gzipBody: await gzip(payload) }

  const read = readPayload(payload, body)
  // It was read once, so only a newer version of this code could fail: the old list is lost then.
  if (!read.ok) return { kind: 'refused', reason: 'body-gone' }
  if (followUp.kind === 'sentences') {
    return { kind: 'upload', gzipBody: await gzip(read.sentenceList) }
  }

  const { indexes, url, day, exact } = followUp
  if (url !== task.lease.url && url !== body.url) return { kind: 'refused', reason: 'wrong-url' }
  if (!isWithinOneDay(day, nowMs)) return { kind: 'refused', reason: 'wrong-day' }
  // An empty text is signed only of a payload that has none, beside its digest: never in place of one.
  if (indexes.length === 0 && (!exact || read.page.sentences.length > 0)) {
    return { kind: 'refused', reason: 'index-out-of-range' }
  }
  const row = rowText(read.page.sentences, indexes)
  if (!row.ok) return { kind: 'refused', reason: row.reason }

  const { gaps } = row
  const statement: Attestation = {
    campaign: task.campaign,
    day,
    gaps,
    ...(exact ? { payload: body.digest } : {}),
    text: toBase64Url(sha256(row.text)),
    transform: 'gleaner-text/1',
    url,
  }
  const bytes = new TextEncoder().encode(canonicalJson(statement))
  const message = preAuthEncoding(payloadType.attestation, bytes)
  const sig = toBase64Url(await sign(task.oneUseKey.privateKey, message))
  return { kind: 'attestation', statement, gaps, sig }
}

/** Clocks and midnights differ: the day before and the day after this device's own are accepted. */
function isWithinOneDay(day: string, nowMs: number): boolean {
  const startMs = Date.parse(`${day}T00:00:00Z`)
  // A day that is none (month 13) parses to NaN, which no comparison accepts.
  return nowMs >= startMs - DAY_MS && nowMs < startMs + 2 * DAY_MS
}

/** SHA-256 of a statement's bytes, as a receipt names it. */
export function statementDigest(statement: string): string {
  return toBase64Url(sha256(statement))
}
