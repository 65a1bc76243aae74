import type { IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { Logger } from 'pino'
import { ourName } from '../lib/capture/robots.ts'
import type { ScopeRules } from '../lib/consent/scope.ts'
import { fromBase64Url } from '../lib/crypto/base64.ts'
import { sha256 } from '../lib/crypto/digest.ts'
import type { AuditorOptions } from './auditor/run-auditor.ts'
import { startAuditor } from './auditor/start-auditor.ts'
import { ConfigProblem, inUrl, type ServerConfig } from './config.ts'
import { createApp } from './http/app.ts'
import { meterUpgradeHandler } from './http/meter.ts'
import { createMetrics } from './http/metrics.ts'
import { registerNodeRoutes } from './http/node-routes.ts'
import { registerOptOutRoutes } from './http/opt-out-routes.ts'
import { registerPublicRoutes } from './http/public-routes.ts'
import { createDoorbells } from './http/socket.ts'
import { countTraffic, type Traffic } from './http/traffic.ts'
import { grantWork } from './lease/issue.ts'
import { checkpointSigner, foundNetwork } from './operator.ts'
import { createPipeline } from './pipeline.ts'
import { openDatabase } from './store/database.ts'
import { listenForRings } from './store/doorbell.ts'
import { startEmbeddedPostgres } from './store/embedded-postgres.ts'
import { logSigner } from './store/operator-keys.ts'
import { createAnalyser } from './verify/analyser.ts'
import { type OpenWorkspace, openWorkspace } from './workspace.ts'

export class PortTaken extends Error {
  override name = 'PortTaken'
}

export interface RunningServer {
  origin: string
  joinLink: string
  verifierKey: string
  workspace: OpenWorkspace
  /** Where `/metrics` and `/healthz` are answered; null when they are off. */
  metricsOrigin: string | null
  /** Since the start, as sockets count it. */
  traffic(): Traffic
  /** Resolves when the server cannot go on: its database ended and would not start again. */
  failed: Promise<Error>
  stop(): Promise<void>
}

/** The agent token in robots.txt and the crawler's User-Agent. */
export const agent = ourName

/** The task server: store, HTTP, doorbells, meter, pipeline. */
export async function startServer(
  config: ServerConfig,
  log: Logger,
  options: {
    scopeRules: ScopeRules
    followUpMs?: number
    leaseMs?: number
    /** How its auditor reaches sites; without it none is started: it runs elsewhere. */
    auditor?: Pick<AuditorOptions, 'hostMap' | 'nameServers' | 'scopeRules'>
  },
): Promise<RunningServer> {
  const workspace = await openWorkspace(config, log, { shared: false })
  const stops: (() => Promise<void> | void)[] = [() => workspace.close()]
  const stop = async () => {
    for (const one of stops.splice(0).reverse()) await one()
  }
  try {
    await foundNetwork(workspace, {
      name: config.networkName,
      operator: { name: config.operatorName, contact: config.operatorContact },
    })
    const { database, blobs, keys } = workspace
    const app = createApp({ log, trustedProxies: config.trustedProxies })
    const doorbells = createDoorbells({
      db: database.pool,
      log,
      trustedProxies: config.trustedProxies,
    })
    const metrics = createMetrics({ db: database.pool, log, doorbells })
    metrics.watch(app)
    registerPublicRoutes(app, {
      db: database.pool,
      networkName: config.networkName,
      operatorContact: config.operatorContact,
      publicOrigin: config.publicOrigin,
    })
    registerOptOutRoutes(app, {
      database,
      networkName: config.networkName,
      operatorContact: config.operatorContact,
      publicOrigin: config.publicOrigin,
    })
    const leaseMs = options.leaseMs ?? grantWork.validForMs
    registerNodeRoutes(app, { database, blobs, keys, leaseMs })
    const traffic = countTraffic(app.server)
    const meter = meterUpgradeHandler({
      authenticate: async (token) => {
        const { rows } = await database.pool.query(
          'select 1 from session where token_digest = $1 and expires_at > now()',
          [sha256(fromBase64Url(token))],
        )
        return rows.length === 1
      },
      limits: {},
      log,
    })
    app.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      if (doorbells.handleUpgrade(request, socket, head)) return
      if (meter.handleUpgrade(request, socket, head)) return
      socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n')
    })
    stops.push(async () => {
      doorbells.close()
      meter.close()
      await app.close()
    })
    await app
      .listen({ host: config.host, port: config.port })
      .catch(
        cannotListen(config, 'The server', ['--host or GLEANER_HOST', '--port or GLEANER_PORT']),
      )
    let metricsOrigin: string | null = null
    if (config.metrics !== null) {
      const flag = '--metrics or GLEANER_METRICS'
      const { port } = await metrics
        .listen(config.metrics)
        .catch(cannotListen(config.metrics, 'Metrics', [flag, flag]))
      metricsOrigin = `http://${inUrl(config.metrics.host)}:${port}`
      stops.push(() => metrics.close())
    }
    const rings = await listenForRings({
      connection: workspace.connection,
      onRing: doorbells.ring,
      onHalts: doorbells.halts,
      log,
    })
    stops.push(() => rings.close())
    const analyser = createAnalyser(availableParallelism())
    stops.push(() => analyser.close())
    // Connections of its own: however many nodes ask, what they said is decided.
    const forPipeline = openDatabase({ connection: workspace.connection, log, maxConnections: 8 })
    stops.push(() => forPipeline.close())
    const pipeline = createPipeline({
      database: forPipeline,
      blobs,
      analyser,
      signCheckpoint: checkpointSigner(workspace),
      scopeRules: options.scopeRules,
      agent,
      log,
      random: Math.random,
      now: Date.now,
      followUpMs: options.followUpMs ?? 90_000,
      observeLoop: metrics.observeLoop,
    })
    stops.push(() => pipeline.stop())
    if (options.auditor) {
      const auditor = startAuditor(
        { connection: workspace.connection, logLevel: config.logLevel },
        log,
        { agent, contact: config.operatorContact, ...options.auditor },
      )
      stops.push(() => auditor.stop())
    }
    const { port } = app.server.address() as AddressInfo
    const origin =
      config.port === 0 ? config.publicOrigin.replace(/:0$/, `:${port}`) : config.publicOrigin
    return {
      origin,
      joinLink: `${origin}/join#${keys.campaign.fingerprint}`,
      verifierKey: logSigner(workspace.logOrigin, keys.log).verifierKey,
      workspace,
      metricsOrigin,
      traffic,
      failed: keepDatabase(config, workspace, log, () => stops.length === 0),
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** Turns the failure to listen somewhere into a sentence that names what to change. */
function cannotListen(
  { host, port }: { host: string; port: number },
  who: string,
  [hostFlag, portFlag]: [string, string],
) {
  return (error: NodeJS.ErrnoException): never => {
    if (/^(EADDRNOTAVAIL|EACCES|ENOTFOUND|EAI_AGAIN)$/.test(error.code ?? '')) {
      throw new ConfigProblem(
        `${who} cannot listen on port ${port} of ${host}: ${error.message}. Give an address of this machine with ${hostFlag}, and a port that may be used with ${portFlag}.`,
      )
    }
    if (error.code !== 'EADDRINUSE') throw error
    const off = who === 'Metrics' ? ', or "off"' : ''
    throw new PortTaken(
      `Port ${port} on ${host}${who === 'Metrics' ? ', where metrics are to be,' : ''} is taken by another program. Stop it, or choose another with ${portFlag} (0 takes any free one${off}).`,
    )
  }
}

/** Starts the embedded database again when it dies. Three deaths within a minute are one too many. */
async function keepDatabase(
  config: ServerConfig,
  workspace: OpenWorkspace,
  log: Logger,
  stopped: () => boolean,
): Promise<Error> {
  const deaths: number[] = []
  while (workspace.postgres) {
    const exit = await workspace.postgres.exited
    if (stopped()) break
    deaths.push(Date.now())
    log.error({ exit }, 'the embedded database ended; starting it again')
    if (deaths.filter((at) => at > Date.now() - 60_000).length >= 3) {
      return new Error(
        `The embedded database ended three times within a minute. Its log is in ${join(config.dataFolder, 'postgres')}. The server stops; nothing that was acknowledged is lost.`,
      )
    }
    try {
      workspace.postgres = await startEmbeddedPostgres({
        dataFolder: join(config.dataFolder, 'postgres'),
        log,
        binaries: config.postgresBinaries ?? undefined,
      })
      log.info('the embedded database runs again')
      // Told to stop meanwhile: nobody else would end it.
      if (stopped()) await workspace.postgres.stop()
    } catch (error) {
      return new Error('The embedded database ended and does not start again.', { cause: error })
    }
  }
  return new Promise(() => {}) // Nothing of ours can die.
}
