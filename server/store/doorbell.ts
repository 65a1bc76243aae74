import pg from 'pg'
import type { Logger } from 'pino'
import type { Queryable } from './queryable.ts'

/** What rings: for one node, or for all when `node` is null. Bytes are hex. */
export interface Ring {
  node: string | null
  notice: 'work' | 'follow-ups' | 'outcomes' | 'halt'
  campaign?: string | null
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

/** Listens on a connection of its own, and connects again when it is lost. */
export async function listenForRings(options: {
  connection: pg.ClientConfig
  onRing: (ring: Ring) => void
  log: Logger
}): Promise<{ close(): Promise<void> }> {
  let client: pg.Client | null = null
  let closed = false
  let retry: NodeJS.Timeout | undefined
  const connect = async () => {
    const next = new pg.Client(options.connection)
    next.on('notification', (notification) => {
      if (notification.payload) options.onRing(JSON.parse(notification.payload) as Ring)
    })
    const again = (error?: Error) => {
      if (client !== next || closed) return
      client = null
      options.log.warn({ err: error }, 'doorbell lost its database connection; connecting again')
      // A ring that is missed meanwhile costs a poll: nodes ask on their own every few seconds.
      retry = setTimeout(() => void connect().catch(again), 1000)
    }
    client = next
    next.on('error', again)
    next.on('end', () => again())
    await next.connect().catch((error: Error) => again(error))
    if (client === next) await next.query(`listen ${channel}`)
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
