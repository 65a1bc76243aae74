import { sha256 } from '../../../lib/crypto/digest.ts'
import { type NewTask, putRobots } from '../../../server/store/frontier.ts'
import type { Queryable } from '../../../server/store/queryable.ts'

/** An address as the frontier takes it in. */
export function foundPage(url: string, origin: string): NewTask {
  return {
    url,
    urlDigest: sha256(url),
    origin,
    depth: 0,
    priority: 0,
    foundAs: 'seed',
    chain: 0,
    shape: sha256(origin).slice(0, 16),
    refusal: null,
  }
}

/** A host without robots.txt, found out just now. */
export function allowAll(tx: Queryable, hostId: number, crawlDelayMs: number | null = null) {
  return putRobots(
    tx,
    hostId,
    { state: 'allow-all', reason: 'status 404' },
    crawlDelayMs,
    () => 72_000_000,
  )
}

/** The same for every host there is. */
export async function allowEverywhere(tx: Queryable) {
  await tx.query(
    `update host set robots_state = 'allow-all', robots_at = now(), robots_due_at = null`,
  )
}
