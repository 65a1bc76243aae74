import { isReadAlike } from '../capture/international-host.ts'
import { type HostRefusal, hostRefusal } from '../capture/public-host.ts'
import { fromBase64Url } from '../crypto/base64.ts'
import { digestBytes } from '../crypto/digest.ts'
import type { Campaign } from '../protocol/campaign.ts'
import type { Lease } from '../protocol/lease.ts'
import { leafHash, verifyInclusion } from '../tlog/merkle.ts'

/**
 * A domain that stands on the list of a wide campaign, by what somebody showed for it. There is no
 * other way to make one than the two below, so nobody can cover an address and forget the proof.
 */
export class ListedDomain {
  /** Of the list, base64url: a proof for one campaign's list says nothing about another's. */
  readonly root: string
  readonly name: string
  // Makes the type one that no object literal fits.
  readonly #listed = true

  private constructor(root: string, name: string) {
    this.root = root
    this.name = name
  }

  /**
   * What a lease shows: name, index and siblings up to the root in the manifest that the person
   * agreed to. Null when the campaign is not wide, or the lease shows nothing or something wrong.
   */
  static proven(campaign: Pick<Campaign, 'wide'>, claim: Lease['domain']): ListedDomain | null {
    const { wide } = campaign
    if (wide === undefined || claim === undefined) return null
    // A list may hold what it should not: "com" on it must not open half the web.
    if (domainRefusal(claim.name) !== null) return null
    const proof = siblings(claim.proof)
    const included =
      proof !== null &&
      verifyInclusion({
        leafHash: domainLeaf(claim.name),
        index: claim.index,
        size: wide.size,
        rootHash: fromBase64Url(wide.root),
        proof,
      })
    return included ? new ListedDomain(wide.root, claim.name) : null
  }

  /** What the server knows from the list it holds. A node holds no list and never calls this. */
  static held(root: string, name: string): ListedDomain {
    return new ListedDomain(root, name)
  }

  /** Whether this is the host's own name or one above it. Both are lower-case ASCII. */
  covers(host: string): boolean {
    return this.#listed && (host === this.name || host.endsWith(`.${this.name}`))
  }
}

/** Leaf of the list's tree: RFC 6962 §2.1 over the name's bytes. */
export function domainLeaf(name: string): Uint8Array<ArrayBuffer> {
  return leafHash(new TextEncoder().encode(name))
}

export type DomainRefusal = HostRefusal | 'not-canonical' | 'read-differently'

/**
 * Why a name may not stand on a list, or null when it may. Public suffixes are for whoever makes
 * the list to leave out (protocol README §4): the device carries no copy of that list.
 */
export function domainRefusal(name: string): DomainRefusal | null {
  // The parser would read what stands before or behind these as another part of the address.
  if (/[/@?\\]/.test(name)) return 'not-canonical'
  // And it forgives much: only the one spelling that a URL's host has is a name here.
  if (!DOMAIN.test(name)) return hostRefusal(`https://${name}/`) ?? 'not-canonical'
  const refusal = hostRefusal(`https://${name}/`)
  if (refusal !== null) return refusal
  if (new URL(`https://${name}/`).hostname !== name) return 'not-canonical'
  return isReadAlike(name) ? null : 'read-differently'
}

/** RFC 1123 §2.1: labels of letters, digits and inner hyphens, 1 to 63; the whole at most 253. */
const DOMAIN =
  /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** Null unless these are whole hashes in the one spelling that base64url has for them. */
function siblings(proof: string): Uint8Array[] | null {
  let bytes: Uint8Array
  try {
    bytes = fromBase64Url(proof)
  } catch {
    // Not base64url, which shows nothing.
    return null
  }
  if (bytes.length % digestBytes !== 0) return null
  return Array.from({ length: bytes.length / digestBytes }, (_, at) =>
    bytes.subarray(at * digestBytes, (at + 1) * digestBytes),
  )
}
