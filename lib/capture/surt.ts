/**
 * The SURT key under which web-archive indexes (CDXJ, Common Crawl's `url_surtkey`) sort a URL:
 * `https://www.Example.com/Path/?b=2&a=1` → `com,example)/path?a=1&b=2`. Gives what the Internet
 * Archive's `surt` package gives: no scheme, default port or leading `www.`; percent-decoded as far
 * as it goes, then minimally encoded; lower case; without session identifiers; the query sorted;
 * without a trailing slash. A lossy key to look things up by, never an address to fetch.
 *
 * @param url canonical, see `canonicalUrl`
 * @throws TypeError when it is no URL
 */
export function surt(url: string): string {
  const { hostname, port, pathname, search } = new URL(url)
  const host = hostname
    .replace(/^www\d*\./, '')
    .split('.')
    .reverse()
    .join(',')
  const path = withoutPathSession(escapeOnce(withSingleSlashes(unescapeRepeatedly(pathname))))
  const query = withoutQuerySession(escapeOnce(unescapeRepeatedly(search.slice(1)))).toLowerCase()
  const key = `${host}${port && `:${port}`})${path.toLowerCase().replace(/(?<=.)\/$/, '')}`
  return query === '' ? key : `${key}?${sorted(query)}`
}

/** One character a byte, so that halves of a character survive. `canonicalUrl` leaves only ASCII. */
function unescapeRepeatedly(text: string): string {
  let now = text
  // Each round removes at least two characters of at most 2,048.
  for (let before = ''; now !== before; ) {
    before = now
    now = before.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    )
  }
  return now
}

/** Everything but printable ASCII without "#" and "%". */
function escapeOnce(bytes: string): string {
  return bytes.replace(
    /[^!"$&-~]/g,
    (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  )
}

/** Decoding may have made new dot segments and slashes. */
function withSingleSlashes(path: string): string {
  const kept: string[] = []
  const segments = path.split('/').slice(1)
  for (const segment of segments) {
    if (segment === '..') kept.pop()
    else if (segment !== '.') kept.push(segment)
  }
  const last = kept.pop() ?? ''
  return `/${kept
    .filter((segment) => segment !== '')
    .map((segment) => `${segment}/`)
    .join('')}${last}`
}

/** ASP.NET's cookieless session, one segment before an .aspx page. */
function withoutPathSession(path: string): string {
  return path.replace(/\/\((?:(?:[a-z]\([0-9a-z]{24}\))+|[0-9a-z]{24})\)(\/[^?]+\.aspx)/i, '$1')
}

const QUERY_SESSIONS = [
  /jsessionid=[0-9a-z]{32}(?:&|$)/i,
  /phpsessid=[0-9a-z]{32}(?:&|$)/i,
  /sid=[0-9a-z]{32}(?:&|$)/i,
  /aspsessionid[a-z]{8}=[a-z]{24}(?:&|$)/i,
  /cfid=[^&]+&cftoken=[^&]+(?:&|$)/i,
]

function withoutQuerySession(query: string): string {
  return QUERY_SESSIONS.reduce((rest, session) => rest.replace(session, ''), query)
}

/** By name, then by value; a name without "=" before the same name with one. */
function sorted(query: string): string {
  const pairs = query.split('&').map((pair) => {
    const at = pair.indexOf('=')
    return at < 0 ? { name: pair, value: null } : { name: pair.slice(0, at), value: pair.slice(at) }
  })
  pairs.sort((a, b) => order(a.name, b.name) || order(a.value ?? '', b.value ?? ''))
  return pairs.map(({ name, value }) => name + (value ?? '')).join('&')
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
