/** A folder of HTML as a site on loopback, which writes down who asked for what, and when. */
import { readFile, stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, normalize, resolve } from 'node:path'
import { answerParent } from './child.ts'

export type SiteAsk =
  /** What was seen since the last time, and forgets it. */
  { kind: 'visits' }

export interface Visits {
  /** Requests by the address that made them. */
  byAddress: Record<string, number>
  /** Requests by path, whoever made them. */
  byPath: Record<string, number>
  /** Arrivals in ms, in order. */
  arrivalsMs: number[]
  /** The most at one time, from the arrival of a request to the end of its answer. */
  mostInFlight: number
}

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.txt': 'text/plain; charset=utf-8',
  '.css': 'text/css',
  '.js': 'text/javascript',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
}
/** Allows all that is there; a rule that is never met keeps both parsers at work. */
const robots = 'User-agent: *\nDisallow: /nothing-of-this-manual/\n'

const root = resolve(process.argv[2] ?? '')
let seen = nothing()
let inFlight = 0

const server = createServer((request, response) => {
  const address = (request.socket.remoteAddress ?? '').replace(/^::ffff:/, '')
  const path = request.url ?? '/'
  seen.arrivalsMs.push(performance.timeOrigin + performance.now())
  seen.byAddress[address] = (seen.byAddress[address] ?? 0) + 1
  seen.byPath[path] = (seen.byPath[path] ?? 0) + 1
  inFlight += 1
  seen.mostInFlight = Math.max(seen.mostInFlight, inFlight)
  response.once('close', () => {
    inFlight -= 1
  })
  const send = (status: number, type: string, body: string | Buffer) => {
    response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) })
    response.end(body)
  }
  const pathname = decodeURIComponent(new URL(path, 'http://site').pathname)
  if (pathname === '/robots.txt') return send(200, 'text/plain; charset=utf-8', robots)
  void file(pathname).then(
    (body) => {
      if (body === null) return send(404, 'text/html; charset=utf-8', '<h1>Not found</h1>')
      send(200, types[extname(pathname)] ?? 'application/octet-stream', body)
    },
    (error: unknown) => send(500, 'text/plain', String(error)),
  )
})

async function file(pathname: string): Promise<Buffer | null> {
  const path = join(root, normalize(`/${pathname}`))
  const found = await stat(path).catch(() => null)
  return found?.isFile() ? readFile(path) : null
}

function nothing(): Visits {
  return { byAddress: {}, byPath: {}, arrivalsMs: [], mostInFlight: 0 }
}

server.listen(0, '127.0.0.1', () => {
  answerParent<SiteAsk>({
    ready: (server.address() as AddressInfo).port,
    answer: async () => {
      const visits = seen
      seen = nothing()
      return visits
    },
    stop: async () => {
      server.closeAllConnections()
      server.close()
    },
  })
})
