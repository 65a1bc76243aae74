import { fromBase64, toBase64 } from '../crypto/base64.ts'
import { digestBytes, sha256 } from '../crypto/digest.ts'
import { nodeHash } from './merkle.ts'

/** What a growing log must remember to go on: at most 53 hashes. Plain JSON. */
export type CompactRangeState = {
  /** Leaves appended so far. */
  size: number
  /** Base 64 of the roots of the perfect subtrees, largest (leftmost) first. */
  hashes: string[]
}

/**
 * Summary of an append-only tree: one hash for each 1 bit of its size. Keeps the root of a growing
 * log at the cost of about one hash a leaf, never touching old leaves again.
 */
export class CompactRange {
  #size = 0
  #hashes: Uint8Array[] = []

  /**
   * Takes up where `state` left off.
   *
   * @throws Error when the state is not one this class wrote: a damaged log must not grow
   */
  static fromState(state: CompactRangeState): CompactRange {
    const range = new CompactRange()
    range.#size = state.size
    range.#hashes = state.hashes.map(fromBase64)
    if (
      !Number.isSafeInteger(state.size) ||
      state.size < 0 ||
      state.hashes.length !== onesIn(state.size) ||
      range.#hashes.some((hash) => hash.length !== digestBytes)
    ) {
      throw new Error(`compact range: ${state.hashes.length} hashes do not fit size ${state.size}`)
    }
    return range
  }

  /** Leaves appended so far. */
  get size(): number {
    return this.#size
  }

  /**
   * Adds one leaf at the right.
   *
   * @param leafHash the 32-byte hash of RFC 9162 §2.1.1, not the entry
   * @throws RangeError when it is not 32 bytes
   */
  append(leafHash: Uint8Array): void {
    if (leafHash.length !== digestBytes) {
      throw new RangeError(`compact range: leaf hash of ${leafHash.length} bytes`)
    }
    let hash: Uint8Array = leafHash.slice()
    // Like adding 1 in binary: each trailing 1 of the size is a subtree to be merged.
    for (let size = this.#size; size % 2 === 1; size = Math.floor(size / 2)) {
      hash = nodeHash(this.#hashes.pop() as Uint8Array, hash)
    }
    this.#hashes.push(hash)
    this.#size += 1
  }

  /** Root hash of all leaves so far; equals `rootHash` over them. */
  root(): Uint8Array {
    return this.#hashes.length === 0
      ? sha256('')
      : this.#hashes.reduceRight((right, left) => nodeHash(left, right))
  }

  /** A copy to store; `fromState` reads it. */
  state(): CompactRangeState {
    return { size: this.#size, hashes: this.#hashes.map(toBase64) }
  }
}

/** Number of 1 bits. */
function onesIn(count: number): number {
  let ones = 0
  for (let rest = count; rest > 0; rest = Math.floor(rest / 2)) ones += rest % 2
  return ones
}
