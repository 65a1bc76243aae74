import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Logger } from 'pino'
import { type WebSocket, WebSocketServer } from 'ws'
import { networkBlock, networkBlockWide } from '../../lib/capture/public-host.ts'
import { fromBase64Url } from '../../lib/crypto/base64.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import { type SocketNotice, socketRequest } from '../../lib/protocol/socket.ts'
import { useSession } from '../store/contributors.ts'
import type { Ring } from '../store/doorbell.ts'
import type { Queryable } from '../store/queryable.ts'

/** The first message must come by then, and it must be the token. */
const authenticateWithinMs = 5000
/** Nodes ping every 20 s; three missed are a lost line. */
const silentMs = 65_000
/** One process; more nodes than this want another process. */
const maxSockets = 20_000

/** The nodes' doorbells held by this process. What rings comes through the database. */
export function createDoorbells(options: { db: Queryable; log: Logger; trustedProxies: number }) {
  const { db, log } = options
  const sockets = new Map<string, Set<WebSocket>>()
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: 64 * 1024,
    clientTracking: true,
  })

  server.on('connection', (socket: WebSocket, request: IncomingMessage) => {
    let nodeId: string | null = null
    let lookedUp = false
    let heardAt = Date.now()
    const watch = setInterval(() => {
      if (Date.now() - heardAt > silentMs) socket.terminate()
    }, 10_000)
    const deadline = setTimeout(() => {
      if (nodeId === null) socket.close(4401, 'authenticate first')
    }, authenticateWithinMs)
    socket.on('error', (error) => log.debug({ err: error }, 'doorbell socket'))
    socket.on('close', () => {
      clearInterval(watch)
      clearTimeout(deadline)
      if (nodeId === null) return
      const mine = sockets.get(nodeId)
      mine?.delete(socket)
      if (mine?.size === 0) sockets.delete(nodeId)
    })
    socket.on('message', (data, isBinary) => {
      heardAt = Date.now()
      const message = isBinary ? null : socketRequest.safeParse(json(data.toString()))
      if (!message?.success) return socket.close(4400, 'not a message of this protocol')
      if (message.data.type === 'ping') return send(socket, { type: 'pong' })
      if (lookedUp) return
      lookedUp = true
      const ip = peerAddress(request, options.trustedProxies)
      useSession(
        db,
        sha256(fromBase64Url(message.data.token)),
        networkBlock(ip),
        networkBlockWide(ip),
      ).then(
        (session) => {
          if (!session) return socket.close(4401, 'no session')
          // Gone meanwhile: `close` has been, and nothing would take it off the list.
          if (socket.readyState !== socket.OPEN) return
          nodeId = session.nodeId.toString('hex')
          sockets.set(nodeId, (sockets.get(nodeId) ?? new Set()).add(socket))
          send(socket, { type: 'ready' })
        },
        (error: unknown) => {
          log.error({ err: error }, 'doorbell could not look up a session')
          socket.close(1013, 'try again')
        },
      )
    })
  })

  return {
    /** True when the path was this one's. */
    handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean {
      if (new URL(request.url ?? '/', 'http://host').pathname !== '/v1/socket') return false
      if (server.clients.size >= maxSockets) {
        socket.end('HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\n\r\n')
        return true
      }
      server.handleUpgrade(request, socket, head, (ws) => server.emit('connection', ws, request))
      return true
    },
    ring(ring: Ring) {
      const notice: SocketNotice =
        ring.notice === 'halt'
          ? { type: 'halt', campaign: ring.campaign ?? null }
          : ring.notice === 'recall'
            ? { type: 'recall', leases: ring.leases ?? [] }
            : { type: ring.notice }
      const heard = ring.node === null ? [...sockets.values()] : [sockets.get(ring.node) ?? []]
      for (const set of heard) for (const socket of set) send(socket, notice)
    },
    close() {
      for (const client of server.clients) client.terminate()
      server.close()
    },
  }
}

/** The peer as our own proxies saw it; as Fastify reads it for HTTP. */
function peerAddress(request: IncomingMessage, trustedProxies: number): string {
  const direct = request.socket.remoteAddress ?? ''
  const forwarded = String(request.headers['x-forwarded-for'] ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean)
  if (trustedProxies === 0 || forwarded.length === 0) return direct
  return forwarded[Math.max(0, forwarded.length - trustedProxies)] ?? direct
}

function send(socket: WebSocket, notice: SocketNotice) {
  if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(notice))
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Not JSON is not a message; the schema says so to the sender.
    return undefined
  }
}
