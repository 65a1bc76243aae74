import { describe, expect, test } from 'vitest'
import { ListedDomain } from '../../../lib/consent/domain-list.ts'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import { domainList } from '../../../server/frontier/domain-list.ts'
import {
  addDomainList,
  domainListSize,
  domainProofs,
  findListed,
  listedDomains,
} from '../../../server/store/domain-list.ts'
import { openTestDatabase } from './test-database.ts'

const numbered = (size: number) =>
  Array.from({ length: size }, (_, at) => `d${String(at).padStart(6, '0')}.example`)

function wideOver(root: Uint8Array, size: number): NonNullable<Campaign['wide']> {
  return {
    root: toBase64Url(root),
    size,
    category: 'made-up names',
    scheme: 'https',
    requestsPerSecond: 1,
    requestsInFlight: 1,
  }
}

describe('a stored list', () => {
  test.each([1, 2, 255, 256, 257, 65_537])(
    'of %i domains proves its domains to a node, and no others',
    async (size) => {
      const { pool: db, transaction } = await openTestDatabase()
      const list = domainList(numbered(size))
      expect(await transaction((tx) => addDomainList(tx, list))).toBe(true)
      expect(await domainListSize(db, list.root)).toBe(size)

      const at = [...new Set([0, size >> 1, size - 1])]
      const hosts = [...at.map((index) => `www.${list.domains[index]}`), 'other.example']
      const proofs = await domainProofs(
        db,
        hosts.map((host) => ({ root: list.root, size, host })),
      )
      expect(proofs.map((proof) => proof?.index ?? null)).toEqual([...at, null])
      const wide = wideOver(list.root, size)
      for (const [place, proof] of proofs.entries()) {
        if (proof === null) continue
        expect(ListedDomain.proven({ wide }, proof)?.covers(hosts[place] as string)).toBe(true)
        expect(ListedDomain.proven({ wide }, { ...proof, name: 'other.example' })).toBeNull()
      }
    },
  )

  test('is stored once, however often and by however many', async () => {
    const { pool: db, transaction } = await openTestDatabase()
    const list = domainList(numbered(600))
    const added = await Promise.all(
      [1, 2, 3].map(() => transaction((tx) => addDomainList(tx, list))),
    )
    expect(added.sort()).toEqual([false, false, true])
    const { rows } = await db.query<{ names: number; tiles: number }>(
      `select (select count(*) from listed_domain)::int as names,
              (select count(*) from domain_tile)::int as tiles`,
    )
    // 600 leaves in three rows, 300 nodes in two, 150 and down to 1 in one row each.
    expect(rows).toEqual([{ names: 600, tiles: 13 }])
  })

  test('is not there when storing it failed half way', async () => {
    const { pool: db, transaction } = await openTestDatabase()
    const list = domainList(['a.example', 'b.example'])
    const torn = { ...list, domains: ['a.example', 'a.example'] }
    await expect(transaction((tx) => addDomainList(tx, torn))).rejects.toThrow()
    expect(await domainListSize(db, list.root)).toBeNull()
    expect(await transaction((tx) => addDomainList(tx, list))).toBe(true)
  })

  test('gives its names back in the order of their bytes, page by page', async () => {
    const { pool: db, transaction } = await openTestDatabase()
    // Hyphen before dot before digit before letter, which a language's collation would not say.
    const domains = ['a-b.example', 'a.example', 'a0.example', 'ab.example', 'b.example']
    const list = domainList(domains)
    await transaction((tx) => addDomainList(tx, list))
    const first = await listedDomains(db, list.root, '', 2)
    const second = await listedDomains(db, list.root, first.at(-1) ?? '', 10)
    expect([...first, ...second]).toEqual(domains)
    expect(await listedDomains(db, list.root, 'b.example', 10)).toEqual([])
  })
})

describe('a host', () => {
  test('is found under the longest listed name that it is or lies below, of its own list', async () => {
    const { pool: db, transaction } = await openTestDatabase()
    const one = domainList(['barley.example', 'docs.barley.example', 'rye.example'])
    const two = domainList(['barley.example'])
    await transaction((tx) => addDomainList(tx, one))
    await transaction((tx) => addDomainList(tx, two))
    const ask = async (root: Uint8Array, host: string) =>
      (await findListed(db, [{ root, host }]))[0]?.name ?? null
    expect(await ask(one.root, 'barley.example')).toBe('barley.example')
    expect(await ask(one.root, 'www.barley.example')).toBe('barley.example')
    expect(await ask(one.root, 'docs.barley.example')).toBe('docs.barley.example')
    expect(await ask(one.root, 'a.docs.barley.example')).toBe('docs.barley.example')
    expect(await ask(two.root, 'a.docs.barley.example')).toBe('barley.example')
    expect(await ask(two.root, 'rye.example')).toBeNull()
    expect(await ask(one.root, 'evilbarley.example')).toBeNull()
    expect(await ask(one.root, 'barley.example.evil.example')).toBeNull()
    expect(await ask(one.root, 'example')).toBeNull()
    expect(await ask(new Uint8Array(32), 'barley.example')).toBeNull()
  })

  test('answers stand in the order of the questions', async () => {
    const { pool: db, transaction } = await openTestDatabase()
    const list = domainList(numbered(300))
    await transaction((tx) => addDomainList(tx, list))
    const ask = (hosts: readonly string[]) =>
      domainProofs(
        db,
        hosts.map((host) => ({ root: list.root, size: 300, host })),
      )
    const hosts = ['x.example', 'd000299.example', 'd000007.example', 'd000299.example']
    const proofs = await ask(hosts)
    expect(proofs.map((proof) => proof?.name ?? null)).toEqual([null, ...hosts.slice(1)])
    expect(await ask([])).toEqual([])
  })
})
