import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { appendFile, mkdtemp, open, readdir, rm, stat, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test } from 'vitest'
import {
  BlobDamaged,
  BlobMissing,
  type BlobRef,
  BlobStoreOverloaded,
} from '../../../server/store/blob-store.ts'
import { openSegmentBlobStore } from '../../../server/store/segment-blob-store.ts'
import { blobStoreContract, sha256 } from './blob-store-contract.ts'

const folders: string[] = []
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
})

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-test-'))
  folders.push(folder)
  return folder
}

const segments = async (folder: string) =>
  (await readdir(folder)).filter((name) => name.endsWith('.seg')).map((name) => join(folder, name))

blobStoreContract('the segment store', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-test-'))
  return {
    open: () => openSegmentBlobStore(join(folder, 'deep', 'down')),
    remove: () => rm(folder, { recursive: true, force: true }),
  }
})

blobStoreContract('a segment store with small segments', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-test-'))
  return {
    open: () => openSegmentBlobStore(folder, { segmentBytes: 10_000 }),
    remove: () => rm(folder, { recursive: true, force: true }),
  }
})

test('a full segment is followed by a new one', async () => {
  const folder = await temporaryFolder()
  const store = await openSegmentBlobStore(folder, { segmentBytes: 1_000 })
  for (let count = 0; count < 10; count += 1) {
    const bytes = randomBytes(600)
    await store.put(sha256(bytes), bytes)
  }
  expect(await segments(folder)).toHaveLength(5)
  await store.close()
})

test('opening and reading make no file', async () => {
  const folder = await temporaryFolder()
  const store = await openSegmentBlobStore(folder)
  await store.close()
  expect(await readdir(folder)).toEqual([])
})

test('a torn tail loses only the record it tore, and later puts work', async () => {
  const folder = await temporaryFolder()
  const store = await openSegmentBlobStore(folder)
  const blobs = [randomBytes(1_000), randomBytes(1_000), randomBytes(1_000)]
  const refs: BlobRef[] = []
  for (const bytes of blobs) refs.push(await store.put(sha256(bytes), bytes))
  await store.close()
  const [segment = ''] = await segments(folder)
  await truncate(segment, (await stat(segment)).size - 500)

  const again = await openSegmentBlobStore(folder)
  for (const index of [0, 1]) {
    expect(Buffer.from(await again.get(refs[index] as BlobRef))).toEqual(blobs[index])
  }
  await expect(again.get(refs[2] as BlobRef)).rejects.toThrow(BlobMissing)
  const bytes = blobs[2] as Buffer
  const ref = await again.put(sha256(bytes), bytes)
  expect(Buffer.from(await again.get(ref))).toEqual(bytes)
  await again.close()
})

test('half a record that a crash left is neither read nor written over', async () => {
  const folder = await temporaryFolder()
  const store = await openSegmentBlobStore(folder)
  const bytes = randomBytes(100)
  const ref = await store.put(sha256(bytes), bytes)
  await store.close()
  const [segment = ''] = await segments(folder)
  await appendFile(segment, 'GLB1 and then the power went')
  const { size } = await stat(segment)
  const again = await openSegmentBlobStore(folder)
  await again.put(sha256(bytes), bytes)
  expect((await stat(segment)).size).toBe(size)
  expect(Buffer.from(await again.get(ref))).toEqual(bytes)
  await again.close()
})

test.each([
  ['magic', 0],
  ['length', 4],
  ['digest', 20],
  ['content', 60],
])('a flipped bit in the %s is reported as damage', async (_part, offset) => {
  const folder = await temporaryFolder()
  const store = await openSegmentBlobStore(folder)
  const bytes = randomBytes(100)
  const ref = await store.put(sha256(bytes), bytes)
  const [segment = ''] = await segments(folder)
  const file = await open(segment, 'r+')
  const one = Buffer.alloc(1)
  await file.read(one, 0, 1, offset)
  one[0] = (one[0] ?? 0) ^ 1
  await file.write(one, 0, 1, offset)
  await file.close()
  await expect(store.get(ref)).rejects.toThrow(BlobDamaged)
  await store.close()
})

test('more bytes than may wait are refused, and those that wait are kept', async () => {
  const folder = await temporaryFolder()
  const store = await openSegmentBlobStore(folder)
  const bytes = randomBytes(60 * 1024 * 1024)
  const digest = sha256(bytes)
  const puts = await Promise.allSettled(Array.from({ length: 5 }, () => store.put(digest, bytes)))
  const refused = puts.filter((put) => put.status === 'rejected')
  expect(refused.map((put) => put.reason.constructor)).toEqual([BlobStoreOverloaded])
  await expect(store.put(digest, bytes)).resolves.toBeTypeOf('string')
  await store.close()
})

test('every acknowledged blob survives the kill of two processes amid their puts', async () => {
  const folder = await temporaryFolder()
  const repository = fileURLToPath(new URL('../../../', import.meta.url))
  let acknowledged = 0
  for (const runMs of [30, 80, 200]) {
    const putters = [1, 2].map(() =>
      spawn(
        process.execPath,
        ['--import', 'tsx', join(repository, 'test/server/store/blob-putter.ts'), folder],
        { cwd: repository, stdio: ['ignore', 'pipe', 'inherit'] },
      ),
    )
    const said = await Promise.all(
      putters.map(async (putter) => {
        let text = ''
        putter.stdout.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk
        })
        await once(putter.stdout, 'data')
        await sleep(runMs)
        putter.kill('SIGKILL')
        await once(putter, 'close')
        // What follows the last line end was not said whole.
        return text.split('\n').slice(0, -1)
      }),
    )
    const store = await openSegmentBlobStore(folder)
    for (const line of said.flat()) {
      const [ref = '', digest] = line.split(' ')
      expect(sha256(await store.get(ref as BlobRef)).toString('hex')).toBe(digest)
      acknowledged += 1
    }
    await store.close()
  }
  console.info(`${acknowledged} acknowledged blobs, all there`)
  expect(acknowledged).toBeGreaterThan(20)
})
