import { browser } from 'wxt/browser'
import { addressRefusal } from '../capture/public-host.ts'

/** Firefox's browser.dns, which Chromium's types do not know. */
interface Dns {
  resolve(host: string): Promise<{ addresses: string[] }>
}

/**
 * Firefox only: looks a name up before it is asked for a page. Firefox has no `targetAddressSpace`,
 * so this is what keeps a request from being sent to a private host. A name that changes between
 * this look-up and the fetch gets through as far as the check of the peer's address.
 */
export async function lookUpRefusal(
  host: string,
  loopbackAllowed: boolean,
): Promise<'private-address' | 'connection' | null> {
  let addresses: string[]
  try {
    addresses = (await firefoxDns().resolve(host)).addresses
  } catch {
    // A name that does not resolve cannot be fetched either.
    return 'connection'
  }
  if (addresses.length === 0) return 'connection'
  const refused = addresses.some((address) => {
    const refusal = addressRefusal(address)
    return refusal !== null && !(refusal === 'loopback' && loopbackAllowed)
  })
  return refused ? 'private-address' : null
}

function firefoxDns(): Dns {
  const { dns } = browser as unknown as { dns?: Dns }
  if (dns === undefined)
    throw new Error('browser.dns is missing: is the permission `dns` declared?')
  return dns
}
