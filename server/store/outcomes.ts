import type { Outcome } from '../../lib/protocol/outcome.ts'
import type { Queryable } from './queryable.ts'

export interface NewOutcome {
  leaseId: Uint8Array
  verdict: Outcome['verdict']
  grade: Outcome['grade']
  duplicate: boolean
  points: number
}

export async function addOutcomes(tx: Queryable, outcomes: readonly NewOutcome[]) {
  if (outcomes.length === 0) return
  await tx.query(
    `insert into outcome (lease_id, node_id, verdict, grade, duplicate, points)
     select l.id, l.node_id, o.verdict, o.grade, o.duplicate, o.points
     from unnest($1::bytea[], $2::text[], $3::text[], $4::boolean[], $5::bigint[])
       as o (lease_id, verdict, grade, duplicate, points)
     join lease l on l.id = o.lease_id
     on conflict (lease_id) do nothing`,
    [
      outcomes.map((one) => one.leaseId),
      outcomes.map((one) => one.verdict),
      outcomes.map((one) => one.grade),
      outcomes.map((one) => one.duplicate),
      outcomes.map((one) => one.points),
    ],
  )
}

export async function outcomesAfter(
  db: Queryable,
  nodeId: Uint8Array,
  after: number,
): Promise<Outcome[]> {
  const { rows } = await db.query<Omit<Outcome, 'lease'> & { lease_id: Buffer }>(
    `select sequence, lease_id, verdict, grade, duplicate, points from outcome
     where node_id = $1 and sequence > $2 order by sequence limit 500`,
    [nodeId, after],
  )
  return rows.map(({ lease_id, ...row }) => ({ ...row, lease: lease_id.toString('base64url') }))
}
