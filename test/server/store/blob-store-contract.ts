import { createHash, randomBytes } from 'node:crypto'
import { afterEach, describe, expect, test } from 'vitest'
import {
  BlobDigestMismatch,
  BlobMissing,
  type BlobRef,
  type BlobStore,
  MAX_BLOB_BYTES,
} from '../../../server/store/blob-store.ts'

/** A fresh place for blobs, which can be opened many times. */
export interface BlobPlace {
  open(): Promise<BlobStore>
  remove(): Promise<void>
}

/** What every blob store keeps, whatever it is made of. */
export function blobStoreContract(name: string, makePlace: () => Promise<BlobPlace>): void {
  describe(`${name} keeps the contract of blob stores`, () => {
    const stores: BlobStore[] = []
    const places: BlobPlace[] = []
    afterEach(async () => {
      for (const store of stores.splice(0)) await store.close()
      for (const place of places.splice(0)) await place.remove()
    })
    const newPlace = async () => {
      const place = await makePlace()
      places.push(place)
      return place
    }
    const openAt = async (place: BlobPlace) => {
      const store = await place.open()
      stores.push(store)
      return store
    }

    test.each([0, 1, 17_000, 3_000_000])(
      'a blob of %i bytes comes back as it was',
      async (length) => {
        const store = await openAt(await newPlace())
        const bytes = randomBytes(length)
        const ref = await store.put(sha256(bytes), bytes)
        expect(ref.length).toBeLessThan(100)
        expect(sameBytes(await store.get(ref), bytes)).toBe(true)
      },
    )

    test('what is returned belongs to the caller', async () => {
      const store = await openAt(await newPlace())
      const bytes = Buffer.from('wheat')
      const ref = await store.put(sha256(bytes), bytes)
      ;(await store.get(ref)).fill(0)
      expect(sameBytes(await store.get(ref), bytes)).toBe(true)
    })

    test('bytes that do not have their digest are refused', async () => {
      const store = await openAt(await newPlace())
      const bytes = Buffer.from('wheat')
      const digest = sha256(Buffer.from('chaff'))
      await expect(store.put(digest, bytes)).rejects.toThrow(BlobDigestMismatch)
      const cut = sha256(bytes).subarray(0, 16)
      await expect(store.put(cut, bytes)).rejects.toThrow(BlobDigestMismatch)
    })

    test('a blob over the limit is refused', async () => {
      const store = await openAt(await newPlace())
      const bytes = new Uint8Array(MAX_BLOB_BYTES + 1)
      await expect(store.put(sha256(bytes), bytes)).rejects.toThrow(RangeError)
    })

    test('a blob may be put twice, one after the other and at once', async () => {
      const store = await openAt(await newPlace())
      const bytes = Buffer.from('wheat')
      const digest = sha256(bytes)
      const refs = [await store.put(digest, bytes)]
      refs.push(...(await Promise.all([store.put(digest, bytes), store.put(digest, bytes)])))
      for (const ref of refs) expect(sameBytes(await store.get(ref), bytes)).toBe(true)
    })

    test('many puts at once all come back as they were', async () => {
      const store = await openAt(await newPlace())
      const blobs = Array.from({ length: 2_000 }, (_, index) => randomBytes(index))
      const refs = await Promise.all(blobs.map((bytes) => store.put(sha256(bytes), bytes)))
      for (const [index, bytes] of blobs.entries()) {
        expect(sameBytes(await store.get(refs[index] as BlobRef), bytes)).toBe(true)
      }
    })

    test('a refused put harms none beside it', async () => {
      const store = await openAt(await newPlace())
      const bytes = Buffer.from('wheat')
      const [ref, refused] = await Promise.allSettled([
        store.put(sha256(bytes), bytes),
        store.put(sha256(bytes), Buffer.from('chaff')),
        store.put(sha256(bytes), bytes),
      ])
      expect(refused.status).toBe('rejected')
      if (ref.status === 'rejected') throw ref.reason
      expect(sameBytes(await store.get(ref.value), bytes)).toBe(true)
    })

    test('blobs are there after the store is closed and opened again', async () => {
      const place = await newPlace()
      const bytes = randomBytes(5_000)
      const first = await openAt(place)
      const ref = await first.put(sha256(bytes), bytes)
      await first.close()
      const second = await openAt(place)
      expect(sameBytes(await second.get(ref), bytes)).toBe(true)
    })

    test('two stores on one place see and spare each other', async () => {
      const place = await newPlace()
      const both = [await openAt(place), await openAt(place)] as const
      const blobs = Array.from({ length: 400 }, () => randomBytes(500))
      const refs = await Promise.all(
        blobs.map((bytes, index) => both[index % 2 === 0 ? 0 : 1].put(sha256(bytes), bytes)),
      )
      for (const [index, bytes] of blobs.entries()) {
        const other = both[index % 2 === 0 ? 1 : 0]
        expect(sameBytes(await other.get(refs[index] as BlobRef), bytes)).toBe(true)
      }
    })

    test('a ref that leads nowhere is reported as missing', async () => {
      const place = await newPlace()
      const elsewhere = await openAt(await newPlace())
      const bytes = Buffer.from('wheat')
      const ref = await elsewhere.put(sha256(bytes), bytes)
      const store = await openAt(place)
      await expect(store.get(ref)).rejects.toThrow(BlobMissing)
      for (const wrong of ['', '../../etc/passwd', `../${ref}`, `${ref}/..`, `${ref}0000000`]) {
        await expect(store.get(wrong as BlobRef)).rejects.toThrow(BlobMissing)
      }
    })

    test('close waits for puts under way and refuses later ones', async () => {
      const place = await newPlace()
      const store = await openAt(place)
      const bytes = randomBytes(100_000)
      const under = Array.from({ length: 20 }, () => store.put(sha256(bytes), bytes))
      await store.close()
      await store.close()
      await expect(store.put(sha256(bytes), bytes)).rejects.toThrow()
      const again = await openAt(place)
      for (const ref of await Promise.all(under)) {
        expect(sameBytes(await again.get(ref), bytes)).toBe(true)
        await expect(store.get(ref)).rejects.toThrow()
      }
    })
  })
}

/** The digest that `put` asks for. */
export function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
