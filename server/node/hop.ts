import type { Socket } from 'node:net'
import { pipeline, type Readable } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib'
import { Agent, buildConnector, type Dispatcher, request } from 'undici'
import { HopFailure } from '../../lib/runner/hop-failure.ts'
import type { FetchHop, Hop } from '../../lib/runner/ports.ts'
import { type HostMap, type Lookup, PrivateAddressError, resolveHost } from './host-map.ts'

export interface NodeHopOptions {
  /** Names the crawler and where to complain (RFC 9110 §10.1.5). */
  userAgent: string
  /** Mailbox of whoever runs it (RFC 9110 §10.1.2). */
  from?: string
  /** Source address of every connection. */
  localAddress?: string
  hostMap?: HostMap
  /** For the lab and the demo only. */
  loopbackAllowed?: boolean
  /** Asks for a name's addresses; the machine's own way without it. */
  lookup?: Lookup
  /**
   * A body that is labelled gzip and does not begin like it is read as it stands. No browser does so:
   * for files that no observer has to agree on.
   */
  mislabelledGzipAllowed?: boolean
}

export interface NodeHop {
  hop: FetchHop
  /** Closes idle connections and ends the others. */
  close: () => Promise<void>
}

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])
// TCP and TLS; the page's own clock usually ends a fetch first.
const CONNECT_MS = 10_000
// Two addresses of one family and one of the other: more only wait longer for a dead site.
const MOST_ADDRESSES = 3
// Connections to one site: the manifest's own bound on requests in flight.
const CONNECTIONS = 32

/** One GET under Node: names are resolved once, every address checked, and that address connected to. */
export function createNodeHop(options: NodeHopOptions): NodeHop {
  const agent = new Agent({
    connect: guardedConnector(options),
    connections: CONNECTIONS,
    pipelining: 1,
    // The runner keeps the time (maxMs, idle); these would only be a second, hidden rule.
    headersTimeout: 0,
    bodyTimeout: 0,
  })
  const headers = {
    'user-agent': options.userAgent,
    ...(options.from === undefined ? {} : { from: options.from }),
    accept: '*/*',
    'accept-language': '*',
    'accept-encoding': 'gzip, deflate, br',
  }

  const hop: FetchHop = async ({ url, signal }) => {
    let response: Dispatcher.ResponseData
    try {
      response = await request(url, { method: 'GET', dispatcher: agent, headers, signal })
    } catch (error) {
      if (signal.aborted) throw error
      const isPrivate = causes(error).some((cause) => cause instanceof PrivateAddressError)
      return { kind: 'failed', reason: isPrivate ? 'private-address' : 'connection' }
    }
    return hopOf(response, options.mislabelledGzipAllowed ?? false)
  }
  return { hop, close: () => agent.destroy() }
}

function hopOf(response: Dispatcher.ResponseData, mislabelledGzipAllowed: boolean): Hop {
  const { statusCode: status, body } = response
  const headers = new Map(
    Object.entries(response.headers).flatMap(([name, value]) =>
      value === undefined
        ? []
        : [[name.toLowerCase(), Array.isArray(value) ? value.join(', ') : value] as const],
    ),
  )
  // Thrown away unread; what fails while doing so concerns nobody.
  const discard = () => body.on('error', () => {}).destroy()
  const location = headers.get('location')
  if (REDIRECTS.has(status) && location !== undefined) {
    discard()
    return { kind: 'redirect', status, location }
  }
  const decoder = decoderFor(headers.get('content-encoding'))
  if (decoder === undefined) {
    discard()
    return { kind: 'failed', reason: 'undecodable' }
  }
  let encodedBytes = 0
  body.on('error', () => {
    // The reader below sees it; without a listener it would end the process.
  })
  async function* read(): AsyncGenerator<Uint8Array> {
    // Counted here and not by a 'data' listener, which would start the flow before anyone reads.
    async function* counted(): AsyncGenerator<Buffer> {
      for await (const chunk of body) {
        encodedBytes += chunk.length
        yield chunk
      }
    }
    if (decoder === null) return yield* counted()
    let encoded = counted()
    if (mislabelledGzipAllowed && isGzip(headers.get('content-encoding'))) {
      const first = (await encoded.next()).value
      encoded = chain(first, encoded)
      // One byte alone decides as well: 0x1f begins no text.
      if (first?.[0] !== 0x1f) return yield* encoded
    }
    try {
      yield* pipeline(encoded, decoder as NodeJS.ReadWriteStream, () => {
        // Failures reach whoever reads the decoder.
      }) as unknown as Readable
    } catch (error) {
      if (isZlibError(error)) throw new HopFailure('undecodable', { cause: error })
      throw error
    } finally {
      body.destroy()
    }
  }
  return { kind: 'response', status, headers, body: read(), wireBytes: () => encodedBytes }
}

async function* chain<Value>(first: Value | undefined, rest: AsyncIterable<Value>) {
  if (first !== undefined) yield first
  yield* rest
}

const isGzip = (coding: string | undefined) => /^(x-)?gzip$/i.test(coding?.trim() ?? '')

/** Null: none needed. Undefined: a coding that nobody asked for. */
function decoderFor(coding: string | undefined) {
  switch (coding?.trim().toLowerCase() ?? '') {
    case '':
    case 'identity':
      return null
    case 'gzip':
    case 'x-gzip':
      return createGunzip()
    case 'deflate':
      return createInflate()
    case 'br':
      return createBrotliDecompress()
    default:
      return undefined
  }
}

function isZlibError(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return code.startsWith('Z_') || code.startsWith('ERR__ERROR') || code.startsWith('ERR_BROTLI')
}

function guardedConnector(options: NodeHopOptions): buildConnector.connector {
  const connect = buildConnector({ timeout: CONNECT_MS })
  const { hostMap, loopbackAllowed = false, localAddress = null, lookup } = options

  async function connectTo(target: buildConnector.Options): Promise<Socket | TLSSocket> {
    const port = Number(target.port) || (target.protocol === 'https:' ? 443 : 80)
    const endpoints = await resolveHost(target.hostname, port, { hostMap, loopbackAllowed, lookup })
    let failure: unknown
    for (const { address, port: at } of endpoints.slice(0, MOST_ADDRESSES)) {
      // `host` stays the name: the certificate is checked against it.
      const to = { ...target, hostname: address, port: String(at), localAddress }
      try {
        return await new Promise((resolve, reject) => {
          connect(to, (error, socket) => (socket === null ? reject(error) : resolve(socket)))
        })
      } catch (error) {
        failure = error
      }
    }
    throw failure ?? new Error(`${target.hostname} has no address`)
  }

  return (target, callback) => {
    void connectTo(target).then(
      (socket) => callback(null, socket),
      (error: Error) => callback(error, null),
    )
  }
}

function causes(error: unknown): unknown[] {
  const chain: unknown[] = []
  for (let at = error; at instanceof Error && chain.length < 8; at = at.cause) chain.push(at)
  return chain
}
