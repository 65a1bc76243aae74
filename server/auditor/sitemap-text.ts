import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'

/** A compressed file ended early or is damaged. What came before it is good. */
export class BrokenGzip extends Error {
  override name = 'BrokenGzip'
}

/** The XML declaration stands in the first bytes. */
const headBytes = 256

/**
 * The text of a sitemap: unpacked when its first bytes say gzip, whatever its name and headers say,
 * and decoded by its byte order mark or XML declaration, else as UTF-8. Piece by piece; `tell` is
 * told when there was more than `maxBytes` unpacked.
 *
 * @throws BrokenGzip, and whatever `body` throws
 */
export async function* sitemapText(
  body: AsyncIterable<Uint8Array>,
  maxBytes: number,
  tell: { isCut: boolean },
): AsyncGenerator<string> {
  const { head, rest } = await headOf(body, 2)
  const isGzip = head[0] === 0x1f && head[1] === 0x8b
  const unpacked = await headOf(isGzip ? gunzipped(rest) : rest, headBytes)
  const decoder = new TextDecoder(encodingOf(unpacked.head))
  let left = maxBytes
  for await (const piece of unpacked.rest) {
    if (piece.length > left) {
      tell.isCut = true
      yield decoder.decode(piece.subarray(0, left))
      return
    }
    left -= piece.length
    yield decoder.decode(piece, { stream: true })
  }
  yield decoder.decode()
}

/** The first bytes, at least so many where there are; and all of them with what follows. */
async function headOf(body: AsyncIterable<Uint8Array>, least: number) {
  const pieces = body[Symbol.asyncIterator]()
  let head = new Uint8Array()
  while (head.length < least) {
    const next = await pieces.next()
    if (next.done) break
    head = Buffer.concat([head, next.value])
  }
  async function* whole(): AsyncGenerator<Uint8Array> {
    try {
      if (head.length > 0) yield head
      for (;;) {
        const next = await pieces.next()
        if (next.done) return
        yield next.value
      }
    } finally {
      await pieces.return?.()
    }
  }
  return { head, rest: whole() }
}

async function* gunzipped(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const gunzip = createGunzip()
  let broken: Error | null = null
  pipeline(Readable.from(body), gunzip, (error) => {
    broken = error ?? null
  })
  try {
    for await (const piece of gunzip) yield piece as Uint8Array
  } catch (error) {
    const cause = broken ?? error
    if (String((cause as NodeJS.ErrnoException).code).startsWith('Z_')) {
      throw new BrokenGzip('the compressed file is damaged or ends early', { cause })
    }
    throw cause
  } finally {
    gunzip.destroy()
  }
}

function encodingOf(head: Uint8Array): string {
  const [a, b] = head
  if (a === 0xfe && b === 0xff) return 'utf-16be'
  if (a === 0xff && b === 0xfe) return 'utf-16le'
  const declaration = Buffer.from(head.subarray(0, headBytes)).toString('latin1')
  const label = /^<\?xml[^>]*\sencoding\s*=\s*["']([^"']+)["']/.exec(declaration)?.[1]
  try {
    const { encoding } = new TextDecoder(label ?? 'utf-8')
    // Whoever could read the label so far was not reading UTF-16.
    return encoding.startsWith('utf-16') ? 'utf-8' : encoding
  } catch {
    // A label that nobody knows.
    return 'utf-8'
  }
}
