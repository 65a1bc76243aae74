import pg from 'pg'
import type { Logger } from 'pino'
import type { Queryable } from './queryable.ts'

/** What rings: for one node, or for all when `node` is null. Bytes are hex. */
export interface Ring {
  node: string | null
  notice: 'work' | 'follow-ups' | 'outcomes' | 'halt' | 'recall'
  campaign?: string | null
  /** Of a recall: at most 64 lease ids in base64url, for pg_notify takes 8,000 bytes. */
  leases?: string[]
}

const channel = 'gleaner_doorbell'

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

/**
 * Listens on a connection of its own, and connects again when it is lost. Then everybody is rung
 * once for everything, since nobody knows what was missed: between its own looks at outcomes a
 * node waits for minutes.
 */
export async function listenForRings(options: {
  connection: pg.ClientConfig
  onRing: (ring: Ring) => void
  log: Logger
}): Promise<{ close(): Promise<void> }> {
  let client: pg.Client | null = null
  let closed = false
  let retry: NodeJS.Timeout | undefined
  const connect = async (): Promise<boolean> => {
    const next = new pg.Client(options.connection)
    next.on('notification', (notification) => {
      if (notification.payload) options.onRing(JSON.parse(notification.payload) as Ring)
    })
    const again = (error?: Error) => {
      if (client !== next || closed) return
      client = null
      options.log.warn({ err: error }, 'doorbell lost its database connection; connecting again')
      retry = setTimeout(() => void listenAgain(), 1000)
    }
    client = next
    next.on('error', again)
    next.on('end', () => again())
    await next.connect().catch((error: Error) => again(error))
    if (client === next) await next.query(`listen ${channel}`)
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
      await client?.end().catch(() => undefined) // Already gone is closed too.
    },
  }
}
