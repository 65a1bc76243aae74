import type { EnvelopeMessage } from '../../lib/protocol/fields.ts'
import { observation } from '../../lib/protocol/observation.ts'
import type { BlobRef } from './blob-store.ts'
import type { Queryable } from './queryable.ts'

/** A record as a release needs it. Bodies are fetched by their refs, one at a time. */
export interface ReleasedRecord {
  id: number
  rowJson: string
  salt: Buffer
  leafIndex: number
  textBlob: BlobRef
  duplicate: boolean
  attestations: EnvelopeMessage[]
  payloadBlob: BlobRef | null
  /** Response headers on which all observers with this payload agree. */
  headers: [string, string][]
}

/**
 * Records of a campaign that the log committed to, in log order, from after `after`. Without those
 * that were removed, and without those whose text stands only with a removed one: a duplicate's row
 * is committed as a duplicate, and has no text of its own to show.
 */
export async function recordsAfter(
  db: Queryable,
  campaign: Uint8Array,
  after: number,
  limit: number,
): Promise<ReleasedRecord[]> {
  const { rows } = await db.query<{
    id: number
    row_json: string
    salt: Buffer
    leaf_index: number
    text_blob: BlobRef
    duplicate: boolean
    attestations: EnvelopeMessage[]
    payload_blob: BlobRef | null
    statements: string[] | null
  }>(
    `select r.id, r.row_json, r.salt, r.leaf_index, r.text_blob, r.duplicate_of is not null as duplicate,
            p.blob as payload_blob,
            (select array_agg(o.statement) from observation o
              where o.task_id = r.task_id and o.payload_digest = p.digest) as statements,
            (select jsonb_agg(a.envelope order by a.lease_id) from attestation a
              where a.task_id = r.task_id and a.text_digest = r.text_digest) as attestations
     from record r
     left join payload p on p.lease_id = r.payload_lease
     where r.campaign = $1 and r.leaf_index > $2 and r.removed_by is null
       and not exists (
         select 1 from record first where first.id = r.duplicate_of and first.removed_by is not null)
     order by r.leaf_index limit $3`,
    [campaign, after, limit],
  )
  return rows.map((row) => ({
    id: row.id,
    rowJson: row.row_json,
    salt: row.salt,
    leafIndex: row.leaf_index,
    textBlob: row.text_blob,
    duplicate: row.duplicate,
    attestations: row.attestations,
    payloadBlob: row.payload_blob,
    headers: commonHeaders(row.statements ?? []),
  }))
}

function commonHeaders(statements: readonly string[]): [string, string][] {
  const [first, ...others] = statements.map((statement) => {
    const seen = observation.parse(JSON.parse(statement))
    if (seen.outcome !== 'fetched') return []
    const type = seen.charset === null ? seen.type : `${seen.type}; charset=${seen.charset}`
    return [['content-type', type] as [string, string], ...Object.entries(seen.headers)]
  })
  return (first ?? []).filter(([name, value]) =>
    others.every((headers) => headers.some((one) => one[0] === name && one[1] === value)),
  )
}

export async function addRelease(
  tx: Queryable,
  release: {
    name: string
    campaign: Uint8Array
    folder: string
    rows: number
    duplicates: number
    sums: Uint8Array
    leafIndex: number
  },
) {
  await tx.query(
    `insert into release (name, campaign, folder, rows, duplicates, sums, leaf_index)
     values ($1, $2, $3, $4, $5, $6, $7)`,
    [
      release.name,
      release.campaign,
      release.folder,
      release.rows,
      release.duplicates,
      release.sums,
      release.leafIndex,
    ],
  )
}

export async function releaseNamed(
  db: Queryable,
  name: string,
): Promise<{
  name: string
  folder: string
  rows: number
  duplicates: number
  leafIndex: number
} | null> {
  const { rows } = await db.query<{
    name: string
    folder: string
    rows: number
    duplicates: number
    leaf_index: number
  }>('select name, folder, rows, duplicates, leaf_index from release where name = $1', [name])
  const [row] = rows
  if (!row) return null
  const { leaf_index, ...rest } = row
  return { ...rest, leafIndex: leaf_index }
}
