import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/**
 * A TCP relay on loopback that carries `bytesPerMs` in each direction of each connection, with the
 * real backpressure of both. Returns its port and how to end it.
 */
export async function shapedLine(
  toPort: number,
  bytesPerMs: number,
): Promise<{ port: number; end: () => void }> {
  const sockets = new Set<Socket>()
  const relay = createServer((near) => {
    const far = connect(toPort, '127.0.0.1')
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from)
      // Loopback's segments are 64 KiB: Nagle would gather our small pieces into bursts.
      from.setNoDelay(true)
      // The close handler tells the other side; the reason of a broken test connection is noise.
      from.on('error', () => {})
      from.on('close', () => {
        to.destroy()
        sockets.delete(from)
      })
      carry(from, to, bytesPerMs)
    }
  })
  relay.listen(0, '127.0.0.1')
  await once(relay, 'listening')
  const end = () => {
    for (const socket of sockets) socket.destroy()
    relay.close()
  }
  return { port: (relay.address() as AddressInfo).port, end }
}

function carry(from: Socket, to: Socket, bytesPerMs: number): void {
  let queue = Buffer.alloc(0)
  let lastMs = performance.now()
  let blocked = false
  from.on('data', (chunk) => {
    // An idle line saves up no credit.
    if (queue.length === 0) lastMs = Math.max(lastMs, performance.now() - 5)
    queue = Buffer.concat([queue, chunk])
    if (queue.length > 65_536) from.pause()
  })
  to.on('drain', () => {
    blocked = false
  })
  const timer = setInterval(() => {
    const nowMs = performance.now()
    const bytes = Math.min(queue.length, Math.floor((nowMs - lastMs) * bytesPerMs))
    if (bytes === 0) return
    lastMs = nowMs
    if (blocked) return
    blocked = !to.write(queue.subarray(0, bytes))
    queue = queue.subarray(bytes)
    if (queue.length <= 65_536) from.resume()
  }, 2)
  from.on('close', () => clearInterval(timer))
}
