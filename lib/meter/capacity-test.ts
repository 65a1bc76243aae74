import {
  METER_MESSAGE_BYTES,
  METER_PATH,
  METER_PING_PATH,
  type MeterFailureReason,
  type MeterReadingReason,
  type MeterReply,
  type MeterRequest,
  meterReading,
  meterReply,
  parseMeterText,
} from '../protocol/meter.ts'
import { type LoadedLatency, loadedLatency, PingLog } from './latency.ts'
import { loadMessageBytes, uploadQueueBytes } from './load.ts'
import {
  decide,
  MAX_TEST_MS,
  type PlateauLimits,
  type Reading,
  read,
  SAMPLE_EVERY_MS,
  type Sample,
} from './plateau.ts'
import type { MeterSocket, OpenMeterSocket } from './socket.ts'

export type MeterPorts = {
  readonly openSocket: OpenMeterSocket
  /** Monotonic clock, ms. */
  readonly now: () => number
  /** Runs once after the delay; the returned function cancels. */
  readonly setTimer: (run: () => void, delayMs: number) => () => void
  /** At most 64 KiB at once, as `crypto.getRandomValues`. */
  readonly randomBytes: (length: number) => Uint8Array<ArrayBuffer>
}

export type CapacityTestOptions = {
  /** Origin of the task server: `https://…`, or `http://…` where that is allowed. */
  readonly serverUrl: string
  /** Session token. */
  readonly token: string
  /** Load both directions may move together, bytes, from `capacityTestDue`. */
  readonly bytesBudget: number
  readonly signal?: AbortSignal
}

export type DirectionReading = Reading & { readonly latency: LoadedLatency | null }

export type CapacityFailure =
  | MeterFailureReason
  | 'aborted'
  | 'unreachable'
  | 'timed-out'
  | 'closed'
  | 'budget'

/** `bytesDown` and `bytesUp` are the load really moved, for the monthly budget. */
export type CapacityTestResult = { readonly bytesDown: number; readonly bytesUp: number } & (
  | {
      readonly kind: 'measured'
      readonly baseRttMs: number
      readonly down: DirectionReading
      readonly up: DirectionReading
    }
  | {
      readonly kind: 'partial'
      readonly baseRttMs: number
      readonly down: DirectionReading
      readonly reason: CapacityFailure
    }
  | { readonly kind: 'failed'; readonly reason: CapacityFailure }
)

const OPEN_MS = 5_000
const READY_MS = 5_000
const PING_MS = 2_000
const BASE_PINGS = 5
// What is on its way when the node says stop arrives within a round trip and a queue.
const DRAIN_MS = 2_000
// Home lines are about five to one; what the download leaves over goes to the upload.
const DOWNLOAD_SHARE = 0.7
// Below this an upload ends inside TCP's first round trips and says nothing.
const SMALLEST_UPLOAD_BYTES = 65_536
// A browser turns 1 into about 4 ms (bandwidth.md §2); `uploadQueueBytes` allows for it.
const PUMP_EVERY_MS = 1
// The server stops by itself; this only bounds a server that does not.
const OVERTIME_MS = 3_000

type Failed = { kind: 'failed'; reason: CapacityFailure; bytes: number }
type Outcome = { kind: 'read'; reading: DirectionReading; bytes: number } | Failed

type Test = {
  readonly ports: MeterPorts
  readonly options: CapacityTestOptions
  readonly pings: PingLog
  readonly baseRttMs: number
}

/**
 * Measures the capacity of the line in both directions against the task server (bandwidth.md §6).
 * Moves no more load than the budget, takes at most about 30 s, and never throws for what the
 * network or the server does. Aborting ends it at once.
 */
export async function runCapacityTest(
  ports: MeterPorts,
  options: CapacityTestOptions,
): Promise<CapacityTestResult> {
  const pingSocket = await open(ports, options, METER_PING_PATH)
  if (typeof pingSocket === 'string') {
    return { kind: 'failed', reason: pingSocket, bytesDown: 0, bytesUp: 0 }
  }
  try {
    const pings = new PingLog(pingSocket, ports.now)
    const base = await baseRtt(ports, options, pings)
    if (typeof base === 'string') {
      return { kind: 'failed', reason: base, bytesDown: 0, bytesUp: 0 }
    }
    const test: Test = { ports, options, pings, baseRttMs: base }

    const down = await direction(test, 'down', Math.floor(options.bytesBudget * DOWNLOAD_SHARE))
    if (down.kind === 'failed') {
      return { kind: 'failed', reason: down.reason, bytesDown: down.bytes, bytesUp: 0 }
    }
    const up = await direction(test, 'up', options.bytesBudget - down.bytes)
    const measured = {
      baseRttMs: base,
      down: down.reading,
      bytesDown: down.bytes,
      bytesUp: up.bytes,
    }
    return up.kind === 'failed'
      ? { kind: 'partial', reason: up.reason, ...measured }
      : { kind: 'measured', up: up.reading, ...measured }
  } finally {
    pingSocket.close()
  }
}

async function direction(test: Test, way: 'down' | 'up', maxBytes: number): Promise<Outcome> {
  if (maxBytes < SMALLEST_UPLOAD_BYTES) return { kind: 'failed', reason: 'budget', bytes: 0 }
  const socket = await open(test.ports, test.options, METER_PATH)
  if (typeof socket === 'string') return { kind: 'failed', reason: socket, bytes: 0 }
  try {
    return await (way === 'down' ? download : upload)(test, socket, maxBytes)
  } finally {
    socket.close()
  }
}

function download(test: Test, socket: MeterSocket, maxBytes: number): Promise<Outcome> {
  const { ports, pings } = test
  const firstPing = pings.sent
  const samples: Sample[] = []
  let limits: PlateauLimits | null = null
  let startMs = 0
  let bytes = 0
  let reading: Reading | null = null

  const failed = (reason: CapacityFailure): Failed => ({ kind: 'failed', reason, bytes })

  return bounded<Outcome>(ports, test.options.signal, failed, (task) => {
    const fail = (reason: CapacityFailure) => task.settle(failed(reason))
    const settle = (taken: Reading) => {
      const latency = loadedLatency(pings.roundTripsMs(firstPing), test.baseRttMs)
      task.settle({ kind: 'read', reading: { ...taken, latency }, bytes })
    }
    const take = (taken: Reading) => {
      if (taken.bitsPerSecond === 0) return fail('stalled')
      reading = taken
      // What is still on its way counts against the budget, and should be gone before the upload.
      task.after(DRAIN_MS, () => settle(taken))
    }
    const sample = () => samples.push({ tMs: ports.now() - startMs, bytesTotal: bytes })
    const tick = () => {
      if (reading !== null || limits === null) return
      pings.send()
      if (samples.length > 0) sample()
      const decision = decide(samples, limits)
      if (decision.kind === 'stop') {
        send(socket, { type: 'stop', reason: decision.reason })
        return take(decision)
      }
      task.after(SAMPLE_EVERY_MS, tick)
    }

    const notReady = task.after(READY_MS, () => fail('timed-out'))
    socket.onMessage((message) => {
      if (typeof message !== 'string') {
        bytes += message.byteLength
        if (limits === null) return fail('protocol')
        // A server that sends more than was agreed is cut off, whatever it thinks it may.
        if (bytes > limits.maxBytes) return reading === null ? fail('protocol') : settle(reading)
        if (samples.length === 0) {
          startMs = ports.now()
          sample()
        }
        return
      }
      const reply = parseMeterText(meterReply, message)
      if (reply === null) return fail('protocol')
      switch (reply.type) {
        case 'ready':
          if (limits !== null) return fail('protocol')
          notReady()
          limits = agreed(reply, test.baseRttMs, maxBytes)
          task.after(limits.maxMs + OVERTIME_MS, () => reading === null && fail('stalled'))
          return tick()
        case 'stop': {
          if (reading !== null) return
          const reason = readingReason(reply.reason)
          if (reason === null) return fail(failureReason(reply.reason))
          if (limits === null || samples.length === 0) return fail('protocol')
          sample()
          return take(read(samples, limits, reason))
        }
        case 'result':
          return reading === null ? fail('protocol') : settle(reading)
      }
    })
    // After `stop` the server resets the connection, so that what it has queued is never sent.
    socket.onClose(() => (reading === null ? fail('closed') : settle(reading)))
    send(socket, startMessage(test, 'down', maxBytes))
  })
}

function upload(test: Test, socket: MeterSocket, maxBytes: number): Promise<Outcome> {
  const { ports, pings } = test
  const firstPing = pings.sent
  let sentBytes = 0
  let limits: PlateauLimits | null = null
  let stopped: MeterReadingReason | null = null

  const failed = (reason: CapacityFailure): Failed => ({ kind: 'failed', reason, bytes: sentBytes })

  return bounded<Outcome>(ports, test.options.signal, failed, (task) => {
    const fail = (reason: CapacityFailure) => task.settle(failed(reason))
    const tick = () => {
      if (stopped !== null) return
      pings.send()
      task.after(SAMPLE_EVERY_MS, tick)
    }
    const pump = (payload: Uint8Array<ArrayBuffer>, allowedBytes: number) => {
      const startMs = ports.now()
      let tickMs = startMs
      let leftAtTickBytes = 0
      let queueBytes = uploadQueueBytes(0)
      const fill = () => {
        if (stopped !== null) return
        const nowMs = ports.now()
        const leftBytes = Math.max(0, sentBytes - socket.bufferedAmount)
        if (nowMs - tickMs >= SAMPLE_EVERY_MS) {
          queueBytes = uploadQueueBytes(leftBytes - leftAtTickBytes)
          leftAtTickBytes = leftBytes
          tickMs = nowMs
        }
        while (sentBytes < allowedBytes && socket.bufferedAmount < queueBytes) {
          const length = Math.min(
            loadMessageBytes(leftBytes, nowMs - startMs),
            allowedBytes - sentBytes,
          )
          if (!send(socket, payload.subarray(0, length))) return
          sentBytes += length
        }
        if (sentBytes < allowedBytes) task.after(PUMP_EVERY_MS, fill)
      }
      fill()
    }

    const notReady = task.after(READY_MS, () => fail('timed-out'))
    socket.onMessage((message) => {
      const reply = typeof message === 'string' ? parseMeterText(meterReply, message) : null
      if (reply === null) return fail('protocol')
      switch (reply.type) {
        case 'ready':
          if (limits !== null) return fail('protocol')
          notReady()
          limits = agreed(reply, test.baseRttMs, maxBytes)
          task.after(limits.maxMs + OVERTIME_MS, () => fail('timed-out'))
          tick()
          return pump(ports.randomBytes(METER_MESSAGE_BYTES), limits.maxBytes)
        case 'stop':
          stopped = readingReason(reply.reason)
          return stopped === null ? fail(failureReason(reply.reason)) : undefined
        case 'result': {
          const { bitsPerSecond, elapsedMs, bytes } = reply
          if (stopped === null || !bitsPerSecond) return fail('protocol')
          const latency = loadedLatency(pings.roundTripsMs(firstPing), test.baseRttMs)
          const reading = { reason: stopped, bitsPerSecond, elapsedMs, bytesTotal: bytes, latency }
          return task.settle({ kind: 'read', reading, bytes: sentBytes })
        }
      }
    })
    socket.onClose(() => fail('closed'))
    send(socket, startMessage(test, 'up', maxBytes))
  })
}

function startMessage(test: Test, way: 'down' | 'up', maxBytes: number): MeterRequest {
  return {
    type: 'start',
    direction: way,
    token: test.options.token,
    baseRttMs: Math.min(10_000, Math.round(test.baseRttMs)),
    maxBytes,
  }
}

/** The node's own limits hold, whatever the server answers. */
function agreed(
  ready: Extract<MeterReply, { type: 'ready' }>,
  baseRttMs: number,
  maxBytes: number,
): PlateauLimits {
  return {
    baseRttMs,
    maxMs: Math.min(MAX_TEST_MS, ready.maxMs),
    maxBytes: Math.min(maxBytes, ready.maxBytes),
  }
}

function readingReason(reason: MeterReadingReason | MeterFailureReason): MeterReadingReason | null {
  const parsed = meterReading.safeParse(reason)
  return parsed.success ? parsed.data : null
}

function failureReason(reason: MeterReadingReason | MeterFailureReason): CapacityFailure {
  return reason === 'plateau' || reason === 'time' || reason === 'bytes' ? 'protocol' : reason
}

function baseRtt(
  ports: MeterPorts,
  options: CapacityTestOptions,
  pings: PingLog,
): Promise<number | CapacityFailure> {
  return bounded<number | CapacityFailure>(ports, options.signal, itself, (task) => {
    let cancel = () => {}
    const next = () => {
      cancel()
      if (pings.sent === BASE_PINGS) return task.settle(Math.min(...pings.roundTripsMs(0)))
      pings.send()
      cancel = task.after(PING_MS, () => task.settle('timed-out'))
    }
    pings.onAnswer(next)
    pings.onLost(() => task.settle('closed'))
    next()
  }).finally(() => {
    // Under load, pings go by the clock, not by the answers.
    pings.onAnswer(() => {})
    pings.onLost(() => {})
  })
}

function open(
  ports: MeterPorts,
  options: CapacityTestOptions,
  path: string,
): Promise<MeterSocket | CapacityFailure> {
  const url = options.serverUrl.replace(/^http/, 'ws').replace(/\/$/, '') + path
  return bounded<MeterSocket | CapacityFailure>(ports, options.signal, itself, (task) => {
    task.after(OPEN_MS, () => task.settle('timed-out'))
    ports.openSocket(url).then(
      (socket) => {
        // One that opens after we have given up is of no use to anybody.
        if (!task.settle(socket)) socket.close()
      },
      // The reason is hidden from pages and workers alike; what matters is that it did not open.
      () => task.settle('unreachable'),
    )
  })
}

/** Returns false when the socket is gone; its close handler says so to the test. */
function send(socket: MeterSocket, message: MeterRequest | Uint8Array<ArrayBuffer>): boolean {
  try {
    socket.send(message instanceof Uint8Array ? message : JSON.stringify(message))
    return true
  } catch {
    return false
  }
}

function itself(reason: CapacityFailure): CapacityFailure {
  return reason
}

type BoundedTask<T> = {
  /** The first call decides; returns whether this was it. */
  settle(value: T): boolean
  /** Runs `run` unless the task has settled by then. Returns a cancel. */
  after(delayMs: number, run: () => void): () => void
}

/** A promise whose timers and abort listener end with it; one aborted before never begins. */
function bounded<T>(
  ports: MeterPorts,
  signal: AbortSignal | undefined,
  failed: (reason: CapacityFailure) => T,
  begin: (task: BoundedTask<T>) => void,
): Promise<T> {
  if (signal?.aborted) return Promise.resolve(failed('aborted'))
  return new Promise((resolve) => {
    let settled = false
    const cancels = new Set<() => void>()
    const task: BoundedTask<T> = {
      settle(value) {
        if (settled) return false
        settled = true
        for (const cancel of cancels) cancel()
        resolve(value)
        return true
      },
      after(delayMs, run) {
        if (settled) return () => {}
        const stop = ports.setTimer(() => {
          cancels.delete(cancel)
          run()
        }, delayMs)
        const cancel = () => {
          cancels.delete(cancel)
          stop()
        }
        cancels.add(cancel)
        return cancel
      },
    }
    const abort = () => task.settle(failed('aborted'))
    signal?.addEventListener('abort', abort)
    cancels.add(() => signal?.removeEventListener('abort', abort))
    begin(task)
  })
}
