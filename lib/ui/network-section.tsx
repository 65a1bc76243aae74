import { useState } from 'preact/hooks'
import type { NetworkAnswer } from '../browser/messages.ts'
import type { Background } from './background.ts'
import { CampaignCard } from './campaign-card.tsx'
import { Problem } from './frame.tsx'
import { errorSentence } from './overview.ts'

type Known = Extract<NetworkAnswer, { ok: true }>

/** One joined network with the campaigns that it offers. */
export function NetworkSection(props: {
  background: Background
  known: Known
  onChange: (known: Known) => void
}) {
  const { background, known, onChange } = props
  const [problem, setProblem] = useState<string | null>(null)
  const network = known.network.fingerprint

  const take = async (work: () => Promise<NetworkAnswer>) => {
    setProblem(null)
    try {
      const answer = await work()
      if (answer.ok) onChange(answer)
      else setProblem(answer.sentence)
    } catch (error) {
      setProblem(errorSentence(error))
    }
  }

  return (
    <section class="stack loose" aria-label={known.network.name} data-testid="network">
      <div class="stack">
        <h2>{known.network.name}</h2>
        <p class="quiet small">
          Run by {known.network.operator.name}, {known.network.operator.contact}, at{' '}
          {known.network.origin}. Key{' '}
          <span class="mono" title={network}>
            {network.slice(0, 12)}…
          </span>
        </p>
      </div>
      <Problem sentence={problem} />
      {known.offers.length === 0 && (
        <p class="card">This network offers no campaign now. Look again later.</p>
      )}
      {known.offers.map((offer) =>
        offer.ok ? (
          <CampaignCard
            key={offer.digest}
            digest={offer.digest}
            campaign={offer.campaign}
            agreed={offer.agreed}
            onAgree={(act, givenUp) => {
              // The browser asks only in the click itself, so nothing may be awaited before.
              const access = background.requestOrigins(
                background.campaignOrigins(offer.campaign),
                givenUp,
              )
              return take(async () => {
                if (!(await access)) {
                  return {
                    ok: false,
                    sentence:
                      'Without access to the sites nothing can be fetched, so nothing was agreed. Press Agree again to be asked again.',
                  }
                }
                return background.ask('agree', { network, digest: offer.digest, act })
              })
            }}
            onWithdraw={(act) =>
              take(() => background.ask('withdraw', { network, digest: offer.digest, act }))
            }
          />
        ) : (
          <p class="card problem" key={offer.title ?? offer.sentence}>
            {offer.title && <strong>{offer.title}: </strong>}
            {offer.sentence}
          </p>
        ),
      )}
    </section>
  )
}
