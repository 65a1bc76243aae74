import { boundedSignal, useOf } from '../../lib/capture/use-signals.ts'
import type { Row } from '../../lib/protocol/release.ts'

/** What the quorum agreed on: of the row, all but its circumstances; digests under their own names. */
type AgreedMembers = Omit<
  Row,
  'campaign' | 'day' | 'duplicate' | 'payload' | 'quorum' | 'robots' | 'text' | 'use'
> & { textDigest: string; payloadDigest: string | null }

/**
 * What the log commits to for an agreed page. Exact dedupe: a page whose text
 * an earlier record of the campaign has is a duplicate, and says so.
 */
export function rowOf(
  page: AgreedMembers,
  about: {
    campaign: string
    day: string
    quorum: number
    /** Digest of the robots.txt that allowed the fetch. */
    robots: string | null
    duplicate: boolean
  },
): Row {
  const signals = page.signals.map(boundedSignal)
  // As a verifier will read them, and with what the bounds cut off.
  const { aiInput, search, tdm, train } = useOf([...page.signals, ...signals])
  return {
    agreementPermille: page.agreementPermille,
    campaign: about.campaign,
    day: about.day,
    duplicate: about.duplicate,
    gaps: page.gaps,
    grade: page.grade,
    language: page.language?.slice(0, 35) || null,
    payload: page.payloadDigest,
    quorum: about.quorum,
    robots: about.robots,
    signals,
    status: page.status,
    text: page.textDigest,
    title: page.title?.slice(0, 1000) ?? null,
    type: page.type,
    url: page.url,
    use: { aiInput, search, tdm, train },
  }
}
