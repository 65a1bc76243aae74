import { meterPong, parseMeterText } from '../protocol/meter.ts'
import type { MeterSocket } from './socket.ts'

type Ping = { sentMs: number; rttMs: number | null }

export type LoadedLatency = {
  /** Median round trip under load, ms. */
  readonly loadedRttMs: number
  /** How much the load raised it above the idle line's lowest, ms. */
  readonly latencyRiseMs: number
}

/** Sends pings on their own socket and keeps their round trips. `now` is a monotonic clock, ms. */
export class PingLog {
  readonly #socket: MeterSocket
  readonly #now: () => number
  readonly #pings: Ping[] = []
  #answered: () => void = () => {}
  #lost: () => void = () => {}
  #closed = false

  constructor(socket: MeterSocket, now: () => number) {
    this.#socket = socket
    this.#now = now
    socket.onMessage((message) => this.#receive(message))
    socket.onClose(() => {
      this.#closed = true
      this.#lost()
    })
  }

  /** How many were sent so far: a mark to begin a phase with. */
  get sent(): number {
    return this.#pings.length
  }

  /** Sends one. On a lost socket it does nothing: a test then goes on without loaded latency. */
  send(): void {
    if (this.#closed) return
    const id = this.#pings.push({ sentMs: this.#now(), rttMs: null }) - 1
    try {
      this.#socket.send(JSON.stringify({ type: 'ping', id }))
    } catch {
      // Closing, which only the close handler can report: this ping will not be answered.
      this.#pings.pop()
    }
  }

  /** Sets the one handler called after each answer. */
  onAnswer(handler: () => void): void {
    this.#answered = handler
  }

  /** Sets the one handler called when the socket is lost; at once when it already is. */
  onLost(handler: () => void): void {
    this.#lost = handler
    if (this.#closed) handler()
  }

  /** Round trips of the pings from mark `from` on, ms. Unanswered ones count their age. */
  roundTripsMs(from: number): number[] {
    const nowMs = this.#now()
    return this.#pings.slice(from).flatMap(({ sentMs, rttMs }) => {
      if (rttMs !== null) return [rttMs]
      return this.#closed ? [] : [nowMs - sentMs]
    })
  }

  #receive(message: string | ArrayBuffer): void {
    const pong = typeof message === 'string' ? parseMeterText(meterPong, message) : null
    const ping = pong === null ? undefined : this.#pings[pong.id]
    // A server that answers twice, or what was never asked, is not worth ending a test for.
    if (ping === undefined || ping.rttMs !== null) return
    ping.rttMs = this.#now() - ping.sentMs
    this.#answered()
  }
}

/** Compares round trips under load with the idle base; null without any. */
export function loadedLatency(
  roundTripsMs: readonly number[],
  baseRttMs: number,
): LoadedLatency | null {
  const sorted = [...roundTripsMs].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle]
  if (upper === undefined) return null
  const lower = sorted.length % 2 === 0 ? (sorted[middle - 1] ?? upper) : upper
  const loadedRttMs = (lower + upper) / 2
  return { loadedRttMs, latencyRiseMs: Math.max(0, loadedRttMs - baseRttMs) }
}
