import { escapeHtml, htmlPage } from './page.ts'

/** Who we are, for a site's owner who found us in a log. */
export function crawlerPage(about: { networkName: string; operatorContact: string }): string {
  return htmlPage(
    `About the crawler of ${about.networkName}`,
    `<h1>The crawler of ${escapeHtml(about.networkName)}</h1>
<p>Gleaner fetches public pages for named campaigns, through the browsers of people who agreed to
exactly those campaigns. It sends GET requests without cookies, obeys robots.txt for the agent
<code>gleaner</code>, Crawl-delay and Retry-After, and never goes faster on your site than the
signed campaign allows.</p>
<h2>Slow it down or stop it</h2>
<p>In <code>robots.txt</code>:</p>
<p><code class="link">User-agent: gleaner<br>Disallow: /</code></p>
<p>or write to ${escapeHtml(about.operatorContact)}.</p>`,
  )
}
