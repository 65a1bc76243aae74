import { joined, looksRandom, nameIn, parted, pathStart } from '../../lib/capture/session-id.ts'
import { sha256 } from '../../lib/crypto/digest.ts'

/**
 * The address as the frontier counts it: `a=1&b=2` and `b=2&a=1` are one. Parameters are sorted by
 * name; those of one name keep their order, which some sites read. Never an address to fetch: that
 * is the one that was found, because to the site the order may matter after all.
 *
 * @param url canonical, see `canonicalUrl`, and without a session, see `withoutSession`
 */
export function frontierKey(url: string): string {
  const [address, pairs] = parted(url)
  // Array.prototype.sort is stable.
  const sorted = pairs
    .filter((pair) => pair !== '')
    .sort((a, b) => (nameIn(a) < nameIn(b) ? -1 : nameIn(a) > nameIn(b) ? 1 : 0))
  return joined(address, sorted)
}

/**
 * What addresses have in common that one template of a site makes: the path with N for each number
 * and X for each random identifier, and the names of its parameters. Without the host: shapes are
 * counted for each host.
 */
export function shapeOf(url: string): string {
  const [address, pairs] = parted(url)
  const path = template(address.slice(pathStart(address)))
  // Each once, whatever their number: f[0]=, f[1]=… are one way to narrow a list, repeated.
  const names = [...new Set(pairs.map((pair) => template(nameIn(pair))))].filter(Boolean).sort()
  return joined(path, names)
}

/** 128 bits: two shapes of one host that fell together would only share a budget. */
export function shapeDigest(url: string): Uint8Array {
  return sha256(shapeOf(url)).slice(0, 16)
}

/** An encoded octet, which stays, a UUID, or a word. */
const TEMPLATE_PART =
  /%[0-9A-Fa-f]{2}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9A-Za-z]+/g

function template(text: string): string {
  return text.replace(TEMPLATE_PART, (part) => {
    if (part.startsWith('%')) return part
    return looksRandom(part) ? 'X' : part.replace(/\d+/g, 'N')
  })
}
