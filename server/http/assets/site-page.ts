import type { SiteReport } from '../../../lib/protocol/opt-out.ts'
import { lookUpForm } from './crawler-page.ts'
import { counted, type Html, html, htmlPage, time } from './page.ts'

/** What is known of a host; the question alone while there is no report. */
export function sitePage(
  asked: { host: string; problem: string | null },
  report: SiteReport | null,
): string {
  return htmlPage(
    report === null ? 'What we know of your site' : `What we know of ${report.host}`,
    html`<h1>What we know of ${report === null ? 'your site' : html`<code>${report.host}</code>`}</h1>
${
  asked.problem === null
    ? null
    : html`<div class="card problem" role="alert"><p><strong>That did not work.</strong> ${asked.problem}</p></div>`
}
${report === null ? null : body(report)}
${report === null ? lookUpForm(asked.host) : html`<h2>Another host</h2>${lookUpForm('')}`}`,
  )
}

function body(report: SiteReport): Html {
  const { host, origins, campaigns, optedOut } = report
  return html`${
    optedOut === null
      ? null
      : html`<p class="card notice">${optedOut.target === host ? 'It' : html`<code>${optedOut.target}</code>`} is opted
out since ${time(optedOut.since)}: nothing of that is fetched.
<a href="/opt-out/${optedOut.id}">The opt-out</a></p>`
  }
${
  origins.length === 0 && campaigns.length === 0
    ? html`<p>We never met this host: no campaign names it, and no page of it is on our list.</p>`
    : null
}
${origins.map(originSection)}
${
  campaigns.length === 0
    ? null
    : html`<h2>Campaigns</h2>
<ul>
${campaigns.map(
  ({ title, use, state, pages }) =>
    html`<li><strong>${title}</strong>, for ${use}, ${state}: ${counted(pages, 'page')} of this host on the list</li>
`,
)}
</ul>`
}
<p>How it fetches, and how to slow it down: <a href="/crawler">the crawler</a>.${
    optedOut === null
      ? html` To be left alone: <a href="/opt-out?target=${host}">opt out</a>.`
      : null
  }</p>`
}

const robotsWords: Record<SiteReport['origins'][number]['robots']['state'], string> = {
  unknown: 'not known yet, so nothing is fetched',
  rules: 'read, and its rules hold',
  'allow-all': 'there is none, or it forbids nothing',
  'disallow-all': 'nothing may be fetched',
}

function originSection({
  origin,
  robots,
  paceMs,
  holdUntil,
  holdReason,
}: SiteReport['origins'][number]): Html {
  return html`<h2><code>${origin}</code></h2>
<dl>
<dt>robots.txt</dt><dd>${robotsWords[robots.state]}${robots.reason === null ? null : ` (${robots.reason})`}</dd>
${robots.fetchedAt === null ? null : html`<dt>Read</dt><dd>${time(robots.fetchedAt)}</dd>`}
${robots.digest === null ? null : html`<dt>Its SHA-256</dt><dd><code>${robots.digest}</code></dd>`}
<dt>Pace</dt><dd>at most one request every ${paceMs / 1000} s, of all contributors together</dd>
${
  holdUntil === null
    ? null
    : html`<dt>Held</dt><dd>nobody fetches until ${time(holdUntil)}${holdReason === null ? null : ` (${holdReason})`}</dd>`
}
</dl>`
}
