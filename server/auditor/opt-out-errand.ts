import { proofRecord } from '../frontier/opt-out.ts'
import { type AuditorTask, waitingToken } from '../store/auditor-tasks.ts'
import { settleProof } from '../store/opt-outs.ts'
import type { AuditorTools, Outcome } from './errand.ts'
import { type Answer, wholeBody } from './fetch-as-auditor.ts'
import { NamesFailed } from './names.ts'

/** The token and a word or two. */
const maxBytes = 4 * 1_024
/** An owner waits for it. */
const maxMs = 15_000
/** From one spelling of the same host to another. */
const maxRedirects = 3

/** What was found at one place where an opt-out's proof may be, in a sentence for the site's owner. */
interface Look {
  found: boolean
  reason: string
}

/** Looks for the well-known file. Each look is one answer to the owner, who may ask again. */
export function optOutFileErrand(
  task: AuditorTask,
  tools: AuditorTools,
  signal: AbortSignal,
): Promise<Outcome> {
  return settled(task, tools, async (token) => {
    const https = new URL(task.target)
    const first = await lookAt(https, token, tools, signal)
    if (first !== null) return first
    // A site without https proves itself without it, as with ACME's http-01 (RFC 8555 §8.3).
    const http = new URL(https)
    http.protocol = 'http:'
    const second = https.protocol === 'https:' ? await lookAt(http, token, tools, signal) : null
    return (
      second ?? {
        found: false,
        reason: `No connection to ${https.host} was possible for ${https}.`,
      }
    )
  })
}

/** Null when nobody answers there at all. */
async function lookAt(
  at: URL,
  token: string,
  tools: AuditorTools,
  signal: AbortSignal,
): Promise<Look | null> {
  const permit = async (hop: URL) =>
    hop.hostname === at.hostname
      ? null
      : `${at} redirects to ${hop.host}, which cannot speak for ${at.host}.`
  const limits = { maxBytes, maxMs, maxRedirects, signal, permit }
  const fetched = await tools.fetch(at.href, limits, (answer) => lookInto(answer, at, token))
  if (fetched.kind === 'answered') return fetched.value
  if (fetched.reason === 'connection') return null
  return { found: false, reason: `${at} could not be read: ${fetched.sentence}` }
}

async function lookInto(answer: Answer, at: URL, token: string): Promise<Look> {
  if (answer.status !== 200) return { found: false, reason: `${at} answered ${answer.status}.` }
  const text = new TextDecoder().decode(await wholeBody(answer.body))
  const lines = text.split(/\r\n|\n|\r/).map((line) => line.trim())
  if (lines.includes(token)) return { found: true, reason: `The token is in ${answer.url}.` }
  const where = answer.isCut() ? `the first ${maxBytes} bytes of ${at}` : `${at}`
  return { found: false, reason: `The token is on no line of ${where}.` }
}

/** Looks for the TXT record. */
export function optOutDnsErrand(task: AuditorTask, tools: AuditorTools): Promise<Outcome> {
  return settled(task, tools, async (token) => {
    const name = task.target
    try {
      const records = await tools.names.txt(name)
      if (records.some((record) => record.trim() === proofRecord(token))) {
        return { found: true, reason: `The token is in the TXT record of ${name}.` }
      }
      const reason =
        records.length === 0
          ? `${name} has no TXT record.`
          : `None of the ${records.length} TXT records of ${name} holds the token.`
      return { found: false, reason }
    } catch (error) {
      if (!(error instanceof NamesFailed)) throw error
      return { found: false, reason: `${name} could not be looked up: ${error.message}` }
    }
  })
}

async function settled(
  task: AuditorTask,
  tools: AuditorTools,
  look: (token: string) => Promise<Look>,
): Promise<Outcome> {
  const { optOut } = task
  if (optOut === null) return { kind: 'failed', reason: 'It is not said for which opt-out.' }
  const token = await waitingToken(tools.database.pool, optOut)
  if (token === null) return { kind: 'done', reason: 'The request is settled already.' }
  const seen = await look(token)
  return {
    kind: seen.found ? 'done' : 'failed',
    reason: seen.reason,
    apply: (tx) => settleProof(tx, optOut, seen),
  }
}
