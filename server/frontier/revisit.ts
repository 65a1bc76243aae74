const DAY_MS = 24 * 60 * 60 * 1_000

/**
 * Before anything is known of a page. Cho and Garcia-Molina found in 720,000 pages over four months
 * that half of them changed within 50 days and over a fifth daily ("The evolution of the web and
 * implications for an incremental crawler", VLDB 2000); a week lies between, costs four visits a
 * month, and the first of them already counts.
 */
const FIRST_REVISIT_MS = 7 * DAY_MS

/** A campaign's pages count by days: attestations name a day. */
const SHORTEST_MS = DAY_MS

/** So that a removal, or a wish about use, is noticed on pages too that never change. */
const LONGEST_MS = 60 * DAY_MS

/** What is known of a page's visits. */
export interface VisitHistory {
  /** Visits that saw the page. */
  visits: number
  /** Of these, how many saw another text than the visit before. */
  changes: number
  /** Null when there was no visit. */
  firstVisitMs: number | null
  lastVisitMs: number | null
}

/**
 * When a page is to be visited again: when it will have changed with probability one half, for a
 * page that changes by a Poisson process; not before a day from now and not after 60.
 *
 * Without a change seen there is no rate to estimate. Then the page is left alone for as long as it
 * has been watched: having seen none in T, with every rate as likely before, the next T brings none
 * with probability T / (T + T). So intervals at most double the time watched.
 */
export function nextVisitMs(history: VisitHistory & { nowMs: number }): number {
  return history.nowMs + Math.min(Math.max(intervalMs(history), SHORTEST_MS), LONGEST_MS)
}

function intervalMs(history: VisitHistory): number {
  const { visits, changes, firstVisitMs, lastVisitMs } = history
  if (visits < 2 || firstVisitMs === null || lastVisitMs === null) return FIRST_REVISIT_MS
  const watchedMs = Math.max(lastVisitMs - firstVisitMs, 0)
  if (changes === 0) return watchedMs
  // Many visits at one moment say nothing about rates.
  if (watchedMs === 0) return FIRST_REVISIT_MS
  return Math.LN2 / changesPerMs(visits - 1, changes, watchedMs / (visits - 1))
}

/**
 * Rate of change by the bias-reduced estimator of Cho and Garcia-Molina, "Estimating frequency of
 * change", ACM TOIT 3(3), 2003, §4.2: λ = −ln((n − X + 0.5) / (n + 0.5)) / I. Counting changes alone
 * (X / nI) would miss all but one of those between two visits; without the halves it would be
 * infinite for a page that changed each time.
 *
 * It is made for regular visits, and ours are not: I is their mean. A concave function of a mean
 * is more than the mean of the function, so this comes out too small, the more so the more irregular
 * the visits: by about λI/2 times the squared coefficient of variation of the intervals. Intervals
 * here follow the same rule and become alike; λI is then ln 2, and with intervals that vary by a
 * half the loss is a tenth. Their likelihood for irregular visits would need each page's every visit.
 *
 * @param comparisons n, visits with one before
 * @param changes X, those that found another text
 * @param meanIntervalMs I
 */
export function changesPerMs(comparisons: number, changes: number, meanIntervalMs: number): number {
  const seen = Math.min(changes, comparisons)
  return -Math.log((comparisons - seen + 0.5) / (comparisons + 0.5)) / meanIntervalMs
}
