import { useRules } from '../../../lib/capture/use-policy.ts'
import type { PublicCampaign } from '../../store/sites.ts'
import { counted, type Html, html, htmlPage } from './page.ts'

export interface AboutNetwork {
  networkName: string
  operatorContact: string
}

/** Who we are, for a site's owner who found us in a log. */
export function crawlerPage(about: AboutNetwork, campaigns: readonly PublicCampaign[]): string {
  const { networkName, operatorContact } = about
  return htmlPage(
    `The crawler of ${networkName}`,
    html`<h1>The crawler of ${networkName}</h1>
<p class="lede">You found <code>Gleaner</code> in your log. This page says who that is, what it
fetches and why, and how you slow it down or stop it.</p>
<p>${networkName} gathers public web pages into open datasets, for campaigns that are named and
signed. The pages are fetched through the internet lines of people who agreed to exactly those
campaigns. Each page is fetched by two or more of them, on different networks, and published only as
far as they saw the same.</p>

<h2>Stop it or slow it down</h2>
<table class="stacked">
<thead><tr><th>What you do</th><th>What happens</th><th>Within</th></tr></thead>
<tbody>
${row('Opt out: a DNS record or a small file proves that the host is yours', 'Nothing of it is fetched any more, by any campaign; what runs is called back; what was gathered is in no later release', '5 minutes of the proof')}
${row('Disallow the agent gleaner in robots.txt', 'What you disallow is not fetched', '24 hours')}
${row('Crawl-delay in robots.txt', 'The whole network waits that long between two requests, at least 1 s and at most 120 s', '24 hours')}
${row('Answer 429 or 503, with Retry-After if you like', 'The whole network leaves the host alone, longer each time', 'at once')}
</tbody>
</table>
<p><a href="/opt-out">Opt out a host, a path or a domain</a>. It needs no account.</p>
<pre>User-agent: gleaner
Crawl-delay: 10
Disallow: /private/</pre>
<p>Or write to ${contact(operatorContact)}.</p>

<h2>What we know of your site</h2>
${lookUpForm('')}

<h2>What a request looks like</h2>
<pre>GET /page HTTP/1.1
User-Agent: <span class="quiet">(the User-Agent of the person’s browser)</span> Gleaner/0.1.0 (+${operatorContact})
${isMailbox(operatorContact) ? html`From: ${operatorContact}\n` : null}Accept-Language: *</pre>
<ul>
<li>Only GET, without cookies, login, referrer or body. No script is run; pictures, styles and other
parts of a page are not loaded. Redirects are followed one by one.</li>
<li>In brackets stands the contact of the campaign’s operator, who may be somebody else than the
network’s, or of up to three where several campaigns could be asking. The header <code>From</code>
is there when it is one e-mail address.</li>
<li>Contributors without a browser send <code>User-Agent: Gleaner/0.1.0 (node)</code>. Sitemaps,
files about use, a robots.txt that redirects to another host and the proof of an opt-out are fetched
by the network’s own server, as <code>Gleaner/0.1.0 (auditor; +${operatorContact})</code>.</li>
<li>The agent to name in robots.txt is <code>gleaner</code>.</li>
</ul>
<h3>Why there is no list of addresses</h3>
<p>Requests come from the homes of contributors, whose addresses are nobody’s business and are
published nowhere. That also means that we cannot prove to you that a request was ours, and that a
block by address meets a person, not the network. Blocking by the name in the User-Agent, robots.txt
or the opt-out meets the network.</p>

<h2>What it obeys</h2>
<ul>
<li><strong>robots.txt</strong> by RFC 9309, read again within 24 hours. If it cannot be fetched, or
is answered with 401, 403, 429 or a server error, nothing is fetched.</li>
<li><strong>One clock for each host</strong>, across all contributors: never faster than the signed
campaign says, than your Crawl-delay, or than your own response times suggest. One request at a time
unless the campaign says more.</li>
<li><strong>Retry-After</strong>, 429 and 503: everybody waits.</li>
<li><strong>What you say about use</strong>, most restrictive first. A page that is forbidden so is
not fetched, or if only the page itself says it, not published:</li>
</ul>
<table class="stacked">
<thead><tr><th>What you say</th><th>Meaning</th><th>Kept out of</th></tr></thead>
<tbody>
${useRules.map(
  ({ source, meaning, forbids }) => html`<tr>
<td><strong>${source}</strong></td>
<td data-label="means">${meaning}</td>
<td data-label="kept out of">${forbids.length === 0 ? 'no campaign' : forbids.length === 4 ? 'every campaign' : `campaigns for ${forbids.map((use) => uses[use]).join(' or ')}`}</td>
</tr>`,
)}
</tbody>
</table>
<p class="quiet">Where you say nothing, the dataset says “unknown”, which is not a yes.</p>

<h2>Campaigns now</h2>
${campaigns.length === 0 ? html`<p>No campaign is running.</p>` : campaigns.map(campaignCard)}

<h2>Contact</h2>
<p>${networkName} is run by the people at ${contact(operatorContact)}. Tell them what you saw: your
host, the time, and the User-Agent.</p>`,
  )
}

function row(what: string, happens: string, within: string): Html {
  return html`<tr><td><strong>${what}</strong></td><td>${happens}</td><td data-label="Within">${within}</td></tr>\n`
}

/** The question “what do you know of my host”, on any page. */
export function lookUpForm(host: string): Html {
  return html`<form action="/site" method="get">
<label for="host">Host name</label>
<input type="text" id="host" name="host" value="${host}" maxlength="2048" required autocapitalize="none" autocomplete="off" spellcheck="false" placeholder="www.example.org">
<button>Look it up</button>
</form>`
}

/** An e-mail address or a web address as a link; anything else as it stands. */
export function contact(given: string): Html {
  if (isMailbox(given)) return html`<a href="mailto:${given}">${given}</a>`
  if (/^https?:\/\/[^\s]+$/.test(given)) return html`<a href="${given}">${given}</a>`
  return html`${given}`
}

/** As lib/browser/identify.ts decides about the header From. */
function isMailbox(given: string): boolean {
  return /^[\x21-\x7e]+@[\x21-\x7e]+$/.test(given)
}

/** Names of the campaign's declared use, for people. */
const uses: Record<PublicCampaign['use'], string> = {
  research: 'research',
  search: 'a search index',
  'ai-training': 'training AI models',
  archive: 'an archive',
}

/** As many sites as are worth reading; the log has the whole manifest. */
const sitesShown = 20

function campaignCard(campaign: PublicCampaign): Html {
  const { sites, wide } = campaign
  return html`<section class="card">
<h3>${campaign.title}${campaign.paused ? ' (paused)' : ''}</h3>
<p>${campaign.purpose}</p>
<dl>
<dt>For</dt><dd>${uses[campaign.use]}</dd>
<dt>Operator</dt><dd>${campaign.operator.name}, ${contact(campaign.operator.contact)}</dd>
${
  sites.length === 0
    ? null
    : html`<dt>Sites</dt><dd>${sites
        .slice(0, sitesShown)
        .map(
          (site) =>
            html`<code>${site.host}</code> ${
              site.pathPrefixes.some((prefix) => prefix === '/')
                ? null
                : html`below ${site.pathPrefixes.slice(0, 5).join(', ')}`
            } <span class="quiet">${rate(site)}</span><br>`,
        )}${sites.length > sitesShown ? `and ${sites.length - sitesShown} more` : null}</dd>`
}
${
  wide === null
    ? null
    : html`<dt>List</dt><dd>${counted(wide.size, 'domain')}: ${wide.category} <span class="quiet">${rate(wide)}</span></dd>`
}
<dt>Campaign</dt><dd><code>${campaign.id}</code></dd>
</dl>
</section>`
}

/** The most a campaign may ask of one host; what the host itself asks for makes it slower. */
function rate(of: { requestsPerSecond: number; requestsInFlight: number }): string {
  const { requestsPerSecond: perSecond, requestsInFlight } = of
  const pace =
    perSecond >= 1
      ? `at most ${counted(Math.round(perSecond * 100) / 100, 'request')} a second`
      : `at most one request every ${Math.round(10 / perSecond) / 10} s`
  return `${pace}, ${requestsInFlight} at once`
}
