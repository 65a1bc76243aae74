import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/**
 * A node's line to the task server, which can be cut for good: what connects to it reaches the
 * server from `address`, until the node is about to send what `cutBefore` says.
 */
export async function startVanishingLine(options: {
  address: string
  serverPort: number
  /** Looks at the first line of each request. True cuts the line before the server sees it. */
  cutBefore: (requestLine: string) => boolean
}): Promise<{ port: number; isCut(): boolean; close(): Promise<void> }> {
  const { address, serverPort, cutBefore } = options
  const open = new Set<Socket>()
  let isCut = false
  const cut = () => {
    isCut = true
    for (const socket of open) socket.destroy()
  }
  const server = createServer((client) => {
    if (isCut) return client.destroy()
    const target = connect({ host: '127.0.0.1', port: serverPort, localAddress: address })
    for (const socket of [client, target]) {
      open.add(socket)
      socket.once('close', () => open.delete(socket))
    }
    client.on('error', () => target.destroy())
    target.on('error', () => client.destroy())
    client.on('data', (chunk) => {
      // A request begins a chunk: the node sends the next one only after an answer.
      const [line = ''] = chunk.toString('latin1', 0, 200).split('\r\n')
      if (line.endsWith(' HTTP/1.1') && cutBefore(line)) cut()
      else target.write(chunk)
    })
    client.on('end', () => target.end())
    target.pipe(client)
  })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen(0, address, done)
  })
  return {
    port: (server.address() as AddressInfo).port,
    isCut: () => isCut,
    close: () =>
      new Promise((done) => {
        cut()
        server.close(() => done())
      }),
  }
}
