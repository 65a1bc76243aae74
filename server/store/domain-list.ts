import { toBase64Url } from '../../lib/crypto/base64.ts'
import { concatBytes } from '../../lib/crypto/digest.ts'
import type { Lease } from '../../lib/protocol/lease.ts'
import { decodeTile, encodeTile } from '../../lib/tlog/tile.ts'
import {
  inclusionFromTiles,
  type TileAddress,
  tilesForInclusion,
} from '../../lib/tlog/tile-proof.ts'
import { type DomainList, listableNames } from '../frontier/domain-list.ts'
import type { Queryable } from './queryable.ts'

/** A host, and the list of its campaign. */
export interface WantedDomain {
  root: Uint8Array
  host: string
}

/** Domains a statement, some 600 kB: well below the statement timeout on a slow disk. */
const DOMAINS_A_STATEMENT = 20_000
/** Two megabytes of hashes. */
const TILES_A_STATEMENT = 256

/**
 * Stores a list with its tree; the tables hold it whole or not at all. False when it was there:
 * a list is named by its root, so that one is the same.
 */
export async function addDomainList(tx: Queryable, list: DomainList): Promise<boolean> {
  const { root, domains, tiles } = list
  const { rows } = await tx.query(
    'insert into domain_list (root, size) values ($1, $2) on conflict do nothing returning root',
    [root, domains.length],
  )
  if (rows.length === 0) return false
  for (let first = 0; first < domains.length; first += DOMAINS_A_STATEMENT) {
    await tx.query(
      `insert into listed_domain (root, name, index)
       select $1, d.name, $2::int + d.n - 1 from unnest($3::text[]) with ordinality as d (name, n)`,
      [root, first, domains.slice(first, first + DOMAINS_A_STATEMENT)],
    )
  }
  for (let first = 0; first < tiles.length; first += TILES_A_STATEMENT) {
    const some = tiles.slice(first, first + TILES_A_STATEMENT)
    await tx.query(
      `insert into domain_tile (root, level, index, hashes)
       select $1, t.level, t.index, t.hashes
       from unnest($2::int[], $3::int[], $4::bytea[]) as t (level, index, hashes)`,
      [
        root,
        some.map(({ level }) => level),
        some.map(({ index }) => index),
        some.map(({ hashes }) => encodeTile(hashes)),
      ],
    )
  }
  return true
}

/** Domains on the stored list of this root; null when there is none. */
export async function domainListSize(db: Queryable, root: Uint8Array): Promise<number | null> {
  const { rows } = await db.query<{ size: number }>(
    'select size from domain_list where root = $1',
    [root],
  )
  return rows[0]?.size ?? null
}

/**
 * The longest listed name that each host is or lies below, with its place on the list; null where
 * there is none. One statement for all of them; the answers stand in the order of the questions.
 */
export async function findListed(
  db: Queryable,
  wanted: readonly WantedDomain[],
): Promise<({ name: string; index: number } | null)[]> {
  const found: ({ name: string; index: number } | null)[] = wanted.map(() => null)
  const asked = wanted.flatMap(({ root, host }, at) =>
    listableNames(host).map((name) => ({ root, name, at })),
  )
  if (asked.length === 0) return found
  const { rows } = await db.query<{ at: number; name: string; index: number }>(
    `select distinct on (w.at) w.at, d.name, d.index
     from unnest($1::bytea[], $2::text[], $3::int[]) as w (root, name, at)
     join listed_domain d on d.root = w.root and d.name = w.name
     order by w.at, length(d.name) desc`,
    [asked.map(({ root }) => root), asked.map(({ name }) => name), asked.map(({ at }) => at)],
  )
  for (const { at, name, index } of rows) found[at] = { name, index }
  return found
}

/**
 * What each lease of a wide campaign carries as `domain`: the listed name and its proof; null for
 * a host that is not on the list. Two statements for all of them, and none for what this process
 * proved lately.
 */
export async function domainProofs(
  db: Queryable,
  wanted: readonly (WantedDomain & { size: number })[],
): Promise<(NonNullable<Lease['domain']> | null)[]> {
  const keys = wanted.map(({ root, host }) => `${toBase64Url(root)}/${host}`)
  const answers = new Map(keys.map((key) => [key, lately.get(key) ?? null]))
  const unproven = new Map(
    wanted.flatMap((one, at) => {
      const key = keys[at] as string
      return answers.get(key) ? [] : [[key, { ...one, key }] as const]
    }),
  )
  const asked = [...unproven.values()]
  const listed = await findListed(db, asked)
  const known = asked.flatMap((one, at) => {
    const place = listed[at]
    return place ? [{ ...one, place }] : []
  })
  const tiles = await readTiles(
    db,
    known.flatMap(({ root, size, place }) =>
      tilesForInclusion(place.index, size).map((address) => ({ root, ...address })),
    ),
  )
  for (const { key, root, size, place } of known) {
    const proof = inclusionFromTiles(
      place.index,
      size,
      (address) => tiles.get(tileKey(root, address)) ?? [],
    )
    const proven = { ...place, proof: toBase64Url(concatBytes(...proof)) }
    answers.set(key, proven)
    remember(key, proven)
  }
  return keys.map((key) => answers.get(key) ?? null)
}

/** A page of the list in its order, from the name after `after` on; empty past the end. */
export async function listedDomains(
  db: Queryable,
  root: Uint8Array,
  after: string,
  limit: number,
): Promise<string[]> {
  const { rows } = await db.query<{ name: string }>(
    `select name from listed_domain where root = $1 and name collate "C" > $2
     order by name collate "C" limit $3`,
    [root, after, limit],
  )
  return rows.map(({ name }) => name)
}

async function readTiles(
  db: Queryable,
  wanted: readonly (TileAddress & { root: Uint8Array })[],
): Promise<Map<string, readonly Uint8Array[]>> {
  const once = new Map(wanted.map((one) => [tileKey(one.root, one), one]))
  const tiles = [...once.values()]
  if (tiles.length === 0) return new Map()
  const { rows } = await db.query<TileAddress & { root: Buffer; hashes: Buffer }>(
    `select root, level, index, hashes from domain_tile
     join unnest($1::bytea[], $2::int[], $3::int[]) as w (root, level, index)
       using (root, level, index)`,
    [
      tiles.map(({ root }) => root),
      tiles.map(({ level }) => level),
      tiles.map(({ index }) => index),
    ],
  )
  return new Map(rows.map((row) => [tileKey(row.root, row), decodeTile(row.hashes) ?? []]))
}

function tileKey(root: Uint8Array, { level, index }: TileAddress): string {
  return `${toBase64Url(root)}/${level}/${index}`
}

/**
 * Proofs made lately, by root and host. A proof never changes, so nothing here can be stale; it
 * spares some 200 hashes a lease. About a kilobyte each.
 */
const lately = new Map<string, NonNullable<Lease['domain']>>()
const MOST_REMEMBERED = 10_000

function remember(key: string, proven: NonNullable<Lease['domain']>) {
  const [oldest] = lately.keys()
  if (lately.size >= MOST_REMEMBERED && oldest !== undefined) lately.delete(oldest)
  lately.set(key, proven)
}
