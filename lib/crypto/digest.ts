import { sha256 as nobleSha256 } from '@noble/hashes/sha2.js'

/** Length of a SHA-256 digest. */
export const digestBytes = 32

/**
 * SHA-256 (FIPS 180-4). Text is hashed as UTF-8.
 *
 * Synchronous on purpose: a Merkle tree hashes many small inputs, and WebCrypto's promise costs more
 * than the hash.
 */
export function sha256(input: Uint8Array | string): Uint8Array<ArrayBuffer> {
  return nobleSha256(typeof input === 'string' ? new TextEncoder().encode(input) : input)
}

/** SHA-256 of a body that arrives in pieces. After `digest` the instance is spent. */
export class Sha256 {
  readonly #state = nobleSha256.create()

  update(chunk: Uint8Array): this {
    this.#state.update(chunk)
    return this
  }

  /** @throws Error when called twice, or followed by `update` */
  digest(): Uint8Array<ArrayBuffer> {
    return this.#state.digest()
  }
}

/**
 * Compares without stopping at the first difference, so the time taken tells nothing about where
 * two secrets part. Unequal lengths are not secret and answer at once.
 */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  let difference = 0
  for (let at = 0; at < a.length; at++) difference |= (a[at] as number) ^ (b[at] as number)
  return difference === 0
}

/** The parts, one after another, in a new array. */
export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
