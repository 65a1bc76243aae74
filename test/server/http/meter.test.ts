import { getRandomValues } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocket as StandardWebSocket } from 'undici'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import {
  type CapacityTestOptions,
  type MeterPorts,
  runCapacityTest,
} from '../../../lib/meter/capacity-test.ts'
import { meterSocketOpener } from '../../../lib/meter/socket.ts'
import { type MeterLimits, meterUpgradeHandler } from '../../../server/http/meter.ts'
import { shapedLine } from './shaped-line.ts'

const token = 'n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg'
const otherToken = 'LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564'

const ports: MeterPorts = {
  openSocket: meterSocketOpener((url) => new WebSocket(url, { perMessageDeflate: false })),
  now: () => performance.now(),
  setTimer: (run, delayMs) => {
    const timer = setTimeout(run, delayMs)
    return () => clearTimeout(timer)
  },
  randomBytes: (length) => getRandomValues(new Uint8Array(length)),
}

const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

type Given = {
  limits?: Partial<MeterLimits>
  authenticate?: (token: string) => Promise<boolean>
}

async function serve({ limits = {}, authenticate }: Given = {}) {
  const logged: { fields: object; message: string }[] = []
  const note = (fields: object, message: string) => void logged.push({ fields, message })
  const meter = meterUpgradeHandler({
    authenticate: authenticate ?? (async (given) => given === token),
    limits,
    log: { info: note, warn: note },
  })
  const server: Server = createServer((_, response) => response.end())
  server.on('upgrade', (request, socket, head) => {
    if (!meter.handleUpgrade(request, socket, head)) socket.end('HTTP/1.1 404 Not Found\r\n\r\n')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  ends.push(() => {
    meter.close()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const origin = `127.0.0.1:${port}`
  return { port, origin, serverUrl: `http://${origin}`, logged }
}

async function slowly(port: number, bytesPerMs: number): Promise<string> {
  const line = await shapedLine(port, bytesPerMs)
  ends.push(line.end)
  return `http://127.0.0.1:${line.port}`
}

/** A bare client: what it was told, how many bytes it got, how it ended. */
async function connect(origin: string, path = '/v1/meter') {
  const ws = new WebSocket(`ws://${origin}${path}`, { perMessageDeflate: false })
  ends.push(() => ws.terminate())
  const told: { type: string; reason?: string; bytes?: number; bitsPerSecond?: number }[] = []
  const seen = { bytes: 0, longestBytes: 0 }
  ws.on('message', (data: Buffer, isBinary) => {
    if (!isBinary) return void told.push(JSON.parse(data.toString()))
    seen.bytes += data.byteLength
    seen.longestBytes = Math.max(seen.longestBytes, data.byteLength)
  })
  // A reset is an error event; every case here looks at the close that follows it.
  ws.on('error', () => {})
  const closed = new Promise<number>((resolve) => ws.on('close', resolve))
  await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject))
  const say = (message: object) => ws.send(JSON.stringify(message))
  const start = (given: object = {}) =>
    say({
      type: 'start',
      direction: 'down',
      token,
      baseRttMs: 1,
      maxBytes: 100_000_000,
      ...given,
    })
  return { ws, told, seen, closed, say, start }
}

const until = async (condition: () => boolean) => {
  const deadlineMs = performance.now() + 5_000
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error('It did not happen within 5 s')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const test = (serverUrl: string, given: Partial<CapacityTestOptions> = {}) =>
  runCapacityTest(ports, { serverUrl, token, bytesBudget: 6_000_000, ...given })

describe('a capacity test on loopback', () => {
  it('measures both directions within its byte budget', async () => {
    const { serverUrl } = await serve()
    const result = await test(serverUrl)
    if (result.kind !== 'measured') throw new Error(JSON.stringify(result))
    for (const reading of [result.down, result.up]) {
      expect(reading.reason).toBe('bytes')
      expect(reading.bitsPerSecond).toBeGreaterThan(10e6)
      expect(reading.latency?.loadedRttMs).toBeGreaterThan(0)
    }
    expect(result.bytesDown).toBe(4_200_000)
    expect(result.bytesUp).toBeGreaterThan(0)
    expect(result.bytesDown + result.bytesUp).toBeLessThanOrEqual(6_000_000)
  })

  it('runs on the WebSocket that browsers have', async () => {
    const { serverUrl } = await serve()
    const standard: MeterPorts = {
      ...ports,
      openSocket: meterSocketOpener((url) => new StandardWebSocket(url)),
    }
    const result = await runCapacityTest(standard, { serverUrl, token, bytesBudget: 2_000_000 })
    expect(result).toMatchObject({ kind: 'measured', bytesDown: 1_400_000 })
    expect(result.bytesUp).toBeLessThanOrEqual(600_000)
  })

  it('ends both directions at a plateau when the rate is steady', async () => {
    const { port } = await serve()
    const result = await test(await slowly(port, 2_000), { bytesBudget: 25_000_000 })
    if (result.kind !== 'measured') throw new Error(JSON.stringify(result))
    for (const reading of [result.down, result.up]) {
      expect(reading.reason).toBe('plateau')
      expect(reading.bitsPerSecond).toBeGreaterThan(16e6 * 0.9)
      expect(reading.bitsPerSecond).toBeLessThan(16e6 * 1.1)
    }
    expect(result.bytesDown + result.bytesUp).toBeLessThan(25_000_000)
  })

  it.each([
    ['a token that is not good', {}, { token: otherToken }, 'no-session'],
    ['too many tests at once', { testsAtOnce: 0 }, {}, 'busy'],
    ['too many tests of one node', { startsPerHour: 0 }, {}, 'rate-limited'],
    ['a full server', { sockets: 0 }, {}, 'unreachable'],
    ['a budget too small to say anything', {}, { bytesBudget: 50_000 }, 'budget'],
    ['an abort before it begins', {}, { signal: AbortSignal.abort() }, 'aborted'],
  ])('fails with a reason on %s', async (_, limits, given, reason) => {
    const { serverUrl } = await serve({ limits })
    expect(await test(serverUrl, given)).toEqual({
      kind: 'failed',
      reason,
      bytesDown: 0,
      bytesUp: 0,
    })
  })

  it('fails when nobody listens', async () => {
    expect(await test('http://127.0.0.1:1')).toMatchObject({ reason: 'unreachable' })
  })

  it('fails when the session cannot be checked', async () => {
    const { serverUrl, logged } = await serve({
      authenticate: () => Promise.reject(new Error('the database is away')),
    })
    expect(await test(serverUrl)).toMatchObject({ kind: 'failed', reason: 'unavailable' })
    expect(logged[0]?.message).toBe('meter: cannot authenticate')
  })

  it('keeps the download when the upload is refused', async () => {
    const { serverUrl } = await serve({ limits: { startsPerHour: 1 } })
    const result = await test(serverUrl)
    expect(result).toMatchObject({ kind: 'partial', reason: 'rate-limited', bytesUp: 0 })
    expect(result.kind === 'partial' && result.down.bitsPerSecond).toBeGreaterThan(0)
  })

  it('ends at once when aborted under load', async () => {
    const { port } = await serve()
    const abort = new AbortController()
    const begunMs = performance.now()
    setTimeout(() => abort.abort(), 300)
    const result = await test(await slowly(port, 2_000), { signal: abort.signal })
    expect(result).toMatchObject({ kind: 'failed', reason: 'aborted', bytesUp: 0 })
    expect(result.bytesDown).toBeGreaterThan(0)
    expect(performance.now() - begunMs).toBeLessThan(1_000)
  })
})

describe('the meter', () => {
  it('leaves other paths alone', async () => {
    const { origin } = await serve()
    await expect(connect(origin, '/v1/socket')).rejects.toThrow('404')
  })

  it('stops a download by itself at its byte limit', async () => {
    const { origin } = await serve({ limits: { testBytes: 1_000_000 } })
    const client = await connect(origin)
    client.start()
    expect(await client.closed).toBe(1000)
    expect(client.seen.bytes).toBe(1_000_000)
    expect(client.seen.longestBytes).toBeLessThanOrEqual(16_384)
    expect(client.told).toEqual([
      { type: 'ready', maxBytes: 1_000_000, maxMs: 5_000 },
      { type: 'stop', reason: 'bytes' },
      { type: 'result', bytes: 1_000_000, elapsedMs: expect.any(Number) },
    ])
  })

  it('sends no more than the node asked for', async () => {
    const { origin } = await serve()
    const client = await connect(origin)
    client.start({ maxBytes: 70_001 })
    await client.closed
    expect(client.seen.bytes).toBe(70_001)
  })

  it('stops a download by itself at its time limit', async () => {
    const { origin } = await serve({ limits: { testMs: 100, testBytes: 1e12 } })
    const client = await connect(origin)
    client.start({ maxBytes: 1e12 })
    await client.closed
    expect(client.told.slice(1)).toMatchObject([
      { type: 'stop', reason: 'time' },
      { type: 'result' },
    ])
  })

  it('sends nothing more once the node says stop', async () => {
    const { origin, logged } = await serve({ limits: { testBytes: 1e12 } })
    const client = await connect(origin)
    client.start({ maxBytes: 1e12 })
    await until(() => client.seen.bytes > 0)
    client.say({ type: 'stop', reason: 'plateau' })
    expect(await client.closed).toBe(1006)
    expect(logged).toMatchObject([{ fields: { direction: 'down', reason: 'plateau' } }])
  })

  it('drops a client that stops reading', async () => {
    const { origin } = await serve({ limits: { testMs: 300, lingerMs: 200, testBytes: 1e12 } })
    const client = await connect(origin)
    client.start({ maxBytes: 1e12 })
    await until(() => client.seen.bytes > 0)
    client.ws.pause()
    await new Promise((resolve) => setTimeout(resolve, 1_300))
    client.ws.resume()
    expect(await client.closed).toBe(1006)
    expect(client.told).toMatchObject([{ type: 'ready' }])
  })

  it('drops an uploader that stops sending', async () => {
    const { origin } = await serve({ limits: { stallMs: 150 } })
    const client = await connect(origin)
    client.start({ direction: 'up' })
    await until(() => client.told.length > 0)
    client.ws.send(Buffer.alloc(16_384))
    expect(await client.closed).toBe(1008)
    expect(client.told[1]).toEqual({ type: 'stop', reason: 'stalled' })
  })

  it('drops one that never starts', async () => {
    const { origin } = await serve({ limits: { startMs: 100 } })
    const client = await connect(origin)
    expect(await client.closed).toBe(1008)
    expect(client.told).toEqual([{ type: 'stop', reason: 'stalled' }])
  })

  it('drops one whose session check never ends', async () => {
    const { origin } = await serve({
      limits: { startMs: 100 },
      authenticate: () => new Promise(() => {}),
    })
    const client = await connect(origin)
    client.start()
    expect(await client.closed).toBe(1008)
  })

  it('counts an upload itself and ends it at the byte limit', async () => {
    const { origin } = await serve({ limits: { testBytes: 500_000 } })
    const client = await connect(origin)
    client.start({ direction: 'up' })
    await until(() => client.told.length > 0)
    const load = setInterval(() => client.ws.send(Buffer.alloc(16_384)), 2)
    ends.push(() => clearInterval(load))
    await until(() => client.told.length === 3)
    clearInterval(load)
    const [, stop, result] = client.told
    expect(stop).toEqual({ type: 'stop', reason: 'bytes' })
    expect(result?.bytes).toBe(Math.ceil(500_000 / 16_384) * 16_384)
    expect(result?.bitsPerSecond).toBeGreaterThan(0)
    expect(await client.closed).toBe(1000)
  })

  it.each([
    ['load before start', (ws: WebSocket) => ws.send(Buffer.alloc(10))],
    ['a text that is not JSON', (ws: WebSocket) => ws.send('start')],
    ['stop before start', (ws: WebSocket) => ws.send('{"type":"stop","reason":"time"}')],
  ])('refuses %s', async (_, act) => {
    const { origin } = await serve()
    const client = await connect(origin)
    act(client.ws)
    expect(await client.closed).toBe(1002)
    expect(client.told).toEqual([{ type: 'stop', reason: 'protocol' }])
  })

  it('refuses load during a download and text during an upload', async () => {
    const { origin } = await serve({ limits: { testBytes: 1e12 } })
    const down = await connect(origin)
    down.start({ maxBytes: 1e12 })
    await until(() => down.told.length > 0)
    down.ws.send(Buffer.alloc(10))
    const up = await connect(origin)
    up.start({ direction: 'up' })
    await until(() => up.told.length > 0)
    up.say({ type: 'stop', reason: 'time' })
    expect([await down.closed, await up.closed]).toEqual([1002, 1002])
  })

  it('begins one test only when start comes twice', async () => {
    const { origin } = await serve()
    const client = await connect(origin)
    client.start()
    client.start()
    expect(await client.closed).toBe(1002)
    expect(client.seen.bytes).toBe(0)
  })

  it('refuses a message above 64 KiB', async () => {
    const { origin } = await serve()
    const client = await connect(origin)
    client.start({ direction: 'up' })
    await until(() => client.told.length > 0)
    client.ws.send(Buffer.alloc(65_537))
    expect(await client.closed).toBe(1009)
  })

  it('gives the place of an ended test to the next', async () => {
    const { origin } = await serve({ limits: { testsAtOnce: 1, testBytes: 1e12 } })
    const first = await connect(origin)
    first.start({ maxBytes: 1e12 })
    await until(() => first.seen.bytes > 0)
    const second = await connect(origin)
    second.start()
    expect(await second.closed).toBe(1013)
    expect(second.told).toEqual([{ type: 'stop', reason: 'busy' }])
    first.say({ type: 'stop', reason: 'plateau' })
    await first.closed
    const third = await connect(origin)
    third.start({ maxBytes: 50_000 })
    expect(await third.closed).toBe(1000)
  })

  it('answers 503 when all its sockets are taken', async () => {
    const { origin } = await serve({ limits: { sockets: 1 } })
    const first = await connect(origin, '/v1/meter/ping')
    await expect(connect(origin)).rejects.toThrow('503')
    first.ws.close()
    await first.closed
    await expect(connect(origin)).resolves.toBeDefined()
  })

  it('answers pings in order, and only so many', async () => {
    const { origin } = await serve({ limits: { pingsPerSocket: 2 } })
    const client = await connect(origin, '/v1/meter/ping')
    for (const id of [7, 3, 5]) client.say({ type: 'ping', id })
    expect(await client.closed).toBe(1008)
    expect(client.told).toEqual([
      { type: 'pong', id: 7 },
      { type: 'pong', id: 3 },
    ])
  })

  it('ends a ping socket at its age', async () => {
    const { origin } = await serve({ limits: { pingSocketMs: 50 } })
    expect(await (await connect(origin, '/v1/meter/ping')).closed).toBe(1000)
  })

  it.each([
    ['a message above 256 bytes', `{"type":"ping","id":1}${' '.repeat(300)}`, 1009],
    ['anything but a ping', '{"type":"pong","id":1}', 1002],
  ])('refuses %s on the ping socket', async (_, text, code) => {
    const { origin } = await serve()
    const client = await connect(origin, '/v1/meter/ping')
    client.ws.send(text)
    expect(await client.closed).toBe(code)
  })
})
