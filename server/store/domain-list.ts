import { toBase64Url } from '../../lib/crypto/base64.ts'
import { concatBytes, digestBytes } from '../../lib/crypto/digest.ts'
import type { Lease } from '../../lib/protocol/lease.ts'
import {
  inclusionFromNodes,
  nodesForInclusion,
  type PerfectNode,
} from '../../lib/tlog/stored-tree.ts'
import { type DomainList, listableNames } from '../frontier/domain-list.ts'
import type { Queryable } from './queryable.ts'

/** A host, and the list of its campaign. */
export interface WantedDomain {
  root: Uint8Array
  host: string
}

/** Domains a statement, some 600 kB: well below the statement timeout on a slow disk. */
const DOMAINS_A_STATEMENT = 20_000
/** Hashes of one level of the tree in a row; a row of 8 kB is read in slices. */
const ROW_HASHES = 256
const ROW_BYTES = ROW_HASHES * digestBytes
/** Two megabytes of hashes. */
const ROWS_A_STATEMENT = 256

/**
 * Stores a list with its tree; the tables hold it whole or not at all. False when it was there:
 * a list is named by its root, so that one is the same.
 */
export async function addDomainList(tx: Queryable, list: DomainList): Promise<boolean> {
  const { root, domains, levels } = list
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
  for (const [level, hashes] of levels.entries()) {
    for (let first = 0; first * ROW_BYTES < hashes.length; first += ROWS_A_STATEMENT) {
      const rows = hashes.subarray(first * ROW_BYTES, (first + ROWS_A_STATEMENT) * ROW_BYTES)
      const parts = Array.from({ length: Math.ceil(rows.length / ROW_BYTES) }, (_, at) =>
        rows.subarray(at * ROW_BYTES, (at + 1) * ROW_BYTES),
      )
      await tx.query(
        `insert into domain_tile (root, level, index, hashes)
         select $1, $2, $3::int + t.n - 1, t.hashes
         from unnest($4::bytea[]) with ordinality as t (hashes, n)`,
        [root, level, first, parts],
      )
    }
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
 * a host that is not on the list. Two statements for all of them.
 *
 * @param wanted size of the list, as the manifest and `domainListSize` say it
 */
export async function domainProofs(
  db: Queryable,
  wanted: readonly (WantedDomain & { size: number })[],
): Promise<(NonNullable<Lease['domain']> | null)[]> {
  const listed = await findListed(db, wanted)
  const known = wanted.flatMap(({ root, size }, at) => {
    const place = listed[at]
    return place ? [{ at, place, root, size, list: toBase64Url(root) }] : []
  })
  const hash = await readNodes(
    db,
    known.flatMap(({ root, size, place, list }) =>
      nodesForInclusion(place.index, size).map((node) => ({ root, list, ...node })),
    ),
  )
  const proofs: (NonNullable<Lease['domain']> | null)[] = wanted.map(() => null)
  for (const { at, place, size, list } of known) {
    const proof = inclusionFromNodes(place.index, size, (node) => hash({ list, ...node }))
    proofs[at] = { ...place, proof: toBase64Url(concatBytes(...proof)) }
  }
  return proofs
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

/** A node of one list, which its root names. */
type ListNode = PerfectNode & { list: string }

/** Reads these nodes' hashes, each once. */
async function readNodes(
  db: Queryable,
  wanted: readonly (ListNode & { root: Uint8Array })[],
): Promise<(node: ListNode) => Uint8Array> {
  const hashes = new Map<string, Uint8Array>()
  const keyOf = ({ list, level, index }: ListNode) => `${list}/${level}/${index}`
  const nodes = [...new Map(wanted.map((node) => [keyOf(node), node])).values()]
  if (nodes.length > 0) {
    const { rows } = await db.query<{ at: number; hash: Buffer }>(
      `select w.n::int - 1 as at, substring(t.hashes from w.first for ${digestBytes}) as hash
       from unnest($1::bytea[], $2::int[], $3::int[], $4::int[])
              with ordinality as w (root, level, index, first, n)
       join domain_tile t on t.root = w.root and t.level = w.level and t.index = w.index`,
      [
        nodes.map(({ root }) => root),
        nodes.map(({ level }) => level),
        nodes.map(({ index }) => Math.floor(index / ROW_HASHES)),
        // SQL counts from 1.
        nodes.map(({ index }) => (index % ROW_HASHES) * digestBytes + 1),
      ],
    )
    for (const { at, hash } of rows) hashes.set(keyOf(nodes[at] as ListNode), hash)
  }
  return (node) => {
    const hash = hashes.get(keyOf(node))
    // Stored whole or not at all, so a list that lacks one was damaged.
    if (hash?.length !== digestBytes) {
      throw new Error(`the stored list ${keyOf(node)} lacks a hash of its tree`)
    }
    return hash
  }
}
