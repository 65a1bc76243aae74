import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type pg from 'pg'
import type { Logger } from 'pino'
import type { ServerConfig } from './config.ts'
import type { Workspace } from './operator.ts'
import { networkOf } from './store/campaigns.ts'
import { openDatabase } from './store/database.ts'
import {
  DataFolderInUse,
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from './store/embedded-postgres.ts'
import { migrate } from './store/migrate.ts'
import { loadOperatorKeys } from './store/operator-keys.ts'
import { openSegmentBlobStore } from './store/segment-blob-store.ts'

export interface OpenWorkspace extends Workspace {
  connection: pg.PoolConfig
  /** The database that this process owns; null when it is external or another process's. */
  postgres: EmbeddedPostgres | null
  close(): Promise<void>
}

/**
 * Opens database, bodies and keys of a data folder. With `shared`, a folder
 * whose server runs is opened beside it; without, that is `DataFolderInUse`.
 */
export async function openWorkspace(
  config: ServerConfig,
  log: Logger,
  { shared }: { shared: boolean },
): Promise<OpenWorkspace> {
  await mkdir(config.dataFolder, { recursive: true })
  let postgres: EmbeddedPostgres | null = null
  let connection: pg.PoolConfig
  if (config.databaseUrl !== null) connection = { connectionString: config.databaseUrl }
  else {
    try {
      postgres = await startEmbeddedPostgres({
        dataFolder: join(config.dataFolder, 'postgres'),
        log,
        binaries: config.postgresBinaries ?? undefined,
      })
      connection = { ...postgres.connection }
    } catch (error) {
      if (!shared || !(error instanceof DataFolderInUse)) throw error
      connection = { ...error.connection }
    }
  }
  try {
    await migrate(connection)
    const keys = await loadOperatorKeys(config.dataFolder)
    const blobs = await openSegmentBlobStore(join(config.dataFolder, 'bodies'))
    const database = openDatabase({ connection, log })
    const founded = await networkOf(database.pool)
    const workspace: OpenWorkspace = {
      database,
      blobs,
      keys,
      logOrigin:
        founded && !config.logOriginGiven
          ? (founded.logKey.split('+')[0] ?? config.logOrigin)
          : config.logOrigin,
      connection,
      postgres,
      async close() {
        await database.close()
        await blobs.close()
        await workspace.postgres?.stop()
      },
    }
    return workspace
  } catch (error) {
    await postgres?.stop()
    throw error
  }
}
