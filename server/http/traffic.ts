import type { Server } from 'node:http'
import type { Socket } from 'node:net'

export interface Traffic {
  /** From nodes, headers and all. */
  bytesUp: number
  /** To nodes. */
  bytesDown: number
  /** What capacity tests of the line took, both ways; not in the others. */
  meterBytes: number
}

/** Counts what goes over a server's sockets. */
export function countTraffic(server: Server): () => Traffic {
  const open = new Set<Socket>()
  const meters = new WeakSet<Socket>()
  const ended: Traffic = { bytesUp: 0, bytesDown: 0, meterBytes: 0 }
  const add = (sum: Traffic, socket: Socket): Traffic =>
    meters.has(socket)
      ? { ...sum, meterBytes: sum.meterBytes + socket.bytesRead + socket.bytesWritten }
      : {
          ...sum,
          bytesUp: sum.bytesUp + socket.bytesRead,
          bytesDown: sum.bytesDown + socket.bytesWritten,
        }
  server.on('connection', (socket) => {
    open.add(socket)
    socket.once('close', () => {
      open.delete(socket)
      Object.assign(ended, add(ended, socket))
    })
  })
  server.on('upgrade', (request) => {
    if (request.url?.startsWith('/v1/meter')) meters.add(request.socket)
  })
  return () => [...open].reduce(add, ended)
}
