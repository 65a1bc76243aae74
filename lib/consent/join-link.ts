import { parseIpv4 } from '../capture/public-host.ts'
import { digest } from '../protocol/fields.ts'

export type JoinLinkRefusal = 'not-a-link' | 'no-fingerprint' | 'insecure'

export type JoinLink =
  | { ok: true; origin: string; fingerprint: string }
  | { ok: false; reason: JoinLinkRefusal }

/** What each refusal means, for the person who pasted the link. */
export const joinLinkSentence: Record<JoinLinkRefusal, string> = {
  'not-a-link':
    'This is not a join link. It looks like https://server.example/join#… and comes from the operator.',
  'no-fingerprint':
    'The part after # is missing or incomplete. It names the operator’s key; copy the whole link.',
  insecure:
    'This link does not use https, so others on the way could take over your session. Ask the operator for an https link.',
}

/**
 * Reads `ORIGIN/join#FINGERPRINT` (protocol README §2). Plain http is accepted only for a server on
 * this very machine, where nobody is on the way.
 */
export function parseJoinLink(text: string): JoinLink {
  let url: URL
  try {
    url = new URL(text.trim())
  } catch {
    // The constructor's only failure is text that is no URL, which is an answer here.
    return { ok: false, reason: 'not-a-link' }
  }
  const isWeb = url.protocol === 'https:' || url.protocol === 'http:'
  const isPlain = url.username === '' && url.password === '' && url.search === ''
  if (!isWeb || !isPlain || url.pathname !== '/join') return { ok: false, reason: 'not-a-link' }
  const fingerprint = url.hash.slice(1)
  if (!digest.safeParse(fingerprint).success) return { ok: false, reason: 'no-fingerprint' }
  if (url.protocol === 'http:' && !isThisMachine(url.hostname)) {
    return { ok: false, reason: 'insecure' }
  }
  return { ok: true, origin: url.origin, fingerprint }
}

/** Writes the link that `parseJoinLink` reads. */
export function formatJoinLink(origin: string, fingerprint: string): string {
  return `${origin}/join#${fingerprint}`
}

function isThisMachine(host: string): boolean {
  const ipv4 = parseIpv4(host)
  return host === 'localhost' || host === '[::1]' || (ipv4 !== null && ipv4 >>> 24 === 127)
}
