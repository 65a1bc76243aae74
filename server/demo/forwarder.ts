import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/**
 * A loopback forwarder: what connects to it reaches `targetPort` from
 * `address`. Gives each contributor of the demo an address of its own, so that
 * network blocks and what sites see of visitors are real.
 */
export async function startForwarder(
  address: string,
  targetPort: number,
): Promise<{ port: number; close(): Promise<void> }> {
  const open = new Set<Socket>()
  const server = createServer((client) => {
    const target = connect({ host: '127.0.0.1', port: targetPort, localAddress: address })
    for (const socket of [client, target]) {
      open.add(socket)
      socket.once('close', () => open.delete(socket))
    }
    // Either end's failure ends the other; the browser or the server reports it.
    client.on('error', () => target.destroy())
    target.on('error', () => client.destroy())
    client.pipe(target)
    target.pipe(client)
  })
  await new Promise<void>((done, fail) => {
    server.once('error', (error) =>
      fail(
        new Error(
          `The demo needs the loopback address ${address}. Linux has all of 127.0.0.0/8; elsewhere add it first (macOS: sudo ifconfig lo0 alias ${address}).`,
          { cause: error },
        ),
      ),
    )
    server.listen(0, address, done)
  })
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((done) => {
        for (const socket of open) socket.destroy()
        server.close(() => done())
      }),
  }
}
