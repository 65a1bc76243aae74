import { randomBytes } from 'node:crypto'
import { sha256 } from '../../lib/crypto/digest.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import type { Ask } from '../verify/decide.ts'
import { contestedPriority, markReady } from './leases.ts'
import type { Queryable } from './queryable.ts'

/**
 * One more observer than have a lease now: back to the frontier. False when its first observers are
 * still on their way, so that nobody needs to hear of it.
 */
export async function wantAnotherObserver(tx: Queryable, taskId: number): Promise<boolean> {
  const { rows } = await tx.query<{ campaign: Buffer; host_id: number }>(
    `update task set state = 'open', wanted = greatest(wanted, granted + 1),
            priority = case when priority < $2 and kind = 'page' then priority + $2 else priority end
     where id = $1 and state <> 'closed' and (state <> 'open' or wanted <= granted)
     returning campaign, host_id`,
    [taskId, contestedPriority],
  )
  await markReady(
    tx,
    rows.map((row) => ({ campaign: row.campaign, hostId: row.host_id })),
  )
  return rows.length === 1
}

/** Writes the questions down; asking the same again changes nothing. Returns the nodes to ring. */
export async function askFollowUps(
  tx: Queryable,
  taskId: number,
  asks: readonly Ask[],
  day: string,
  validForMs: number,
): Promise<string[]> {
  const rows = asks.map((ask) => {
    const request =
      ask.kind === 'attest'
        ? {
            url: ask.url,
            day,
            indexes: ask.indexes,
            exact: ask.exact,
            text: ask.text,
            payload: ask.payload,
          }
        : {}
    return {
      id: randomBytes(16),
      lease: Buffer.from(ask.lease, 'base64url'),
      kind: ask.kind,
      request: JSON.stringify(request),
      ask: sha256(`${ask.kind}\n${canonicalJson(request)}`),
    }
  })
  const { rows: asked } = await tx.query<{ node: string }>(
    `with written as (
       insert into follow_up (id, lease_id, task_id, node_id, kind, request, ask, state, expires_at)
       select f.id, f.lease_id, $1, l.node_id, f.kind, f.request::jsonb, f.ask, 'asked',
              now() + $2 * interval '1 millisecond'
       from unnest($3::bytea[], $4::bytea[], $5::text[], $6::text[], $7::bytea[])
         as f (id, lease_id, kind, request, ask)
       join lease l on l.id = f.lease_id
       -- The conflict alone would wait for whoever answers it now, and they wait for this task.
       where not exists (
         select 1 from follow_up known where known.lease_id = f.lease_id and known.ask = f.ask)
       on conflict (lease_id, ask) do nothing returning node_id)
     select distinct encode(node_id, 'hex') as node from written`,
    [
      taskId,
      validForMs,
      rows.map((row) => row.id),
      rows.map((row) => row.lease),
      rows.map((row) => row.kind),
      rows.map((row) => row.request),
      rows.map((row) => row.ask),
    ],
  )
  return asked.map((row) => row.node)
}

/** Nothing changes a closed task any more; questions still open are withdrawn. */
export async function closeTask(
  tx: Queryable,
  taskId: number,
  verdict: string,
  reason: string | null,
) {
  await tx.query(
    `update task set state = 'closed', news = false, verdict = $2, reason = $3, closed_at = now()
     where id = $1`,
    [taskId, verdict, reason],
  )
  await tx.query(
    // Whoever answers one now holds it and waits for this task: the answer changes nothing any more.
    `update follow_up set state = 'expired', reason = 'the task is closed' where id in (
       select id from follow_up where task_id = $1 and state = 'asked' for update skip locked)`,
    [taskId],
  )
}

/** Node and account of each answered lease of a task. */
export async function answeredLeases(
  tx: Queryable,
  taskId: number,
): Promise<{ lease: string; leaseId: Buffer; node: string; accountId: Buffer }[]> {
  const { rows } = await tx.query<{ id: Buffer; node: string; account_id: Buffer }>(
    `select id, encode(node_id, 'hex') as node, account_id from lease
     where task_id = $1 and state = 'answered' order by issued_at, id`,
    [taskId],
  )
  return rows.map((row) => ({
    lease: row.id.toString('base64url'),
    leaseId: row.id,
    node: row.node,
    accountId: row.account_id,
  }))
}

/** Whether the campaign has a record of this text, or of these bytes where there is no text. */
export async function hasText(
  tx: Queryable,
  campaign: Uint8Array,
  textDigest: Uint8Array,
): Promise<boolean> {
  const { rows } = await tx.query(
    'select 1 from document where campaign = $1 and text_digest = $2 for update',
    [campaign, textDigest],
  )
  return rows.length === 1
}

/**
 * How many other addresses of the task's host have a record of this text under
 * this title; 21 stands for more. Pages of a manual may share a notice for all
 * their text, and still be pages: their titles tell.
 */
export async function sameTexts(
  tx: Queryable,
  task: { campaign: Uint8Array; hostId: number; urlDigest: Uint8Array },
  { textDigest, title }: { textDigest: Uint8Array; title: string | null },
): Promise<number> {
  const { rows } = await tx.query<{ n: number }>(
    `select count(*) as n from (
       select distinct t.url_digest from record r join task t on t.id = r.task_id
       where r.campaign = $1 and r.text_digest = $2 and t.host_id = $3 and t.url_digest <> $4
         and r.row_json::jsonb->>'title' is not distinct from $5
       limit 21) as others`,
    [task.campaign, textDigest, task.hostId, task.urlDigest, title],
  )
  return rows[0]?.n ?? 0
}

export async function addRecord(
  tx: Queryable,
  record: {
    taskId: number
    campaign: Uint8Array
    rowJson: string
    salt: Uint8Array
    textDigest: Uint8Array
    /** What it is compared by with other records: of its text, or of its bytes. */
    identity: Uint8Array
    textBlob: string
    duplicate: boolean
    payloadLease: Uint8Array | null
  },
) {
  const { rows } = await tx.query<{ id: number }>(
    `insert into record (task_id, campaign, row_json, salt, text_digest, text_blob, payload_lease, duplicate_of)
     values ($1, $2, $3, $4, $5, $6, $7,
             case when $8 then (select record_id from document where campaign = $2 and text_digest = $9) end)
     returning id`,
    [
      record.taskId,
      record.campaign,
      record.rowJson,
      record.salt,
      record.textDigest,
      record.textBlob,
      record.payloadLease,
      record.duplicate,
      record.identity,
    ],
  )
  if (record.duplicate) return
  await tx.query('insert into document (campaign, text_digest, record_id) values ($1, $2, $3)', [
    record.campaign,
    record.identity,
    rows[0]?.id,
  ])
}

/** Records that the log has not committed to yet, oldest first, locked. */
export async function unloggedRecords(
  tx: Queryable,
  limit: number,
): Promise<{ id: number; rowJson: string; salt: Buffer }[]> {
  const { rows } = await tx.query<{ id: number; row_json: string; salt: Buffer }>(
    `select id, row_json, salt from record where leaf_index is null
     order by id limit $1 for update skip locked`,
    [limit],
  )
  return rows.map((row) => ({ id: row.id, rowJson: row.row_json, salt: row.salt }))
}

export async function setLeafIndexes(tx: Queryable, ids: readonly number[], first: number) {
  await tx.query(
    `update record set leaf_index = $2 + r.n - 1
     from unnest($1::bigint[]) with ordinality as r (id, n) where record.id = r.id`,
    [ids, first],
  )
}
