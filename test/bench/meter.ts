/**
 * Accuracy of the capacity test on a shaped line: a veth pair into a network namespace of its own,
 * token buckets (`tc tbf`) at both ends, the real meter server outside and a real client inside.
 * Truth is the TCP payload rate: 1,448 bytes of each 1,514-byte frame, which is what tbf counts.
 * Needs root, `ip` and `tc`. Adds no delay: the round trip is the queue's (at most 100 ms).
 *
 * npm run bench -- meter [--json] [--runs 3] [--congestion cubic|bbr]
 */
import { execFileSync, spawn } from 'node:child_process'
import { getRandomValues, randomInt } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { WebSocket } from 'ws'
import { type CapacityTestResult, runCapacityTest } from '../../lib/meter/capacity-test.ts'
import { meterSocketOpener } from '../../lib/meter/socket.ts'
import { meterUpgradeHandler } from '../../server/http/meter.ts'

type Shape = { downMbit: number; upMbit: number }

const shapes: Shape[] = [
  { downMbit: 5, upMbit: 1 },
  { downMbit: 20, upMbit: 4 },
  { downMbit: 20, upMbit: 20 },
  { downMbit: 100, upMbit: 20 },
]
const token = 'n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg'
const bytesBudget = 25_000_000
// A whole test takes at most about 30 s.
const clientMs = 45_000

const { values: flags } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '3' },
    congestion: { type: 'string', default: 'cubic' },
    // How the bench starts itself inside the namespace.
    client: { type: 'string' },
  },
})

if (flags.client !== undefined) await client(flags.client)
else await bench(Math.min(20, Math.max(1, Number(flags.runs) || 1)))

async function client(serverUrl: string): Promise<void> {
  const result = await runCapacityTest(
    {
      openSocket: meterSocketOpener((url) => new WebSocket(url, { perMessageDeflate: false })),
      now: () => performance.now(),
      setTimer: (run, delayMs) => {
        const timer = setTimeout(run, delayMs)
        return () => clearTimeout(timer)
      },
      randomBytes: (length) => getRandomValues(new Uint8Array(length)),
    },
    { serverUrl, token, bytesBudget },
  )
  process.stdout.write(JSON.stringify(result))
}

async function bench(runs: number): Promise<void> {
  const line = makeLine(flags.congestion)
  const meter = meterUpgradeHandler({
    authenticate: async (given) => given === token,
    limits: { startsPerHour: 1_000 },
    log: { info: () => {}, warn: (fields, message) => console.error(message, fields) },
  })
  const server = createServer((_, response) => response.end())
  server.on('upgrade', (request, socket, head) => {
    if (!meter.handleUpgrade(request, socket, head)) socket.destroy()
  })
  const ended = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      ended.abort()
      line.remove()
      process.exit(1)
    })
  }
  try {
    await new Promise<void>((resolve) => server.listen(0, line.serverAddress, resolve))
    const serverUrl = `http://${line.serverAddress}:${(server.address() as AddressInfo).port}`
    const rows = []
    for (const shape of shapes) {
      line.shape(shape)
      for (let run = 1; run <= runs; run += 1) {
        const row = judge(shape, run, await inNamespace(line.namespace, serverUrl, ended.signal))
        rows.push(row)
        if (!flags.json) console.log(text(row))
      }
    }
    if (flags.json) console.log(JSON.stringify(rows, null, 2))
  } finally {
    meter.close()
    server.close()
    line.remove()
  }
}

function makeLine(congestion: string) {
  // Random names and a random /30 of the benchmark range (RFC 2544): two benches do not meet.
  const id = randomInt(0x1000, 0xffff).toString(16)
  const namespace = `gleaner-meter-${id}`
  const [near, far] = [`gm${id}a`, `gm${id}b`]
  const block = `198.18.${randomInt(256)}.`
  const [serverAddress, clientAddress] = [`${block}1`, `${block}2`]
  const ip = (...args: string[]) =>
    execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const remove = () => {
    // The veth pair goes with the namespace that holds one end.
    for (const args of [
      ['link', 'del', near],
      ['netns', 'del', namespace],
    ]) {
      try {
        ip(...args)
      } catch {
        // Never made, or gone already.
      }
    }
  }
  try {
    ip('netns', 'add', namespace)
    ip('link', 'add', near, 'type', 'veth', 'peer', 'name', far, 'netns', namespace)
    ip('addr', 'add', `${serverAddress}/30`, 'dev', near)
    // A bucket right behind the sender would get bursts of 64 KiB that no far-off bottleneck sees.
    ip('link', 'set', near, 'gso_max_segs', '1')
    ip('link', 'set', near, 'up')
    ip('-n', namespace, 'addr', 'add', `${clientAddress}/30`, 'dev', far)
    ip('-n', namespace, 'link', 'set', far, 'gso_max_segs', '1')
    ip('-n', namespace, 'link', 'set', far, 'up')
    // Per route, because Node cannot choose per socket and the machine's default is its own affair.
    const route = ['route', 'replace', `${block}0/30`, 'dev']
    ip(...route, near, 'src', serverAddress, 'congctl', congestion)
    ip('-n', namespace, ...route, far, 'src', clientAddress, 'congctl', congestion)
  } catch (cause) {
    remove()
    throw new Error('Cannot make a network namespace: this bench needs root and iproute2', {
      cause,
    })
  }
  const bucket = (device: string, mbit: number) => [
    ...['qdisc', 'replace', 'dev', device, 'root', 'tbf'],
    // A burst of 16 KiB is 1.3 ms at 100 Mbit/s, far below any window.
    ...['rate', `${mbit}mbit`, 'burst', '16kb', 'latency', '100ms'],
  ]
  const shape = ({ downMbit, upMbit }: Shape) => {
    execFileSync('tc', bucket(near, downMbit))
    execFileSync('tc', ['-n', namespace, ...bucket(far, upMbit)])
  }
  return { namespace, serverAddress, shape, remove }
}

function inNamespace(
  namespace: string,
  serverUrl: string,
  signal: AbortSignal,
): Promise<CapacityTestResult> {
  const script = fileURLToPath(import.meta.url)
  const node = [process.execPath, '--import', 'tsx', script, '--client', serverUrl]
  return new Promise((resolve, reject) => {
    const child = spawn('ip', ['netns', 'exec', namespace, ...node], {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: clientMs,
      signal,
    })
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk
    })
    child.on('error', reject)
    child.on('close', (code) => {
      if (code === 0) resolve(JSON.parse(output))
      else reject(new Error(`The client in ${namespace} ended with ${code}`))
    })
  })
}

function judge(shape: Shape, run: number, result: CapacityTestResult) {
  if (result.kind !== 'measured') throw new Error(`No reading: ${JSON.stringify(result)}`)
  const direction = (mbit: number, reading: typeof result.down, bytes: number) => {
    const truthBitsPerSecond = (mbit * 1e6 * 1_448) / 1_514
    return {
      shapedMbit: mbit,
      bitsPerSecond: reading.bitsPerSecond,
      errorPercent: round((reading.bitsPerSecond / truthBitsPerSecond - 1) * 100),
      reason: reading.reason,
      elapsedMs: reading.elapsedMs,
      loadBytes: bytes,
      latencyRiseMs: reading.latency && round(reading.latency.latencyRiseMs),
    }
  }
  return {
    run,
    baseRttMs: round(result.baseRttMs),
    down: direction(shape.downMbit, result.down, result.bytesDown),
    up: direction(shape.upMbit, result.up, result.bytesUp),
  }
}

function text({ run, baseRttMs, down, up }: ReturnType<typeof judge>): string {
  const one = (name: string, way: typeof down) =>
    `${name} ${way.shapedMbit} Mbit/s: error ${way.errorPercent} %, ${way.reason} ` +
    `${way.elapsedMs} ms, ${round(way.loadBytes / 1e6)} MB, latency +${way.latencyRiseMs} ms`
  return `run ${run}, base ${baseRttMs} ms | ${one('down', down)} | ${one('up', up)}`
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}
