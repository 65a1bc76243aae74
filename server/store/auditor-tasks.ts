import type { Campaign } from '../../lib/protocol/campaign.ts'
import { holdMs, retryAfterMs } from '../frontier/politeness.ts'
import type { HostRobots } from './frontier.ts'
import type { Queryable } from './queryable.ts'

export type AuditorTaskKind = 'robots' | 'sitemap' | 'use-file' | 'opt-out-file' | 'opt-out-dns'

export interface NewAuditorTask {
  kind: AuditorTaskKind
  /** An address, or for `opt-out-dns` a name. */
  target: string
  hostId?: number
  campaign?: Uint8Array
  optOut?: Uint8Array
  /** Of a sitemap below a sitemap index. */
  depth?: number
}

/** A task that an auditor has taken. */
export interface AuditorTask {
  id: number
  kind: AuditorTaskKind
  target: string
  hostId: number | null
  campaign: Buffer | null
  optOut: Buffer | null
  depth: number
  /** How often it was taken, this time included. With the id it names this taking, and no other. */
  attempts: number
}

/**
 * Asks the auditor; what it has done before, it does again. Asking for what is under way changes
 * nothing, nor does asking for a sitemap below itself: an index in a cycle ends. Targets that cannot
 * be addresses are left out.
 *
 * @param unlessDoneWithinMs leaves out what was done so lately
 */
export async function addAuditorTasks(
  tx: Queryable,
  tasks: readonly NewAuditorTask[],
  { unlessDoneWithinMs = 0 }: { unlessDoneWithinMs?: number } = {},
) {
  const storable = tasks.filter(({ target }) => isStorable(target))
  if (storable.length === 0) return
  await tx.query(
    `insert into auditor_task (kind, target, host_id, campaign, opt_out, depth)
     select distinct on (1, 2, 4, 5) a.* from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bytea[], $6::int[])
       as a (kind, target, host_id, campaign, opt_out, depth)
     order by 1, 2, 4, 5, 6
     on conflict (kind, target, coalesce(campaign, ''::bytea), coalesce(opt_out, ''::bytea))
     do update set state = 'due', due_at = now(), attempts = 0, reason = null, depth = excluded.depth
       where auditor_task.state in ('done', 'failed') and auditor_task.depth >= excluded.depth
         and coalesce(auditor_task.done_at, '-infinity') <= now() - $7 * interval '1 millisecond'`,
    [
      storable.map(({ kind }) => kind),
      storable.map(({ target }) => target),
      storable.map(({ hostId }) => hostId ?? null),
      storable.map(({ campaign }) => campaign ?? null),
      storable.map(({ optOut }) => optOut ?? null),
      storable.map(({ depth }) => depth ?? 0),
      unlessDoneWithinMs,
    ],
  )
}

/**
 * Longer ones are no addresses of anybody's (sitemaps.org: below 2,048 characters), and PostgreSQL
 * indexes 2,704 bytes at most; its text has no U+0000. A site's robots.txt may name either.
 */
function isStorable(target: string): boolean {
  return Buffer.byteLength(target) <= 2_048 && !target.includes('\u0000')
}

/** For the operator to read, or an owner who opts out. */
function told(reason: string): string {
  return reason.replaceAll('\u0000', '\ufffd').slice(0, 1000)
}

/**
 * A task taken so long ago is taken again: whoever had it is dead. Longer than any task lasts
 * (`taskMs` in server/auditor/run-auditor.ts).
 */
const takenAgainAfter = `interval '2 minutes'`

/** Looked through to find tasks of different sites; a site's own errands are spread by `spreadHostTasks`. */
const window = 500

/**
 * Takes tasks, at most one for each origin and none for those named: opt-outs first, then what is
 * longest due. While all is halted only opt-outs are looked at; sitemaps of a paused campaign wait.
 */
export async function takeAuditorTasks(
  db: Queryable,
  limit: number,
  exceptOrigins: readonly string[] = [],
): Promise<AuditorTask[]> {
  const { rows } = await db.query<{
    id: number
    kind: AuditorTaskKind
    target: string
    host_id: number | null
    campaign: Buffer | null
    opt_out: Buffer | null
    depth: number
    attempts: number
  }>(
    `with ready as (
       (select id, target, due_at, 0 as turn from auditor_task
        where state = 'due' and due_at <= now() and kind in ('opt-out-file', 'opt-out-dns')
        order by due_at limit $1)
       union all
       (select id, target, due_at, 1 from auditor_task
        where state = 'taken' and taken_at < now() - ${takenAgainAfter}
        order by taken_at limit $1)
       union all
       (select t.id, t.target, t.due_at, 2 from auditor_task t
        left join campaign c on c.digest = t.campaign
        where t.state = 'due' and t.due_at <= now() and t.kind in ('robots', 'sitemap', 'use-file')
          and c.state is distinct from 'paused' and not exists (select 1 from halt)
        order by t.due_at limit ${window})
     ), one_a_site as (
       select distinct on (origin) id, turn, due_at
       from (select *, coalesce(substring(target from '^[a-z]+://[^/?#]+'), target) as origin
             from ready) as r
       where origin <> all($2::text[]) order by origin, turn, due_at
     ), chosen as (
       select id from one_a_site order by turn, due_at limit $1
     ), held as (
       select t.id from auditor_task t join chosen using (id)
       where (t.state = 'due' and t.due_at <= now())
          or (t.state = 'taken' and t.taken_at < now() - ${takenAgainAfter})
       for no key update of t skip locked
     )
     update auditor_task t set state = 'taken', taken_at = now(), attempts = t.attempts + 1
     from held where t.id = held.id
     returning t.id, t.kind, t.target, t.host_id, t.campaign, t.opt_out, t.depth, t.attempts`,
    [limit, exceptOrigins],
  )
  return rows.map(({ host_id, opt_out, ...row }) => ({ ...row, hostId: host_id, optOut: opt_out }))
}

/**
 * Ends a task. False when it is not this taking's any more (called off, or taken again): roll back
 * what was done with it. Call it last: whoever asks for errands holds the host first.
 */
export async function finishAuditorTask(
  tx: Queryable,
  task: AuditorTask,
  end: { state: 'done' | 'failed'; reason: string },
): Promise<boolean> {
  const { rowCount } = await tx.query(
    `update auditor_task set state = $3, reason = $4, done_at = now()
     where id = $1 and attempts = $2 and state = 'taken'`,
    [task.id, task.attempts, end.state, told(end.reason)],
  )
  return rowCount === 1
}

/** A site that fails four times within half an hour is asked again when somebody wants it again. */
export const mostAttempts = 4
const firstRetrySeconds = 30

/** Tries again later, four times longer each time, or gives up with the reason. */
export async function retryAuditorTask(db: Queryable, task: AuditorTask, reason: string) {
  await db.query(
    `update auditor_task
     set state = case when attempts < $3 then 'due' else 'failed' end, reason = $4, done_at = now(),
         due_at = now() + $5 * 4 ^ least(attempts - 1, 10) * interval '1 second'
     where id = $1 and attempts = $2 and state = 'taken'`,
    [task.id, task.attempts, mostAttempts, told(reason), firstRetrySeconds],
  )
}

/** Gives a task back untouched: it is not its turn, or the auditor stops. */
export async function returnAuditorTask(db: Queryable, task: AuditorTask, waitMs: number) {
  await db.query(
    `update auditor_task set state = 'due', attempts = attempts - 1,
            due_at = now() + $3 * interval '1 millisecond'
     where id = $1 and attempts = $2 and state = 'taken'`,
    [task.id, task.attempts, Math.min(waitMs, 86_400_000)],
  )
}

/**
 * Puts a host's due tasks one after another at its pace: an index of five hundred sitemaps on a slow
 * host would otherwise stand before everybody else's, again at every look.
 */
export async function spreadHostTasks(db: Queryable, hostId: number, waitMs: number) {
  await db.query(
    `update auditor_task t
     set due_at = now() + ($2::float8 + turn.place * h.pace_ms) * interval '1 millisecond'
     from (select id, row_number() over (order by due_at, id) as place from (
             select id, due_at from auditor_task
             where host_id = $1 and state = 'due' and due_at <= now() and opt_out is null
             for no key update skip locked) as due) as turn, host h
     where t.id = turn.id and h.id = $1`,
    [hostId, Math.min(waitMs, 86_400_000)],
  )
}

/** The campaign of a sitemap, for its scope; null when it has gone or stopped. */
export async function campaignOfTask(db: Queryable, digest: Uint8Array): Promise<Campaign | null> {
  const { rows } = await db.query<{ manifest: Campaign }>(
    `select manifest from campaign where digest = $1 and state <> 'stopped'`,
    [digest],
  )
  return rows[0]?.manifest ?? null
}

/** Token that proves an opt-out; null when it is settled and needs no look any more. */
export async function waitingToken(db: Queryable, optOut: Uint8Array): Promise<string | null> {
  const { rows } = await db.query<{ token: string }>(
    `select token from opt_out where id = $1 and state = 'waiting'`,
    [optOut],
  )
  return rows[0]?.token ?? null
}

/** robots.txt of a host in the table; null when it is not there, or nobody knows yet. */
export async function robotsOfOrigin(
  db: Queryable,
  origin: string,
): Promise<{ state: HostRobots['state'] | 'unknown'; text: string } | null> {
  const { rows } = await db.query<{ state: HostRobots['state'] | 'unknown'; text: string | null }>(
    // RFC 9309 §2.4: a robots.txt is not used for longer than a day.
    `select case when robots_at > now() - interval '24 hours' then robots_state else 'unknown' end
              as state, robots_text as text
     from host where origin = $1`,
    [origin],
  )
  const [row] = rows
  return row ? { state: row.state, text: row.text ?? '' } : null
}

/** A host's wishes of one source; the host stays locked, so that they can be written back changed. */
export async function hostSignalsOf(
  tx: Queryable,
  hostId: number,
  source: string,
): Promise<{ name: string; value: string }[]> {
  await tx.query('select 1 from host where id = $1 for no key update', [hostId])
  const { rows } = await tx.query<{ name: string; value: string }>(
    'select name, value from host_signal where host_id = $1 and source = $2',
    [hostId, source],
  )
  return rows
}

// Politeness -----------------------------------------------------------------------
//
// While the auditor speaks to a host, the host's clock stands in the future: nobody else begins
// there, and pages in flight only become fewer. The clock is put ahead by a few seconds and again
// and again while the fetch lasts (`keepHostSlot`), and put back to the host's own pace at its end.
// An auditor that is killed therefore leaves nothing behind that would have to be given back: its
// slot ends by itself.

/** How far ahead the clock is put: what a killed auditor costs a host. */
export const slotMs = 5_000

export interface HostSlot {
  hostId: number
  /** The clock as this slot has set it, in PostgreSQL's own words: a Date has no microseconds. */
  until: string
  /** Where others, whose fetches ended meanwhile, have put it. */
  floor: string | null
  paceMs: number
}

export type SlotAnswer =
  | { kind: 'held'; slot: HostSlot }
  /** Somebody speaks to it, or its clock is ahead by so much. */
  | { kind: 'busy'; hostId: number; waitMs: number }
  /** No campaign knows this origin: it has no clock here. */
  | { kind: 'unlisted' }

/** Holds a host alone, under the conditions of a lease: fewer in flight than allowed, and its time come. */
export async function holdHostSlot(db: Queryable, origin: string): Promise<SlotAnswer> {
  const { rows } = await db.query<{ id: number; until: string; pace_ms: number }>(
    `update host set next_at = now() + $2 * interval '1 millisecond'
     where origin = $1 and in_flight < max_in_flight and next_at <= now()
     returning id, next_at::text as until, pace_ms`,
    [origin, slotMs],
  )
  const [held] = rows
  if (held) {
    const { id, until, pace_ms } = held
    return { kind: 'held', slot: { hostId: id, until, floor: null, paceMs: pace_ms } }
  }
  const { rows: busy } = await db.query<{ id: number; wait: number }>(
    `select id, greatest(0, extract(epoch from next_at - now()) * 1000)::float8 as wait
     from host where origin = $1`,
    [origin],
  )
  const [host] = busy
  return host ? { kind: 'busy', hostId: host.id, waitMs: host.wait } : { kind: 'unlisted' }
}

/**
 * Puts the clock ahead again. Null when the slot had ended, or the host asked everybody to stay away
 * meanwhile: the fetch must end, too.
 */
export async function keepHostSlot(db: Queryable, slot: HostSlot): Promise<HostSlot | null> {
  const { rows } = await db.query<{ until: string; floor: string | null }>(
    `update host h set next_at = greatest(h.next_at, now() + $3 * interval '1 millisecond')
     from (select id, next_at from host where id = $1 for no key update) as old
     where h.id = old.id and now() < $2::timestamptz and old.next_at >= $2::timestamptz
       and (h.hold_until is null or h.hold_until <= now())
     returning (now() + $3 * interval '1 millisecond')::text as until,
               case when old.next_at > $2::timestamptz then old.next_at::text end as floor`,
    [slot.hostId, slot.until, slotMs],
  )
  const [kept] = rows
  return kept ? { ...slot, until: kept.until, floor: kept.floor ?? slot.floor } : null
}

/**
 * Ends a slot: the host's pace counts from the last request, and what it answered holds everybody as
 * it would from a node. A clock that somebody else has put further ahead stays.
 */
export async function freeHostSlot(
  tx: Queryable,
  slot: HostSlot,
  last: {
    /** Since the last request began. */
    agoMs: number
    status: number | null
    retryAfter: string | undefined
  },
) {
  const { rows } = await tx.query<{ holds: number; now: Date }>(
    'select holds, now() as now from host where id = $1 for no key update',
    [slot.hostId],
  )
  const [host] = rows
  if (!host) return
  const hold =
    last.status === null
      ? null
      : holdMs({
          status: last.status,
          retryAfterMs: retryAfterMs(last.retryAfter, host.now.getTime()),
          holds: host.holds,
        })
  const asked = last.retryAfter === undefined ? '' : `, Retry-After: ${last.retryAfter}`
  await tx.query(
    `with freed as (
       update host
       set next_at = greatest(
             case when next_at = $2::timestamptz
                  then greatest(now() + $3 * interval '1 millisecond', $7::timestamptz)
                  else next_at end,
             now() + $4 * interval '1 millisecond'),
           holds = case when $5 then 0 when $4::float8 is null then holds else least(holds + 1, 1000) end,
           hold_until = case when $4::float8 is null then hold_until
                             else now() + $4 * interval '1 millisecond' end,
           hold_reason = coalesce($6, hold_reason)
       where id = $1 returning next_at
     ), queued as (
       select q.campaign, f.next_at from queue q cross join freed f
       where q.host_id = $1 and q.due_at = $2::timestamptz
       order by q.campaign for no key update of q
     )
     -- Lease calls that met the slot put the host's work off until its end.
     update queue q set due_at = queued.next_at from queued
     where q.host_id = $1 and q.campaign = queued.campaign`,
    [
      slot.hostId,
      slot.until,
      Math.max(0, slot.paceMs - last.agoMs),
      hold,
      last.status !== null && hold === null,
      hold === null ? null : `status ${last.status}${asked.slice(0, 200)}, as the auditor heard`,
      slot.floor,
    ],
  )
}
