import { useEffect, useState } from 'preact/hooks'
import type { NetworkAnswer, NetworkView } from '../browser/messages.ts'
import type { Background } from './background.ts'
import { Page, Problem } from './frame.tsx'
import { NetworkSection } from './network-section.tsx'
import { errorSentence, useOverview } from './overview.ts'

/** Every joined network, what it offers and what was agreed to there. */
export function CampaignsPage(props: { background: Background }) {
  const { background } = props
  const { overview, problem, show } = useOverview(background)
  const [failure, setFailure] = useState<string | null>(null)

  const leave = async (network: NetworkView) => {
    try {
      show(await background.ask('leave', { network: network.fingerprint }))
    } catch (error) {
      setFailure(errorSentence(error))
    }
  }

  return (
    <Page lab={background.lab}>
      <div class="split">
        <h1>Your campaigns</h1>
        <a href="/join.html" data-testid="add-network">
          Join another network
        </a>
      </div>
      <Problem sentence={overview?.unsupported ?? failure ?? problem} />
      {overview?.networks.length === 0 && (
        <p class="card">
          <span>
            You joined no network yet. <a href="/join.html">Join one</a> with the link that its
            operator gives you.
          </span>
        </p>
      )}
      {overview?.networks.map((network) => (
        <Joined
          key={network.fingerprint}
          background={background}
          network={network}
          onLeave={() => leave(network)}
        />
      ))}
    </Page>
  )
}

function Joined(props: { background: Background; network: NetworkView; onLeave: () => void }) {
  const { background, network, onLeave } = props
  const [known, setKnown] = useState<Extract<NetworkAnswer, { ok: true }> | null>(null)
  const [problem, setProblem] = useState<string | null>(null)
  const [leaving, setLeaving] = useState(false)
  const { fingerprint } = network

  useEffect(() => {
    background.ask('offers', { network: fingerprint }).then(
      (answer) => (answer.ok ? setKnown(answer) : setProblem(answer.sentence)),
      (error: unknown) => setProblem(errorSentence(error)),
    )
  }, [background, fingerprint])

  return (
    <div class="stack loose">
      <Problem sentence={problem} />
      {known && <NetworkSection background={background} known={known} onChange={setKnown} />}
      {leaving ? (
        <div class="card problem">
          <p>
            Leaving {network.name} withdraws from its campaigns and deletes your keys for it here.
            Points under those keys are no longer yours to use. The journal stays.
          </p>
          <div class="choice">
            <button type="button" onClick={() => setLeaving(false)}>
              Stay
            </button>
            <button type="button" data-testid="leave-confirm" onClick={onLeave}>
              Leave
            </button>
          </div>
        </div>
      ) : (
        <p>
          <button type="button" class="link" data-testid="leave" onClick={() => setLeaving(true)}>
            Leave {network.name}
          </button>
        </p>
      )}
    </div>
  )
}
