import { useState } from 'preact/hooks'
import type { NetworkView, Overview } from '../browser/messages.ts'
import type { RunnerState } from '../consent/limits.ts'
import type { Background } from './background.ts'
import { Bar, Problem } from './frame.tsx'
import { MeterFacts } from './meter-facts.tsx'
import { errorSentence, useOverview } from './overview.ts'
import { placesWords } from './site-words.ts'
import { bytesWords, stateName, stateSentence } from './words.ts'

/** The popup: what happens now and why, and one click to stop it. */
export function PopupPage(props: {
  background: Background
  iconOf: (state: RunnerState) => string
  nowMs: () => number
}) {
  const { background } = props
  const { overview, problem, show } = useOverview(background)
  const [failure, setFailure] = useState<string | null>(null)

  const act = async (kind: 'pause' | 'resume') => {
    try {
      show(await background.ask(kind, null))
    } catch (error) {
      setFailure(errorSentence(error))
    }
  }

  return (
    <div class="popup">
      <Bar lab={background.lab}>
        {overview && isStarted(overview) && <PauseButton state={overview.state} onPress={act} />}
      </Bar>
      <Problem sentence={overview?.unsupported ?? failure ?? problem} />
      {overview?.unsupported === null && (
        <main class="stack loose">
          <State overview={overview} iconOf={props.iconOf} />
          {isStarted(overview) && (
            <>
              <Numbers overview={overview} />
              <Campaigns networks={overview.networks} />
              <MeterFacts meter={overview.meter} nowMs={props.nowMs()} />
              <nav class="split small">
                <a href="/journal.html" target="_blank" rel="noopener" data-testid="open-journal">
                  Every page fetched
                </a>
                <a href="/campaigns.html" target="_blank" rel="noopener">
                  Campaigns and networks
                </a>
              </nav>
            </>
          )}
        </main>
      )}
    </div>
  )
}

/** Whether there is anything to show but the way to begin. */
function isStarted({ terms, networks }: Overview): boolean {
  return terms === 'yes' && networks.length > 0
}

function PauseButton(props: { state: RunnerState; onPress: (kind: 'pause' | 'resume') => void }) {
  const kind = props.state.kind === 'paused' ? 'resume' : 'pause'
  return (
    <button
      type="button"
      class={kind === 'pause' ? 'plain' : ''}
      data-testid={kind}
      onClick={() => props.onPress(kind)}
    >
      {kind === 'pause' ? 'Pause' : 'Resume'}
    </button>
  )
}

function State(props: { overview: Overview; iconOf: (state: RunnerState) => string }) {
  const { state, terms, networks } = props.overview
  const next =
    terms !== 'yes'
      ? { href: '/welcome.html', words: terms === 'no' ? 'Read it again' : 'Read what it does' }
      : networks.length === 0
        ? { href: '/join.html', words: 'Join a network' }
        : state.kind === 'waiting' && state.reason === 'no-campaign'
          ? { href: '/campaigns.html', words: 'Choose a campaign' }
          : null
  const sentence =
    terms === 'unasked'
      ? 'You have not been asked yet, so nothing is shared.'
      : terms === 'no'
        ? 'You said no, so nothing is shared.'
        : networks.length === 0
          ? 'You joined no network yet, so nothing is shared.'
          : stateSentence(state)
  return (
    <section class="stack" aria-label="State">
      <div class="state" role="status">
        <img src={`/icon/${props.iconOf(state)}.svg`} alt="" />
        <div>
          <h2 data-testid="state" data-state={state.kind}>
            {stateName(state)}
          </h2>
          <p data-testid="state-sentence">{sentence}</p>
        </div>
      </div>
      {next && (
        <a class="button" href={next.href} target="_blank" rel="noopener" data-testid="next">
          {next.words}
        </a>
      )}
    </section>
  )
}

function Numbers(props: { overview: Overview }) {
  const { networks, today } = props.overview
  const known = networks.flatMap(({ points }) => (points ? [points] : []))
  const pending = known.reduce((sum, { pendingPoints }) => sum + pendingPoints, 0)
  const posted = known.reduce((sum, { postedPoints }) => sum + postedPoints, 0)
  const used = today.bytesUp + today.bytesDown
  return (
    <section class="stack" aria-label="Numbers">
      <div class="numbers">
        <div class="number points" title="Credited; posted after a later check">
          <b data-testid="points-pending">{known.length ? pending.toLocaleString('en') : '–'}</b>
          <span class="small quiet">points pending</span>
        </div>
        <div class="number points" title="Yours for good">
          <b data-testid="points-posted">{known.length ? posted.toLocaleString('en') : '–'}</b>
          <span class="small quiet">points posted</span>
        </div>
      </div>
      <div class="stack">
        <p class="split small">
          <span>Today (UTC)</span>
          <span data-testid="bytes-today" data-bytes={used}>
            {bytesWords(used)} of {bytesWords(today.capBytes)}
          </span>
        </p>
        <progress
          aria-label="Data used today"
          max={today.capBytes}
          value={Math.min(used, today.capBytes)}
        />
      </div>
    </section>
  )
}

function Campaigns(props: { networks: NetworkView[] }) {
  const agreed = props.networks.flatMap(({ name, campaigns }) =>
    campaigns.map((campaign) => ({ network: name, ...campaign })),
  )
  return (
    <section class="stack" aria-label="Campaigns">
      <h3>You share for</h3>
      {agreed.length === 0 && <p class="quiet">No campaign.</p>}
      <ul class="list">
        {agreed.map(({ network, digest, campaign }) => (
          <li key={digest} data-testid="popup-campaign">
            {campaign.title}
            <br />
            <span class="small quiet">
              {network} · {placesWords(campaign)}
            </span>
          </li>
        ))}
      </ul>
    </section>
  )
}
