import pg from 'pg'
import type { Logger } from 'pino'
import { type Halts, standingHalts } from './halt.ts'
import type { Queryable } from './queryable.ts'

/** What rings: for one node, whose id is hex, or for all when `node` is null. */
export type Ring =
  | { node: string | null; notice: 'work' | 'follow-ups' | 'outcomes' }
  /** A manifest digest as it is sent; absent or null for everything. */
  | { node: string | null; notice: 'halt' | 'resume'; campaign?: string | null }
  /** Lease ids as they are sent, at most 64 (socketNotice). */
  | { node: string | null; notice: 'recall'; leases: string[] }

const channel = 'gleaner_doorbell'
/** A notice carries so many leases; with them a ring stays below the 8000 bytes of a NOTIFY. */
const mostLeases = 64
/** How often what is halted is looked at, whether or not it rang. */
const lookEveryMs = 1000
/** A look that takes longer means that the connection is lost, though nobody closed it. */
const lookWithinMs = 5000

/**
 * Rings nodes' doorbells, whichever server process holds their sockets. Inside
 * a transaction they ring when it commits. PostgreSQL drops repeats.
 */
export async function ring(db: Queryable, rings: readonly Ring[]) {
  if (rings.length === 0) return
  await db.query(`select pg_notify('${channel}', r) from unnest($1::text[]) as r`, [
    [...new Set(rings.map((one) => JSON.stringify(one)))],
  ])
}

/** Rings that recall these leases from their nodes. */
export function recalls(leases: readonly { nodeId: Uint8Array; leaseId: Uint8Array }[]): Ring[] {
  const byNode = new Map<string, string[]>()
  for (const { nodeId, leaseId } of leases) {
    const node = Buffer.from(nodeId).toString('hex')
    byNode.set(node, [...(byNode.get(node) ?? []), Buffer.from(leaseId).toString('base64url')])
  }
  return [...byNode].flatMap(([node, ids]) =>
    Array.from(
      { length: Math.ceil(ids.length / mostLeases) },
      (_, n): Ring => ({
        node,
        notice: 'recall',
        leases: ids.slice(n * mostLeases, (n + 1) * mostLeases),
      }),
    ),
  )
}

/**
 * Listens on a connection of its own, and connects again when it is lost. Then everybody is rung
 * once for everything, since nobody knows what was missed: between its own looks at outcomes a
 * node waits for minutes.
 *
 * What is halted is also looked at once a second, on the same connection: `onHalts` gets it with
 * the time (`performance.now`) at which it was so or later. So whoever did not hear of a halt knows
 * at least that it does not know.
 */
export async function listenForRings(options: {
  connection: pg.ClientConfig
  onRing: (ring: Ring) => void
  onHalts?: (halts: Halts, atMs: number) => void
  log: Logger
}): Promise<{ close(): Promise<void> }> {
  let client: pg.Client | null = null
  let closed = false
  let retry: NodeJS.Timeout | undefined
  let look: NodeJS.Timeout | undefined
  /** Halts and resumes heard. */
  let changes = 0
  const connect = async (): Promise<boolean> => {
    const next = new pg.Client({
      application_name: `gleaner-doorbell-${process.pid}`,
      ...options.connection,
      query_timeout: lookWithinMs,
    })
    next.on('notification', (notification) => {
      if (!notification.payload) return
      const heard = JSON.parse(notification.payload) as Ring
      if (heard.notice === 'halt' || heard.notice === 'resume') changes += 1
      options.onRing(heard)
    })
    const again = (error?: Error) => {
      if (client !== next || closed) return
      client = null
      clearTimeout(look)
      options.log.warn({ err: error }, 'doorbell lost its database connection; connecting again')
      retry = setTimeout(() => void listenAgain(), 1000)
    }
    const db: Queryable = {
      query: (text, values) => next.query(text, values === undefined ? undefined : [...values]),
    }
    const lookAtHalts = async () => {
      try {
        const [atMs, before] = [performance.now(), changes]
        const halts = await standingHalts(db)
        if (client !== next || closed) return
        const isNews = changes !== before
        // What rang meanwhile may be newer than what was read.
        if (!isNews) options.onHalts?.(halts, atMs)
        look = setTimeout(lookAtHalts, isNews ? 0 : lookEveryMs)
      } catch (error) {
        again(error as Error)
        // It may hang where nothing is answered any more; nobody waits for it.
        void next.end().catch(() => undefined)
      }
    }
    client = next
    next.on('error', again)
    next.on('end', () => again())
    await next.connect().catch((error: Error) => again(error))
    if (client === next) await next.query(`listen ${channel}`)
    if (client === next) void lookAtHalts()
    return client === next
  }
  const listenAgain = async () => {
    // A connection that is lost again tries again by its own `end`.
    if (!(await connect().catch(() => false))) return
    for (const notice of ['work', 'follow-ups', 'outcomes'] as const) {
      options.onRing({ node: null, notice })
    }
  }
  await connect()
  return {
    async close() {
      closed = true
      clearTimeout(retry)
      clearTimeout(look)
      await client?.end().catch(() => undefined) // Already gone is closed too.
    },
  }
}
