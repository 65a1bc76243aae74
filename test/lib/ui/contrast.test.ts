import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

// WCAG 2.2 §1.4.3 for text, §1.4.11 for what is drawn.
const TEXT = 4.5
const DRAWN = 3

const pairs: [foreground: string, background: string, atLeast: number][] = [
  ['ink', 'paper', TEXT],
  ['ink', 'raised', TEXT],
  ['ink', 'wash', TEXT],
  ['quiet', 'paper', TEXT],
  ['quiet', 'raised', TEXT],
  ['quiet', 'wash', TEXT],
  ['field', 'paper', TEXT],
  ['field', 'raised', TEXT],
  ['grain-text', 'wash', TEXT],
  ['clay', 'paper', TEXT],
  ['on-colour', 'field', TEXT],
  ['on-colour', 'clay', TEXT],
  ['edge', 'paper', DRAWN],
  ['edge', 'raised', DRAWN],
  ['grain', 'paper', DRAWN],
]

const css = readFileSync('lib/ui/style.css', 'utf8')
const [light = '', dark = ''] = css.split('@media (prefers-color-scheme: dark)')
const schemes = { light: tokens(light), dark: tokens(dark) }

describe.each(Object.entries(schemes))('in the %s scheme', (_, colours) => {
  test.each(pairs)('%s on %s is readable', (foreground, background, atLeast) => {
    expect(ratio(colours.get(foreground), colours.get(background))).toBeGreaterThanOrEqual(atLeast)
  })
})

function tokens(text: string): Map<string, string> {
  const found = text.matchAll(/--([a-z-]+): (#[0-9a-f]{6});/g)
  return new Map([...found].map(([, name = '', colour = '']) => [name, colour]))
}

function ratio(a: string | undefined, b: string | undefined): number {
  if (a === undefined || b === undefined) throw new Error('a token is missing from style.css')
  const [low = 0, high = 0] = [luminance(a), luminance(b)].sort((x, y) => x - y)
  return (high + 0.05) / (low + 0.05)
}

/** WCAG 2.2, relative luminance. */
function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}
