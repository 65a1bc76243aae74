import {
  createInflateRaw,
  gzipSync,
  type InflateRaw,
  inflateRawSync,
  type ZlibOptions,
} from 'node:zlib'
import { crc32 } from './crc32.ts'

/**
 * One gzip member (RFC 1952). No time, and "unknown" for the operating system, so that equal bytes
 * stay equal whatever machine wrote them; only another zlib may pack them differently.
 */
export function gzipMember(bytes: Uint8Array): Buffer {
  const member = gzipSync(bytes)
  member[9] = 255 // RFC 1952 §2.3.1: OS, 255 = unknown
  return member
}

/**
 * Unpacks the member that `bytes` begin with. Undefined when there is none, or one that is damaged,
 * holds more than `maxBytes` or has more in its header than `gzipMember` writes.
 *
 * zlib's own reader of gzip is not used: it passes over everything after a member once that begins
 * with a zero, and over names and comments in headers. Anything could hide there.
 */
export function firstMember(
  bytes: Buffer,
  maxBytes: number,
): { content: Buffer; length: number } | undefined {
  if (!isPlainHeader(bytes.subarray(0, headerBytes))) return undefined
  const inflated = inflateFirst(bytes.subarray(headerBytes), maxBytes)
  if (inflated === undefined) return undefined
  const end = headerBytes + inflated.consumed
  const { content } = inflated
  const sum = { crc: crc32(content), bytes: content.length }
  if (!isTrailer(bytes.subarray(end, end + trailerBytes), sum)) return undefined
  return { content, length: end + trailerBytes }
}

/** A file that should be gzip members such as `gzipMember` writes, and nothing else, is not. */
export class NotMembers extends Error {}

// A stream option, which zlib hands on; its own type does not name it.
const pieceByPiece: ZlibOptions & { highWaterMark: number } = { highWaterMark: 1 }

/**
 * What the gzip members of a file hold, in pieces.
 *
 * @throws NotMembers
 */
export async function* unpackMembers(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const input = new Input(source)
  do {
    if (!isPlainHeader(await input.take(headerBytes))) throw new NotMembers('is no gzip member')
    const sum = { crc: 0, bytes: 0 }
    const inflate = createInflateRaw(pieceByPiece)
    const fed = feed(input, inflate)
    try {
      for await (const piece of inflate) {
        sum.crc = crc32(piece as Buffer, sum.crc)
        sum.bytes += (piece as Buffer).length
        yield piece as Buffer
      }
    } finally {
      inflate.destroy()
      await fed
    }
    if (!isTrailer(await input.take(trailerBytes), sum)) {
      throw new NotMembers('a gzip member has another check sum')
    }
  } while (!(await input.ended()))
}

// RFC 1952 §2.3.
const headerBytes = 10
const trailerBytes = 8

/** Deflate, no flags and so no name, comment or extra field, and no time. */
function isPlainHeader(header: Buffer): boolean {
  return header.length === headerBytes && header.subarray(0, 8).equals(plainHeader)
}

const plainHeader = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0])

function isTrailer(trailer: Buffer, sum: { crc: number; bytes: number }): boolean {
  return (
    trailer.length === trailerBytes &&
    trailer.readUInt32LE(0) === sum.crc &&
    trailer.readUInt32LE(4) === sum.bytes % 2 ** 32
  )
}

function inflateFirst(
  bytes: Buffer,
  maxBytes: number,
): { content: Buffer; consumed: number } | undefined {
  try {
    // With `info` the engine comes along, which the types do not know.
    const { buffer, engine } = inflateRawSync(bytes, {
      info: true,
      maxOutputLength: maxBytes,
    }) as unknown as { buffer: Buffer; engine: InflateRaw }
    return { content: buffer, consumed: engine.bytesWritten }
  } catch {
    // zlib's reasons (bad code, too short, too long) all mean the same here: not what we wrote.
    return undefined
  }
}

/**
 * Writes chunks into `inflate` until it has all of a deflate stream, and gives back what it left.
 * One chunk at a time, so what it left is always the end of the last.
 */
async function feed(input: Input, inflate: InflateRaw): Promise<void> {
  const closed = new Promise<void>((resolve) => inflate.once('close', resolve))
  let fed = 0
  let last: Buffer = Buffer.alloc(0)
  try {
    // What is not taken is left over: the stream is whole.
    while (!inflate.destroyed && inflate.bytesWritten === fed) {
      const chunk = await input.next()
      if (chunk === undefined) {
        inflate.end()
        break
      }
      last = chunk
      fed += chunk.length
      const written = new Promise<void>((resolve) => inflate.write(chunk, () => resolve()))
      await Promise.race([written, closed])
    }
    await closed
    input.giveBack(last.subarray(last.length - fed + inflate.bytesWritten))
  } catch (error) {
    // Whoever reads what is inflated hears of it.
    inflate.destroy(error instanceof Error ? error : new Error(String(error)))
  }
}

/** Bytes of a file from the front, some of which may be given back. */
class Input {
  readonly #chunks: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(source: AsyncIterable<Buffer>) {
    this.#chunks = source[Symbol.asyncIterator]()
  }

  /** Undefined at the end. */
  async next(): Promise<Buffer | undefined> {
    if (await this.ended()) return undefined
    const chunk = this.#rest
    this.#rest = Buffer.alloc(0)
    return chunk
  }

  giveBack(bytes: Buffer): void {
    this.#rest = joined(bytes, this.#rest)
  }

  /** So many bytes, or those that are left. */
  async take(bytes: number): Promise<Buffer> {
    let taken: Buffer = Buffer.alloc(0)
    for (let chunk = await this.next(); chunk !== undefined; chunk = await this.next()) {
      taken = joined(taken, chunk)
      if (taken.length >= bytes) break
    }
    this.giveBack(taken.subarray(bytes))
    return taken.subarray(0, bytes)
  }

  async ended(): Promise<boolean> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#chunks.next()
      if (done) return true
      this.#rest = value
    }
    return false
  }
}

/** Without a copy where one is empty: a file may be a great many small members. */
function joined(a: Buffer, b: Buffer): Buffer {
  if (a.length === 0) return b
  return b.length === 0 ? a : Buffer.concat([a, b])
}
