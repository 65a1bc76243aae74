/** A status, or that there was none: no address, no connection, no answer in time. */
export type FetchStatus = number | 'unreachable'

const SECOND_MS = 1_000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

/**
 * What a host may ask for in Retry-After. What one observer reports is not yet under quorum: a liar
 * must not be able to take a host out of a campaign for longer than a day. A host that means longer
 * says so again to the one request that comes after it.
 */
const MAX_RETRY_AFTER_MS = DAY_MS

/**
 * Holds in a row in which Retry-After alone decides. A host that was obeyed this often and still says
 * no, as one that answers `Retry-After: 0` to everything, is left alone by the backoff as well.
 */
const TRUSTED_RETRY_AFTERS = 3

/**
 * Backoff without a word of the host, by what went wrong. All double; they differ in how sure it is
 * that our rate is the cause.
 */
const backoff = {
  // RFC 6585 §4 and RFC 9110 §15.6.4: the host says it has enough. 6 h, so that a block that lasts
  // a day costs it a dozen requests.
  overloaded: { firstMs: 30 * SECOND_MS, longestMs: 6 * HOUR_MS },
  // Google slows down on any 5xx (developers.google.com/search/docs/crawling-indexing/http-network-errors),
  // but these are as often the fault of one page: ten minutes, so that it cannot stop the others.
  failing: { firstMs: 10 * SECOND_MS, longestMs: 10 * MINUTE_MS },
  // A restart takes a minute, an outage hours; nobody is there to be bothered.
  unreachable: { firstMs: 30 * SECOND_MS, longestMs: HOUR_MS },
}

/** How long a robots.txt that was read is in force (RFC 9309 §2.4: not longer than 24 h). */
export const robotsFreshMs = DAY_MS

/** When it is asked for again: four hours before, for a quorum and some failures to fit between. */
export const robotsRefreshMs = 20 * HOUR_MS

/**
 * Milliseconds that a Retry-After header asks for (RFC 9110 §10.2.3): seconds, or a date in any of
 * the three forms of §5.6.7. What is past or negative is 0; null when it says nothing intelligible.
 */
export function retryAfterMs(header: string | undefined, nowMs: number): number | null {
  const text = header?.trim() ?? ''
  if (/^-?\d+$/.test(text)) {
    // A number of any length stays a number that can be added to a time.
    return Math.min(Math.max(Number(text), 0) * SECOND_MS, Number.MAX_SAFE_INTEGER)
  }
  const atMs = httpDateMs(text, nowMs)
  return atMs === null ? null : Math.max(atMs - nowMs, 0)
}

/**
 * Milliseconds for which nobody at all may speak to a host after this answer; null when it asks for
 * no hold. 401 and 403 are about a page, not about a pace. Without jitter: one clock per host, so
 * there is no crowd to come back at the same moment.
 *
 * @param answer.retryAfterMs what the header said, see `retryAfterMs`
 * @param answer.holds holds of this host one after another before this one
 */
export function holdMs(answer: {
  status: FetchStatus
  retryAfterMs: number | null
  holds: number
}): number | null {
  const pattern = backoffFor(answer.status)
  if (!pattern) return null
  const ownMs = doubled(pattern.firstMs, answer.holds, pattern.longestMs)
  if (answer.retryAfterMs === null) return ownMs
  const askedMs = Math.min(answer.retryAfterMs, MAX_RETRY_AFTER_MS)
  return answer.holds < TRUSTED_RETRY_AFTERS ? askedMs : Math.max(askedMs, ownMs)
}

function backoffFor(status: FetchStatus) {
  switch (status) {
    case 'unreachable':
      return backoff.unreachable
    case 429:
    case 503:
      return backoff.overloaded
    case 500:
    case 502:
    case 504:
      return backoff.failing
    default:
      return null
  }
}

/**
 * Response times between two starts. Scrapy's AutoThrottle waits one latency (target concurrency
 * 1.0), which keeps one worker of the host busy with us all the time; Heritrix (delayFactor 5.0)
 * five times the whole download. Twice the time to the first byte leaves the host at least half of
 * that worker, without making a volunteer's slow line count: the body's time is not in it.
 */
const ADAPTIVE_FACTOR = 2

/** Heritrix' maxDelayMs. A host that needs longer has 429 and Crawl-delay to say so. */
const MAX_ADAPTIVE_MS = 30 * SECOND_MS

/** Milliseconds between fetches that a host's own response times ask for; 0 while they are unknown. */
export function adaptiveDelayMs(responseMs: number | null): number {
  if (responseMs === null) return 0
  return Math.min(Math.ceil(ADAPTIVE_FACTOR * responseMs), MAX_ADAPTIVE_MS)
}

/** TCP's weight for the round trip (RFC 6298 §2.3): the last dozen or so fetches decide. */
const RESPONSE_WEIGHT = 1 / 8

/**
 * Longest sample. Samples are what observers claim; the clamp and the weight together let one claim
 * move the delay by less than four seconds. Twice this is also the longest delay there is.
 */
const MAX_SAMPLE_MS = MAX_ADAPTIVE_MS / ADAPTIVE_FACTOR

/**
 * Time to the first byte, smoothed over a host's fetches, with one more sample in it. Only of
 * successes: errors are quick, and must not make us faster (Scrapy's AutoThrottle, rule 4).
 */
export function smoothedResponseMs(before: number | null, sampleMs: number): number {
  const sample = Math.min(Math.max(sampleMs, 0), MAX_SAMPLE_MS)
  return before === null ? sample : before + RESPONSE_WEIGHT * (sample - before)
}

/**
 * Milliseconds until robots.txt is asked for again after it stayed unresolved, which disallows the
 * whole host: soon at first, and at least once a day for as long as anybody wants its pages.
 *
 * @param failures in a row, before this one
 */
export function robotsRetryMs(failures: number): number {
  return doubled(15 * MINUTE_MS, failures, DAY_MS)
}

/** Retries of one page. Five, doubling, reach over 2.6 h; the host's own holds come on top. */
const MAX_PAGE_RETRIES = 5

/**
 * Milliseconds until a page is tried again that was answered with 429 or 5xx, or not at all; null
 * when it has been tried often enough.
 *
 * @param failures of this page in a row, before this one
 */
export function pageRetryMs(failures: number): number | null {
  return failures < MAX_PAGE_RETRIES ? doubled(5 * MINUTE_MS, failures, DAY_MS) : null
}

/** The exponent is bounded too: 2^1024 is no number any more. */
function doubled(firstMs: number, times: number, longestMs: number): number {
  return Math.min(firstMs * 2 ** Math.min(times, 30), longestMs)
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** The forms of RFC 9110 §5.6.7. Date.parse reads these and, differing by engine, much else. */
const HTTP_DATES = [
  // Sun, 06 Nov 1994 08:49:37 GMT
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?<day>\d\d) (?<month>[A-Z][a-z]{2}) (?<year>\d{4}) (?<time>\d\d:\d\d:\d\d) GMT$/,
  // Sunday, 06-Nov-94 08:49:37 GMT
  /^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?<day>\d\d)-(?<month>[A-Z][a-z]{2})-(?<year>\d\d) (?<time>\d\d:\d\d:\d\d) GMT$/,
  // Sun Nov  6 08:49:37 1994
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?<month>[A-Z][a-z]{2}) (?<day>[ \d]\d) (?<time>\d\d:\d\d:\d\d) (?<year>\d{4})$/,
]

function httpDateMs(text: string, nowMs: number): number | null {
  for (const form of HTTP_DATES) {
    const parts = form.exec(text)?.groups
    if (!parts) continue
    const month = MONTHS.indexOf(parts.month ?? '')
    const day = Number(parts.day)
    const [hour = 0, minute = 0, second = 0] = (parts.time ?? '').split(':').map(Number)
    // 60 is a leap second. Date.UTC takes it, and would take 31 February too.
    if (month < 0 || hour > 23 || minute > 59 || second > 60) return null
    const atMs = Date.UTC(fullYear(parts.year ?? '', nowMs), month, day, hour, minute, second)
    const midnight = new Date(Date.UTC(fullYear(parts.year ?? '', nowMs), month, day))
    return midnight.getUTCMonth() === month && midnight.getUTCDate() === day ? atMs : null
  }
  return null
}

/** RFC 9110 §5.6.7: two digits that seem more than 50 years in the future are the century before. */
function fullYear(digits: string, nowMs: number): number {
  if (digits.length > 2) return Number(digits)
  const thisYear = new Date(nowMs).getUTCFullYear()
  const year = thisYear - (thisYear % 100) + Number(digits)
  return year > thisYear + 50 ? year - 100 : year
}
