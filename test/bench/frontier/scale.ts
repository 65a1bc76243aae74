import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Client } from 'undici'
import { networkBlock, networkBlockWide } from '../../../lib/capture/public-host.ts'
import { fromBase64, toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import type { PostgresConnection } from '../../../server/store/embedded-postgres.ts'
import { startChild } from './child.ts'
import { type Grant, type Judgement, judge, type Manners } from './politeness-model.ts'
import { cpuMs, machineMs } from './process-cpu.ts'
import type { ServerAsk, ServerReady } from './server-process.ts'

/** What every host declares: the pace of a careful campaign, one request at a time. */
const manners: Manners = { paceMs: 1000, inFlight: 1 }
const tasksPerHost = 20
const quorum = 2
/** The most that one call may ask for (leaseRequest). */
const urlsPerCall = 32
/** Of a lease, from its answer until it is given back: about what a fetch of a page takes. */
const heldMs = { least: 50, most: 500 }
/**
 * The calm runs: as many callers as one computer of two cores serves without a queue, each half a
 * second after its last call. 8 calls a second take 256 addresses, of the 500 that the hosts of
 * 10,000 tasks offer at one a second: neither the hosts nor the machine is what is measured.
 */
const calm = { callers: 4, everyMs: 500, forMs: 25_000 }
const stormForMs = 40_000

export interface ScaleFigures {
  tasks: number
  hosts: number
  nodes: number
  serverProcesses: number
  loadSeconds: number
  leaseP95Ms: number
  leaseP50Ms: number
  leasesPerCall: number
  calmCalls: number
  leaseP95MsAt10K: number
  /** How much of all cores other processes took in the calm runs, to judge their times by. */
  machineBusyShare: number | null
  machineBusyShareAt10K: number | null
  leaseP95MsAt1000Callers: number
  stormCallers: number
  stormCalls: number
  stormLeases: number
  /** Calls that were answered 503 or not at all, which callers tried again. */
  stormOverloaded: number
  cpuMsPerLeaseAt10K: number | null
  cpuMsPerLease: number | null
  costRatio1MTo10K: number | null
  doubleLeases: number
  earlyRequests: number
  /** The same log as triggers in the database saw it, and as the callers saw it. */
  byDatabase: Judgement & { grants: number; ended: number }
  byCallers: Judgement & { grants: number; ended: number }
}

/** Loads 10,000 tasks and then the rest, and asks for them: calmly twice, then all at once. */
export async function scale(options: {
  folder: string
  tasks: number
  callers: number
  say: (text: string) => void
  /** What to end when the bench is stopped. */
  onStop: (stop: () => Promise<unknown>) => void
}): Promise<ScaleFigures> {
  const { tasks, callers, say, onStop } = options
  const dataFolder = join(options.folder, 'scale')
  const first = await startChild<ServerAsk>('./server-process.ts', [dataFolder])
  onStop(() => first.stop())
  const { postgres, origin } = first.ready as ServerReady
  if (postgres === null) throw new Error('the first server has no database of its own')
  // The same folder: both are the same operator, with the same keys.
  const second = await startChild<ServerAsk>('./server-process.ts', [
    dataFolder,
    databaseUrl(postgres.connection),
  ])
  onStop(() => second.stop())
  const origins = [origin, (second.ready as ServerReady).origin]
  const database = new pg.Pool({ ...postgres.connection, max: 2 })
  // Told by the query that fails; without a listener it would end the bench.
  database.on('error', () => {})
  onStop(() => database.end())

  const campaign = await first.ask<string>({ kind: 'open', manifest: manifestOf() })
  await watchLeases(database)
  const nodes = await putNodes(database, campaign, callers, origins)
  onStop(() => Promise.all(nodes.map((node) => node.client.destroy())))
  const log: CallerGrant[] = []
  const processes = { pids: [first.pid, second.pid], withChildren: postgres.pid }
  const run = { database, campaign, nodes, log, processes }

  const few = Math.min(10_000, tasks)
  await load(database, campaign, 0, few)
  say(`${few} tasks: ${calm.callers} callers for ${calm.forMs / 1000} s …`)
  const small = await askCalmly(run)
  say(`  ${figuresText(small)}`)

  const beganMs = performance.now()
  if (tasks > few) await load(database, campaign, few, tasks)
  const loadSeconds = Math.round((performance.now() - beganMs) / 1000)
  say(`${tasks} tasks, loaded in ${loadSeconds} s: ${calm.callers} callers …`)
  const large = await askCalmly(run)
  say(`  ${figuresText(large)}`)
  say(`${callers} callers at once for ${stormForMs / 1000} s …`)
  const storm = await askAllAtOnce(run)
  say(`  ${figuresText(storm)}, ${storm.overloaded} times overloaded`)

  const byDatabase = judged(await databaseLog(database))
  const byCallers = judged(log)
  const perLease = (figures: CallFigures) =>
    figures.cpuMs === null ? null : round(figures.cpuMs / figures.leases)
  const [cost10K, cost1M] = [perLease(small), perLease(large)]
  return {
    tasks,
    hosts: Math.ceil(tasks / tasksPerHost),
    nodes: nodes.length,
    serverProcesses: origins.length,
    loadSeconds,
    leaseP95Ms: round(percentile(large.latenciesMs, 0.95)),
    leaseP50Ms: round(percentile(large.latenciesMs, 0.5)),
    leasesPerCall: round(large.leases / large.latenciesMs.length),
    calmCalls: large.latenciesMs.length,
    machineBusyShare: large.busyShare,
    machineBusyShareAt10K: small.busyShare,
    leaseP95MsAt10K: round(percentile(small.latenciesMs, 0.95)),
    leaseP95MsAt1000Callers: round(percentile(storm.latenciesMs, 0.95)),
    stormCallers: callers,
    stormCalls: storm.latenciesMs.length,
    stormLeases: storm.leases,
    stormOverloaded: storm.overloaded,
    cpuMsPerLeaseAt10K: cost10K,
    cpuMsPerLease: cost1M,
    costRatio1MTo10K: cost10K === null || cost1M === null ? null : round(cost1M / cost10K),
    doubleLeases: Math.max(byDatabase.doubleLeases, byCallers.doubleLeases),
    earlyRequests: Math.max(byDatabase.earlyRequests, byCallers.earlyRequests),
    byDatabase,
    byCallers,
  }
}

// What there is -----------------------------------------------------------------

const hostName = (number: number) => `h${number}.gleaner.test`

function manifestOf(): Campaign {
  const nowMs = Date.now()
  return {
    version: 1,
    id: 'scale',
    title: 'Bench of many tasks',
    purpose: 'Measures what a lease costs.',
    operator: { name: 'Bench', contact: 'operator@example.org' },
    use: 'research',
    // The first hosts; the others are loaded beside them, as if a list had named them.
    sites: Array.from({ length: 100 }, (_, number) => ({
      host: hostName(number),
      scheme: 'http' as const,
      pathPrefixes: ['/'],
      requestsPerSecond: 1000 / manners.paceMs,
      requestsInFlight: manners.inFlight,
    })),
    canaryHosts: [],
    seeds: [`http://${hostName(0)}/seed`],
    limits: { pageBytes: 1024 * 1024, pageMs: 20_000, pages: 100_000_000, depth: 10 },
    retentionDays: 1,
    quorum,
    points: { perPage: 10, perDuplicate: 1, perPayload: 2, budget: 10_000_000, funding: 'subsidy' },
    validFrom: new Date(nowMs - 60_000).toISOString(),
    validUntil: new Date(nowMs + 86_400_000).toISOString(),
  }
}

/** Open tasks from one number to another, their hosts with a fresh robots.txt that allows all. */
async function load(database: pg.Pool, campaign: string, from: number, to: number) {
  const digest = Buffer.from(campaign, 'base64url')
  const hosts = [Math.floor(from / tasksPerHost), Math.ceil(to / tasksPerHost) - 1]
  await database.query(
    `insert into host (origin, interval_ms, max_in_flight, robots_state, robots_at, robots_due_at)
     select 'http://h' || n || '.gleaner.test', $3, $4, 'allow-all', now(), now() + interval '20 hours'
     from generate_series($1::int, $2::int) as n
     on conflict (origin) do update
       set robots_state = 'allow-all', robots_at = now(), robots_due_at = excluded.robots_due_at`,
    [...hosts, manners.paceMs, manners.inFlight],
  )
  await database.query(
    `insert into task (campaign, host_id, kind, url, url_digest, depth, state, wanted)
     select $1, h.id, 'page', u.url, sha256(convert_to(u.url, 'UTF8')), 1 + n % 5, 'open', $2
     from generate_series($3::int, $4::int - 1) as n
     join host h on h.origin = 'http://h' || n / $5 || '.gleaner.test'
     cross join lateral (select h.origin || '/articles/' || md5(n::text) || '.html' as url) as u
     order by n`,
    [digest, quorum, from, to, tasksPerHost],
  )
  await database.query(
    `insert into queue (campaign, host_id, ready, due_at, pages)
     select $1, h.id, true, now() - random() * interval '1 second', $4
     from generate_series($2::int, $3::int) as n
     join host h on h.origin = 'http://h' || n || '.gleaner.test'
     on conflict (campaign, host_id) do update
       set ready = true, due_at = excluded.due_at, pages = queue.pages + excluded.pages`,
    [digest, ...hosts, tasksPerHost],
  )
  await database.query('update campaign set pages = pages + $2 where digest = $1', [
    digest,
    to - from,
  ])
  // What autovacuum would do soon, done before the clock starts.
  for (const table of ['host', 'task', 'queue', 'node', 'session', 'consent']) {
    await database.query(`vacuum analyze ${table}`)
  }
}

interface CallingNode {
  id: string
  account: string
  block: string
  token: string
  client: Client
}

/** Nodes with sessions and consents, each on a network block of its own but for a few pairs. */
async function putNodes(
  database: pg.Pool,
  campaign: string,
  count: number,
  origins: readonly string[],
): Promise<CallingNode[]> {
  const made = Array.from({ length: count }, (_, i) => {
    // Twenty pairs of one account, twenty pairs behind one router.
    const account = i < 40 ? Math.floor(i / 2) : i
    const behind = i >= 40 && i < 80 ? i - (i % 2) : i
    const address = `127.${1 + Math.floor(behind / 250)}.${behind % 250}.${1 + (i % 2)}`
    const token = randomBytes(32)
    return {
      id: Buffer.from(sha256(`node ${i}`)),
      account: Buffer.from(sha256(`account ${account}`)),
      address,
      token,
      origin: origins[i % origins.length] ?? '',
    }
  })
  const envelope = JSON.stringify({ payloadType: 'none', payload: '', signatures: [] })
  await database.query(
    `insert into node (id, account_id, public_key, client)
     select id, account, sha256(id), 'bench' from unnest($1::bytea[], $2::bytea[]) as n (id, account)`,
    [made.map(({ id }) => id), made.map(({ account }) => account)],
  )
  await database.query(
    `insert into node_block (node_id, block, block_wide) select * from unnest($1::bytea[], $2::text[], $3::text[])`,
    [
      made.map(({ id }) => id),
      made.map(({ address }) => networkBlock(address)),
      made.map(({ address }) => networkBlockWide(address)),
    ],
  )
  await database.query(
    `insert into session (token_digest, node_id, block, expires_at)
     select s.digest, s.node, s.block, now() + interval '1 hour'
     from unnest($1::bytea[], $2::bytea[], $3::text[]) as s (digest, node, block)`,
    [
      made.map(({ token }) => Buffer.from(sha256(token))),
      made.map(({ id }) => id),
      made.map(({ address }) => networkBlock(address)),
    ],
  )
  await database.query(
    `insert into consent (node_id, campaign, act, envelope)
     select n, $2, 'given', $3 from unnest($1::bytea[]) as n`,
    [made.map(({ id }) => id), Buffer.from(campaign, 'base64url'), envelope],
  )
  return made.map(({ id, account, address, token, origin }) => ({
    id: id.toString('hex'),
    account: account.toString('hex'),
    block: networkBlock(address),
    token: token.toString('base64url'),
    // In the storm a call waits behind a thousand others.
    client: new Client(origin, { localAddress: address, headersTimeout: 120_000 }),
  }))
}

/** The first witness: triggers that write down each lease as it is made and ended. */
async function watchLeases(database: pg.Pool) {
  // clock_timestamp(): now() is when the transaction began, which may be before the host was free.
  await database.query(`
    create table bench_granted (lease_id bytea, at timestamptz);
    create table bench_ended (lease_id bytea, at timestamptz);
    create function bench_grant() returns trigger language plpgsql as $$
      begin
        insert into bench_granted select id, clock_timestamp() from fresh;
        return null;
      end $$;
    create function bench_end() returns trigger language plpgsql as $$
      begin
        insert into bench_ended select a.id, clock_timestamp() from after a join before b using (id)
          where b.state = 'live' and a.state <> 'live';
        return null;
      end $$;
    create trigger bench_grant after insert on lease
      referencing new table as fresh for each statement execute function bench_grant();
    create trigger bench_end after update on lease
      referencing old table as before new table as after
      for each statement execute function bench_end();
  `)
}

async function databaseLog(database: pg.Pool): Promise<Grant[]> {
  const ms = (expression: string) => `(extract(epoch from ${expression}) * 1000)::float8`
  const { rows } = await database.query<{
    node: string
    account: string
    block: string
    url: string
    origin: string
    issued: number
    granted: number
    ended: number | null
  }>(
    `select encode(l.node_id, 'hex') as node, encode(l.account_id, 'hex') as account, l.block, t.url,
            h.origin, ${ms('l.issued_at')} as issued, ${ms('g.at')} as granted, ${ms('e.at')} as ended
     from lease l join task t on t.id = l.task_id join host h on h.id = l.host_id
     left join bench_granted g on g.lease_id = l.id
     left join (select lease_id, min(at) as at from bench_ended group by 1) e on e.lease_id = l.id`,
  )
  return rows.map((row) => ({
    node: row.node,
    account: row.account,
    block: row.block,
    url: row.url,
    host: row.origin,
    // One transaction of one node is one call.
    call: `${row.node} ${row.issued}`,
    earliestMs: row.issued,
    latestMs: row.issued,
    heldFromMs: row.granted,
    heldUntilMs: row.ended,
  }))
}

function judged(log: readonly Grant[]) {
  return {
    ...judge(log, () => manners),
    grants: log.length,
    ended: log.filter(({ heldUntilMs }) => heldUntilMs !== null).length,
  }
}

// Asking --------------------------------------------------------------------------

/** The second witness: what a caller knows by its own clock. The end is when it began to say so. */
type CallerGrant = Grant

interface Run {
  database: pg.Pool
  campaign: string
  nodes: readonly CallingNode[]
  log: CallerGrant[]
  processes: Parameters<typeof cpuMs>[0]
}

interface CallFigures {
  latenciesMs: number[]
  leases: number
  /** Calls that were answered 503, or not at all. */
  overloaded: number
  /** Of server processes and database, from the first call until nothing is left to decide. */
  cpuMs: number | null
  /** How much of all cores other processes than ours took meanwhile. */
  busyShare: number | null
}

function noFigures(): CallFigures {
  return { latenciesMs: [], leases: 0, overloaded: 0, cpuMs: null, busyShare: null }
}

async function askCalmly(run: Run): Promise<CallFigures> {
  const figures: CallFigures = noFigures()
  const before = cpuMs(run.processes)
  const [machineBefore, ownBefore] = [machineMs(), process.cpuUsage()]
  const untilMs = performance.now() + calm.forMs
  const endings: Promise<void>[] = []
  await Promise.all(
    Array.from({ length: calm.callers }, async (_, caller) => {
      // Each call by the next node, so that all are seen; callers begin one after another.
      await sleep((caller * calm.everyMs) / calm.callers)
      for (let turn = caller; performance.now() < untilMs; turn += calm.callers) {
        const node = run.nodes[turn % run.nodes.length] as CallingNode
        const nextMs = performance.now() + calm.everyMs
        const { grants } = await ask(run, node, figures)
        endings.push(giveBack(node, grants, figures))
        await sleep(Math.max(0, nextMs - performance.now()))
      }
    }),
  )
  await Promise.all(endings)
  await untilDecided(run.database)
  const after = cpuMs(run.processes)
  if (before !== null && after !== null) figures.cpuMs = after - before
  const machineAfter = machineMs()
  if (figures.cpuMs !== null && machineBefore !== null && machineAfter !== null) {
    const own = process.cpuUsage(ownBefore)
    const oursMs = figures.cpuMs + (own.user + own.system) / 1000
    const busyMs = machineAfter.busy - machineBefore.busy
    figures.busyShare = round((busyMs - oursMs) / (machineAfter.all - machineBefore.all))
  }
  return figures
}

async function askAllAtOnce(run: Run): Promise<CallFigures> {
  const figures: CallFigures = noFigures()
  const untilMs = performance.now() + stormForMs
  await Promise.all(
    run.nodes.map(async (node) => {
      while (performance.now() < untilMs) {
        const { grants, retryAfterMs } = await ask(run, node, figures)
        if (grants.length === 0) await sleep(Math.min(retryAfterMs, untilMs - performance.now()))
        else await giveBack(node, grants, figures)
      }
    }),
  )
  return figures
}

async function ask(
  run: Run,
  node: CallingNode,
  figures: CallFigures,
): Promise<{ grants: (CallerGrant & { lease: string })[]; retryAfterMs: number }> {
  const beganMs = performance.now()
  const answer = await post(node, '/v1/leases', { campaigns: [run.campaign], max: urlsPerCall })
  const endedMs = performance.now()
  if (answer.status !== 200) {
    figures.overloaded += 1
    return { grants: [], retryAfterMs: answer.retryAfterMs }
  }
  figures.latenciesMs.push(endedMs - beganMs)
  const { leases, retryAfterMs } = JSON.parse(answer.text) as {
    leases: { payload: string }[]
    retryAfterMs: number
  }
  figures.leases += leases.length
  const call = toBase64Url(randomBytes(8))
  const grants = leases.map(({ payload }) => {
    const { id, url } = JSON.parse(new TextDecoder().decode(fromBase64(payload))) as {
      id: string
      url: string
    }
    return {
      lease: id,
      node: node.id,
      account: node.account,
      block: node.block,
      url,
      host: new URL(url).origin,
      call,
      earliestMs: beganMs,
      latestMs: endedMs,
      heldFromMs: endedMs,
      heldUntilMs: null,
    }
  })
  run.log.push(...grants)
  return { grants, retryAfterMs }
}

/**
 * Refuses what was leased, after a while. A refused page goes straight back to the frontier, to be
 * leased again as soon as its host's pace allows: harder to keep apart than one that is answered.
 * The reason is one that lasts: what is given back for a pause may go to the same node again.
 */
async function giveBack(
  node: CallingNode,
  grants: readonly (CallerGrant & { lease: string })[],
  figures: CallFigures,
): Promise<void> {
  if (grants.length === 0) return
  await sleep(heldMs.least + Math.random() * (heldMs.most - heldMs.least))
  const leases = grants.map(({ lease }) => ({ lease, reason: 'over-limit' as const }))
  // As often as a node would within the lease's time; what stays is reported as not ended.
  for (let attempt = 0; attempt < 10; attempt += 1) {
    const saidMs = performance.now()
    for (const grant of grants) grant.heldUntilMs ??= saidMs
    const { status, retryAfterMs } = await post(node, '/v1/refusals', { leases, followUps: [] })
    if (status === 204) return
    figures.overloaded += 1
    await sleep(retryAfterMs)
  }
}

async function post(
  node: CallingNode,
  path: string,
  body: unknown,
): Promise<{ status: number; text: string; retryAfterMs: number }> {
  try {
    const response = await node.client.request({
      method: 'POST',
      path,
      headers: { authorization: `Bearer ${node.token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    const text = await response.body.text()
    if (response.statusCode >= 400 && response.statusCode !== 503) {
      throw new Error(`${path} was answered ${response.statusCode}: ${text.slice(0, 300)}`)
    }
    const retryAfterMs = Number(response.headers['retry-after'] ?? 1) * 1000
    return { status: response.statusCode, text, retryAfterMs }
  } catch (error) {
    // The line broke: like 503, to be tried again.
    if ((error as { code?: string }).code === undefined) throw error
    return { status: 0, text: '', retryAfterMs: 1000 }
  }
}

/** Until the pipeline has looked at everything that was given back. */
async function untilDecided(database: pg.Pool) {
  const deadline = performance.now() + 30_000
  while (performance.now() < deadline) {
    const { rows } = await database.query('select 1 from task where news limit 1')
    if (rows.length === 0) return
    await sleep(100)
  }
}

function databaseUrl({ user, password, host, port, database }: PostgresConnection): string {
  // A socket's folder stands where a name would, encoded.
  return `postgresql://${user}:${encodeURIComponent(password)}@${encodeURIComponent(host)}:${port}/${database}`
}

/** The smallest value that this share of all does not exceed. */
function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
}

function figuresText({ latenciesMs, leases, cpuMs, busyShare }: CallFigures): string {
  const cost =
    cpuMs === null
      ? ''
      : `, ${round(cpuMs / leases)} ms of CPU a lease; others took ${busyShare === null ? '?' : Math.round(busyShare * 100)} % of the machine`
  return `${latenciesMs.length} calls, ${leases} leases, p50 ${round(percentile(latenciesMs, 0.5))} ms, p95 ${round(percentile(latenciesMs, 0.95))} ms${cost}`
}

function round(value: number): number {
  return Number(value.toFixed(2))
}
