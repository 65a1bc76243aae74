import { describe, expect, test } from 'vitest'
import { html, htmlPage, style } from '../../../../server/http/assets/page.ts'

// WCAG 2.2 §1.4.3 for text, §1.4.11 for what is drawn.
const TEXT = 4.5
const DRAWN = 3

describe.each(['light', 'dark'])('in the %s scheme', (scheme) => {
  const [light = '', dark = ''] = style.split('@media (prefers-color-scheme: dark)')
  const found = (scheme === 'dark' ? (dark.split('}')[0] ?? '') : light).matchAll(
    /--([a-z-]+): (#[0-9a-f]{6});/g,
  )
  const colours = new Map([...found].map(([, name = '', colour = '']) => [name, colour]))

  test.each([
    ['ink', 'paper', TEXT],
    ['ink', 'raised', TEXT],
    ['ink', 'wash', TEXT],
    ['quiet', 'paper', TEXT],
    ['quiet', 'raised', TEXT],
    ['field', 'paper', TEXT],
    ['field', 'raised', TEXT],
    ['clay', 'raised', TEXT],
    ['on-colour', 'field', TEXT],
    ['edge', 'paper', DRAWN],
    ['edge', 'raised', DRAWN],
    ['clay', 'paper', DRAWN],
  ])('%s on %s is readable', (foreground, background, atLeast) => {
    const [low = 0, high = 0] = [foreground, background]
      .map((name) => luminance(colours.get(name)))
      .sort((a, b) => a - b)
    expect((high + 0.05) / (low + 0.05)).toBeGreaterThanOrEqual(atLeast)
  })
})

/** WCAG 2.2, relative luminance. */
function luminance(colour: string | undefined): number {
  if (colour === undefined) throw new Error('a token is missing from the style')
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}

test('what is put into a page is escaped, wherever it stands', () => {
  const given = `<img src=x onerror="a('&')">`
  const shown = html`<p title="${given}">${given}${[html`<b>${given}</b>`]}${null}${false}${7}</p>`
  const escaped = '&lt;img src=x onerror=&quot;a(&#39;&amp;&#39;)&quot;&gt;'
  expect(shown.text).toBe(`<p title="${escaped}">${escaped}<b>${escaped}</b>7</p>`)
  expect(htmlPage('</title><script>', html``)).not.toContain('<script>')
})
