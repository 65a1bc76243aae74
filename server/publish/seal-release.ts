import { mkdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { equalBytes } from '../../lib/crypto/digest.ts'
import { parseCheckpoint } from '../../lib/tlog/checkpoint.ts'
import { CompactRange } from '../../lib/tlog/compact-range.ts'
import { leafHash } from '../../lib/tlog/merkle.ts'
import { parseNote } from '../../lib/tlog/note.ts'
import { encodeTile, tilePath, tileWidth } from '../../lib/tlog/tile.ts'
import { syncFolder, writeNew } from './new-file.ts'

export type SealFacts = {
  /** As `buildRelease` left it. */
  folder: string
  /** Signed note whose size is past the release's own entry. */
  checkpoint: string
  /** Leaf hashes of the log from index 0. What follows the checkpoint's size is not read. */
  leafHashes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>
  /** Entries in clear: entry 0, the release's campaigns, the release. */
  entries: readonly { leafIndex: number; entry: string }[]
}

/**
 * Adds `log/` to a built release: tiles, entries, and last the checkpoint. Written beside and
 * renamed, so `log/` is whole or absent. Sealing again with the same checkpoint changes nothing.
 *
 * @throws Error when the leaf hashes are not those of the checkpoint or an entry is not its leaf,
 *   or the release was sealed with another checkpoint
 */
export async function sealRelease(facts: SealFacts): Promise<void> {
  const log = join(facts.folder, 'log')
  const earlier = await readFile(join(log, 'checkpoint'), 'utf8').catch(absent)
  if (earlier === facts.checkpoint) return
  if (earlier !== undefined) throw new Error(`${facts.folder} was sealed with another checkpoint`)

  const building = join(facts.folder, 'log.building')
  await rm(building, { recursive: true, force: true })
  await mkdir(building)
  await writeTiles(building, facts)
  const entries = [...facts.entries].sort((a, b) => a.leafIndex - b.leafIndex)
  const lines = entries.map(({ leafIndex, entry }) => `${JSON.stringify({ leafIndex, entry })}\n`)
  await writeNew(join(building, 'entries.jsonl'), lines.join(''))
  await writeNew(join(building, 'checkpoint'), facts.checkpoint)
  await syncFolder(building)

  await rename(building, log)
  await syncFolder(facts.folder)
}

async function writeTiles(building: string, facts: SealFacts): Promise<void> {
  const note = parseNote(facts.checkpoint)
  const checkpoint = note.ok ? parseCheckpoint(note.note.text) : undefined
  if (checkpoint === undefined) throw new Error('seal: this is not a checkpoint')
  const unseen = new Map(facts.entries.map(({ leafIndex, entry }) => [leafIndex, entry]))
  const range = new CompactRange()
  let tile: Uint8Array[] = []
  for await (const hash of facts.leafHashes) {
    if (range.size === checkpoint.size) break
    const entry = unseen.get(range.size)
    if (entry !== undefined && !equalBytes(leafHash(Buffer.from(entry)), hash)) {
      throw new Error(`seal: entry ${range.size} is not the one in the log`)
    }
    unseen.delete(range.size)
    range.append(hash)
    tile.push(hash)
    if (tile.length === tileWidth) {
      await writeTile(building, range.size / tileWidth - 1, tile)
      tile = []
    }
  }
  if (tile.length > 0) await writeTile(building, Math.floor(range.size / tileWidth), tile)
  if (range.size !== checkpoint.size || !equalBytes(range.root(), checkpoint.rootHash)) {
    throw new Error(
      `seal: ${range.size} leaves are not those of a checkpoint of ${checkpoint.size}`,
    )
  }
  const [missing] = unseen.keys()
  if (missing !== undefined) throw new Error(`seal: entry ${missing} is past the checkpoint`)
}

async function writeTile(
  building: string,
  index: number,
  hashes: readonly Uint8Array[],
): Promise<void> {
  const path = join(building, tilePath(0, index, hashes.length))
  await mkdir(dirname(path), { recursive: true })
  await writeNew(path, encodeTile(hashes))
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code === 'ENOENT') return undefined
  throw error
}
