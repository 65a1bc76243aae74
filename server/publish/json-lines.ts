import { type FileHandle, open } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { gzipMember, unpackMembers } from './gzip-member.ts'

/** Lines a gzip member holds before it is closed. Bounds memory; readers see one stream. */
const memberBytes = 1024 * 1024

/** Writes JSON lines as a gzip file of several members. Durable when `close` returns. */
export class JsonLinesWriter {
  readonly #handle: FileHandle
  #waiting: string[] = []
  #waitingBytes = 0

  private constructor(handle: FileHandle) {
    this.#handle = handle
  }

  static async open(path: string): Promise<JsonLinesWriter> {
    return new JsonLinesWriter(await open(path, 'wx'))
  }

  async write(line: string): Promise<void> {
    this.#waiting.push(line, '\n')
    this.#waitingBytes += line.length + 1
    if (this.#waitingBytes >= memberBytes) await this.#flush()
  }

  async close(): Promise<void> {
    await this.#flush()
    await this.#handle.sync()
    await this.#handle.close()
  }

  /** Lets go of the file, finished or not. May follow `close`. */
  async abandon(): Promise<void> {
    await this.#handle.close()
  }

  async #flush(): Promise<void> {
    // The first member is written even when empty: an empty file is no gzip file.
    const member = gzipMember(Buffer.from(this.#waiting.join('')))
    this.#waiting = []
    this.#waitingBytes = 0
    await this.#handle.writeFile(member)
  }
}

/** Why reading of lines stopped before the end. */
export class LinesError extends Error {}

/**
 * The lines of a file, without their line feeds, as bytes that are good until the next is asked for.
 * Every line must end in one.
 *
 * @throws LinesError when the file is damaged or a line exceeds `maxLineBytes`
 */
export async function* readLines(
  source: Readable,
  options: { gzip: boolean; maxLineBytes: number },
): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0)
  const unpacked: AsyncIterable<Buffer> = options.gzip ? unpackMembers(source) : source
  try {
    for await (const chunk of unpacked) {
      let from = 0
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) {
        if (end - from > options.maxLineBytes) throw new LinesError('a line is too long')
        yield bytes.subarray(from, end)
        from = end + 1
      }
      rest = bytes.subarray(from)
      if (rest.length > options.maxLineBytes) throw new LinesError('a line is too long')
    }
    if (rest.length > 0) throw new LinesError('the last line has no line feed')
  } catch (error) {
    if (error instanceof LinesError) throw error
    throw new LinesError(error instanceof Error ? error.message : String(error), { cause: error })
  } finally {
    source.destroy()
  }
}
