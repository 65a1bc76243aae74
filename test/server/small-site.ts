import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Campaign } from '../../lib/protocol/campaign.ts'

/** A site of a few pages on loopback: what a fault test can crawl within seconds. */
export interface SmallSite {
  port: number
  /** Addresses that a whole crawl publishes a row for. */
  published: readonly string[]
  /** Addresses of them that are different for every visitor. */
  lively: readonly string[]
  close(): Promise<void>
}

export const siteHost = 'fields.gleaner.test'
const origin = `http://${siteHost}`

const staticPages = ['/barley.html', '/rye.html']
const twins = ['/oats.html', '/oats-again.html']
const livelyPages = ['/spelt.html', '/millet.html', '/emmer.html', '/wheat.html']
const disallowed = '/barn/tools.html'

/**
 * Serves an index, two static pages, one page under two addresses, four that show visitor, request
 * number and a changing line, and a robots.txt that disallows one more.
 */
export async function startSmallSite(): Promise<SmallSite> {
  let requests = 0
  const server = createServer((request, response) => {
    requests += 1
    const { pathname } = new URL(request.url ?? '/', origin)
    const send = (status: number, type: string, body: string) => {
      response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' })
      response.end(body)
    }
    if (pathname === '/robots.txt') {
      return send(200, 'text/plain; charset=utf-8', 'User-agent: *\nDisallow: /barn/\n')
    }
    const html = 'text/html; charset=utf-8'
    if (pathname === '/') return send(200, html, indexPage())
    const subject = /^\/([a-z]+)(-again)?\.html$/.exec(pathname)?.[1]
    if (subject === undefined) return send(404, html, '<h1>Not found</h1>')
    const banner = livelyPages.includes(pathname)
      ? `<div>You read this from ${request.socket.remoteAddress}. It is request number ${requests}.</div>
<p>${requests % 2 === 0 ? 'Seed for spring is here.' : 'Visit the mill on Sunday.'}</p>`
      : ''
    return send(200, html, page(subject, banner))
  })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen(0, '127.0.0.1', done)
  })
  const at = (path: string) => `${origin}${path}`
  return {
    port: (server.address() as AddressInfo).port,
    published: ['/', ...staticPages, ...twins, ...livelyPages].map(at),
    lively: livelyPages.map(at),
    close: () =>
      new Promise((done) => {
        server.closeAllConnections()
        server.close(() => done())
      }),
  }
}

/** A campaign for the site, fast enough for a test. Every page is a link away from the seed. */
export function smallCampaign(nowMs: number): Campaign {
  return {
    version: 1,
    id: 'fields',
    title: 'The fields, as they are today',
    purpose: 'Shows that a crawl ends well whatever breaks on the way.',
    operator: { name: 'Test network', contact: 'operator@example.org' },
    use: 'research',
    sites: [
      {
        host: siteHost,
        scheme: 'http',
        pathPrefixes: ['/'],
        requestsPerSecond: 100,
        requestsInFlight: 8,
      },
    ],
    canaryHosts: [],
    seeds: [`${origin}/`],
    limits: { pageBytes: 64 * 1024, pageMs: 20_000, pages: 100, depth: 3 },
    retentionDays: 30,
    quorum: 2,
    points: { perPage: 10, perDuplicate: 1, perPayload: 2, budget: 10_000, funding: 'subsidy' },
    validFrom: new Date(nowMs - 60_000).toISOString(),
    validUntil: new Date(nowMs + 86_400_000).toISOString(),
  }
}

function indexPage(): string {
  const paths = [...staticPages, ...twins, ...livelyPages, disallowed]
  const items = paths.map((path) => `<li><a href="${path}">${path.slice(1)}</a></li>`)
  return document(
    'All fields',
    `<p>This page names every field of the farm, so that a reader finds each of them from here.</p>
<p>The list is kept by hand, and changes when a field is sown with another kind of grain.</p>
<ul>${items.join('\n')}</ul>`,
  )
}

/** Paragraphs that no other subject has. */
function page(subject: string, banner: string): string {
  const paragraphs = Array.from({ length: 6 }, (_, n) => {
    const k = subject.length * 7 + n * 13
    return `<p>In year ${1900 + k} the ${subject} was sown on day ${k} and stood in ${n + 2} fields by the river.
It gave ${k * 3} sacks after ${n + 9} weeks of rain, and the miller paid ${k * 5} coins for the ${subject}.</p>`
  })
  return document(`On ${subject}`, `${banner}<h1>On ${subject}</h1>\n${paragraphs.join('\n')}`)
}

function document(title: string, body: string): string {
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${title}</title></head><body>
${body}
</body></html>`
}
