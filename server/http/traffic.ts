import type { Server } from 'node:http'
import type { Socket } from 'node:net'

/** Counts what goes over a server's sockets, headers and all. */
export function countTraffic(server: Server) {
  const open = new Set<Socket>()
  let bytesUp = 0
  let bytesDown = 0
  server.on('connection', (socket) => {
    open.add(socket)
    socket.once('close', () => {
      open.delete(socket)
      bytesUp += socket.bytesRead
      bytesDown += socket.bytesWritten
    })
  })
  return {
    total() {
      const live = [...open]
      return {
        bytesUp: live.reduce((sum, socket) => sum + socket.bytesRead, bytesUp),
        bytesDown: live.reduce((sum, socket) => sum + socket.bytesWritten, bytesDown),
      }
    },
  }
}
