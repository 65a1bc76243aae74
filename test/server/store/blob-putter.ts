// Puts blobs until it is killed; says each acknowledged ref and digest in a line.
import { createHash, randomBytes } from 'node:crypto'
import { writeSync } from 'node:fs'
import { openSegmentBlobStore } from '../../../server/store/segment-blob-store.ts'

const [folder = ''] = process.argv.slice(2)
const store = await openSegmentBlobStore(folder, { segmentBytes: 2_000_000 })
const putForEver = async () => {
  for (;;) {
    const bytes = randomBytes(Math.floor(Math.random() * 40_000))
    const digest = createHash('sha256').update(bytes).digest()
    const ref = await store.put(digest, bytes)
    writeSync(1, `${ref} ${digest.toString('hex')}\n`)
  }
}
await Promise.all(Array.from({ length: 16 }, putForEver))
