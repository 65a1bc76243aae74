import { type SocketNotice, socketNotice } from '../protocol/socket.ts'
import type { HeardDoorbell } from './ports.ts'

/** What the doorbell needs of a WebSocket: both platforms' global and the ws package have it. */
export interface SocketLike {
  readonly readyState: number
  send(text: string): void
  close(): void
  addEventListener(type: 'open' | 'close' | 'error', listener: () => void): void
  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void
}

export interface DoorbellOptions {
  /** Origin of the task server, `https:` or `http:`. */
  origin: string
  /** A running session's token; `ServerConnection.token`. */
  token: () => Promise<string>
  connect: (url: string) => SocketLike
  /** Resolves after `ms`, or rejects with the signal's reason. */
  sleep: (ms: number, signal?: AbortSignal) => Promise<void>
  /** From 0 to 1, for jitter. */
  random: () => number
  /** Milliseconds since the epoch. */
  now: () => number
  /** Every notice. `ready` means: connected anew, so look at everything. */
  onNotice: (notice: SocketNotice) => void
}

export interface Doorbell extends HeardDoorbell {
  /** Connects, and again whenever the connection is lost. */
  start(): void
  stop(): void
  connected(): boolean
}

// A ping at least every 30 s keeps a Chromium worker alive (feasibility notes, row 6a). Before it
// starts a page, the runner asks by itself (machine.ts).
const PING_EVERY_MS = 20_000
// No pong: a dead connection that nobody closed (a laptop moved to another network), or a server that
// cannot see its database. Two round trips of the worst line, and TCP's first retries between them.
const SILENCE_MS = 10_000
const CONNECT_MS = 15_000
const FIRST_RETRY_MS = 1_000
const LONGEST_RETRY_MS = 60_000
// Protocol README §9.
const LONGEST_MESSAGE = 65_536

/** A client of `/v1/socket` that stays connected. It only announces; work is asked for over HTTP. */
export function createDoorbell(options: DoorbellOptions): Doorbell {
  const url = `${options.origin.replace(/^http/, 'ws')}/v1/socket`
  let stopping: AbortController | null = null
  let heardMs: number | null = null
  let askedMs: number | null = null
  /** Sends a ping on the connection that is open. */
  let ping: (() => void) | null = null
  const ask = () => {
    if (heardMs !== null && askedMs === null) ping?.()
  }

  async function stayConnected(signal: AbortSignal): Promise<void> {
    let failures = 0
    while (!signal.aborted) {
      const wasReady = await connection(signal)
      if (signal.aborted) return
      failures = wasReady ? 0 : failures + 1
      const ceilingMs = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(failures, 10))
      await options.sleep(ceilingMs * (0.5 + options.random() / 2), signal).catch(ended)
    }
  }

  /** One connection from beginning to end; true when the server said `ready`. */
  async function connection(signal: AbortSignal): Promise<boolean> {
    let token: string
    try {
      token = await options.token()
    } catch {
      // No session now: the connection's own calls say why, here it only means to try later.
      return false
    }
    if (signal.aborted) return false
    const over = new AbortController()
    const end = () => over.abort()
    signal.addEventListener('abort', end)
    let wasReady = false
    let pong = new AbortController()
    const socket = options.connect(url)
    const say = (message: object) => {
      if (socket.readyState === 1) socket.send(JSON.stringify(message))
    }
    socket.addEventListener('open', () => {
      askedMs = options.now()
      say({ type: 'authenticate', token })
    })
    socket.addEventListener('close', end)
    socket.addEventListener('error', end)
    socket.addEventListener('message', ({ data }) => {
      const notice = parseNotice(data)
      if (notice === null || over.signal.aborted) return
      if (notice.type === 'ready') wasReady = true
      // One thing is asked at a time, so this is its answer. Whatever was rung before came before it.
      if (notice.type === 'ready' || notice.type === 'pong') {
        heardMs = askedMs ?? heardMs
        askedMs = null
        pong.abort()
      }
      options.onNotice(notice)
    })

    try {
      await options.sleep(CONNECT_MS, AbortSignal.any([over.signal, pong.signal])).catch(ended)
      ping = () => {
        pong = new AbortController()
        askedMs = options.now()
        say({ type: 'ping' })
        void (async (answered: AbortSignal) => {
          await options.sleep(SILENCE_MS, AbortSignal.any([over.signal, answered])).catch(ended)
          if (!answered.aborted) end()
        })(pong.signal)
      }
      while (!over.signal.aborted && wasReady) {
        await options.sleep(PING_EVERY_MS, over.signal).catch(ended)
        ask()
      }
    } finally {
      heardMs = null
      askedMs = null
      ping = null
      over.abort()
      signal.removeEventListener('abort', end)
      socket.close()
    }
    return wasReady
  }

  return {
    start() {
      if (stopping !== null) return
      stopping = new AbortController()
      void stayConnected(stopping.signal)
    },
    stop() {
      stopping?.abort()
      stopping = null
    },
    connected: () => heardMs !== null,
    heardMs: () => heardMs,
    askedMs: () => askedMs,
    ask,
  }
}

/** A sleep that was cut short is an ordinary end of waiting. */
function ended(): void {}

function parseNotice(data: unknown): SocketNotice | null {
  if (typeof data !== 'string' || data.length > LONGEST_MESSAGE) return null
  try {
    const parsed = socketNotice.safeParse(JSON.parse(data))
    return parsed.success ? parsed.data : null
  } catch {
    // Not JSON: a notice of no version that this node knows.
    return null
  }
}
