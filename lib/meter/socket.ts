/** An open WebSocket as the meter sees it. */
export type MeterSocket = {
  /** Queues one message: text, or binary load. Throws when the socket is no longer open. */
  send(message: string | Uint8Array<ArrayBuffer>): void
  /** Sets the one handler of messages; text arrives as text, load as its bytes. */
  onMessage(handler: (message: string | ArrayBuffer) => void): void
  /** Sets the one handler of the end, called at once when it has already come. */
  onClose(handler: () => void): void
  /** Begins the close; may be called twice. */
  close(): void
  /** Bytes queued on this side and not yet handed to the network. */
  readonly bufferedAmount: number
}

/** Resolves once the socket is open; rejects with an error that names the address. */
export type OpenMeterSocket = (url: string) => Promise<MeterSocket>

/** What a browser's `WebSocket` and that of `ws` have in common, as far as the meter needs it. */
export type WebSocketLike = {
  binaryType: string
  readonly bufferedAmount: number
  send(message: string | Uint8Array<ArrayBuffer>): void
  close(): void
  addEventListener(type: 'open' | 'close' | 'error', listener: () => void): void
  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void
}

/** Makes the port from a constructor call, e.g. `(url) => new WebSocket(url)`. */
export function meterSocketOpener(create: (url: string) => WebSocketLike): OpenMeterSocket {
  return (url) =>
    new Promise((resolve, reject) => {
      const socket = create(url)
      socket.binaryType = 'arraybuffer'
      let closed = false
      let messageHandler: (message: string | ArrayBuffer) => void = () => {}
      let closeHandler = () => {}
      socket.addEventListener('open', () => {
        resolve({
          send: (message) => socket.send(message),
          onMessage: (handler) => {
            messageHandler = handler
          },
          onClose: (handler) => {
            closeHandler = handler
            if (closed) handler()
          },
          close: () => socket.close(),
          get bufferedAmount() {
            return socket.bufferedAmount
          },
        })
      })
      socket.addEventListener('message', ({ data }) => {
        if (typeof data === 'string' || data instanceof ArrayBuffer) messageHandler(data)
      })
      // `error` says nothing in a browser, and `close` always follows it.
      socket.addEventListener('error', () => {})
      socket.addEventListener('close', () => {
        closed = true
        reject(new Error(`The meter's socket did not open: ${url}`))
        closeHandler()
      })
    })
}
