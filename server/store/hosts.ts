import {
  adaptiveDelayMs,
  holdMs,
  retryAfterMs,
  smoothedResponseMs,
} from '../frontier/politeness.ts'
import type { Queryable } from './queryable.ts'

/** What became of one slot of a host: nothing was sent, nobody knows, or the host answered (or not). */
export type HostAnswer =
  | { hostId: number; kind: 'unused' | 'silence' }
  | {
      hostId: number
      kind: 'answered'
      status: number | 'failed'
      /** As the node says; believed only as far as the lease is old. */
      totalMs: number
      firstByteMs: number | null
      /** Redirects followed: each was a request, too. */
      hops: number
      retryAfter: string | undefined
      leasedAt: Date
    }

/**
 * Frees one slot for each answer and moves the host's clock: at least its pace
 * after the last request may have begun, later where it is slow, and a hold
 * for everybody where it says 429 or 503. The hosts' rows stay locked until
 * the transaction ends.
 */
export async function freeHosts(tx: Queryable, answers: readonly HostAnswer[]) {
  if (answers.length === 0) return
  const ids = [...new Set(answers.map(({ hostId }) => hostId))].sort((a, b) => a - b)
  const { rows } = await tx.query<{
    id: number
    response_ms: number | null
    pace_ms: number
    max_in_flight: number
    holds: number
    now: Date
  }>(
    `select id, response_ms, pace_ms, max_in_flight, holds, now() as now from host
     where id = any($1::bigint[]) order by id for no key update`,
    [ids],
  )
  const updates = rows.map((host) => {
    let { response_ms: responseMs, holds } = host
    let freed = 0
    let restMs = 0
    let hold: { ms: number; reason: string } | null = null
    for (const answer of answers.filter(({ hostId }) => hostId === host.id)) {
      freed += 1
      if (answer.kind === 'silence') restMs = Math.max(restMs, host.pace_ms)
      if (answer.kind !== 'answered') continue
      const nowMs = host.now.getTime()
      const believedMs = Math.min(answer.totalMs, nowMs - answer.leasedAt.getTime())
      const beganMsAgo = answer.hops === 0 && answer.status !== 'failed' ? believedMs : 0
      restMs = Math.max(restMs, host.pace_ms - beganMsAgo)
      if (answer.firstByteMs !== null && answer.status !== 'failed' && answer.status < 400) {
        responseMs = smoothedResponseMs(responseMs, answer.firstByteMs)
      }
      // One node that cannot reach a host may be the one at fault: a quorum of them holds it (settle).
      if (answer.status === 'failed') continue
      const ms = holdMs({
        status: answer.status,
        retryAfterMs: retryAfterMs(answer.retryAfter, nowMs),
        holds,
      })
      if (ms === null) holds = 0
      else if (ms >= (hold?.ms ?? 0)) {
        const asked = answer.retryAfter === undefined ? '' : `, Retry-After: ${answer.retryAfter}`
        hold = { ms, reason: `status ${answer.status}${asked}` }
      }
    }
    if (hold !== null) holds += 1
    // Of one request after another; a host that declares more in flight serves them side by side.
    const adaptiveMs = Math.round(adaptiveDelayMs(responseMs) / host.max_in_flight)
    restMs = Math.max(0, restMs, hold?.ms ?? 0)
    return { id: host.id, freed, restMs, responseMs, adaptiveMs, holds, hold }
  })
  await tx.query(
    `with freed as (
       update host h
       set in_flight = h.in_flight - u.freed,
           next_at = greatest(h.next_at, now() + u.rest_ms * interval '1 millisecond'),
           response_ms = u.response_ms, adaptive_ms = u.adaptive_ms, holds = u.holds,
           hold_until = case when u.hold_ms is null then h.hold_until
                             else now() + u.hold_ms * interval '1 millisecond' end,
           hold_reason = coalesce(u.hold_reason, h.hold_reason)
       from unnest($1::bigint[], $2::int[], $3::float8[], $4::float8[], $5::int[], $6::int[], $7::float8[], $8::text[])
         as u (id, freed, rest_ms, response_ms, adaptive_ms, holds, hold_ms, hold_reason)
       where h.id = u.id
       returning h.id, h.next_at
     ), queued as (
       select q.campaign, q.host_id, f.next_at from queue q join freed f on f.id = q.host_id
       order by q.host_id, q.campaign for no key update of q
     )
     update queue q set due_at = queued.next_at from queued
     where q.campaign = queued.campaign and q.host_id = queued.host_id`,
    [
      updates.map(({ id }) => id),
      updates.map(({ freed }) => freed),
      updates.map(({ restMs }) => restMs),
      updates.map(({ responseMs }) => responseMs),
      updates.map(({ adaptiveMs }) => adaptiveMs),
      updates.map(({ holds }) => Math.min(holds, 1000)),
      updates.map(({ hold }) => hold?.ms ?? null),
      updates.map(({ hold }) => hold?.reason ?? null),
    ],
  )
}

/** Leaves a host alone for a while, whoever is asked: what a quorum found unreachable. */
export async function holdHost(tx: Queryable, hostId: number, reason: string) {
  const { rows } = await tx.query<{ holds: number }>(
    'select holds from host where id = $1 for no key update',
    [hostId],
  )
  const ms = holdMs({ status: 'unreachable', retryAfterMs: null, holds: rows[0]?.holds ?? 0 })
  if (ms === null) return
  await tx.query(
    `update host set holds = holds + 1, hold_reason = $3,
            hold_until = now() + $2 * interval '1 millisecond',
            next_at = greatest(next_at, now() + $2 * interval '1 millisecond')
     where id = $1`,
    [hostId, ms, reason],
  )
}

/** What is known of a host, for people; null when it is none of ours. */
export async function hostFacts(db: Queryable, origin: string) {
  const { rows } = await db.query<{
    id: number
    origin: string
    interval_ms: number
    crawl_delay_ms: number
    adaptive_ms: number
    pace_ms: number
    in_flight: number
    max_in_flight: number
    next_at: Date
    hold_until: Date | null
    hold_reason: string | null
    robots_state: string
    robots_reason: string | null
    robots_text: string | null
    robots_at: Date | null
  }>('select * from host where origin = $1', [origin])
  const [host] = rows
  if (!host) return null
  const { rows: signals } = await db.query<{ source: string; name: string; value: string }>(
    `select source, name, value from host_signal where host_id = $1
     order by source, name, value limit 50`,
    [host.id],
  )
  return {
    origin: host.origin,
    intervalMs: host.interval_ms,
    crawlDelayMs: host.crawl_delay_ms,
    adaptiveMs: host.adaptive_ms,
    paceMs: host.pace_ms,
    inFlight: host.in_flight,
    maxInFlight: host.max_in_flight,
    nextAt: host.next_at,
    holdUntil: host.hold_until,
    holdReason: host.hold_reason,
    robots: {
      state: host.robots_state,
      reason: host.robots_reason,
      text: host.robots_text,
      at: host.robots_at,
    },
    signals,
  }
}
