import { constants } from 'node:fs'
import { open, opendir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { firstMember } from './gzip-member.ts'
import { type ParsedRecord, parseRecord } from './warc-record.ts'

/** A log of 2^26 leaves has 2^18 tiles; no release needs more files than that. */
const maxFiles = 300_000
/** Tile paths of such a log have five parts. */
const maxDepth = 8

/** Packed and unpacked size of one record: a payload has at most 16 MiB, its text three times that. */
const maxMemberBytes = 32 * 1024 * 1024
const maxRecordBytes = 64 * 1024 * 1024

/**
 * A downloaded folder that may be anything. Only regular files that were found by walking it can be
 * read, so a path out of it, a link or a device is no file of it, whoever names it.
 */
export class ReleaseFolder {
  readonly #root: string
  readonly #sizes: ReadonlyMap<string, number>
  /** What is neither folder nor regular file, or cannot be walked. */
  readonly oddities: readonly { path: string; what: string }[]

  private constructor(
    root: string,
    sizes: ReadonlyMap<string, number>,
    oddities: readonly { path: string; what: string }[],
  ) {
    this.#root = root
    this.#sizes = sizes
    this.oddities = oddities
  }

  /** @throws Error when the root itself is no folder that can be read */
  static async open(root: string): Promise<ReleaseFolder> {
    const sizes = new Map<string, number>()
    const oddities: { path: string; what: string }[] = []
    await walk(root, '', 0, sizes, oddities)
    return new ReleaseFolder(root, sizes, oddities)
  }

  /** Paths of all files, with `/`. */
  get paths(): IterableIterator<string> {
    return this.#sizes.keys()
  }

  /** Undefined when there is no such file. */
  bytesOf(path: string): number | undefined {
    return this.#sizes.get(path)
  }

  /** Where a file is on this machine. */
  pathOf(path: string): string {
    if (!this.#sizes.has(path)) throw new Error(`${path}: no such file`)
    return join(this.#root, ...path.split('/'))
  }

  /** The caller destroys the stream; its end does too. */
  async stream(path: string): Promise<Readable> {
    const handle = await open(this.pathOf(path), readOnly)
    return handle.createReadStream()
  }

  /** The whole file. Undefined when it is absent or larger than `maxBytes`. */
  async read(path: string, maxBytes: number): Promise<Buffer | undefined> {
    const bytes = this.bytesOf(path)
    return bytes === undefined || bytes > maxBytes ? undefined : this.readRange(path, 0, bytes)
  }

  /** Part of a file. Undefined when the file is absent or ends before. */
  async readRange(path: string, offset: number, length: number): Promise<Buffer | undefined> {
    const bytes = this.bytesOf(path)
    if (bytes === undefined || offset + length > bytes) return undefined
    if (length === 0) return Buffer.alloc(0)
    const handle = await open(this.pathOf(path), readOnly)
    try {
      const buffer = Buffer.alloc(length)
      const { bytesRead } = await handle.read(buffer, 0, length, offset)
      return bytesRead === length ? buffer : undefined
    } finally {
      await handle.close()
    }
  }

  /** The record in a range of bytes. Undefined when it is not exactly one member with one record. */
  async readRecord(
    path: string,
    offset: number,
    length: number,
  ): Promise<ParsedRecord | undefined> {
    if (length > maxMemberBytes) return undefined
    const packed = await this.readRange(path, offset, length)
    const member = packed && firstMember(packed, maxRecordBytes)
    return member?.length === length ? parseRecord(member.content) : undefined
  }
}

// A link put in place of a file after the walk fails to open. Windows knows no such flag.
const readOnly = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0)

async function walk(
  root: string,
  path: string,
  depth: number,
  sizes: Map<string, number>,
  oddities: { path: string; what: string }[],
): Promise<void> {
  for await (const entry of await opendir(join(root, path))) {
    const inner = path === '' ? entry.name : `${path}/${entry.name}`
    if (sizes.size + oddities.length >= maxFiles) {
      oddities.push({ path: inner, what: `more than ${maxFiles} files` })
      return
    }
    try {
      if (entry.isDirectory() && depth < maxDepth) {
        await walk(root, inner, depth + 1, sizes, oddities)
      } else if (entry.isFile()) sizes.set(inner, await sizeOf(join(root, inner)))
      else oddities.push({ path: inner, what: oddity(entry) })
    } catch (error) {
      // No permission, or gone meanwhile: a fault of the folder, to be reported with its others.
      const reason = error instanceof Error ? error.message : String(error)
      oddities.push({ path: inner, what: `unreadable: ${reason}` })
    }
  }
}

function oddity(entry: { isDirectory(): boolean; isSymbolicLink(): boolean }): string {
  if (entry.isDirectory()) return 'folders too deep within each other'
  return entry.isSymbolicLink() ? 'a symbolic link' : 'neither a file nor a folder'
}

async function sizeOf(path: string): Promise<number> {
  const handle = await open(path, readOnly)
  try {
    return (await handle.stat()).size
  } finally {
    await handle.close()
  }
}
