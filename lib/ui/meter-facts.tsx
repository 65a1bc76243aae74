import type { Overview } from '../browser/messages.ts'
import { DEFAULT_IDLE_SHARE } from '../meter/budget.ts'
import { agoWords, meterFailureWords, rateWords } from './words.ts'

/** What was measured of the line, when, and how much of it is used at most. */
export function MeterFacts(props: { meter: Overview['meter']; nowMs: number }) {
  const { meter, nowMs } = props
  const last = meter?.last
  return (
    <section class="stack" aria-label="Your line">
      <h3>Your line</h3>
      {last ? (
        <p data-testid="meter">
          {rateWords(last.downBitsPerSecond)} down
          {last.upBitsPerSecond !== null && `, ${rateWords(last.upBitsPerSecond)} up`}
          <br />
          <span class="small quiet">
            Measured {agoWords(last.atMs, nowMs)}, kept on this device. At most{' '}
            {Math.round(DEFAULT_IDLE_SHARE.share * 100)}&nbsp;% of it is used.
          </span>
        </p>
      ) : (
        <p class="quiet small" data-testid="meter">
          {meter?.failure
            ? `Not measured: ${meterFailureWords[meter.failure.reason]} (${agoWords(meter.failure.atMs, nowMs)}). Until then little is used.`
            : 'Not measured yet. Until then little is used.'}
        </p>
      )}
    </section>
  )
}
