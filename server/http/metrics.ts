import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { type Measures, readMeasures } from '../store/measures.ts'
import type { Queryable } from '../store/queryable.ts'

/** What a loop tells about each of its steps. */
export interface LoopWatch {
  began(): void
  /** How many things it did. */
  ended(done: number): void
  failed(): void
}

/** Scrapers of one server may come as often as they like: the database is read this often. */
const measuresForMs = 15_000
/** The database must answer by then, or it is as good as away. */
const healthyWithinMs = 2000
/** A scrape waits so long for the database, and then goes without; Prometheus itself gives up at 10 s. */
const measuresWithinMs = 5000
/** A step may take as long as a statement may (database.ts) and back off for 5 s, and then some. */
const stepMs = 45_000
/** Prometheus, a probe, and a person or two. */
const mostConnections = 50

/**
 * What a Prometheus server and a health probe ask, in a registry of its own. Counters and
 * durations are this process's, and begin at 0 with it; gauges from the database are the whole
 * network's, the same from every process.
 */
export function createMetrics(options: {
  db: Queryable
  log: Logger
  doorbells: { count(): number; knowsHalts(): boolean }
}) {
  const { db, log, doorbells } = options
  const own = new Registry()
  collectDefaultMetrics({ register: own })
  const registers = [own]
  const requests = new Histogram({
    name: 'gleaner_http_request_duration_seconds',
    help: 'Time from a request’s head to the end of its answer, by route.',
    labelNames: ['method', 'route', 'status'] as const,
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  })
  const leaseCalls = new Counter({
    name: 'gleaner_lease_calls_total',
    help: 'Calls for leases that were answered, by whether they brought any.',
    labelNames: ['granted'] as const,
    registers,
  })
  const leasedUrls = new Counter({
    name: 'gleaner_leased_urls_total',
    help: 'URLs leased to nodes.',
    registers,
  })
  const refusals = new Counter({
    name: 'gleaner_lease_refusals_total',
    help: 'Leases that nodes gave back, by their reason.',
    labelNames: ['reason'] as const,
    registers,
  })
  const observations = new Counter({
    name: 'gleaner_observations_total',
    help: 'Observations that nodes sent, accepted or by the reason they were not. A repeat counts again.',
    labelNames: ['result'] as const,
    registers,
  })
  const loopSeconds = new Histogram({
    name: 'gleaner_loop_duration_seconds',
    help: 'Duration of a successful step of a loop of the pipeline.',
    labelNames: ['loop'] as const,
    buckets: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30],
    registers,
  })
  const loopItems = new Counter({
    name: 'gleaner_loop_items_total',
    help: 'What the loops of the pipeline did: tasks, leases, payloads, rows.',
    labelNames: ['loop'] as const,
    registers,
  })
  const loopFailures = new Counter({
    name: 'gleaner_loop_failures_total',
    help: 'Steps of the pipeline’s loops that failed and were tried again.',
    labelNames: ['loop'] as const,
    registers,
  })
  const loopSuccess = new Gauge({
    name: 'gleaner_loop_last_success_timestamp_seconds',
    help: 'When a loop of the pipeline last ended a step well.',
    labelNames: ['loop'] as const,
    registers,
  })
  new Gauge({
    name: 'gleaner_doorbell_sockets',
    help: 'Nodes’ doorbell sockets that this process holds.',
    registers,
    collect() {
      this.set(doorbells.count())
    },
  })
  const databaseUp = new Gauge({
    name: 'gleaner_database_up',
    help: 'Whether the database answered when it was last read; if not, its gauges are left out.',
    registers,
  })
  const ofDatabase = databaseGauges()
  const loops = new Map<string, { withinMs: number; successMs: number }>()

  let read: { atMs: number; done: Promise<boolean> } | null = null
  /** True when the gauges of the database hold what was read lately. */
  function measures(): Promise<boolean> {
    if (read === null || performance.now() - read.atMs > measuresForMs) {
      const done = within(measuresWithinMs, readMeasures(db)).then(
        (values) => {
          ofDatabase.set(values)
          databaseUp.set(1)
          return true
        },
        (error: unknown) => {
          log.warn({ err: error }, 'the database could not be measured')
          databaseUp.set(0)
          // The next scrape tries again.
          read = null
          return false
        },
      )
      read = { atMs: performance.now(), done }
    }
    return read.done
  }

  async function metricsText(): Promise<string> {
    const registry = (await measures()) ? Registry.merge([own, ofDatabase.registry]) : own
    return registry.metrics()
  }

  /** What keeps this process from doing its work; nothing, when all is well. */
  async function failing(): Promise<string[]> {
    const answers = await within(healthyWithinMs, db.query('select 1')).then(
      () => true,
      () => false,
    )
    const late = [...loops]
      .filter(([, { withinMs, successMs }]) => performance.now() - successMs > withinMs)
      .map(([name]) => `loop ${name}`)
    return [
      ...(answers ? [] : ['database']),
      ...(doorbells.knowsHalts() ? [] : ['doorbell']),
      ...late,
    ]
  }

  const server = createServer((request, response) => {
    const answer = async () => {
      const path = new URL(request.url ?? '/', 'http://host').pathname
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        return send(response, 405, 'text/plain', 'Only GET is answered here.\n')
      }
      if (path === '/metrics') return send(response, 200, own.contentType, await metricsText())
      if (path !== '/healthz') {
        return send(response, 404, 'text/plain', 'Here are /metrics and /healthz.\n')
      }
      const reasons = await failing()
      const body = reasons.length === 0 ? { ok: true } : { ok: false, failing: reasons }
      send(response, body.ok ? 200 : 503, 'application/json', JSON.stringify(body))
    }
    answer().catch((error: unknown) => {
      log.error({ err: error }, 'metrics could not be given')
      if (response.headersSent) response.destroy()
      else send(response, 500, 'text/plain', 'Something failed here; it is logged.\n')
    })
  })
  server.requestTimeout = 10_000
  server.maxConnections = mostConnections

  return {
    /** Counts what is asked of the app, and what its answers hold. */
    watch(app: FastifyInstance): void {
      app.addHook('onResponse', async (request, reply) => {
        // Only routes that there are: whoever asks for others must not make series of them.
        const route = request.routeOptions.url ?? 'none'
        const status = String(reply.statusCode)
        requests.observe({ method: request.method, route, status }, reply.elapsedTime / 1000)
        if (route === '/v1/refusals' && reply.statusCode === 204) {
          const { leases } = request.body as { leases: { reason: string }[] }
          for (const { reason } of leases) refusals.inc({ reason })
        }
      })
      app.addHook('preSerialization', async (request, reply, payload) => {
        if (reply.statusCode !== 200 || request.method !== 'POST') return payload
        if (request.routeOptions.url === '/v1/leases') {
          const { leases } = payload as { leases: unknown[] }
          leaseCalls.inc({ granted: leases.length > 0 ? 'some' : 'none' })
          leasedUrls.inc(leases.length)
        }
        if (request.routeOptions.url === '/v1/observations') {
          const { results } = payload as { results: { ok: boolean; problem?: { type: string } }[] }
          for (const { ok, problem } of results) {
            observations.inc({ result: ok ? 'accepted' : (problem?.type.split(':').at(-1) ?? '') })
          }
        }
        return payload
      })
    },

    /** Watches a loop that rests `idleMs` when there is nothing to do. */
    observeLoop(name: string, idleMs: number): LoopWatch {
      let beganMs = performance.now()
      const loop = { withinMs: 2 * idleMs + stepMs, successMs: beganMs }
      loops.set(name, loop)
      loopFailures.inc({ loop: name }, 0)
      return {
        began() {
          beganMs = performance.now()
        },
        ended(done) {
          loop.successMs = performance.now()
          loopSeconds.observe({ loop: name }, (loop.successMs - beganMs) / 1000)
          loopItems.inc({ loop: name }, done)
          loopSuccess.set({ loop: name }, Date.now() / 1000)
        },
        failed() {
          loopFailures.inc({ loop: name })
        },
      }
    },

    /** Answers `/metrics` and `/healthz` there. Rejects when it cannot listen. */
    async listen(at: { host: string; port: number }): Promise<{ port: number }> {
      await new Promise<void>((done, fail) => {
        server.once('error', fail)
        server.listen(at.port, at.host, () => {
          server.off('error', fail)
          done()
        })
      })
      return { port: (server.address() as AddressInfo).port }
    },

    async close(): Promise<void> {
      if (!server.listening) return
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  }
}

/** Gauges that are left out together while the database does not answer. */
function databaseGauges() {
  const registry = new Registry()
  const registers = [registry]
  const plain: Partial<Record<keyof Measures, Gauge>> = {}
  const described = [
    ['halted', 'gleaner_halted', '1 while the operator has halted everything.'],
    ['frontierPages', 'gleaner_frontier_pages', 'Addresses in the frontiers of all campaigns.'],
    ['hosts', 'gleaner_hosts', 'Hosts that campaigns know of.'],
    [
      'hostsHeld',
      'gleaner_hosts_held',
      'Hosts left alone for a while, since they said 429 or 503.',
    ],
    [
      'requestsInFlight',
      'gleaner_requests_in_flight',
      'Requests to hosts that are leased and not yet heard of, of the whole network.',
    ],
    ['liveLeases', 'gleaner_leases_live', 'Leases that are neither answered nor over.'],
    ['openFollowUps', 'gleaner_follow_ups_open', 'Questions that nodes have not answered yet.'],
    ['activeNodes', 'gleaner_nodes_active', 'Nodes that were heard of within two minutes.'],
    [
      'records',
      'gleaner_records',
      'Records of the dataset; above 100,000 an estimate from PostgreSQL’s statistics.',
    ],
    ['unloggedRecords', 'gleaner_records_unlogged', 'Records that the log does not hold yet.'],
    ['logLeaves', 'gleaner_log_leaves', 'Size of the log.'],
    ['pendingPoints', 'gleaner_points_pending', 'Points credited and not posted yet.'],
  ] as const
  for (const [key, name, help] of described) plain[key] = new Gauge({ name, help, registers })
  const campaigns = new Gauge({
    name: 'gleaner_campaigns',
    help: 'Campaigns by state.',
    labelNames: ['state'] as const,
    registers,
  })
  const tasks = new Gauge({
    name: 'gleaner_tasks',
    help: 'Tasks by state; above 100,000 an estimate from PostgreSQL’s statistics, which are some minutes old.',
    labelNames: ['state'] as const,
    registers,
  })
  return {
    registry,
    set(measures: Measures) {
      for (const [key] of described) plain[key]?.set(Number(measures[key]))
      for (const [gauge, counts, states] of [
        [campaigns, measures.campaigns, ['running', 'paused', 'exhausted', 'stopped']],
        [tasks, measures.tasks, ['found', 'held', 'open', 'waiting', 'closed']],
      ] as const) {
        // A state that nothing is in is 0, not absent: alerts compare it.
        for (const state of states) gauge.set({ state }, counts.get(state) ?? 0)
      }
    },
  }
}

function send(response: ServerResponse, status: number, type: string, body: string) {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body)
}

/** Rejects when the answer takes longer; whatever comes later concerns nobody. */
async function within<T>(ms: number, answer: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new Error(`no answer within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
  }
}
