/**
 * Where a blob is, in its store's own words; opaque to everyone else, and short enough for a row.
 * Stays valid for as long as the blob is kept.
 */
export type BlobRef = string & { readonly [blobRef]: true }
declare const blobRef: unique symbol

/**
 * Keeps payloads under their SHA-256. Knows neither which blobs exist nor which are wanted: the
 * caller stores the ref in a row (first the blob, then the row), and a blob without a row is
 * rubbish to be collected later.
 *
 * Several processes may use one store at once.
 */
export interface BlobStore {
  /**
   * Stores `bytes`. Durable on return: it survives the loss of process and power. May be called
   * twice with the same blob, also at once; the refs may differ, and each stays readable. After
   * an error the blob may or may not be there; put it again. `bytes` must not be changed before
   * the promise settles.
   *
   * @param digest SHA-256 of `bytes`, 32 bytes
   * @param bytes at most MAX_BLOB_BYTES; may be empty
   * @throws BlobDigestMismatch if they do not belong together; nothing is stored
   * @throws RangeError if there are too many bytes; nothing is stored
   * @throws BlobStoreOverloaded if too much waits to be written; nothing is stored
   */
  put(digest: Uint8Array, bytes: Uint8Array): Promise<BlobRef>

  /**
   * Reads a blob; the bytes are the caller's own. Checks that they have the digest they were put
   * under.
   *
   * @throws BlobMissing if nothing is at `ref`
   * @throws BlobDamaged if what is there is not what was put
   */
  get(ref: BlobRef): Promise<Uint8Array>

  /** Waits for puts under way. Later calls of `put` and `get` reject. May be called twice. */
  close(): Promise<void>
}

/** A node keeps 64 MiB of bodies at most, so no honest payload is larger. */
export const MAX_BLOB_BYTES = 64 * 1024 * 1024

/** The bytes given to `put` do not have the digest given. */
export class BlobDigestMismatch extends Error {
  override readonly name = 'BlobDigestMismatch'
}

/** Too many bytes wait to be written. Answer 503 and let the sender come again. */
export class BlobStoreOverloaded extends Error {
  override readonly name = 'BlobStoreOverloaded'
}

/** There is nothing at a ref: it is of another store, or its end was lost. */
export class BlobMissing extends Error {
  override readonly name = 'BlobMissing'
}

/** The bytes at a ref are not those that were put. */
export class BlobDamaged extends Error {
  override readonly name = 'BlobDamaged'
}
