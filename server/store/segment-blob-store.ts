import { createHash, randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import {
  BlobDamaged,
  BlobDigestMismatch,
  BlobMissing,
  type BlobRef,
  type BlobStore,
  BlobStoreOverloaded,
  MAX_BLOB_BYTES,
} from './blob-store.ts'
import { syncFolder } from './durable-file.ts'

/**
 * A blob store in append-only files. A record is a header (magic `GLB1`, length as uint32 little
 * endian, SHA-256) and the bytes. One write and one `fdatasync` serve every put that waits.
 *
 * Each opening writes segments of its own, named by time and chance, and never appends to one it
 * finds: several processes share a folder without a lock, and whatever half record a crash left at
 * the end of a segment stays behind, as no acknowledged ref leads there.
 *
 * A ref is `segment.offset.length`, the numbers in base 36, the offset that of the header.
 *
 * @param folder made if missing
 * @param options.segmentBytes a segment that reached this size is followed by a new one
 */
export async function openSegmentBlobStore(
  folder: string,
  options: { readonly segmentBytes?: number } = {},
): Promise<BlobStore> {
  const made = await mkdir(folder, { recursive: true, mode: 0o700 })
  // From the first folder that was made down to ours, each is an entry in its parent.
  for (let at = resolve(folder); made !== undefined; at = dirname(at)) {
    await syncFolder(dirname(at))
    if (at === resolve(made)) break
  }
  return new SegmentBlobStore(folder, options.segmentBytes ?? SEGMENT_BYTES)
}

/** Small enough to rewrite in a second when blobs are removed, large enough to be few. */
const SEGMENT_BYTES = 64 * 1024 * 1024

const MAGIC = Buffer.from('GLB1', 'latin1')
const DIGEST_BYTES = 32
const HEADER_BYTES = MAGIC.length + 4 + DIGEST_BYTES

/** One group: bounds how long the first put in it waits for the last one's bytes. */
const GROUP_BYTES = 16 * 1024 * 1024
const GROUP_PUTS = 512

/** Memory that waiting puts may hold: two seconds of a slow disk. */
const WAITING_BYTES = 256 * 1024 * 1024

interface WaitingPut {
  readonly header: Buffer
  readonly bytes: Uint8Array
  readonly resolve: (ref: BlobRef) => void
  readonly reject: (error: unknown) => void
}

interface Segment {
  readonly name: string
  readonly file: FileHandle
  /** Where the next record goes. */
  end: number
}

class SegmentBlobStore implements BlobStore {
  readonly #folder: string
  readonly #segmentBytes: number
  #waiting: WaitingPut[] = []
  #waitingBytes = 0
  #segment: Segment | undefined
  #writing: Promise<void> | undefined
  #closed: Promise<void> | undefined

  constructor(folder: string, segmentBytes: number) {
    this.#folder = folder
    this.#segmentBytes = segmentBytes
  }

  async put(digest: Uint8Array, bytes: Uint8Array): Promise<BlobRef> {
    this.#refuseIfClosed()
    if (bytes.length > MAX_BLOB_BYTES) throw new RangeError(`a blob of ${bytes.length} bytes`)
    if (!hasDigest(bytes, digest)) {
      throw new BlobDigestMismatch(`${bytes.length} bytes do not have digest ${hex(digest)}`)
    }
    if (this.#waitingBytes + bytes.length > WAITING_BYTES) {
      throw new BlobStoreOverloaded(`${this.#waitingBytes} bytes wait to be written`)
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ header: headerOf(digest, bytes), bytes, resolve, reject })
      this.#waitingBytes += bytes.length
      this.#writing ??= this.#writeAll()
    })
  }

  async get(ref: BlobRef): Promise<Uint8Array> {
    this.#refuseIfClosed()
    const place = parseRef(ref)
    if (place === undefined) throw new BlobMissing(`${ref} is no ref of this store`)
    const record = await this.#read(ref, place)
    const bytes = record.subarray(HEADER_BYTES)
    const digest = record.subarray(HEADER_BYTES - DIGEST_BYTES, HEADER_BYTES)
    const headed = record.subarray(0, HEADER_BYTES).equals(headerOf(digest, bytes))
    if (!headed || !hasDigest(bytes, digest)) throw new BlobDamaged(`the blob at ${ref} is damaged`)
    return bytes
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      await this.#writing
      await this.#leaveSegment()
    })()
    return this.#closed
  }

  #refuseIfClosed(): void {
    if (this.#closed !== undefined) throw new Error('the blob store is closed')
  }

  async #read(ref: BlobRef, place: Place): Promise<Buffer> {
    let file: FileHandle
    try {
      file = await open(this.#path(place.segment), 'r')
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause
      throw new BlobMissing(`the segment of ${ref} is not in ${this.#folder}`, { cause })
    }
    try {
      const record = Buffer.allocUnsafeSlow(HEADER_BYTES + place.length)
      let got = 0
      while (got < record.length) {
        const { bytesRead } = await file.read(record, got, record.length - got, place.offset + got)
        if (bytesRead === 0) throw new BlobMissing(`the segment of ${ref} ends before its end`)
        got += bytesRead
      }
      return record
    } finally {
      await file.close()
    }
  }

  /** Runs while puts wait. What arrives during one group's sync makes up the next group. */
  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const group = this.#takeGroup()
      try {
        const refs = await this.#append(group)
        for (const [index, put] of group.entries()) put.resolve(refs[index] as BlobRef)
      } catch (error) {
        // After a failed write its length is unknown, and after a failed sync the kernel may have
        // dropped the pages and report success next time. Neither file is written to again.
        await this.#leaveSegment()
        for (const put of group) put.reject(error)
      }
      for (const put of group) this.#waitingBytes -= put.bytes.length
    }
    this.#writing = undefined
  }

  #takeGroup(): WaitingPut[] {
    let count = 0
    let bytes = 0
    for (const put of this.#waiting) {
      bytes += put.bytes.length
      // The first always goes: a blob may be larger than a group.
      if (count > 0 && (bytes > GROUP_BYTES || count === GROUP_PUTS)) break
      count += 1
    }
    return this.#waiting.splice(0, count)
  }

  async #append(group: readonly WaitingPut[]): Promise<BlobRef[]> {
    if (this.#segment !== undefined && this.#segment.end >= this.#segmentBytes) {
      await this.#leaveSegment()
    }
    this.#segment ??= await this.#createSegment()
    const segment = this.#segment
    const parts = group.flatMap((put) => [put.header, put.bytes])
    const totalBytes = parts.reduce((sum, part) => sum + part.length, 0)
    const { bytesWritten } = await segment.file.writev(parts, segment.end)
    if (bytesWritten !== totalBytes) {
      throw new Error(`${bytesWritten} of ${totalBytes} bytes were written: is the disk full?`)
    }
    await segment.file.datasync()
    // Committed: the records are durable, and their refs may be given out.
    return group.map((put) => {
      const ref = formatRef(segment.name, segment.end, put.bytes.length)
      segment.end += HEADER_BYTES + put.bytes.length
      return ref
    })
  }

  async #createSegment(): Promise<Segment> {
    // 48 random bits: two processes that start in the same millisecond get different names.
    const name = `${Date.now().toString(36)}-${randomBytes(6).toString('hex')}`
    const file = await open(this.#path(name), 'wx', 0o600)
    try {
      await syncFolder(this.#folder)
    } catch (error) {
      await file.close()
      throw error
    }
    return { name, file, end: 0 }
  }

  async #leaveSegment(): Promise<void> {
    const segment = this.#segment
    this.#segment = undefined
    // Every record in it was synced before it was acknowledged: closing can lose nothing.
    await segment?.file.close().catch(() => {})
  }

  #path(segment: string): string {
    return join(this.#folder, `${segment}.seg`)
  }
}

interface Place {
  readonly segment: string
  readonly offset: number
  readonly length: number
}

function formatRef(segment: string, offset: number, length: number): BlobRef {
  return `${segment}.${offset.toString(36)}.${length.toString(36)}` as BlobRef
}

/** Strict: the segment becomes part of a path. */
function parseRef(ref: string): Place | undefined {
  const match = /^([0-9a-z]{8,10}-[0-9a-f]{12})\.([0-9a-z]{1,10})\.([0-9a-z]{1,6})$/.exec(ref)
  const [, segment, offset, length] = match ?? []
  if (segment === undefined || offset === undefined || length === undefined) return undefined
  const place = {
    segment,
    offset: Number.parseInt(offset, 36),
    length: Number.parseInt(length, 36),
  }
  return place.length <= MAX_BLOB_BYTES ? place : undefined
}

function headerOf(digest: Uint8Array, bytes: Uint8Array): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  MAGIC.copy(header)
  header.writeUInt32LE(bytes.length, MAGIC.length)
  header.set(digest, MAGIC.length + 4)
  return header
}

function hasDigest(bytes: Uint8Array, digest: Uint8Array): boolean {
  return createHash('sha256').update(bytes).digest().equals(digest)
}

function hex(digest: Uint8Array): string {
  return Buffer.from(digest).toString('hex')
}
