import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  crawlDelayMs,
  escapePattern,
  parseRobots,
  pathAndQuery,
  robotsSignals,
  robotsStatusVerdict,
  robotsVerdict,
} from '../../../lib/capture/robots.ts'
import google from '../../vectors/google-robotstxt.json' with { type: 'json' }

const cases = google.allowed.map((one, number) => ({ number, ...one }))

describe("Google's cases", () => {
  test.each(cases)('no. $number of $test: $userAgent and $url', (one) => {
    const verdict = robotsVerdict(parseRobots(one.robotsTxt), one.userAgent, one.url)
    expect(verdict.allowed).toBe(one.allowed)
  })

  test.each(google.getPathParamsQuery)('path of "$url"', ({ url, path }) => {
    expect(pathAndQuery(url)).toBe(path)
  })

  test.each(google.maybeEscapePattern)('pattern $pattern', ({ pattern, escaped }) => {
    expect(escapePattern(pattern)).toBe(escaped)
  })

  test.each(google.lineCounting)('lines of $name', ({ bytesBase64, expect: expected }) => {
    const { lines } = parseRobots(new Uint8Array(Buffer.from(bytesBase64, 'base64')))
    const valid = lines.filter((line) => line.kind !== 'unknown').length
    expect({
      valid_directives: valid,
      unknown_directives: lines.length - valid,
      last_line_seen: lines.at(-1)?.line,
    }).toMatchObject(expected)
  })
})

describe('a verdict', () => {
  test('names the line and rule that decided', () => {
    const robots = parseRobots('user-agent: *\n\ndisallow: /a # why\nallow: /a/b\n')
    const verdict = (path: string) => robotsVerdict(robots, 'x', `https://example.com${path}`)
    expect(verdict('/a/c')).toEqual({ allowed: false, line: 3, rule: '/a' })
    expect(verdict('/a/b')).toEqual({ allowed: true, line: 4, rule: '/a/b' })
    expect(verdict('/')).toEqual({ allowed: true, line: null, rule: null })
  })

  test('on a tie is to allow, whichever rule comes first', () => {
    for (const rules of ['allow: /a\ndisallow: /a', 'disallow: /a\nallow: /a']) {
      const robots = parseRobots(`user-agent: *\n${rules}`)
      expect(robotsVerdict(robots, 'x', 'https://example.com/a').allowed).toBe(true)
    }
  })

  test('does not change with other patterns of stars', () => {
    const robots = parseRobots(
      'user-agent: *\ndisallow: /*a*b*c$\ndisallow: /**/x$\ndisallow: *.pdf$',
    )
    const allowed = (path: string) =>
      robotsVerdict(robots, 'x', `https://example.com${path}`).allowed
    expect(allowed('/aabbcc')).toBe(false)
    expect(allowed('/abcd')).toBe(true)
    expect(allowed('/acb')).toBe(true)
    expect(allowed('/q/x')).toBe(false)
    expect(allowed('/x')).toBe(true)
    expect(allowed('/f.pdf')).toBe(false)
    expect(allowed('/f.pdf?x')).toBe(true)
  })

  test('is the same as with a regular expression, for random patterns and paths', () => {
    const letters = (symbols: string, maxLength: number) =>
      fc.string({ unit: fc.constantFrom(...symbols), maxLength })
    fc.assert(
      fc.property(letters('ab/*', 10), fc.boolean(), letters('ab/', 12), (middle, end, path) => {
        const pattern = `/${middle}${end ? '$' : ''}`
        const expression = new RegExp(`^/${middle.replace(/\*+/g, '.*')}${end ? '$' : ''}`)
        const robots = parseRobots(`user-agent: *\ndisallow: ${pattern}`)
        // Two slashes at the start would be a host.
        const url = `https://example.com/${path}`
        expect(robotsVerdict(robots, 'x', url).allowed).toBe(!expression.test(`/${path}`))
      }),
      { numRuns: 2_000 },
    )
  })

  test('is found for a hostile file in bounded time', () => {
    const star = `disallow: /${'*a'.repeat(8_000)}$\n`
    const robots = parseRobots(`user-agent: *\n${star.repeat(40)}`)
    expect(robots.truncated).toBe(true)
    robotsVerdict(robots, 'x', `https://example.com/${'a'.repeat(2_000)}b`)
    expect(parseRobots('\r'.repeat(600_000)).lines).toEqual([])
    parseRobots(' '.repeat(600_000))
    parseRobots(`x${' \t'.repeat(8_000)}x\n`.repeat(40))
  })

  test('never throws, whatever the file', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.string(), fc.string(), (file, agent, url) => {
        const robots = parseRobots(file)
        robotsVerdict(robots, agent, url)
        crawlDelayMs(robots, agent)
        robotsSignals(robots, agent)
      }),
    )
  })
})

describe('a robots.txt', () => {
  test('is read up to 500 KiB', () => {
    const filler = `${'#'.repeat(1_023)}\n`
    const long = `user-agent: *\n${filler.repeat(499)}disallow: /a\n${filler}disallow: /b\n`
    const robots = parseRobots(long)
    expect(robots.truncated).toBe(true)
    expect(robotsVerdict(robots, 'x', 'https://example.com/a').allowed).toBe(false)
    expect(robotsVerdict(robots, 'x', 'https://example.com/b').allowed).toBe(true)
  })

  test.each([
    ['user-agent: *\ncrawl-delay: 2', 2_000],
    ['user-agent: *\ncrawl-delay: 2.5', 2_500],
    ['user-agent: *\nCrawlDelay: .5', 1_000],
    ['user-agent: *\ncrawl-delay: 0', 1_000],
    ['user-agent: *\ncrawl-delay: 9999', 120_000],
    ['user-agent: *\ncrawl-delay: 5\ncrawl-delay: 10', 10_000],
    ['user-agent: *\ncrawl-delay: 5\nuser-agent: gleaner\ndisallow: /x', 5_000],
    ['user-agent: *\ndisallow: /y\ncrawl-delay: 5\nuser-agent: gleaner\ndisallow: /x', null],
    ['user-agent: *\ndisallow: /y\ncrawl-delay: 5\nuser-agent: Gleaner\ncrawl-delay: 3', 3_000],
    ['user-agent: *\ncrawl-delay: soon', null],
    ['user-agent: *\ncrawl-delay: -1', null],
    ['user-agent: other\ncrawl-delay: 7', null],
    ['crawl-delay: 7', null],
    ['', null],
  ])('%j asks for %s ms between fetches', (file, delayMs) => {
    expect(crawlDelayMs(parseRobots(file), 'gleaner')).toBe(delayMs)
  })

  test('keeps the use signals that concern us, as written', () => {
    const file = `Content-Signal: search=yes
User-Agent: *
Content-Signal: search=yes, ai-train=no # really
Allow: /
Content-Usage: /x train-ai=n

User-agent: other
Content-Usage: train-ai=y
Disallow: /
User-agent: Gleaner
Content-Usage: train-ai=n
License: https://example.com/license.xml
Sitemap: https://example.com/ü.xml`
    const everyone = ['*']
    expect(robotsSignals(parseRobots(file), 'gleaner')).toEqual([
      { line: 1, name: 'content-signal', value: 'search=yes', agents: [] },
      { line: 3, name: 'content-signal', value: 'search=yes, ai-train=no', agents: everyone },
      { line: 5, name: 'content-usage', value: '/x train-ai=n', agents: everyone },
      { line: 11, name: 'content-usage', value: 'train-ai=n', agents: ['gleaner'] },
      { line: 12, name: 'license', value: 'https://example.com/license.xml', agents: ['gleaner'] },
      { line: 13, name: 'sitemap', value: 'https://example.com/ü.xml', agents: ['gleaner'] },
    ])
  })

  test.each([
    [200, 'parse'],
    [204, 'parse'],
    [301, 'disallow-all'],
    [400, 'allow-all'],
    [401, 'disallow-all'],
    [403, 'disallow-all'],
    [404, 'allow-all'],
    [410, 'allow-all'],
    [429, 'disallow-all'],
    [500, 'disallow-all'],
    [503, 'disallow-all'],
    ['unreachable', 'disallow-all'],
  ] as const)('with status %s means %s', (status, verdict) => {
    expect(robotsStatusVerdict(status)).toBe(verdict)
  })
})
