/** Text that is HTML already. Made by `html`, which escapes whatever is put into it. */
export class Html {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

type Piece = string | number | null | false | Html | readonly Html[]

/** A template of HTML: what is no Html itself is escaped; null and false are nothing. */
export function html(literal: TemplateStringsArray, ...pieces: readonly Piece[]): Html {
  return new Html(literal.map((text, at) => text + textOf(pieces[at] ?? null)).join(''))
}

function textOf(piece: Piece): string {
  if (piece === null || piece === false) return ''
  if (piece instanceof Html) return piece.text
  if (typeof piece === 'object') return piece.map(({ text }) => text).join('')
  return escapeHtml(String(piece))
}

/** Content-Security-Policy of pages without any script: nothing is loaded, forms stay here. */
export const pageSecurity =
  "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

/** A page of the server for people: no script runs but what stands here, nothing is loaded. */
export function htmlPage(title: string, body: string | Html): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
<a class="skip" href="#main">Skip to the text</a>
<header>
  ${mark}<span class="name">Gleaner</span>
  <nav aria-label="For site owners"><a href="/crawler">The crawler</a> <a href="/site">Your site</a> <a href="/opt-out">Opt out</a></nav>
</header>
<main id="main">
${typeof body === 'string' ? body : body.text}
</main>
</html>
`
}

/** An instant for people; the machine's form beside it. */
export function time(instant: string): Html {
  const [day = '', clock = ''] = instant.split('T')
  const [year, month, date] = day.split('-').map(Number)
  const shown = `${date} ${months[(month ?? 1) - 1]} ${year}, ${clock.slice(0, 5)} UTC`
  return html`<time datetime="${instant}">${shown}</time>`
}

const months = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')

/** With commas at the thousands and its noun: `1 task`, `12,000 tasks`. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString('en-GB')} ${count === 1 ? one : many}`
}

export function escapeHtml(text: string): string {
  const entities: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  }
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? character)
}

/** The ear of wheat of public/icon/gleaner.svg. */
const mark = `<svg width="32" height="32" viewBox="0 0 128 128" aria-hidden="true"><rect x="4" y="4" width="120" height="120" rx="28" fill="#2F6B3F"/><g fill="none" stroke="#FBFAF5" stroke-width="9" stroke-linecap="round"><path d="M64 112V52"/><path d="M64.0 88.0A34 34 0 0 0 95.5 66.7M64.0 88.0A34 34 0 0 1 32.5 66.7"/><path d="M64.0 66.0A29 29 0 0 0 90.9 47.9M64.0 66.0A29 29 0 0 1 37.1 47.9"/><path d="M64.0 44.0A24 24 0 0 0 86.3 29.0M64.0 44.0A24 24 0 0 1 41.7 29.0"/></g><ellipse cx="64" cy="26" rx="6.5" ry="9.5" fill="#E0B45C"/></svg>`

/** Tokens of DESIGN §15, as in lib/ui/style.css; contrast by test/server/http/assets/page.test.ts. */
export const style = `
:root { color-scheme: light dark; --paper: #fbfaf5; --raised: #ffffff; --ink: #1e2a22; --quiet: #56635a; --line: #d9d8cc; --edge: #7d877f; --field: #2f6b3f; --grain-text: #8a5a12; --clay: #a23b2a; --on-colour: #ffffff; --wash: #eef3ea; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #141a16; --raised: #1b231e; --ink: #e9ede6; --quiet: #a9b5ab; --line: #333d36; --edge: #7d8a80; --field: #7cc48a; --grain-text: #e0b45c; --clay: #e58a76; --on-colour: #141a16; --wash: #1f2a22; }
}
* { box-sizing: border-box; }
body { margin: 0; min-width: 320px; background: var(--paper); color: var(--ink); font: 16px/24px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: break-word; }
header, main { max-width: 44rem; margin: 0 auto; padding: 16px; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; border-bottom: 1px solid var(--line); }
header .name { font-weight: 600; margin-right: auto; }
nav { display: flex; flex-wrap: wrap; gap: 0 16px; }
nav a { padding: 8px 0; }
main { padding-bottom: 64px; }
h1 { font-size: 28px; line-height: 36px; margin: 16px 0; }
h2 { font-size: 20px; line-height: 28px; margin: 40px 0 8px; }
h3 { font-size: 16px; line-height: 24px; margin: 24px 0 4px; }
p, ul, ol, dl, pre, table, fieldset { margin: 0 0 16px; }
li { margin-bottom: 4px; }
ul, ol { padding-left: 24px; }
a { color: var(--field); text-underline-offset: 3px; }
code, pre { font: 14px/20px ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
h1 code, h2 code { font-size: 0.85em; line-height: inherit; }
code { overflow-wrap: anywhere; background: var(--wash); padding: 2px 4px; border-radius: 4px; }
pre, .link { display: block; padding: 12px; border: 1px solid var(--line); border-radius: 8px; background: var(--raised); white-space: pre-wrap; overflow-wrap: anywhere; }
.link { margin: 12px 0; }
.quiet { color: var(--quiet); }
.lede { font-size: 18px; line-height: 28px; }
.card { border: 1px solid var(--line); border-radius: 8px; background: var(--raised); padding: 16px; margin: 0 0 16px; }
.card > :last-child { margin-bottom: 0; }
.card > h3:first-child { margin-top: 0; }
.notice { border-left: 4px solid var(--field); }
.problem { border-left: 4px solid var(--clay); }
.problem strong { color: var(--clay); }
table { width: 100%; border-collapse: collapse; }
caption { text-align: left; color: var(--quiet); padding-bottom: 4px; }
th, td { text-align: left; vertical-align: top; padding: 8px 12px 8px 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
dl { display: grid; grid-template-columns: 1fr; }
dt { color: var(--quiet); }
dd { margin: 0 0 8px; }
.steps { list-style: none; padding: 0; }
.steps li { position: relative; padding: 0 0 16px 32px; margin: 0; }
.steps li::before { content: ""; position: absolute; left: 4px; top: 6px; width: 12px; height: 12px; border: 2px solid var(--edge); border-radius: 50%; background: var(--paper); }
.steps .done::before { background: var(--field); border-color: var(--field); }
.steps .failed::before { background: var(--clay); border-color: var(--clay); }
.steps li:not(:last-child)::after { content: ""; position: absolute; left: 11px; top: 24px; bottom: -2px; width: 2px; background: var(--line); }
.steps strong { display: block; }
label, legend { font-weight: 600; }
fieldset { border: 0; padding: 0; }
legend { padding: 0; margin-bottom: 4px; }
.choice { display: grid; grid-template-columns: 24px 1fr; align-items: start; padding: 8px 0; font-weight: 400; min-height: 44px; }
.choice input { margin: 4px 0 0; width: 16px; height: 16px; accent-color: var(--field); }
input[type=text] { display: block; width: 100%; margin: 4px 0 8px; padding: 10px 12px; min-height: 44px; font: inherit; color: inherit; background: var(--raised); border: 1px solid var(--edge); border-radius: 8px; }
button { min-height: 44px; padding: 8px 20px; font: inherit; font-weight: 600; color: var(--on-colour); background: var(--field); border: 0; border-radius: 8px; cursor: pointer; }
:focus-visible { outline: 3px solid var(--field); outline-offset: 2px; }
.skip { position: absolute; left: -999px; }
.skip:focus { position: static; display: inline-block; padding: 8px 16px; }
@media (max-width: 34rem) {
  .stacked, .stacked tbody, .stacked tr, .stacked td, .stacked caption { display: block; width: 100%; }
  .stacked thead { display: none; }
  .stacked tr { padding: 8px 0; border-bottom: 1px solid var(--line); }
  .stacked td { border: 0; padding: 0 0 4px; }
  .stacked td::before { content: attr(data-label) " "; color: var(--quiet); }
}
@media (min-width: 34rem) {
  dl { grid-template-columns: 10rem 1fr; gap: 0 16px; }
}
`
