/** A page of the server for people: no script runs but what stands here, nothing is loaded. */
export function htmlPage(title: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>
  :root { color-scheme: light dark; --paper:#FBFAF5; --ink:#1E2A22; --field:#2F6B3F; --line:#D9D6C7; }
  @media (prefers-color-scheme: dark) { :root { --paper:#141A16; --ink:#E9EDE6; --field:#7CC48A; --line:#33403A; } }
  body { margin:0; background:var(--paper); color:var(--ink); font:16px/1.5 system-ui, sans-serif; }
  main { max-width: 40rem; margin: 0 auto; padding: 32px 20px 64px; }
  h1 { font-size: 1.6rem; line-height:1.25; } h2 { font-size: 1.1rem; margin-top: 2rem; }
  a { color: var(--field); } code { overflow-wrap:anywhere; background:color-mix(in srgb, var(--field) 12%, transparent); padding:1px 4px; border-radius:4px; }
  .link { display:block; padding:12px; border:1px solid var(--line); border-radius:8px; margin: 12px 0; }
</style>
<main>
${body}
</main>
</html>
`
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
