import { toBase64Url } from '../../lib/crypto/base64.ts'
import type { StoredCampaign } from './campaigns.ts'
import { ring } from './doorbell.ts'
import type { Queryable } from './queryable.ts'

/** What nodes must not fetch. An exhausted campaign is none of these: what it leased may be finished. */
export interface Halts {
  everything: boolean
  /** Manifest digests of campaigns that are paused or stopped, as they are sent. */
  campaigns: string[]
}

/** More campaigns than any operator runs; the ones that may go on come first. */
const mostHalts = 1000

/** What is halted now. Asked once a second by every server process: two small tables. */
export async function standingHalts(db: Queryable): Promise<Halts> {
  const { rows } = await db.query<{ digest: Buffer | null }>(
    `select null::bytea as digest from halt union all
     (select digest from campaign where state in ('paused', 'stopped')
      order by state, created_at desc limit ${mostHalts})`,
  )
  return {
    everything: rows.some(({ digest }) => digest === null),
    campaigns: rows.flatMap(({ digest }) => (digest === null ? [] : [toBase64Url(digest)])),
  }
}

/** What of a node's is halted and what is not, so that it can be told both. */
export async function haltsOfNode(
  db: Queryable,
  nodeId: Uint8Array,
): Promise<{ campaign: string | null; halted: boolean }[]> {
  const { rows } = await db.query<{ digest: Buffer | null; halted: boolean }>(
    `select null::bytea as digest, exists (select from halt) as halted union all
     select c.digest, c.state in ('paused', 'stopped')
     from consent s join campaign c on c.digest = s.campaign
     where s.node_id = $1 and s.act = 'given'`,
    [nodeId],
  )
  return rows.map(({ digest, halted }) => ({ campaign: digest && toBase64Url(digest), halted }))
}

/** The halt of everything, with what was said about it; null when there is none. */
export async function haltInForce(
  db: Queryable,
): Promise<{ at: Date; reason: string | null } | null> {
  const { rows } = await db.query<{ at: Date; reason: string | null }>(
    'select at, reason from halt',
  )
  return rows[0] ?? null
}

/** Halts everything, in every process and over restarts. False when it was halted already. */
export async function putHalt(tx: Queryable, reason: string | null): Promise<boolean> {
  const { rows } = await tx.query(
    'insert into halt (reason) values ($1) on conflict do nothing returning at',
    [reason],
  )
  if (rows.length === 0) return false
  await ring(tx, [{ node: null, notice: 'halt', campaign: null }])
  return true
}

/** False when nothing was halted. Campaigns that were paused or stopped stay so. */
export async function endHalt(tx: Queryable): Promise<boolean> {
  const { rows } = await tx.query('delete from halt returning at')
  if (rows.length === 0) return false
  await ring(tx, [{ node: null, notice: 'resume', campaign: null }])
  return true
}

/** Where a campaign may go by the operator's word. `stopped` is for ever: consents were given to its end. */
const steps: Record<StoredCampaign['state'], readonly StoredCampaign['state'][]> = {
  running: ['paused', 'stopped'],
  paused: ['running', 'stopped'],
  exhausted: ['stopped'],
  stopped: [],
}

/**
 * Moves a campaign to another state, if there is a way, and rings every node. Returns the state it
 * was in before; null when there is no such campaign.
 */
export async function moveCampaign(
  tx: Queryable,
  id: string,
  to: 'running' | 'paused' | 'stopped',
): Promise<{ before: StoredCampaign['state']; moved: boolean } | null> {
  const { rows } = await tx.query<{ digest: Buffer; state: StoredCampaign['state'] }>(
    'select digest, state from campaign where id = $1 for no key update',
    [id],
  )
  const [found] = rows
  if (found === undefined) return null
  const moved = steps[found.state].includes(to)
  if (moved) {
    await tx.query('update campaign set state = $2 where digest = $1', [found.digest, to])
    const notice = to === 'running' ? 'resume' : 'halt'
    await ring(tx, [{ node: null, notice, campaign: toBase64Url(found.digest) }])
  }
  return { before: found.state, moved }
}
