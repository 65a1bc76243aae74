/**
 * The pure half of the guard that keeps a contributor's own network out of reach, whatever a
 * server asks: which host names may be fetched, and which peer addresses may have answered.
 */

/** Why a host name is not fetched. */
export type HostRefusal =
  | 'unparsable'
  | 'ip-literal'
  | 'trailing-dot'
  | 'single-label'
  | 'private-name'

/** Why a peer address is not a public one. */
export type AddressRefusal =
  | 'malformed'
  | 'unspecified'
  | 'loopback'
  | 'private'
  | 'shared'
  | 'link-local'
  | 'protocol'
  | 'benchmarking'
  | 'multicast'
  | 'tunnel'
  | 'reserved'

/**
 * Endings that name things inside a network or outside the DNS: IANA Special-Use Domain Names
 * (RFC 6761, 6762, 7686, 8375, 9476, 9665), names ICANN keeps undelegated (.internal, .home, .corp,
 * .mail), and what routers and offices use. .test and .example are absent: they name nothing on
 * anyone's network, and the guard's own tests need names that are public in form.
 */
const PRIVATE_ENDINGS = new Set([
  'alt',
  'arpa',
  'bit',
  'corp',
  'domain',
  'home',
  'i2p',
  'internal',
  'intranet',
  'invalid',
  'lan',
  'local',
  'localdomain',
  'localhost',
  'mail',
  'onion',
  'private',
  'workgroup',
])

/**
 * Says why a URL's host may not be fetched by a contributor, or null when it may. Address literals
 * are refused in every spelling (octal, hex, dword, IPv6): the WHATWG parser has already turned
 * them into one. A name that is public in form may still resolve to a private address; for that
 * there is `addressRefusal`.
 */
export function hostRefusal(url: string): HostRefusal | null {
  let host: string
  try {
    host = new URL(url).hostname
  } catch {
    // The constructor's only failure is an address that does not parse, which is an answer here.
    return 'unparsable'
  }
  if (host === '') return 'unparsable'
  if (host.startsWith('[') || parseIpv4(host.replace(/\.$/, '')) !== null) return 'ip-literal'
  if (host.endsWith('.')) return 'trailing-dot'
  const labels = host.split('.')
  if (labels.length < 2) return 'single-label'
  return PRIVATE_ENDINGS.has(labels.at(-1) ?? '') ? 'private-name' : null
}

/**
 * IPv4 blocks that are not public: [first address, prefix length, reason]. From the IANA IPv4
 * Special-Purpose Address Registry (RFC 6890), multicast (RFC 5771) and class E (RFC 1112 §4).
 *
 * The documentation blocks (192.0.2/24, 198.51.100/24, 203.0.113/24, RFC 5737; 2001:db8::/32, RFC
 * 3849; 3fff::/20, RFC 9637) are left public on purpose: nothing private may live there, and the
 * tests of the production build use them as public addresses inside a network namespace.
 */
const IPV4_REFUSED: readonly [string, number, AddressRefusal][] = [
  ['0.0.0.0', 8, 'unspecified'],
  ['10.0.0.0', 8, 'private'],
  ['100.64.0.0', 10, 'shared'],
  ['127.0.0.0', 8, 'loopback'],
  ['169.254.0.0', 16, 'link-local'],
  ['172.16.0.0', 12, 'private'],
  ['192.0.0.0', 24, 'protocol'],
  ['192.88.99.0', 24, 'tunnel'],
  ['192.168.0.0', 16, 'private'],
  ['198.18.0.0', 15, 'benchmarking'],
  ['224.0.0.0', 4, 'multicast'],
  ['240.0.0.0', 4, 'reserved'],
]

/**
 * Says why an address is not a public one, or null when it is. IPv6 outside 2000::/3 is refused
 * as a whole, since nothing else is assigned as global unicast; IPv4 inside IPv6 (mapped, NAT64,
 * 6to4) is judged as the IPv4 it leads to. Teredo falls with 2001::/23.
 *
 * @param ip as a socket or webRequest prints it: dotted quad or RFC 4291 §2.2, no brackets, no port
 */
export function addressRefusal(ip: string): AddressRefusal | null {
  const ipv4 = parseIpv4(ip)
  if (ipv4 !== null) return ipv4Refusal(ipv4)
  const groups = parseIpv6(ip)
  if (!groups) return 'malformed'
  return ipv6Refusal(groups)
}

function ipv4Refusal(address: number): AddressRefusal | null {
  for (const [first, bits, reason] of IPV4_REFUSED) {
    const shift = 32 - bits
    if (address >>> shift === (parseIpv4(first) ?? 0) >>> shift) return reason
  }
  return null
}

/** IANA IPv6 Special-Purpose Address Registry. */
function ipv6Refusal(groups: Groups): AddressRefusal | null {
  const [a, b] = groups
  const embedded = embeddedIpv4(groups)
  if (embedded !== null) return ipv4Refusal(embedded)
  if (groups.slice(0, 7).every((group) => group === 0)) {
    if (groups[7] === 0) return 'unspecified'
    if (groups[7] === 1) return 'loopback'
  }
  if ((a & 0xfe00) === 0xfc00) return 'private'
  if ((a & 0xffc0) === 0xfe80) return 'link-local'
  if ((a & 0xff00) === 0xff00) return 'multicast'
  if ((a & 0xe000) !== 0x2000) return 'reserved'
  if (a === 0x2001 && b === 0) return 'tunnel' // Teredo, RFC 4380
  if (a === 0x2001 && b < 0x0200) return 'protocol' // 2001::/23, RFC 2928
  return null
}

/** The IPv4 address that packets to this IPv6 address end at, if it is that kind. */
function embeddedIpv4(groups: Groups): number | null {
  const [a, b, c, d, e, f, g, h] = groups
  const low = ((g << 16) | h) >>> 0
  const zeroToF = a === 0 && b === 0 && c === 0 && d === 0 && e === 0
  if (zeroToF && f === 0xffff) return low // ::ffff:0:0/96, RFC 4291 §2.5.5.2
  const zeroMiddle = c === 0 && d === 0 && e === 0 && f === 0
  if (a === 0x64 && b === 0xff9b && zeroMiddle) return low // 64:ff9b::/96, RFC 6052
  if (a === 0x2002) return ((b << 16) | c) >>> 0 // 2002::/16, RFC 3056
  return null
}

/**
 * The block that stands for "one network" in quotas and quorums: IPv4 /24, IPv6 /48; IPv4 mapped
 * into IPv6 counts as IPv4. Throws RangeError for what is no address: peers come from sockets.
 */
export function networkBlock(ip: string): string {
  return block(ip, 24, 48)
}

/** A wider neighbourhood, where no AS table is at hand: IPv4 /16, IPv6 /32. Throws like `networkBlock`. */
export function networkBlockWide(ip: string): string {
  return block(ip, 16, 32)
}

function block(ip: string, ipv4Bits: number, ipv6Bits: number): string {
  const groups = parseIpv6(ip)
  const mapped = groups?.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff
  const ipv4 = groups && mapped ? embeddedIpv4(groups) : parseIpv4(ip)
  if (ipv4 !== null) {
    const first = (ipv4 & (-1 << (32 - ipv4Bits))) >>> 0
    const octets = [24, 16, 8, 0].map((shift) => (first >>> shift) & 0xff)
    return `${octets.join('.')}/${ipv4Bits}`
  }
  if (!groups) throw new RangeError(`not an IP address: ${ip.slice(0, 64)}`)
  // RFC 5952: lower case, no leading zeros. The zero tail is always the run that "::" stands for.
  const kept = groups.slice(0, ipv6Bits / 16)
  while (kept.at(-1) === 0) kept.pop()
  return `${kept.map((group) => group.toString(16)).join(':')}::/${ipv6Bits}`
}

/** Strict dotted quad, as sockets and the URL parser print it; octal and short forms are no address here. */
export function parseIpv4(text: string): number | null {
  const parts = text.split('.')
  if (parts.length !== 4) return null
  let address = 0
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part)) return null
    const octet = Number(part)
    if (octet > 255) return null
    address = address * 256 + octet
  }
  return address
}

type Groups = [number, number, number, number, number, number, number, number]

/** RFC 4291 §2.2, all three forms, without a zone. Null when it is no IPv6 address. */
export function parseIpv6(text: string): Groups | null {
  if (text.length > 45) return null
  const halves = text.split('::')
  if (halves.length > 2) return null
  const head = groupsOf(halves[0] ?? '', halves.length === 1)
  const tail = halves.length === 2 ? groupsOf(halves[1] ?? '', true) : []
  if (!head || !tail) return null
  const missing = 8 - head.length - tail.length
  if (halves.length === 1 ? missing !== 0 : missing < 1) return null
  return [...head, ...Array<number>(missing).fill(0), ...tail] as Groups
}

function groupsOf(text: string, mayEndInIpv4: boolean): number[] | null {
  if (text === '') return []
  const groups: number[] = []
  const parts = text.split(':')
  for (const [index, part] of parts.entries()) {
    const ipv4 = mayEndInIpv4 && index === parts.length - 1 ? parseIpv4(part) : null
    if (ipv4 !== null) groups.push(ipv4 >>> 16, ipv4 & 0xffff)
    else if (/^[0-9A-Fa-f]{1,4}$/.test(part)) groups.push(Number.parseInt(part, 16))
    else return null
  }
  return groups
}
