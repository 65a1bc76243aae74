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
export function looksRandom(value: string): boolean {
  if (UUID.test(value)) return true
  if (value.length < 16 || !/^[0-9A-Za-z]+$/.test(value)) return false
  const changes = value.match(/\d(?=\D)|\D(?=\d)/g)?.length ?? 0
  return changes >= 4 || (changes > 0 && /^(?:[0-9a-f]+|[0-9A-F]+)$/.test(value))
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** What stands before the query, and its pairs. */
export function parted(url: string): [string, string[]] {
  const at = url.indexOf('?')
  return at < 0 ? [url, []] : [url.slice(0, at), url.slice(at + 1).split('&')]
}

/** Puts together what `parted` took apart. */
export function joined(address: string, pairs: readonly string[]): string {
  return pairs.length === 0 ? address : `${address}?${pairs.join('&')}`
}

/** Where the path begins, behind scheme and host. */
export function pathStart(address: string): number {
  return address.indexOf('/', address.indexOf('://') + 3)
}

/** The name of a pair, as written. */
export function nameIn(pair: string): string {
  return pair.split('=', 1)[0] ?? ''
}

function valueIn(pair: string): string {
  return pair.slice(nameIn(pair).length + 1)
}
