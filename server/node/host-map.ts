import type { LookupAddress } from 'node:dns'
import { lookup as getAddresses } from 'node:dns/promises'
import { isIP } from 'node:net'
import { type AddressRefusal, addressRefusal } from '../../lib/capture/public-host.ts'

/** `host` or `host:port` → `address:port`, like Chromium's `--host-resolver-rules`. */
export type HostMap = Readonly<Record<string, string>>

export interface Endpoint {
  address: string
  port: number
}

export interface ResolveOptions {
  hostMap?: HostMap | undefined
  /** Loopback addresses count as public: for the lab and the demo only. */
  loopbackAllowed: boolean
  /** Asks for a name's addresses; the machine's own way (getaddrinfo) without it. */
  lookup?: Lookup | undefined
}

export type Lookup = (host: string) => Promise<string[]>

/** The name leads to an address that is not public. */
export class PrivateAddressError extends Error {
  readonly refusal: AddressRefusal

  constructor(host: string, refusal: AddressRefusal) {
    super(`${host} leads to an address that is not public: ${refusal}`)
    this.name = 'PrivateAddressError'
    this.refusal = refusal
  }
}

/**
 * Resolves a name once, to the addresses to connect to. One address that is not public refuses
 * them all: a name that mixes both is made to deceive.
 *
 * @throws PrivateAddressError, or the resolver's own error
 */
export async function resolveHost(
  host: string,
  port: number,
  { hostMap = {}, loopbackAllowed, lookup = systemLookup }: ResolveOptions,
): Promise<Endpoint[]> {
  const mapped = hostMap[`${host}:${port}`] ?? hostMap[host]
  const endpoints =
    mapped === undefined
      ? (await addressesOf(host, lookup)).map((address) => ({ address, port }))
      : [parseEndpoint(mapped)]
  for (const { address } of endpoints) {
    const refusal = addressRefusal(address)
    if (refusal !== null && !(refusal === 'loopback' && loopbackAllowed)) {
      throw new PrivateAddressError(host, refusal)
    }
  }
  return endpoints
}

async function addressesOf(host: string, lookup: Lookup): Promise<string[]> {
  const literal = host.replace(/^\[(.*)\]$/, '$1')
  return isIP(literal) !== 0 ? [literal] : lookup(host)
}

async function systemLookup(host: string): Promise<string[]> {
  const found: LookupAddress[] = await getAddresses(host, { all: true, verbatim: true })
  return found.map(({ address }) => address)
}

function parseEndpoint(text: string): Endpoint {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? []
  const address = bracketed ?? plain ?? ''
  if (isIP(address) === 0 || port === undefined) {
    throw new Error(`host map: "${text}" is not an address and port`)
  }
  return { address, port: Number(port) }
}
