import type { Queryable } from './queryable.ts'

/** A session as every authenticated call sees it. */
export interface SessionOfNode {
  nodeId: Buffer
  accountId: Buffer
  publicKey: Buffer
  block: string
}

export async function addChallenge(db: Queryable, id: Uint8Array, validForMs: number) {
  await db.query(
    `with gone as (delete from challenge where expires_at < now())
     insert into challenge (id, expires_at) values ($1, now() + $2 * interval '1 millisecond')`,
    [id, validForMs],
  )
}

/** True once for each challenge that has not expired. */
export async function takeChallenge(db: Queryable, id: Uint8Array): Promise<boolean> {
  const taken = await db.query(
    'delete from challenge where id = $1 and expires_at >= now() returning id',
    [id],
  )
  return taken.rows.length === 1
}

/** Registers the node on first sight, notes its block, and opens a session. One statement. */
export async function openSession(
  db: Queryable,
  opened: {
    tokenDigest: Uint8Array
    nodeId: Uint8Array
    accountId: Uint8Array
    publicKey: Uint8Array
    client: string
    block: string
    blockWide: string
    validForMs: number
  },
) {
  await db.query(
    `insert into node (id, account_id, public_key, client) values ($1, $2, $3, $4)
     on conflict (id) do update set client = excluded.client, seen_at = now()`,
    [opened.nodeId, opened.accountId, opened.publicKey, opened.client],
  )
  await db.query(
    `insert into node_block (node_id, block, block_wide) values ($1, $2, $3) on conflict do nothing`,
    [opened.nodeId, opened.block, opened.blockWide],
  )
  await db.query(
    `insert into session (token_digest, node_id, block, expires_at)
     values ($1, $2, $3, now() + $4 * interval '1 millisecond')`,
    [opened.tokenDigest, opened.nodeId, opened.block, opened.validForMs],
  )
}

/** The session of a token, or null. Notes that the node is there, and a block it was not seen from. */
export async function useSession(
  db: Queryable,
  tokenDigest: Uint8Array,
  block: string,
  blockWide: string,
): Promise<SessionOfNode | null> {
  const { rows } = await db.query<{
    id: Buffer
    account_id: Buffer
    public_key: Buffer
    block: string
    stale: boolean
  }>(
    `select n.id, n.account_id, n.public_key, s.block, n.seen_at < now() - interval '15 seconds' as stale
     from session s join node n on n.id = s.node_id
     where s.token_digest = $1 and s.expires_at > now()`,
    [tokenDigest],
  )
  const found = rows[0]
  if (!found) return null
  if (found.block !== block) {
    await db.query(
      `with moved as (update session set block = $3 where token_digest = $1)
       insert into node_block (node_id, block, block_wide) values ($2, $3, $4) on conflict do nothing`,
      [tokenDigest, found.id, block, blockWide],
    )
  }
  if (found.stale) await db.query('update node set seen_at = now() where id = $1', [found.id])
  return {
    nodeId: found.id,
    accountId: found.account_id,
    publicKey: found.public_key,
    block,
  }
}

export async function deleteExpiredSessions(db: Queryable) {
  await db.query('delete from session where expires_at < now()')
}

/** Stores the choice. Withdrawal gives back the node's live leases of the campaign. */
export async function putConsent(
  db: Queryable,
  given: {
    nodeId: Uint8Array
    campaign: Uint8Array
    act: 'given' | 'withdrawn'
    envelope: unknown
  },
): Promise<{ known: boolean; leases: Buffer[] }> {
  const { rows } = await db.query(
    `insert into consent (node_id, campaign, act, envelope)
     select $1, digest, $3, $4 from campaign where digest = $2
     on conflict (node_id, campaign) do update
       set act = excluded.act, envelope = excluded.envelope, at = now()
     returning node_id`,
    [given.nodeId, given.campaign, given.act, JSON.stringify(given.envelope)],
  )
  if (rows.length === 0) return { known: false, leases: [] }
  if (given.act === 'given') return { known: true, leases: [] }
  const live = await db.query<{ id: Buffer }>(
    `select l.id from lease l join task t on t.id = l.task_id
     where l.node_id = $1 and l.state = 'live' and t.campaign = $2`,
    [given.nodeId, given.campaign],
  )
  return { known: true, leases: live.rows.map((row) => row.id) }
}
