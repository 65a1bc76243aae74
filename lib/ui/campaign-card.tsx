import { useRef, useState } from 'preact/hooks'
import type { Campaign, Site } from '../protocol/campaign.ts'
import { domainsWords } from './site-words.ts'
import { bytesWords, daysWords, pointsWords, requestRateWords, useWords } from './words.ts'

/** One campaign with all its terms, and the choice. */
export function CampaignCard(props: {
  digest: string
  campaign: Campaign
  agreed: boolean
  /** Called in the click itself. Resolves when it is settled; the signal ends waiting for the browser. */
  onAgree: (act: string, givenUp: AbortSignal) => Promise<void>
  onWithdraw: (act: string) => Promise<void>
}) {
  const { campaign, digest, agreed } = props
  const [busy, setBusy] = useState(false)
  const [declined, setDeclined] = useState(false)
  const waiting = useRef<AbortController | null>(null)
  const titleId = `title-${digest}`

  const settle = (work: Promise<void>) => {
    setBusy(true)
    void work.finally(() => setBusy(false))
  }
  const agree = () => {
    waiting.current = new AbortController()
    settle(props.onAgree('Pressed “Agree and share”', waiting.current.signal))
  }

  return (
    <article
      class={agreed ? 'card done' : 'card'}
      aria-labelledby={titleId}
      data-testid="campaign"
      data-campaign={campaign.id}
      data-agreed={agreed}
    >
      <div class="stack">
        <h2 id={titleId}>{campaign.title}</h2>
        <p>{campaign.purpose}</p>
      </div>

      <CampaignTerms campaign={campaign} />

      <p class="small quiet">
        Checked on this device: the terms are signed with the operator’s key and stand in the public
        log, so everyone is shown the same. Terms{' '}
        <span class="mono" title={digest}>
          {digest.slice(0, 12)}…
        </span>
      </p>

      {agreed ? (
        <div class="split">
          <p data-testid="agreed">
            <strong>You agreed.</strong> Withdrawing stops it at once.
          </p>
          <button
            type="button"
            class="plain"
            data-testid="campaign-withdraw"
            disabled={busy}
            onClick={() => settle(props.onWithdraw('Pressed “Withdraw”'))}
          >
            Withdraw
          </button>
        </div>
      ) : declined ? (
        <div class="split">
          <p>Not shared. Nothing is fetched for this campaign.</p>
          <button type="button" class="link" onClick={() => setDeclined(false)}>
            Change my mind
          </button>
        </div>
      ) : (
        <>
          <p class="small quiet">
            {campaign.wide === undefined
              ? busy
                ? 'Your browser asks whether Gleaner may access these sites. Answer there to go on.'
                : 'Your browser will ask whether Gleaner may access exactly these sites.'
              : busy
                ? 'Your browser asks whether Gleaner may access all sites. Answer there to go on.'
                : 'Your browser will ask for access to all sites, because the list is too long to ask for each; Gleaner itself only fetches from domains that prove they are on this list.'}
          </p>
          <div class="choice">
            <button
              type="button"
              data-testid="campaign-decline"
              onClick={() => {
                waiting.current?.abort()
                setDeclined(true)
              }}
            >
              No, thank you
            </button>
            <button
              type="button"
              data-testid="campaign-agree"
              data-campaign={campaign.id}
              disabled={busy}
              onClick={agree}
            >
              Agree and share
            </button>
          </div>
        </>
      )}
    </article>
  )
}

/** What, how fast, for whom, for how long: the terms in the order in which they matter to a person. */
export function CampaignTerms(props: { campaign: Campaign }) {
  const { campaign } = props
  const { limits, points, operator } = campaign
  return (
    <dl class="facts">
      <dt>Sites</dt>
      <dd>
        <ul class="list">
          {campaign.sites.map((site) => (
            <li key={`${site.scheme}://${site.host}`}>
              <SiteTerms site={site} />
            </li>
          ))}
          {campaign.wide && (
            <li data-testid="wide">
              <WideTerms wide={campaign.wide} />
            </li>
          )}
        </ul>
      </dd>
      <dt>Used for</dt>
      <dd>{useWords[campaign.use]}</dd>
      <dt>Run by</dt>
      <dd>
        {operator.name}, {operator.contact}
      </dd>
      <dt>Kept for</dt>
      <dd>{daysWords(campaign.retentionDays)}</dd>
      <dt>Each page</dt>
      <dd>
        At most {bytesWords(limits.pageBytes)} and {Math.ceil(limits.pageMs / 1_000)} seconds; seen
        by {campaign.quorum} contributors before it is published
      </dd>
      <dt>In all</dt>
      <dd>At most {limits.pages.toLocaleString('en')} pages</dd>
      <dt>Points</dt>
      <dd>
        {pointsWords(points.perPage)} for a new page that others confirm,{' '}
        {pointsWords(points.perDuplicate)} for one known already
      </dd>
      <dt>Until</dt>
      <dd>{campaign.validUntil.slice(0, 10)}</dd>
    </dl>
  )
}

function WideTerms(props: { wide: NonNullable<Campaign['wide']> }) {
  const { size, category, root, scheme, requestsPerSecond, requestsInFlight } = props.wide
  return (
    <>
      <strong>
        {domainsWords(size)}: {category}
      </strong>
      {scheme === 'http' && <span class="quiet"> (not encrypted)</span>}
      <br />
      <span class="quiet">
        Each with every name below it and all its pages. At most{' '}
        {requestRateWords(requestsPerSecond)} and {requestsInFlight} at once for each host, from all
        contributors together. The list is public and cannot change:{' '}
        <span class="mono" title={root}>
          {root.slice(0, 12)}…
        </span>
      </span>
    </>
  )
}

function SiteTerms(props: { site: Site }) {
  const { scheme, host, pathPrefixes, requestsPerSecond, requestsInFlight } = props.site
  const everything = pathPrefixes.length === 1 && pathPrefixes[0] === '/'
  return (
    <>
      <strong>{host}</strong>
      {scheme === 'http' && <span class="quiet"> (not encrypted)</span>}
      {!everything && <span class="mono"> {pathPrefixes.join(' ')}</span>}
      <br />
      <span class="quiet">
        At most {requestRateWords(requestsPerSecond)} and {requestsInFlight} at once, from all
        contributors together
      </span>
    </>
  )
}
