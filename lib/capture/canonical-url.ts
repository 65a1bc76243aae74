import { isReadAlike } from './international-host.ts'

/** Why an address has no canonical form. */
export type UrlRefusal = 'unparsable' | 'scheme' | 'userinfo' | 'too-long'

export type CanonicalUrl = { ok: true; url: string } | { ok: false; reason: UrlRefusal }

/** Bytes (the result is ASCII). Longer ones are traps or sessions; Sitemaps 0.9 draws the line here too. */
const MAX_URL_BYTES = 2_048

/** Characters read before parsing, so that a page cannot make us parse megabytes as one address. */
const MAX_INPUT_CHARACTERS = 8_192

/**
 * Host names as the DNS can have them (labels of RFC 1035 §2.3.4, with the underscore that is in
 * use), and bracketed IPv6. Engines differ on stranger ones: Chromium makes `%20` of a space.
 */
const HOST = /^(?=.{1,254}$)(?:[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?|\[[0-9a-f:]+\])$/

/**
 * Parameters that say where a reader came from, never what is shown. Whole names, lower case; a
 * short list on purpose: a name that some site uses for content must not stand here.
 */
const TRACKING_PARAMETERS = new Set([
  '_ga',
  '_gl',
  '_hsenc',
  '_hsmi',
  'dclid',
  'fbclid',
  'gbraid',
  'gclid',
  'gclsrc',
  'igshid',
  'mc_cid',
  'mc_eid',
  'msclkid',
  'ttclid',
  'twclid',
  'wbraid',
  'yclid',
])

/**
 * The one spelling of an http(s) address that every part of the system uses as its key.
 *
 * WHATWG URL parsing (https://url.spec.whatwg.org) does the host (lower case, punycode), default
 * port, dot segments and empty path. On top: the fragment goes, tracking parameters go, the rest of
 * the query keeps its order, and percent-encoding is normalised (RFC 3986 §6.2.2). Applying it
 * twice changes nothing. At most 2,048 bytes; user names and passwords are refused, not dropped.
 *
 * @param base the page the address was found on, for relative ones
 */
export function canonicalUrl(input: string, base?: string): CanonicalUrl {
  if (input.length > MAX_INPUT_CHARACTERS) return { ok: false, reason: 'too-long' }
  const parsed = parse(input, base)
  if (!parsed) return { ok: false, reason: 'unparsable' }
  if (parsed.protocol !== 'https:' && parsed.protocol !== 'http:') {
    return { ok: false, reason: 'scheme' }
  }
  if (parsed.username !== '' || parsed.password !== '') return { ok: false, reason: 'userinfo' }
  if (!HOST.test(parsed.hostname) || !isReadAlike(parsed.hostname)) {
    return { ok: false, reason: 'unparsable' }
  }

  const query = normalEncoding(withoutTracking(parsed.search.slice(1)))
  const url = `${parsed.protocol}//${parsed.host}${normalEncoding(parsed.pathname)}${query && `?${query}`}`
  if (url.length > MAX_URL_BYTES) return { ok: false, reason: 'too-long' }
  return { ok: true, url }
}

function parse(input: string, base: string | undefined): URL | null {
  try {
    return new URL(input, base)
  } catch {
    // The constructor's only failure is an address that does not parse, which is an answer here.
    return null
  }
}

/** RFC 3986 §2.2 and §2.3: every character that may stand in a URL as itself, and "%". */
const NOT_A_URL_CHARACTER = /[^A-Za-z0-9\-._~:/?#[\]@!$&'()*+,;=%]/g

/**
 * Upper-case hex, unreserved characters decoded, a stray "%" and every character outside RFC 3986
 * encoded. URL implementations of different age disagree on "^" and "|"; after this they agree.
 */
function normalEncoding(part: string): string {
  return part
    .replace(/%(?![0-9A-Fa-f]{2})/g, '%25')
    .replace(/%([0-9A-Fa-f]{2})/g, (triplet, hex: string) => {
      const character = String.fromCharCode(Number.parseInt(hex, 16))
      return /[A-Za-z0-9\-._~]/.test(character) ? character : triplet.toUpperCase()
    })
    .replace(NOT_A_URL_CHARACTER, (character) => encodeURIComponent(character))
}

function withoutTracking(query: string): string {
  if (query === '') return query
  return query
    .split('&')
    .filter((pair) => !isTracking(pair))
    .join('&')
}

function isTracking(pair: string): boolean {
  const name = normalEncoding(pair.split('=', 1)[0] ?? '').toLowerCase()
  return name.startsWith('utm_') || TRACKING_PARAMETERS.has(name)
}
