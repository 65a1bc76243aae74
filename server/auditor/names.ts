import { Resolver } from 'node:dns/promises'
import type { Lookup } from '../node/host-map.ts'

export interface Names {
  /** TXT records of a name, each with its pieces joined; none where there is no such name. */
  txt(name: string): Promise<string[]>
  /** Addresses of a name; undefined means the machine's own way. */
  lookup: Lookup | undefined
  close(): void
}

/** What the DNS did instead of answering. */
export class NamesFailed extends Error {
  override name = 'NamesFailed'
}

/** An answer takes milliseconds; five seconds twice is what resolvers usually wait (resolv.conf(5)). */
const timing = { timeout: 5_000, tries: 2 }

/** @param nameServers `address:port` each; those of the machine without it */
export function createNames(nameServers: readonly string[] | undefined): Names {
  const resolver = new Resolver(timing)
  if (nameServers) resolver.setServers(nameServers)
  const orNone = async <Value>(asked: Promise<Value[]>): Promise<Value[]> => {
    try {
      return await asked
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOTFOUND' || code === 'ENODATA') return []
      throw new NamesFailed(`The name servers did not answer (${code ?? 'unknown'}).`, {
        cause: error,
      })
    }
  }
  return {
    txt: async (name) => (await orNone(resolver.resolveTxt(name))).map((pieces) => pieces.join('')),
    lookup: nameServers
      ? async (host) => {
          const [four, six] = await Promise.all([
            orNone(resolver.resolve4(host)),
            orNone(resolver.resolve6(host)),
          ])
          return [...four, ...six]
        }
      : undefined,
    close: () => resolver.cancel(),
  }
}
