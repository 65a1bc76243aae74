import { createHash, randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { type RawData, type WebSocket, WebSocketServer } from 'ws'
import { loadMessageBytes } from '../../lib/meter/load.ts'
import {
  decide,
  MAX_TEST_MS,
  type PlateauLimits,
  SAMPLE_EVERY_MS,
  type Sample,
} from '../../lib/meter/plateau.ts'
import {
  METER_MESSAGE_BYTES,
  METER_PATH,
  METER_PING_PATH,
  type MeterFailureReason,
  type MeterReadingReason,
  type MeterReply,
  type MeterRequest,
  meterPing,
  meterRequest,
  parseMeterText,
} from '../../lib/protocol/meter.ts'

export type MeterLimits = {
  /** Loads at once in this process. More would measure each other. */
  readonly testsAtOnce: number
  /** Open meter sockets at once in this process, pings and those still waiting included. */
  readonly sockets: number
  /** Load of one direction, bytes. */
  readonly testBytes: number
  /** Duration of one direction, ms. */
  readonly testMs: number
  /** From the upgrade to an accepted `start`, ms. */
  readonly startMs: number
  /** Without any load an upload is dropped, ms. */
  readonly stallMs: number
  /** How long the last words may take to leave before the connection is reset, ms. */
  readonly lingerMs: number
  /** Starts of one token in an hour; a capacity test takes two. */
  readonly startsPerHour: number
  /** Pings on one socket: 5 of the idle line and 20 a second of two loads are 205. */
  readonly pingsPerSocket: number
  /** Life of a ping socket, ms. */
  readonly pingSocketMs: number
}

export const DEFAULT_METER_LIMITS: MeterLimits = {
  testsAtOnce: 4,
  sockets: 64,
  testBytes: 25_000_000,
  testMs: MAX_TEST_MS,
  startMs: 5_000,
  stallMs: 2_000,
  lingerMs: 2_000,
  startsPerHour: 12,
  pingsPerSocket: 600,
  pingSocketMs: 60_000,
}

/** The part of pino's and Fastify's logger that the meter uses. */
export type MeterLog = {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

export type MeterOptions = {
  /** Whether the session token is good. May throw when it cannot be known now. */
  readonly authenticate: (token: string) => Promise<boolean>
  readonly limits: Partial<MeterLimits>
  readonly log: MeterLog
}

export type MeterUpgradeHandler = {
  /**
   * Takes an HTTP upgrade to `/v1/meter` or `/v1/meter/ping`. Returns false, having touched
   * nothing, when the path is another's.
   */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean
  /** Ends all meter sockets at once. May be called twice. */
  close(): void
}

type Start = Extract<MeterRequest, { type: 'start' }>

// Four messages: enough that the kernel never waits for us, and little to throw away at a stop.
const SEND_QUEUE_BYTES = 4 * METER_MESSAGE_BYTES
// The node ends its own test at the time limit, and its `stop` throws away what the kernel holds:
// measured at 5 Mbit/s, 0.7 MB of 3.7 that would otherwise still be sent.
const GRACE_MS = 500
// Four times what a client may send; anything larger is not this protocol.
const MAX_PAYLOAD_BYTES = 65_536
const MAX_PING_BYTES = 256
// One entry is about 300 bytes; the oldest is forgotten first.
const REMEMBERED_TOKENS = 10_000
const HOUR_MS = 3_600_000
const FULL = [
  'HTTP/1.1 503 Service Unavailable',
  'Retry-After: 30',
  'Connection: close',
  'Content-Length: 0',
  '\r\n',
].join('\r\n')

/** Serves the capacity test (lib/protocol/README.md, meter; bandwidth.md §6). */
export function meterUpgradeHandler(options: MeterOptions): MeterUpgradeHandler {
  const limits: MeterLimits = { ...DEFAULT_METER_LIMITS, ...options.limits }
  const { authenticate, log } = options
  // The load is random, so compression would cost time and change nothing.
  const server = { noServer: true, clientTracking: false, perMessageDeflate: false } as const
  const loads = new WebSocketServer({ ...server, maxPayload: MAX_PAYLOAD_BYTES })
  const pings = new WebSocketServer({ ...server, maxPayload: MAX_PING_BYTES })
  const allowStart = startLimiter(limits.startsPerHour)
  const open = new Set<Duplex>()
  let running = 0

  async function accept(line: Line, start: Start): Promise<void> {
    if (!(await authenticate(start.token))) return line.refuse('no-session', 1008)
    if (line.ended) return
    if (running >= limits.testsAtOnce) return line.refuse('busy', 1013)
    if (!allowStart(start.token, performance.now())) return line.refuse('rate-limited', 1013)
    running += 1
    line.onEnd(() => {
      running -= 1
    })
    const agreed: PlateauLimits = {
      baseRttMs: start.baseRttMs,
      maxMs: limits.testMs,
      maxBytes: Math.min(start.maxBytes, limits.testBytes),
    }
    line.reply({ type: 'ready', maxBytes: agreed.maxBytes, maxMs: agreed.maxMs })
    if (start.direction === 'down') download(line, agreed, log)
    else upload(line, agreed, limits.stallMs, log)
  }

  function serveLoad(line: Line): void {
    const late = line.after(limits.startMs, () => line.refuse('stalled', 1008))
    line.onMessage((data, isBinary) => {
      const request = isBinary ? null : parseMeterText(meterRequest, data.toString())
      if (request?.type !== 'start') return line.refuse('protocol', 1002)
      // One start a socket: whatever comes before `ready` is out of turn.
      line.onMessage(() => line.refuse('protocol', 1002))
      accept(line, request)
        .catch((cause: unknown) => {
          log.warn({ err: cause }, 'meter: cannot authenticate')
          line.refuse('unavailable', 1011)
        })
        .finally(late)
    })
  }

  function servePings(line: Line): void {
    let answered = 0
    line.after(limits.pingSocketMs, () => line.close(1000))
    line.onMessage((data, isBinary) => {
      const ping = isBinary ? null : parseMeterText(meterPing, data.toString())
      if (ping === null) return line.close(1002)
      answered += 1
      if (answered > limits.pingsPerSocket) return line.close(1008)
      // Someone who asks without reading the answers.
      if (line.queuedBytes > SEND_QUEUE_BYTES) return line.drop()
      line.send(JSON.stringify({ type: 'pong', id: ping.id }))
    })
  }

  return {
    handleUpgrade(request, socket, head) {
      const path = request.url?.split('?', 1)[0]
      if (path !== METER_PATH && path !== METER_PING_PATH) return false
      if (open.size >= limits.sockets) {
        // Gone before the answer: nothing to tell, and the counter never saw it.
        socket.on('error', () => socket.destroy())
        socket.once('finish', () => socket.destroy())
        socket.end(FULL)
        return true
      }
      open.add(socket)
      socket.once('close', () => open.delete(socket))
      const [accepting, serve] = path === METER_PATH ? [loads, serveLoad] : [pings, servePings]
      accepting.handleUpgrade(request, socket, head, (ws) =>
        serve(new Line(ws, socket, limits.lingerMs)),
      )
      return true
    },
    close() {
      for (const socket of open) reset(socket)
    },
  }
}

/** Sends load as fast as the connection takes it, until the node says stop or a cap is reached. */
function download(line: Line, agreed: PlateauLimits, log: MeterLog): void {
  const payload = randomBytes(METER_MESSAGE_BYTES)
  const startMs = performance.now()
  let sentBytes = 0
  let pumping = false
  let over = false

  const stop = (reason: MeterReadingReason) => {
    over = true
    const elapsedMs = Math.round(performance.now() - startMs)
    log.info({ direction: 'down', reason, bytes: sentBytes, elapsedMs }, 'meter: test ended')
    line.reply({ type: 'stop', reason })
    line.reply({ type: 'result', bytes: sentBytes, elapsedMs })
    line.close(1000)
  }
  const pump = () => {
    pumping = false
    while (!over && !line.ended && line.queuedBytes < SEND_QUEUE_BYTES) {
      const left = agreed.maxBytes - sentBytes
      if (left === 0) return stop('bytes')
      const length = Math.min(loadMessageBytes(sentBytes, performance.now() - startMs), left)
      sentBytes += length
      line.send(payload.subarray(0, length), () => {
        if (pumping) return
        pumping = true
        // Not at once: on a fast line the callbacks would never let a `stop` in.
        setImmediate(pump)
      })
    }
  }
  line.onMessage((data, isBinary) => {
    const request = isBinary ? null : parseMeterText(meterRequest, data.toString())
    if (request?.type !== 'stop') return line.refuse('protocol', 1002)
    const elapsedMs = Math.round(performance.now() - startMs)
    log.info(
      { direction: 'down', reason: request.reason, bytes: sentBytes, elapsedMs },
      'meter: test ended',
    )
    // Reset, not closed: what the kernel still holds would only cost the person's line.
    line.drop()
  })
  // A client that reads nothing ends here too: the last words cannot leave, and `close` resets.
  line.after(agreed.maxMs + GRACE_MS, () => over || stop('time'))
  pump()
}

/** Counts what arrives and ends the test by the plateau rule; the node's own count is no use. */
function upload(line: Line, agreed: PlateauLimits, stallMs: number, log: MeterLog): void {
  const samples: Sample[] = []
  const readyMs = performance.now()
  let startMs = readyMs
  let bytes = 0
  let progressMs = readyMs
  let over = false

  const judge = () => {
    samples.push({ tMs: performance.now() - startMs, bytesTotal: bytes })
    const decision = decide(samples, agreed)
    if (decision.kind === 'continue') return
    over = true
    const { reason, bitsPerSecond, elapsedMs } = decision
    if (bitsPerSecond === 0) return line.refuse('stalled', 1008)
    log.info({ direction: 'up', reason, bytes, elapsedMs, bitsPerSecond }, 'meter: test ended')
    line.reply({ type: 'stop', reason })
    line.reply({ type: 'result', bytes, elapsedMs, bitsPerSecond })
    line.close(1000)
  }
  const tick = () => {
    if (over) return
    if (performance.now() - progressMs >= stallMs) {
      over = true
      log.info({ direction: 'up', bytes }, 'meter: stalled client dropped')
      return line.refuse('stalled', 1008)
    }
    if (samples.length > 0) judge()
    line.after(SAMPLE_EVERY_MS, tick)
  }

  line.onMessage((data, isBinary) => {
    // Load under way when we said stop.
    if (over) return
    if (!isBinary) return line.refuse('protocol', 1002)
    progressMs = performance.now()
    bytes += byteLength(data)
    if (samples.length === 0) {
      startMs = progressMs
      samples.push({ tMs: 0, bytesTotal: bytes })
    }
    if (bytes >= agreed.maxBytes) judge()
  })
  tick()
}

/** One meter socket and everything that must end with it. */
class Line {
  readonly #ws: WebSocket
  readonly #socket: Duplex
  readonly #lingerMs: number
  readonly #timers = new Set<NodeJS.Timeout>()
  readonly #ends: (() => void)[] = []
  #handler: (data: RawData, isBinary: boolean) => void = () => {}
  #closing = false
  #closed = false

  constructor(ws: WebSocket, socket: Duplex, lingerMs: number) {
    this.#ws = ws
    this.#socket = socket
    this.#lingerMs = lingerMs
    ws.on('message', (data, isBinary) => {
      if (!this.#closing) this.#handler(data, isBinary)
    })
    // `ws` has already begun to close with the right code, e.g. 1009 for an oversized message.
    ws.on('error', () => this.#linger())
    ws.on('close', () => this.#end())
  }

  /** Whether nothing more will be sent or heard. */
  get ended(): boolean {
    return this.#closing || this.#closed
  }

  get queuedBytes(): number {
    return this.#ws.bufferedAmount
  }

  /** Sets the one handler of messages. */
  onMessage(handler: (data: RawData, isBinary: boolean) => void): void {
    this.#handler = handler
  }

  onEnd(run: () => void): void {
    this.#ends.push(run)
  }

  /** Runs once, unless the socket has ended by then. Returns a cancel. */
  after(delayMs: number, run: () => void): () => void {
    if (this.#closed) return () => {}
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      run()
    }, delayMs)
    this.#timers.add(timer)
    return () => {
      this.#timers.delete(timer)
      clearTimeout(timer)
    }
  }

  /** `flushed` is called once the kernel has taken the message; not at all if it never does. */
  send(message: string | Uint8Array, flushed: () => void = () => {}): void {
    // An error here is a closed socket, which `close` reports.
    this.#ws.send(message, (error) => error == null && flushed())
  }

  reply(message: MeterReply): void {
    this.send(JSON.stringify(message))
  }

  refuse(reason: MeterFailureReason, code: number): void {
    if (this.ended) return
    this.reply({ type: 'stop', reason })
    this.close(code)
  }

  /** Closes after what is queued, and resets when that takes too long. */
  close(code: number): void {
    if (this.ended) return
    this.#closing = true
    this.#ws.close(code)
    this.#linger()
  }

  /** Ends the connection now; what is queued is not sent. */
  drop(): void {
    this.#closing = true
    reset(this.#socket)
  }

  #linger(): void {
    this.after(this.#lingerMs, () => this.drop())
  }

  #end(): void {
    this.#closed = true
    for (const timer of this.#timers) clearTimeout(timer)
    for (const run of this.#ends) run()
  }
}

function reset(socket: Duplex): void {
  // Only a plain TCP socket can be reset; Node refuses it for TLS.
  if (socket instanceof Socket && !(socket instanceof TLSSocket)) socket.resetAndDestroy()
  else socket.destroy()
}

function byteLength(data: RawData): number {
  if (Array.isArray(data)) return data.reduce((sum, part) => sum + part.byteLength, 0)
  return data.byteLength
}

/** At most `perHour` starts of one token in any hour. Knows tokens by digest only. */
function startLimiter(perHour: number): (token: string, nowMs: number) => boolean {
  const startsByToken = new Map<string, number[]>()
  return (token, nowMs) => {
    const key = createHash('sha256').update(token).digest('base64')
    const recent = (startsByToken.get(key) ?? []).filter((startMs) => nowMs - startMs < HOUR_MS)
    const allowed = recent.length < perHour
    if (allowed) recent.push(nowMs)
    // Set again at the end, so that the oldest key of the map is the one unused longest.
    startsByToken.delete(key)
    startsByToken.set(key, recent)
    if (startsByToken.size > REMEMBERED_TOKENS) {
      const oldest = startsByToken.keys().next().value
      if (oldest !== undefined) startsByToken.delete(oldest)
    }
    return allowed
  }
}
