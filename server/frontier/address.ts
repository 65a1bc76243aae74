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
 * The address without the reader's session, which would make each visit a new address of the same
 * page. Only what is hardly ever anything else: a talk at a conference has a `session_id` too, so
 * most names count only with a value that looks drawn at random.
 *
 * A site may redirect to a session each time: an address and the one it redirects to can both come
 * out as the same, and that is no loop.
 *
 * @returns removed: the names of what was removed, as written, for people; null when nothing was
 */
export function withoutSession(url: string): { url: string; removed: string | null } {
  const [address, pairs] = parted(url)
  const removed: string[] = []
  const start = pathStart(address)
  const path = address
    .slice(start)
    .replace(PATH_PARAMETER, (_, name: string) => {
      removed.push(name)
      return ''
    })
    .replace(ASP_NET_SEGMENT, (_, letter: string) => {
      removed.push(`(${letter}(…))`)
      return ''
    })
  const names = new Set(pairs.map((pair) => nameIn(pair).toLowerCase()))
  const isColdFusion = names.has('cfid') && names.has('cftoken')
  const kept = pairs.filter((pair) => {
    const name = nameIn(pair).toLowerCase()
    const isSession =
      SESSION_NAME.test(name) ||
      (isColdFusion && (name === 'cfid' || name === 'cftoken')) ||
      (MAYBE_SESSION_NAME.test(name) && looksRandom(valueIn(pair)))
    if (isSession) removed.push(nameIn(pair))
    return !isSession
  })
  // As it was, down to an odd "&&", when there was nothing to remove.
  if (removed.length === 0) return { url, removed: null }
  return {
    url: joined(`${address.slice(0, start)}${path || '/'}`, kept),
    removed: removed.join(', '),
  }
}

/** Java's, behind a segment. Tomcat and Jetty write it for readers without cookies. */
const PATH_PARAMETER = /;(jsessionid|phpsessid)=[^/;]*/gi

/** ASP.NET's: `/(S(lit3py55t21z5v55vlm25s55))/`, with other letters for a user's ticket and data. */
const ASP_NET_SEGMENT =
  /\/\((?:[A-RT-Z]\([^()/]*\))*(S)\([^()/]+\)(?:[A-RT-Z]\([^()/]*\))*\)(?=\/|$)/g

const SESSION_NAME = /^(?:phpsessid|jsessionid|aspsessionid[a-z]{8})$/

const MAYBE_SESSION_NAME = /^(?:s|sid|sessionid|session_id)$/

/**
 * Whether a value looks drawn at random: 16 or more hex digits, a UUID, or 16 or more letters and
 * digits that change between the two at least four times, which drawn ones do (24 letters and
 * digits 6 times in the mean) and words hardly ever. Not digits alone: those are numbers of things.
 */
function looksRandom(value: string): boolean {
  if (UUID.test(value)) return true
  if (value.length < 16 || !/^[0-9A-Za-z]+$/.test(value)) return false
  const changes = value.match(/\d(?=\D)|\D(?=\d)/g)?.length ?? 0
  return changes >= 4 || (changes > 0 && /^(?:[0-9a-f]+|[0-9A-F]+)$/.test(value))
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

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

/** What stands before the query, and its pairs. */
function parted(url: string): [string, string[]] {
  const at = url.indexOf('?')
  return at < 0 ? [url, []] : [url.slice(0, at), url.slice(at + 1).split('&')]
}

function joined(address: string, pairs: readonly string[]): string {
  return pairs.length === 0 ? address : `${address}?${pairs.join('&')}`
}

/** Where the path begins, behind scheme and host. */
function pathStart(address: string): number {
  return address.indexOf('/', address.indexOf('://') + 3)
}

function nameIn(pair: string): string {
  return pair.split('=', 1)[0] ?? ''
}

function valueIn(pair: string): string {
  return pair.slice(nameIn(pair).length + 1)
}
