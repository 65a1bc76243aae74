import { escapeHtml, htmlPage } from './page.ts'

/** What somebody sees who follows a join link in a browser. The fingerprint stays in the fragment. */
export function joinPage(about: { networkName: string; publicOrigin: string }): string {
  return htmlPage(
    `Join ${about.networkName}`,
    `<h1>Join ${escapeHtml(about.networkName)}</h1>
<p>This network gathers public web pages into open datasets, with the help of people who lend
the idle part of their internet line. You see every campaign before you agree to it, and every
address that was fetched through your line afterwards.</p>
<h2>How to join</h2>
<ol>
  <li>Install the Gleaner extension. The operator tells you where to get it; for now it is loaded
  by hand: <code>chrome://extensions</code>, Developer mode, Load unpacked.</li>
  <li>Open the extension, choose <em>Join a network</em>, and paste this link:
  <code class="link" id="link">${escapeHtml(about.publicOrigin)}/join</code></li>
  <li>Read the campaigns and agree to those you like. Nothing is fetched before that.</li>
</ol>
<p id="missing">The link you followed has no fingerprint (the part after <code>#</code>). Ask
the operator for the whole link: without it the extension cannot know that it talks to the right
network.</p>
<script>
  if (location.hash.length === 44) {
    document.getElementById('link').textContent = location.href
    document.getElementById('missing').hidden = true
  }
</script>`,
  )
}
