/** Compresses with the platform's own gzip. */
export async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new CompressionStream('gzip')
  const writer = stream.writable.getWriter()
  // Not awaited: the writer waits for the reader below. A failure shows on both, so it is seen there.
  writer.write(bytes).catch(() => {})
  writer.close().catch(() => {})
  return new Uint8Array(await new Response(stream.readable as ReadableStream).arrayBuffer())
}
