import { concatBytes, digestBytes } from '../crypto/digest.ts'
import { rootHash } from './merkle.ts'

// A log as static files: C2SP tlog-tiles v0.1.0.

/** Hashes in a full tile, entries in a full bundle. */
export const tileWidth = 256

/** An entry's length travels in 16 bits. */
export const maxEntryBytes = 0xffff

export type Tile = {
  /** 0 holds leaf hashes; above, roots of the full tiles one level below. */
  level: number
  /** Position within the level, from 0. */
  index: number
  /** 1 to 256; fewer than 256 only for the last tile of a level. */
  hashes: readonly Uint8Array[]
}

/**
 * All tiles of the tree over these leaf hashes, level by level from the leaves. A level that only
 * repeats a full tile's root is kept: the format wants it.
 */
export function* tilesOf(leafHashes: readonly Uint8Array[]): Generator<Tile> {
  let hashes = leafHashes
  for (let level = 0; hashes.length > 0; level++) {
    const above: Uint8Array[] = []
    for (const tile of leafTiles(hashes)) {
      yield { ...tile, level }
      if (tile.hashes.length === tileWidth) above.push(rootHash(tile.hashes))
    }
    hashes = above
  }
}

/** Splits leaf hashes into level-0 tiles; the last may be partial, none is empty. */
export function leafTiles(leafHashes: readonly Uint8Array[]): Tile[] {
  return Array.from({ length: Math.ceil(leafHashes.length / tileWidth) }, (_, index) => ({
    level: 0,
    index,
    hashes: leafHashes.slice(index * tileWidth, (index + 1) * tileWidth),
  }))
}

/** Hashes in the last, partial tile of a level in a tree of `size` leaves; 0 when none is partial. */
export function partialWidth(level: number, size: number): number {
  return Math.floor(size / tileWidth ** level) % tileWidth
}

/**
 * Address of a tile below the log's prefix: `tile/0/x001/x234/067.p/8`.
 *
 * @param width hashes in the tile, 1 to 256; 256 is a full tile, with no `.p` part
 * @throws RangeError when level, index or width is outside the format
 */
export function tilePath(level: number, index: number, width = tileWidth): string {
  if (!Number.isInteger(level) || level < 0 || level > 63)
    throw new RangeError(`tile level ${level}`)
  return `tile/${level}/${indexPath(index, width)}`
}

/** Address of an entry bundle: `tile/entries/x001/234.p/8`. Arguments as for `tilePath`. */
export function entriesPath(index: number, width = tileWidth): string {
  return `tile/entries/${indexPath(index, width)}`
}

/** The bytes of a tile: its hashes, one after another. */
export function encodeTile(hashes: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return concatBytes(...hashes)
}

/** Hashes of a tile. Undefined unless there are 1 to 256 whole ones. */
export function decodeTile(bytes: Uint8Array): Uint8Array[] | undefined {
  const width = bytes.length / digestBytes
  if (!Number.isInteger(width) || width < 1 || width > tileWidth) return undefined
  return Array.from({ length: width }, (_, at) =>
    bytes.slice(at * digestBytes, (at + 1) * digestBytes),
  )
}

/**
 * The bytes of an entry bundle: each entry after its length, a big-endian 16-bit number.
 *
 * @throws RangeError when there are none or more than 256 entries, or one exceeds 65,535 bytes
 */
export function encodeEntries(entries: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  if (entries.length < 1 || entries.length > tileWidth) {
    throw new RangeError(`entry bundle of ${entries.length}`)
  }
  return concatBytes(
    ...entries.flatMap((entry) => {
      if (entry.length > maxEntryBytes) throw new RangeError(`entry of ${entry.length} bytes`)
      return [Uint8Array.of(entry.length >> 8, entry.length & 0xff), entry]
    }),
  )
}

/** Entries of a bundle. Undefined unless there are 1 to 256 and the last one ends the bytes. */
export function decodeEntries(bytes: Uint8Array): Uint8Array[] | undefined {
  const entries: Uint8Array[] = []
  let at = 0
  while (at < bytes.length) {
    if (entries.length === tileWidth || at + 2 > bytes.length) return undefined
    const start = at + 2
    at = start + (((bytes[at] as number) << 8) | (bytes[at + 1] as number))
    if (at > bytes.length) return undefined
    entries.push(bytes.slice(start, at))
  }
  return entries.length === 0 ? undefined : entries
}

/** Three digits a path element, an `x` before all but the last, so no file is also a folder. */
function indexPath(index: number, width: number): string {
  if (!Number.isSafeInteger(index) || index < 0) throw new RangeError(`tile index ${index}`)
  if (!Number.isInteger(width) || width < 1 || width > tileWidth) {
    throw new RangeError(`tile width ${width}`)
  }
  const digits = String(index)
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, '0')
  const path = padded.replace(/\d{3}(?=\d)/g, 'x$&/')
  return width === tileWidth ? path : `${path}.p/${width}`
}
