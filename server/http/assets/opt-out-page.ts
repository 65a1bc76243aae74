import type { OptOut, OptOutScope } from '../../../lib/protocol/opt-out.ts'
import { contact } from './crawler-page.ts'
import { counted, type Html, html, htmlPage, time } from './page.ts'

export interface OptOutForm {
  scope: OptOutScope
  target: string
  /** What was wrong with what was sent, in one sentence or two. */
  problem: string | null
}

const scopes: readonly { scope: OptOutScope; name: string; example: string }[] = [
  {
    scope: 'domain',
    name: 'A domain and every host below it',
    example: 'example.org also covers www.example.org and shop.example.org',
  },
  { scope: 'host', name: 'One host', example: 'www.example.org, and not example.org' },
  {
    scope: 'prefix',
    name: 'A part of one host',
    example: 'www.example.org/blog covers /blog and everything below it',
  },
]

/** The form; with what was given and what was wrong about it, when it comes back. */
export function optOutFormPage(form: OptOutForm, operatorContact: string): string {
  return htmlPage(
    form.problem === null ? 'Opt out of this crawler' : 'Not yet: opt out of this crawler',
    html`<h1>Opt out of this crawler</h1>
<p class="lede">Say which part of the web is yours, prove it, and nothing of it is fetched any more,
by any campaign of this network.</p>
${
  form.problem === null
    ? null
    : html`<div class="card problem" role="alert" id="problem"><p><strong>That did not work.</strong> ${form.problem}</p></div>`
}
<form action="/opt-out" method="post">
<fieldset>
<legend>What is to be left alone?</legend>
${scopes.map(
  ({ scope, name, example }) => html`<label class="choice">
<input type="radio" name="scope" value="${scope}"${scope === form.scope ? html` checked` : null}>
<span><strong>${name}</strong><br><span class="quiet">${example}</span></span>
</label>
`,
)}
</fieldset>
<label for="target">Its name or address</label>
<input type="text" id="target" name="target" value="${form.target}" maxlength="2048" required autocapitalize="none" autocomplete="off" spellcheck="false" placeholder="example.org"${form.problem === null ? null : html` aria-invalid="true" aria-describedby="problem"`}>
<button>Ask to opt out</button>
</form>

<h2>What happens then</h2>
<ol>
<li>You get a short code, and publish it as a DNS record or as a small file. That shows that the name
is yours; you need no account.</li>
<li>We look for it at once, every minute for ten minutes, and every hour for seven days.</li>
<li>From the moment it is found nothing new is fetched. Within five minutes what is under way is
called back, and what was gathered is marked for removal and is in no later release.</li>
<li>The opt-out is written into the public log, and you can see all this on a page of its own.</li>
</ol>
<p>Datasets that were published before are in other people’s hands: we cannot call them back.</p>
<p>Without a browser: <code>POST /v1/opt-outs</code> with
<code>{"scope":"host","target":"www.example.org"}</code>. Or write to ${contact(operatorContact)}.</p>`,
  )
}

/** Where one request stands, step by step. */
export function optOutStatusPage(optOut: OptOut, operatorContact: string): string {
  return htmlPage(
    `Opting out ${optOut.target}`,
    html`<h1>Opting out <code>${optOut.target}</code></h1>
<p class="lede">${summary(optOut)}</p>
<p class="quiet">${reach(optOut)} This page can be read by anybody; keep its address to come back.</p>
${optOut.state === 'waiting' ? proofSection(optOut, operatorContact) : null}
<h2>Steps</h2>
<ol class="steps">
${steps(optOut)}
</ol>
${optOut.looks.some(({ lookedAt }) => lookedAt !== null) && optOut.state !== 'verified' ? looksSection(optOut) : null}
${next(optOut, operatorContact)}`,
  )
}

function summary({ state, leafIndex, expiresAt }: OptOut): Html {
  switch (state) {
    case 'waiting':
      return html`We wait for the proof that it is yours, until ${time(expiresAt)}.`
    case 'verified':
      return leafIndex === null
        ? html`It is yours. Nothing new is fetched; what was under way is being stopped.`
        : html`Done. Nothing of it is fetched any more.`
    case 'failed':
      return html`No proof was found in time. Nothing has changed for this site.`
    case 'withdrawn':
      return html`This opt-out was withdrawn. The site may be fetched again.`
  }
}

function reach({ scope, target, state }: OptOut): string {
  const covers = state === 'verified' ? 'covers' : 'would cover'
  switch (scope) {
    case 'host':
      return `It ${covers} ${target}, whatever the scheme and port, and no other host.`
    case 'domain':
      return `It ${covers} ${target} and every host below it.`
    case 'prefix':
      return `It ${covers} ${target} and everything below it.`
  }
}

function proofSection({ id, proofs, looks }: OptOut, operatorContact: string): Html {
  const elsewhere = looks.filter(({ at }) => at !== proofs.dns.name && at !== proofs.file.url)
  return html`<h2>Prove that it is yours</h2>
<p>Do one of these two:</p>
<div class="card">
<h3>A DNS record</h3>
<dl>
<dt>Name</dt><dd><code>${proofs.dns.name}</code></dd>
<dt>Type</dt><dd><code>${proofs.dns.type}</code></dd>
<dt>Value</dt><dd><code>${proofs.dns.value}</code></dd>
</dl>
</div>
<div class="card">
<h3>A file on the site</h3>
<dl>
<dt>Address</dt><dd><code>${proofs.file.url}</code></dd>
<dt>Content</dt><dd><code>${proofs.file.body}</code></dd>
</dl>
<p class="quiet">Plain text, one line; over http if the site has no https.</p>
</div>
${
  elsewhere.length === 0
    ? null
    : html`<p>It counts as well at ${elsewhere.map(({ at }, n) => html`${n > 0 ? ' or ' : ''}<code>${at}</code>`)}.</p>`
}
<form action="/opt-out/${id}/check" method="post"><button>Check now</button></form>
<p><a href="/opt-out/${id}">Look again</a> after some seconds: this page does not change by itself. DNS
records can take hours to be seen everywhere. If you cannot publish either, write to
${contact(operatorContact)}.</p>`
}

function steps(optOut: OptOut): Html[] {
  const { state, requestedAt, verifiedAt, reason, stopped, leafIndex } = optOut
  const isVerified = state === 'verified' || verifiedAt !== null
  const isCarriedOut = leafIndex !== null
  if (state === 'failed') {
    return [
      step('done', 'Asked', time(requestedAt)),
      step('failed', 'No proof found', html`${reason}`),
    ]
  }
  return [
    step('done', 'Asked', time(requestedAt)),
    isVerified && verifiedAt !== null
      ? step(
          'done',
          'Proof found',
          html`${time(verifiedAt)}${reason === null ? '' : ` · ${reason}`}`,
        )
      : step('open', 'Proof', html`${reason ?? 'Not looked for yet.'}`),
    step(
      isCarriedOut ? 'done' : 'open',
      'Work stopped',
      isVerified
        ? html`${counted(stopped.tasks, 'page')} taken off the list, ${counted(stopped.leases, 'running fetch', 'running fetches')} called back${isCarriedOut ? '' : ', so far'}`
        : html`After the proof`,
    ),
    step(
      isCarriedOut ? 'done' : 'open',
      'Gathered pages marked for removal',
      isVerified
        ? html`${counted(stopped.records, 'page')}${isCarriedOut ? ', in no later release' : ', so far'}`
        : html`After the proof`,
    ),
    step(
      isCarriedOut ? 'done' : 'open',
      'In the public log',
      leafIndex === null ? html`At the end` : html`Leaf ${String(leafIndex)}`,
    ),
  ]
}

/** Each step says in words how it stands: the dot's colour alone would not. */
function step(standing: 'done' | 'open' | 'failed', name: string, detail: Html): Html {
  const words = { done: 'done', open: 'not yet', failed: 'failed' }
  return html`<li class="${standing}"><strong>${name} <span class="quiet">(${words[standing]})</span></strong>${detail}</li>
`
}

function looksSection({ looks }: OptOut): Html {
  return html`<h2>Where we looked</h2>
<dl>
${looks.map(
  ({ kind, at, lookedAt, found }) => html`<dt>${kind === 'dns' ? 'TXT at' : 'File'}</dt>
<dd><code>${at}</code><br>${found ?? (lookedAt === null ? 'not looked at yet' : 'nothing found')}${lookedAt === null ? null : html` <span class="quiet">${time(lookedAt)}</span>`}</dd>
`,
)}
</dl>`
}

function next({ state, scope, target }: OptOut, operatorContact: string): Html {
  switch (state) {
    case 'waiting':
      return html``
    case 'verified':
      return html`<h2>What next</h2>
<p>You may take the record or the file away; the opt-out stays. To be fetched again, write to
${contact(operatorContact)}.</p>`
    case 'failed':
    case 'withdrawn':
      return html`<h2>What next</h2>
<form action="/opt-out" method="post">
<input type="hidden" name="scope" value="${scope}"><input type="hidden" name="target" value="${target}">
<button>Ask again</button>
</form>`
  }
}
