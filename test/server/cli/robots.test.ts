import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import google from '../../vectors/google-robotstxt.json' with { type: 'json' }

// Each command is a process of its own, a second or two of work; a busy machine takes several.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 90_000 })

const program = fileURLToPath(new URL('../../../server/gleaner.mjs', import.meta.url))

/** Runs `gleaner robots`, with something on standard input. */
function robots(args: readonly string[], input: string | Uint8Array = '') {
  const child = spawn(process.execPath, [program, 'robots', ...args])
  // It may have read enough before everything is written.
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  let [out, err] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text
  })
  return new Promise<{ status: number | null; out: string; err: string }>((resolve) =>
    child.once('close', (status) => resolve({ status, out, err })),
  )
}

/** What it prints as JSON, on one line. */
async function verdict(args: readonly string[], input?: string | Uint8Array) {
  const { status, out, err } = await robots([...args, '--json'], input)
  expect({ status, err }).toEqual({ status: 0, err: '' })
  expect(out).toMatch(/^[^\n]*\n$/)
  return JSON.parse(out) as Record<string, unknown>
}

const file = `\ufeff# Barley\r\nUser-agent: *\rDisallow: /
User-Agent: Gleaner
  Disallow: /field   # not ripe
Allow: /field/edge
Crawl-delay: 2.5
Sitemap: https://barley.example/sitemap.xml
`
const url = 'https://barley.example/field/7?row=2'

let folder: string
let path: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gleaner-robots-'))
  path = join(folder, 'robots.txt')
  await writeFile(path, file)
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe.concurrent('gleaner robots', () => {
  test('names the line that forbids, and ends well: the question was answered', async () => {
    expect(await verdict([path, 'gleaner', url])).toEqual({
      allowed: false,
      line: 5,
      rule: '/field',
      text: 'Disallow: /field   # not ripe',
      crawlDelayMs: 2_500,
      sitemaps: ['https://barley.example/sitemap.xml'],
      truncated: false,
      agent: 'gleaner',
      url,
    })
  })

  test('names the line that allows, for people', async () => {
    expect(await robots([path, 'gleaner', 'https://barley.example/field/edge'])).toEqual({
      status: 0,
      err: '',
      out: `allowed: https://barley.example/field/edge for gleaner
  line 6: Allow: /field/edge
  crawl delay 2.5 s, as kept between 1 and 120 s
  sitemap https://barley.example/sitemap.xml
`,
    })
  })

  test('reads standard input, and says when no rule applies', async () => {
    expect(await verdict(['-', 'gleaner', 'https://barley.example/'], file)).toMatchObject({
      allowed: true,
      line: null,
      rule: null,
      text: null,
    })
    expect((await robots(['-', 'gleaner', 'https://barley.example/'], '')).out).toBe(
      'allowed: https://barley.example/ for gleaner\n  no rule applies\n',
    )
  })

  test('gives a robot that no group names the rules for everyone', async () => {
    for (const agent of ['other', '*']) {
      expect(await verdict([path, agent, url])).toMatchObject({
        allowed: false,
        line: 3,
        rule: '/',
      })
    }
  })

  test('says that a file is too long, and stops reading one that does not end', async () => {
    const long = `user-agent: *\ndisallow: /field\n${`${'#'.repeat(1_023)}\n`.repeat(5_000)}`
    expect(await verdict(['-', 'x', url], long)).toMatchObject({ allowed: false, truncated: true })
    expect((await robots(['-', 'x', url], long)).out).toMatch(/longer than 500 KiB/)
  })

  test('reads what is no text, and lets nothing of it steer the terminal', async () => {
    const hostile = Buffer.concat([
      Buffer.from([0, 255, 254, 10]),
      Buffer.from('user-agent: *\ndisallow: /field # \x1b[2J\u202e\n'),
      Buffer.from('sitemap: \x1b]0;you\x07\n'),
    ])
    const { status, out, err } = await robots(['-', 'x', url], hostile)
    expect({ status, err }).toEqual({ status: 0, err: '' })
    expect(out).toContain('line 3: disallow: /field # \ufffd[2J\ufffd\n')
    expect(out).toContain('sitemap \ufffd]0;you\ufffd')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    expect(out.replaceAll('\n', '')).not.toMatch(/[\x00-\x1f\x7f]/)
  })

  test('says what a crawler would ask for when the address is not encoded', async () => {
    const { out } = await robots([path, 'gleaner', 'https://barley.example/fïeld'])
    expect(out).toContain('would ask for https://barley.example/f%C3%AFeld')
  })

  test.each([
    [
      ['/nowhere/robots.txt', 'gleaner', url],
      /\/nowhere\/robots\.txt cannot be read.*Name a robots/,
    ],
    [[tmpdir(), 'gleaner', url], /cannot be read: EISDIR/],
    [['-', 'gleaner', 'barley'], /'barley' is invalid for argument 'url'.*whole address/],
    [['-', 'gleaner', '/field'], /'\/field' is invalid/],
    [['-', 'gleaner', 'ftp://barley.example/'], /'ftp:.*whole address/],
    [['-', 'gleaner', 'https://'], /'https:\/\/' is invalid/],
    [['-', 'gleaner/1.0', url], /'agent'.*gleaner, not gleaner\/1\.0/],
    [['-', 'gleaner'], /missing required argument 'url'/],
    [['-', 'gleaner', url, '--yaml'], /unknown option '--yaml'/],
  ])('%j is a usage error that says what to do', async (args, words) => {
    const { status, out, err } = await robots(args)
    expect({ status, out }).toEqual({ status: 2, out: '' })
    expect(err).toMatch(words)
    expect(err).not.toMatch(/\n\s+at /)
  })

  // Each is a process; all 145 run in test/lib/capture/robots.test.ts. Here what an argument might spoil.
  const strange = google.allowed.filter(
    (one, at) =>
      !/^[A-Za-z]+$/.test(one.userAgent) ||
      one.url === '' ||
      /[^!-~]/.test(one.url) ||
      one.url.length > 10_000 ||
      at % 40 === 0,
  )
  test.each(strange)('answers Google’s case $test for "$userAgent"', async (one) => {
    expect(await verdict(['-', one.userAgent, one.url], one.robotsTxt)).toMatchObject({
      allowed: one.allowed,
    })
  })
})
