import type { Observation } from '../../lib/protocol/observation.ts'
import type { ProblemReason } from '../../lib/protocol/problem.ts'
import { freeHosts, type HostAnswer } from './hosts.ts'
import type { Queryable } from './queryable.ts'

/** An observation whose schema and signature are already checked. */
export interface SignedObservation {
  leaseId: Uint8Array
  statement: string
  key: Uint8Array
  signature: Uint8Array
  observation: Observation
}

export type Accepted = { ok: true } | { ok: false; reason: ProblemReason }

/**
 * Records observations of one node, in the caller's transaction. An answer
 * stands beside each item: one that is refused changes nothing, for itself or
 * for the others. The same statement again answers as it did the first time.
 */
export async function acceptObservations(
  tx: Queryable,
  nodeId: Uint8Array,
  items: readonly SignedObservation[],
): Promise<Accepted[]> {
  const { rows } = await tx.query<{
    id: Buffer
    node_id: Buffer
    state: string
    late: boolean
    task_id: number
    host_id: number
    issued_at: Date
  }>(
    `select id, node_id, state, expires_at < now() as late, task_id, host_id, issued_at
     from lease where id = any($1::bytea[]) order by id for update`,
    [items.map((item) => item.leaseId)],
  )
  const earlier = await tx.query<{ lease_id: Buffer; statement: string; key: Buffer }>(
    `select lease_id, statement, key from observation
     where lease_id = any($1::bytea[]) or key = any($2::bytea[])`,
    [items.map((item) => item.leaseId), items.map((item) => item.key)],
  )
  const leases = new Map(rows.map((row) => [row.id.toString('hex'), row]))
  const seen = new Map(earlier.rows.map((row) => [row.lease_id.toString('hex'), row.statement]))
  const keys = new Map(
    earlier.rows.map((row) => [row.key.toString('hex'), row.lease_id.toString('hex')]),
  )
  const fresh: { item: SignedObservation; taskId: number; answer: HostAnswer }[] = []
  const answers = items.map((item): Accepted => {
    const id = Buffer.from(item.leaseId).toString('hex')
    const key = Buffer.from(item.key).toString('hex')
    const lease = leases.get(id)
    if (!lease) return { ok: false, reason: 'unknown-lease' }
    if (!lease.node_id.equals(nodeId)) return { ok: false, reason: 'not-your-lease' }
    const before = seen.get(id)
    if (before !== undefined) {
      return before === item.statement ? { ok: true } : { ok: false, reason: 'lease-used' }
    }
    if (lease.state !== 'live' || lease.late) return { ok: false, reason: 'lease-expired' }
    if (keys.has(key)) return { ok: false, reason: 'key-reused' }
    seen.set(id, item.statement)
    keys.set(key, id)
    fresh.push({
      item,
      taskId: lease.task_id,
      answer: hostAnswer(item.observation, lease.host_id, lease.issued_at),
    })
    return { ok: true }
  })
  if (fresh.length > 0) {
    await tx.query(
      `insert into observation (lease_id, task_id, statement, key, signature, payload_digest)
       select * from unnest($1::bytea[], $2::bigint[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[])`,
      [
        fresh.map(({ item }) => item.leaseId),
        fresh.map(({ taskId }) => taskId),
        fresh.map(({ item }) => item.statement),
        fresh.map(({ item }) => item.key),
        fresh.map(({ item }) => item.signature),
        fresh.map(({ item }) =>
          item.observation.outcome === 'fetched'
            ? Buffer.from(item.observation.payload.digest, 'base64url')
            : null,
        ),
      ],
    )
    await tx.query(`update lease set state = 'answered' where id = any($1::bytea[])`, [
      fresh.map(({ item }) => item.leaseId),
    ])
    await markNews(
      tx,
      fresh.map(({ taskId }) => taskId),
    )
    await freeHosts(
      tx,
      fresh.map(({ answer }) => answer),
    )
  }
  return answers
}

/** What an observation tells about the host that was asked. */
function hostAnswer(seen: Observation, hostId: number, leasedAt: Date): HostAnswer {
  const { totalMs } = seen
  if (seen.outcome === 'failed') {
    const [hops, firstByteMs] = [0, null]
    const kind = 'answered' as const
    return {
      hostId,
      kind,
      status: 'failed',
      totalMs,
      firstByteMs,
      hops,
      retryAfter: undefined,
      leasedAt,
    }
  }
  return {
    hostId,
    kind: 'answered',
    status: seen.status,
    totalMs,
    // With redirects it is the time of several requests.
    firstByteMs: seen.hops.length === 0 ? seen.firstByteMs : null,
    hops: seen.hops.length,
    retryAfter: seen.headers['retry-after'],
    leasedAt,
  }
}

/** A fact arrived for these tasks: the verify stage looks at them again. */
export async function markNews(tx: Queryable, taskIds: readonly number[]) {
  await tx.query(
    `update task set news = true where id in (
       select id from task where id = any($1::bigint[]) and state <> 'closed'
       order by id for no key update)`,
    [taskIds],
  )
}

export interface AskedFollowUp {
  id: Buffer
  leaseId: Buffer
  taskId: number
  kind: 'sentences' | 'payload' | 'attest'
  request: unknown
  statement: string
  key: Buffer
  nonce: Buffer
  campaign: Buffer
}

/** The question behind a follow-up, if it is this node's and still open. */
export async function askedFollowUps(
  tx: Queryable,
  nodeId: Uint8Array,
  ids: readonly Uint8Array[],
): Promise<AskedFollowUp[]> {
  const { rows } = await tx.query<{
    id: Buffer
    lease_id: Buffer
    task_id: number
    kind: AskedFollowUp['kind']
    request: unknown
    statement: string
    key: Buffer
    nonce: Buffer
    campaign: Buffer
  }>(
    `select f.id, f.lease_id, f.task_id, f.kind, f.request, o.statement, o.key, l.nonce, t.campaign
     from follow_up f join observation o on o.lease_id = f.lease_id
     join lease l on l.id = f.lease_id join task t on t.id = f.task_id
     where f.id = any($1::bytea[]) and f.node_id = $2 and f.state = 'asked'
     order by f.id for update of f`,
    [ids, nodeId],
  )
  return rows.map(({ lease_id, task_id, ...row }) => ({
    ...row,
    leaseId: lease_id,
    taskId: task_id,
  }))
}

export async function openFollowUps(
  db: Queryable,
  nodeId: Uint8Array,
): Promise<{ id: Buffer; leaseId: Buffer; kind: string; request: unknown; validForMs: number }[]> {
  const { rows } = await db.query<{
    id: Buffer
    lease_id: Buffer
    kind: string
    request: unknown
    valid_ms: number
  }>(
    `select id, lease_id, kind, request,
            (extract(epoch from expires_at - now()) * 1000)::int8 as valid_ms
     from follow_up where node_id = $1 and state = 'asked' and expires_at > now()
     order by asked_at limit 64`,
    [nodeId],
  )
  return rows.map((row) => ({
    id: row.id,
    leaseId: row.lease_id,
    kind: row.kind,
    request: row.request,
    validForMs: row.valid_ms,
  }))
}

/** Leases of a node whose task was closed in the last 15 minutes: their bodies may go. */
export async function releasedLeases(db: Queryable, nodeId: Uint8Array): Promise<Buffer[]> {
  const { rows } = await db.query<{ lease_id: Buffer }>(
    `select lease_id from outcome where node_id = $1 and at > now() - interval '15 minutes'
     order by sequence desc limit 1000`,
    [nodeId],
  )
  return rows.map((row) => row.lease_id)
}

async function answered(tx: Queryable, ids: readonly Uint8Array[], taskIds: readonly number[]) {
  await tx.query(`update follow_up set state = 'answered' where id = any($1::bytea[])`, [ids])
  await markNews(tx, taskIds)
}

export async function putSentenceList(tx: Queryable, asked: AskedFollowUp, list: Uint8Array) {
  await tx.query(
    'insert into sentence_list (lease_id, list) values ($1, $2) on conflict do nothing',
    [asked.leaseId, list],
  )
  await answered(tx, [asked.id], [asked.taskId])
}

export async function putPayload(
  tx: Queryable,
  asked: AskedFollowUp,
  payload: { digest: Uint8Array; bytes: number; blob: string },
) {
  await tx.query(
    'insert into payload (lease_id, digest, bytes, blob) values ($1, $2, $3, $4) on conflict do nothing',
    [asked.leaseId, payload.digest, payload.bytes, payload.blob],
  )
  await answered(tx, [asked.id], [asked.taskId])
}

export async function putAttestations(
  tx: Queryable,
  given: readonly {
    asked: AskedFollowUp
    textDigest: Uint8Array
    gaps: number
    envelope: unknown
  }[],
) {
  if (given.length === 0) return
  await tx.query(
    `insert into attestation (lease_id, text_digest, task_id, gaps, envelope)
     select * from unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::int[], $5::jsonb[])
     on conflict do nothing`,
    [
      given.map((one) => one.asked.leaseId),
      given.map((one) => one.textDigest),
      given.map((one) => one.asked.taskId),
      given.map((one) => one.gaps),
      given.map((one) => JSON.stringify(one.envelope)),
    ],
  )
  await answered(
    tx,
    given.map((one) => one.asked.id),
    given.map((one) => one.asked.taskId),
  )
}

export async function refuseFollowUps(
  tx: Queryable,
  nodeId: Uint8Array,
  refused: readonly { id: Uint8Array; reason: string }[],
) {
  const { rows } = await tx.query<{ task_id: number }>(
    `update follow_up f set state = 'refused', reason = r.reason
     from unnest($1::bytea[], $2::text[]) as r (id, reason)
     where f.id = r.id and f.node_id = $3 and f.state = 'asked' returning f.task_id`,
    [refused.map((one) => one.id), refused.map((one) => one.reason), nodeId],
  )
  await markNews(
    tx,
    rows.map((row) => row.task_id),
  )
}

/** Follow-ups that nobody answered: the verify stage turns to somebody else. */
export async function expireFollowUps(tx: Queryable, limit: number): Promise<number> {
  const { rows } = await tx.query<{ task_id: number }>(
    `update follow_up set state = 'expired', reason = 'not answered in time' where id in (
       select id from follow_up where state = 'asked' and expires_at < now()
       order by expires_at limit $1 for update skip locked)
     returning task_id`,
    [limit],
  )
  await markNews(
    tx,
    rows.map((row) => row.task_id),
  )
  return rows.length
}
