import { robotsStatusVerdict } from '../../lib/capture/robots.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import type { HostRobots } from '../store/frontier.ts'
import { type FetchAsAuditor, wholeBody } from './fetch-as-auditor.ts'

/** RFC 9309 §2.5: 500 kibibytes are parsed, so no more is read. */
const maxBytes = 500 * 1_024
/** With five redirects at a host's pace between them. */
const maxMs = 40_000
/** RFC 9309 §2.3.1.2: at least five, even across authorities. */
const maxRedirects = 5

/**
 * Reads a robots.txt (RFC 9309 §2.3). Redirects may lead to any host; the rules belong to the one
 * that was asked. Whatever keeps it from being read forbids everything, the sixth redirect too.
 *
 * @throws HostBusy
 */
export async function readRobots(
  fetch: FetchAsAuditor,
  url: string,
  signal: AbortSignal,
): Promise<{ robots: HostRobots; wasAborted: boolean }> {
  const limits = { maxBytes, maxMs, maxRedirects, signal }
  const fetched = await fetch(url, limits, async (answer): Promise<HostRobots> => {
    const by = answer.redirects === 0 ? '' : `, redirected to ${answer.url.slice(0, 300)}`
    const reason = `status ${answer.status}${by}, as the auditor saw`
    const verdict = robotsStatusVerdict(answer.status)
    if (verdict !== 'parse') return { state: verdict, reason }
    const body = await wholeBody(answer.body)
    return {
      state: 'rules',
      text: new TextDecoder().decode(body),
      digest: sha256(body),
      reason: answer.isCut() ? `${reason}; its first ${maxBytes} bytes` : reason,
    }
  })
  if (fetched.kind === 'answered') return { robots: fetched.value, wasAborted: false }
  return {
    robots: {
      state: robotsStatusVerdict('unreachable') as 'disallow-all',
      reason: fetched.sentence,
    },
    wasAborted: fetched.reason === 'aborted',
  }
}
