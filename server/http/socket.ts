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
import { type Halts, haltsOfNode } from '../store/halt.ts'
import type { Queryable } from '../store/queryable.ts'

/** The first message must come by then, and it must be the token. */
const authenticateWithinMs = 5000
/** Nodes ping every 20 s or oftener; three missed are a lost line. */
const silentMs = 65_000
/**
 * A pong says that nothing is halted but what was rung, so it is given only by a process that knows
 * what was halted so long ago or later (protocol README §9). It looks once a second.
 */
const knowsForMs = 2000
/** A halt ends by itself on a node that does not hear of it for five minutes. */
const haltAgainMs = 2 * 60_000
/** Of campaigns that are halted for long, so many are said again: 20,000 nodes hear each. */
const mostHaltsAgain = 20
/** Looks at what is halted for a node, while it changes all the time. */
const mostLooks = 5
/** One process; more nodes than this want another process. */
const maxSockets = 20_000

/** The nodes' doorbells held by this process. What rings comes through the database. */
export function createDoorbells(options: { db: Queryable; log: Logger; trustedProxies: number }) {
  const { db, log } = options
  const sockets = new Map<string, Set<WebSocket>>()
  /** Pinged, and owed a pong. */
  const waiting = new Set<WebSocket>()
  const halted = new Set<string | null>()
  let changes = 0
  let knownAtMs = Number.NEGATIVE_INFINITY
  let saidAtMs = performance.now()
  const knows = () => performance.now() - knownAtMs < knowsForMs
  const setHalted = (campaign: string | null, isHalted: boolean) => {
    changes += 1
    if (isHalted) halted.add(campaign)
    else halted.delete(campaign)
  }
  const sendTo = (node: string | null, notice: SocketNotice) => {
    const heard = node === null ? [...sockets.values()] : [sockets.get(node) ?? []]
    for (const set of heard) for (const socket of set) send(socket, notice)
  }
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
      waiting.delete(socket)
      if (nodeId === null) return
      const mine = sockets.get(nodeId)
      mine?.delete(socket)
      if (mine?.size === 0) sockets.delete(nodeId)
    })
    socket.on('message', (data, isBinary) => {
      heardAt = Date.now()
      const message = isBinary ? null : socketRequest.safeParse(json(data.toString()))
      if (!message?.success) return socket.close(4400, 'not a message of this protocol')
      if (message.data.type === 'ping') {
        if (knows()) send(socket, { type: 'pong' })
        else waiting.add(socket)
        return
      }
      if (lookedUp) return
      lookedUp = true
      const ip = peerAddress(request, options.trustedProxies)
      useSession(
        db,
        sha256(fromBase64Url(message.data.token)),
        networkBlock(ip),
        networkBlockWide(ip),
      )
        .then(async (session) => {
          if (!session) return socket.close(4401, 'no session')
          // Gone meanwhile: `close` has been, and nothing would take it off the list.
          if (socket.readyState !== socket.OPEN) return
          nodeId = session.nodeId.toString('hex')
          // From here on it hears what rings.
          sockets.set(nodeId, (sockets.get(nodeId) ?? new Set()).add(socket))
          for (const { campaign, halted } of await standing(session.nodeId)) {
            send(socket, { type: halted ? 'halt' : 'resume', campaign })
          }
          send(socket, { type: 'ready' })
        })
        .catch((error: unknown) => {
          log.error({ err: error }, 'doorbell could not look up a session')
          socket.close(1013, 'try again')
        })
    })
  })

  /** What is halted for a node, read after the last change that rang. */
  async function standing(nodeId: Uint8Array) {
    for (let looks = 1; ; looks += 1) {
      const before = changes
      const found = await haltsOfNode(db, nodeId)
      if (changes === before || looks === mostLooks) return found
    }
  }

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
      switch (ring.notice) {
        case 'halt':
        case 'resume': {
          const campaign = ring.campaign ?? null
          if (ring.node === null) setHalted(campaign, ring.notice === 'halt')
          return sendTo(ring.node, { type: ring.notice, campaign })
        }
        case 'recall':
          return sendTo(ring.node, { type: 'recall', leases: ring.leases })
        default:
          return sendTo(ring.node, { type: ring.notice })
      }
    },
    /** What is halted, as it was at `atMs` (`performance.now`) or later. Rings what was missed. */
    halts({ everything, campaigns }: Halts, atMs: number) {
      const now = new Set<string | null>(everything ? [null, ...campaigns] : campaigns)
      for (const campaign of [...halted, ...now]) {
        const isHalted = now.has(campaign)
        if (isHalted === halted.has(campaign)) continue
        setHalted(campaign, isHalted)
        sendTo(null, { type: isHalted ? 'halt' : 'resume', campaign })
      }
      knownAtMs = atMs
      if (performance.now() - saidAtMs > haltAgainMs) {
        saidAtMs = performance.now()
        for (const campaign of [...now].slice(0, mostHaltsAgain)) {
          sendTo(null, { type: 'halt', campaign })
        }
      }
      if (!knows()) return
      for (const socket of waiting) send(socket, { type: 'pong' })
      waiting.clear()
    },
    /** False while it may have missed a halt; then no ping is answered. */
    knowsHalts: knows,
    /** Nodes' sockets that are open and have said who they are. */
    count(): number {
      let open = 0
      for (const set of sockets.values()) open += set.size
      return open
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
