import { createReadStream } from 'node:fs'
import type { Readable } from 'node:stream'
import { type Command, InvalidArgumentError } from '@commander-js/extra-typings'
import { canonicalUrl } from '../../lib/capture/canonical-url.ts'
import { crawlDelayMs, parseRobots, robotsVerdict } from '../../lib/capture/robots.ts'
import { json, print } from './command.ts'

/** `gleaner robots FILE AGENT URL` */
export function addRobotsCommand(program: Command) {
  program
    .command('robots')
    .description('whether a robots.txt lets a robot fetch a URL, and the line that decides it')
    .argument('<file>', 'a robots.txt, or - for standard input')
    .argument(
      '<agent>',
      'product token of the robot, such as gleaner; "*" or "" for one that no group names',
      agentToken,
    )
    .argument(
      '<url>',
      'what it would fetch, percent-encoded; only path and query count, and "" is "/"',
      absoluteUrl,
    )
    .addOption(json())
    .action(async (file, agent, url, flags, command) => {
      const bytes = await readSome(file === '-' ? process.stdin : createReadStream(file)).catch(
        (error: Error) =>
          command.error(
            `error: ${file} cannot be read: ${error.message}. Name a robots.txt, or - for standard input.`,
          ),
      )
      const verdict = verdictOf(bytes, agent, url)
      print(flags.json, verdict, textOf(verdict))
    })
}

interface PrintedVerdict {
  allowed: boolean
  /** From 1; null when no rule applies, which allows. */
  line: number | null
  /** The path pattern of that line, and the whole line, as written. */
  rule: string | null
  text: string | null
  crawlDelayMs: number | null
  sitemaps: string[]
  /** The file was longer than is read. */
  truncated: boolean
  agent: string
  url: string
}

function verdictOf(bytes: Uint8Array, agent: string, url: string): PrintedVerdict {
  const robots = parseRobots(bytes)
  const { allowed, line, rule } = robotsVerdict(robots, agent, url)
  return {
    allowed,
    line,
    rule,
    text: line === null ? null : lineOf(bytes, line),
    crawlDelayMs: crawlDelayMs(robots, agent),
    sitemaps: robots.lines.filter(({ kind }) => kind === 'sitemap').map(({ value }) => value),
    truncated: robots.truncated,
    agent,
    url,
  }
}

/** Lines as the parser counts them. */
function lineOf(bytes: Uint8Array, line: number): string {
  const lines = new TextDecoder().decode(bytes).split(/\r\n|\n|\r/)
  return (lines[line - 1] ?? '').trim().slice(0, MAX_LINE_CHARACTERS)
}

/** What the parser reads of a line, so that the pattern that decided is in it. */
const MAX_LINE_CHARACTERS = 2_083 * 8

/** Of a line, or sitemaps, that is one screen. JSON has all. */
const SHOWN_CHARACTERS = 200
const SHOWN_SITEMAPS = 20

function textOf(verdict: PrintedVerdict): string {
  const { allowed, line, text, agent, url, sitemaps } = verdict
  const robot = agent === '' || agent === '*' ? 'a robot that no group names' : shown(agent)
  const lines = [
    `${allowed ? 'allowed' : 'disallowed'}: ${shown(url || '/')} for ${robot}`,
    line === null ? '  no rule applies' : `  line ${line}: ${shown(text ?? '')}`,
  ]
  if (verdict.crawlDelayMs !== null) {
    lines.push(`  crawl delay ${verdict.crawlDelayMs / 1_000} s, as kept between 1 and 120 s`)
  }
  for (const sitemap of sitemaps.slice(0, SHOWN_SITEMAPS)) lines.push(`  sitemap ${shown(sitemap)}`)
  if (sitemaps.length > SHOWN_SITEMAPS) {
    lines.push(`  and ${sitemaps.length - SHOWN_SITEMAPS} more sitemaps: --json has them all`)
  }
  if (verdict.truncated) lines.push('  longer than 500 KiB; what comes after was not read')
  const canonical = canonicalUrl(url)
  if (canonical.ok && canonical.url !== url && /[^!-~]/.test(url)) {
    lines.push(`  not percent-encoded: a crawler would ask for ${shown(canonical.url)}`)
  }
  return `${lines.join('\n')}\n`
}

/** A robots.txt is a stranger's: nothing in it may steer the terminal. */
function shown(text: string): string {
  const plain = text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '\ufffd')
  return plain.length > SHOWN_CHARACTERS ? `${plain.slice(0, SHOWN_CHARACTERS)}…` : plain
}

/** Bytes. Twice what the parser reads: enough to see that there is more, however much that is. */
const MOST_BYTES_READ = 1_024 * 1_024

async function readSome(stream: Readable): Promise<Uint8Array> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    length += chunk.length
    // Leaving the loop closes the stream.
    if (length > MOST_BYTES_READ) break
  }
  return Buffer.concat(chunks)
}

/**
 * RFC 9309 §2.2.1: letters, "-" and "_". A name with a version or digits would match no group and
 * silently get the rules for everyone. A space is let through: Google's cases have one.
 */
function agentToken(value: string): string {
  if (/^[A-Za-z_ -]*$|^\*$/.test(value)) return value
  throw new InvalidArgumentError(
    'A product token has letters, "-" and "_" only: gleaner, not gleaner/1.0.',
  )
}

function absoluteUrl(value: string): string {
  if (value === '') return value
  const isWeb = /^https?:\/\//i.test(value) && URL.canParse(value)
  if (isWeb) return value
  throw new InvalidArgumentError('Give the whole address, such as https://example.org/path?query.')
}
