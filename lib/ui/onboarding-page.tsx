import { useRef, useState } from 'preact/hooks'
import type { NetworkAnswer } from '../browser/messages.ts'
import { joinLinkSentence, parseJoinLink } from '../consent/join-link.ts'
import type { Background } from './background.ts'
import { Page, Problem } from './frame.tsx'
import { NetworkSection } from './network-section.tsx'
import { errorSentence, useOverview } from './overview.ts'
import { Terms } from './terms.tsx'

/** From the first question to the first campaign, on one page: terms, network, campaigns. */
export function OnboardingPage(props: { background: Background; link: string }) {
  const { background } = props
  const { overview, problem, show } = useOverview(background)
  const [busy, setBusy] = useState(false)
  const [failure, setFailure] = useState<string | null>(null)
  const [known, setKnown] = useState<Extract<NetworkAnswer, { ok: true }> | null>(null)

  const answer = async (given: 'yes' | 'no') => {
    setBusy(true)
    try {
      show(await background.ask('answer-terms', given))
      window.scrollTo(0, 0)
    } catch (error) {
      setFailure(errorSentence(error))
    }
    setBusy(false)
  }

  if (overview === null) {
    return (
      <Page lab={background.lab}>
        <Problem sentence={problem} />
      </Page>
    )
  }
  return (
    <Page lab={background.lab}>
      <Problem sentence={overview.unsupported ?? failure ?? problem} />
      {overview.unsupported !== null ? null : overview.terms !== 'yes' ? (
        <Terms busy={busy} answered={overview.terms} onAnswer={answer} />
      ) : known === null ? (
        <JoinForm background={background} link={props.link} onJoined={setKnown} />
      ) : (
        <>
          <div class="stack">
            <h1>Choose what you share for</h1>
            <p class="quiet">
              You joined {known.network.name}. Joining alone shares nothing: each campaign below is
              a choice of its own.
            </p>
          </div>
          <NetworkSection background={background} known={known} onChange={setKnown} />
          {known.network.campaigns.length > 0 && (
            <p class="card done" data-testid="joined">
              <span>
                You share. The toolbar icon shows what happens now;{' '}
                <a href="/journal.html">the journal</a> lists every page. You can close this tab.
              </span>
            </p>
          )}
        </>
      )}
    </Page>
  )
}

function JoinForm(props: {
  background: Background
  link: string
  onJoined: (known: Extract<NetworkAnswer, { ok: true }>) => void
}) {
  const { background, onJoined } = props
  const [link, setLink] = useState(props.link)
  const [busy, setBusy] = useState(false)
  const [failure, setFailure] = useState<string | null>(null)
  const waiting = useRef<AbortController | null>(null)
  const parsed = parseJoinLink(link)

  const join = (event: Event) => {
    event.preventDefault()
    if (!parsed.ok) {
      setFailure(joinLinkSentence[parsed.reason])
      return
    }
    waiting.current?.abort()
    waiting.current = new AbortController()
    // The browser asks only in the click itself, so nothing may be awaited before.
    const access = background.requestOrigins(
      background.serverOrigins(parsed.origin),
      waiting.current.signal,
    )
    const settle = async () => {
      setBusy(true)
      setFailure(null)
      try {
        if (!(await access)) {
          setFailure(
            'Without access to its server the network cannot be joined. Press Join again to be asked again.',
          )
          return
        }
        const answer = await background.ask('join-network', { link })
        if (answer.ok) onJoined(answer)
        else setFailure(answer.sentence)
      } catch (error) {
        setFailure(errorSentence(error))
      } finally {
        setBusy(false)
      }
    }
    void settle()
  }

  return (
    <>
      <div class="stack">
        <h1>Join a network</h1>
        <p class="quiet">
          An operator gives you a join link: the address of the server and the fingerprint of its
          key. Gleaner keeps to that key; if it ever changes, work stops.
        </p>
      </div>
      <form class="card" onSubmit={join}>
        <label>
          Join link
          <input
            id="join-link"
            data-testid="join-link"
            type="text"
            inputMode="url"
            autocomplete="off"
            spellcheck={false}
            placeholder="https://server.example/join#…"
            value={link}
            onInput={(event) => {
              setLink(event.currentTarget.value)
              setFailure(null)
            }}
          />
        </label>
        {parsed.ok && (
          <dl class="facts">
            <dt>Server</dt>
            <dd data-testid="join-server">{parsed.origin}</dd>
            <dt>Key</dt>
            <dd class="mono">{parsed.fingerprint}</dd>
          </dl>
        )}
        <Problem sentence={failure} />
        <p class="small quiet">
          {busy
            ? 'Asking the server. If your browser asks about access, answer there to go on.'
            : 'Your browser may ask whether Gleaner may access this server. Nothing is fetched yet.'}
        </p>
        <div>
          <button type="submit" id="join-network" data-testid="join-network" disabled={busy}>
            Join this network
          </button>
        </div>
      </form>
    </>
  )
}
