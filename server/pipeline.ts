import { randomBytes } from 'node:crypto'
import type { Logger } from 'pino'
import { parseRobots, type Robots, robotsVerdict } from '../lib/capture/robots.ts'
import { useBeforeFetch } from '../lib/capture/use-policy.ts'
import { type SiteUse, siteUse } from '../lib/capture/use-site.ts'
import type { ScopeRules } from '../lib/consent/scope.ts'
import { fromBase64Url, toBase64Url } from '../lib/crypto/base64.ts'
import { concatBytes, sha256 } from '../lib/crypto/digest.ts'
import { canonicalJson } from '../lib/protocol/canonical-json.ts'
import { rowOf } from './dedupe/novelty.ts'
import { shapeDigest } from './frontier/address.ts'
import { pageRetryMs } from './frontier/politeness.ts'
import { nextVisitMs } from './frontier/revisit.ts'
import { shapeBudgetOf, softNotFound } from './frontier/trap.ts'
import type { LoopWatch } from './http/metrics.ts'
import { takeIn } from './intake.ts'
import { pointsInputs } from './ledger/formula.ts'
import { epochRoots } from './ledger/seal.ts'
import { campaignAccount, creditForLease, nodeAccount } from './ledger/transfer.ts'
import { applyRobots } from './robots.ts'
import { addAuditorTasks } from './store/auditor-tasks.ts'
import type { BlobStore } from './store/blob-store.ts'
import { campaignsWithoutPages, setCampaignState, setSeeded } from './store/campaigns.ts'
import { deleteExpiredSessions } from './store/contributors.ts'
import type { Database } from './store/database.ts'
import {
  addRecord,
  answeredLeases,
  askFollowUps,
  closeTask,
  hasText,
  sameTexts,
  setLeafIndexes,
  unloggedRecords,
  wantAnotherObserver,
} from './store/decisions.ts'
import { type Ring, ring } from './store/doorbell.ts'
import {
  drawObservers,
  payloadsToRead,
  putAnalysis,
  type TaskUnderDecision,
  takeTasksWithNews,
} from './store/facts.ts'
import {
  askForRobots,
  closeUnfetched,
  countFresh,
  type HostToDecide,
  holdTasks,
  openTasks,
  type PageHistory,
  pageHistory,
  pagesToDecide,
  putPageHistory,
  revisitPages,
  robotsDigest,
} from './store/frontier.ts'
import { holdHost } from './store/hosts.ts'
import { expireLeases } from './store/leases.ts'
import {
  addEpoch,
  addTransfers,
  available,
  balances,
  latestEpoch,
  openAccounts,
  transfers,
} from './store/ledger.ts'
import { appendToLog } from './store/log.ts'
import { expireFollowUps, markNews } from './store/observations.ts'
import { keepOptOuts, optOutsCovering } from './store/opt-outs.ts'
import { carryOutOptOuts } from './store/opted-out.ts'
import { addOutcomes } from './store/outcomes.ts'
import type { Queryable } from './store/queryable.ts'
import type { Analyser } from './verify/analyser.ts'
import { type AgreedPage, decide, type Settlement } from './verify/decide.ts'

export interface PipelineOptions {
  database: Database
  blobs: BlobStore
  analyser: Analyser
  /** Signs the checkpoint of a tree. */
  signCheckpoint: (size: number, root: Uint8Array) => Promise<string>
  scopeRules: ScopeRules
  /** Name by which robots.txt addresses us. */
  agent: string
  log: Logger
  random: () => number
  now: () => number
  /** How long a node has to answer a follow-up before somebody else is asked. */
  followUpMs: number
  /** Is told of each step of a loop, by the loop's name and how long it rests. */
  observeLoop: (name: string, idleMs: number) => LoopWatch
}

/**
 * The straight line, as far as the server walks it by itself:
 *
 *   schedule → lease → fetch → observe → verify → attest → dedupe → credit → publish
 *
 * lease, observe and attest are calls of nodes (server/http/node-routes.ts),
 * fetch is theirs (lib/runner), publish is the operator's (server/publish).
 * Handlers record; these loops drain, each at its own pace, in batches. Every
 * step may be repeated: a crash anywhere loses nothing that was acknowledged.
 */
export function createPipeline(options: PipelineOptions) {
  const loop = (name: string, idleMs: number, work: () => Promise<number>) =>
    startLoop(name, idleMs, work, options.log, options.observeLoop(name, idleMs))
  const loops = [
    loop('schedule', 200, () => schedule(options)),
    loop('expire', 500, () => expire(options)),
    loop('read', 50, () => read(options)),
    loop('verify', 50, () => verify(options)),
    loop('opt-out', 500, () => optOut(options)),
    loop('log', 200, () => commitRows(options)),
    loop('seal', 60_000, () => closeTheDay(options)),
  ]
  return {
    async stop() {
      await Promise.all(loops.map((one) => one.stop()))
    },
  }
}

/** schedule, the owner's way: what somebody took out ends, and who asked is looked for. */
async function optOut(options: PipelineOptions): Promise<number> {
  return (await carryOutOptOuts(options)) + (await options.database.transaction(keepOptOuts))
}

/** schedule: seeds, pages whose time has come and robots.txt in; pages that may be fetched out. */
export async function schedule(options: PipelineOptions): Promise<number> {
  const { database } = options
  const seeded = await database.transaction((tx) => takeSeeds(options, tx))
  const due = await database.transaction((tx) => revisitPages(tx, 200))
  const asked = await database.transaction((tx) => askForRobots(tx, 100, sha256))
  const decided = await database.transaction((tx) => decidePages(options, tx))
  if (asked + decided.opened > 0) await ring(database.pool, [{ node: null, notice: 'work' }])
  return seeded + due + asked + decided.count
}

async function takeSeeds({ scopeRules, now }: PipelineOptions, tx: Queryable): Promise<number> {
  const unseeded = await campaignsWithoutPages(tx)
  for (const { manifest, digest } of unseeded) {
    const seeds = manifest.seeds.map((url) => ({ url, as: 'seed' as const, depth: 0 }))
    await takeIn(tx, { campaign: digest, manifest }, seeds, scopeRules, now())
    await setSeeded(tx, digest)
  }
  return unseeded.length
}

/** Which found pages may be fetched: by the owner's wish, by robots.txt, by signals about use. */
async function decidePages({ agent }: PipelineOptions, tx: Queryable) {
  const { pages, hosts } = await pagesToDecide(tx, 500)
  const optedOut = await optOutsCovering(tx, pages)
  const sites = new Map<number, { robots: Robots; use: SiteUse }>()
  const allowed: number[] = []
  const held: number[] = []
  const refused: { taskId: number; reason: string }[] = []
  for (const { taskId, hostId, url, use } of pages) {
    const host = hosts.get(hostId)
    if (optedOut.has(url)) refused.push({ taskId, reason: 'opted-out' })
    // Unresolved is disallowed, and may be resolved later.
    else if (!host || host.robotsState === 'unknown' || host.robotsState === 'disallow-all') {
      held.push(taskId)
    } else {
      const site = sites.get(hostId) ?? readSite(host, agent)
      sites.set(hostId, site)
      const verdict = robotsVerdict(site.robots, agent, url)
      const wish = useBeforeFetch(url, site.use, use)
      if (!verdict.allowed) {
        refused.push({ taskId, reason: `robots line ${verdict.line}: Disallow: ${verdict.rule}` })
      } else if (wish.kind === 'forbidden') refused.push({ taskId, reason: wish.reason })
      else allowed.push(taskId)
    }
  }
  await openTasks(tx, allowed)
  await holdTasks(tx, held)
  await closeUnfetched(tx, refused)
  return { opened: allowed.length, count: pages.length }
}

/** What a host says, parsed once for all of its pages. */
function readSite(host: HostToDecide, agent: string) {
  const robots = parseRobots(host.robotsText ?? '')
  return { robots, use: siteUse(robots, host.signals, agent) }
}

/** The two arrows that point back when somebody does not answer. */
async function expire({ database }: PipelineOptions): Promise<number> {
  return database.transaction(
    async (tx) => (await expireLeases(tx, 500)) + (await expireFollowUps(tx, 500)),
  )
}

/** verify, first half: payloads are read in worker threads that can be killed. */
async function read({ database, blobs, analyser }: PipelineOptions): Promise<number> {
  const waiting = await payloadsToRead(database.pool, 8)
  await Promise.all(
    waiting.map(async (one) => {
      const payload = await blobs.get(one.blob)
      const analysis = await analyser.analyse({ ...one, payload })
      await database.transaction(async (tx) => {
        await putAnalysis(tx, { leaseId: one.leaseId, analysis })
        await markNews(tx, [one.taskId])
      })
    }),
  )
  return waiting.length
}

/** verify and attest: what do the observers of each task say together, and what more is needed? */
async function verify(options: PipelineOptions): Promise<number> {
  return options.database.transaction(async (tx) => {
    const tasks = await takeTasksWithNews(tx, 64)
    const rings: Ring[] = []
    for (const task of tasks) {
      const decision = decide(task.facts, options.random)
      switch (decision.kind) {
        case 'wait':
          break
        case 'observer':
          if (await wantAnotherObserver(tx, task.taskId)) {
            const drawn = await drawObservers(tx, [task.taskId])
            rings.push(...drawn.map((node): Ring => ({ node, notice: 'work' })))
          }
          await addLinks(options, tx, task, decision.links)
          break
        case 'ask': {
          const asked = await askFollowUps(
            tx,
            task.taskId,
            decision.asks,
            task.day,
            options.followUpMs,
          )
          rings.push(...asked.map((node): Ring => ({ node, notice: 'follow-ups' })))
          break
        }
        case 'settle':
          rings.push(...(await settle(options, tx, task, decision.settlement, decision.invalid)))
          break
      }
    }
    await ring(tx, rings)
    return tasks.length
  })
  // Committed. A crash before this repeats the decisions; blobs that were written are found again.
}

/** dedupe and credit: one transaction with the verdict that they follow from. */
async function settle(
  options: PipelineOptions,
  tx: Queryable,
  task: TaskUnderDecision,
  decided: Settlement,
  invalid: readonly string[],
): Promise<Ring[]> {
  const { campaign, manifest } = task
  const settlement = await orTakenOut(tx, await orNotFound(tx, task, decided))
  let novelty: 'new' | 'duplicate' | 'robots' = 'duplicate'
  let links: string[] = []
  let reason: string | null = null
  switch (settlement.verdict) {
    case 'valid': {
      const { page } = settlement
      const textDigest = fromBase64Url(page.textDigest)
      const identity = identityOf(page)
      const duplicate = await hasText(tx, campaign, identity)
      novelty = duplicate ? 'duplicate' : 'new'
      const robots = await robotsDigest(tx, task.hostId)
      const row = rowOf(page, {
        campaign: toBase64Url(campaign),
        day: task.day,
        quorum: manifest.quorum,
        robots: robots && toBase64Url(robots),
        duplicate,
      })
      await addRecord(tx, {
        taskId: task.taskId,
        campaign,
        rowJson: canonicalJson(row),
        salt: randomBytes(32),
        textDigest,
        identity,
        // Blob, then rows, then ledger.
        textBlob: await options.blobs.put(textDigest, new TextEncoder().encode(page.text)),
        duplicate,
        payloadLease: page.grade === 'exact' ? fromBase64Url(page.payloadLease) : null,
      })
      links = page.links
      break
    }
    case 'robots':
      novelty = 'robots'
      reason = await resolveRobots(options, tx, task, settlement.robots)
      break
    case 'redirect':
      links = [settlement.target]
      reason = settlement.target
      break
    case 'unpublished':
      links = settlement.links ?? []
      reason = settlement.reason
      break
    case 'postponed':
    case 'divergent':
      reason = settlement.reason
      break
  }
  await closeTask(tx, task.taskId, settlement.verdict, reason)
  if (task.facts.kind === 'page') await remember(options, tx, task, settlement, novelty)
  await addLinks(options, tx, task, links, settlement.verdict === 'redirect' ? 'redirect' : 'link')
  return credit(tx, task, settlement, novelty, invalid)
}

/** A page whose owner took it out while it was on its way. */
async function orTakenOut(tx: Queryable, settlement: Settlement): Promise<Settlement> {
  if (settlement.verdict !== 'valid') return settlement
  const { page, valid } = settlement
  const covering = await optOutsCovering(tx, [page])
  return covering.size === 0 ? settlement : { verdict: 'unpublished', reason: 'opted-out', valid }
}

/** A page that says "not found" with status 200, or stands under many addresses, is none. */
async function orNotFound(
  tx: Queryable,
  task: TaskUnderDecision,
  settlement: Settlement,
): Promise<Settlement> {
  if (settlement.verdict !== 'valid') return settlement
  const { page, valid } = settlement
  // Of a page that is published as bytes the text says nothing.
  if (page.text === '') return settlement
  const sameTextCount = await sameTexts(tx, task, {
    textDigest: fromBase64Url(page.textDigest),
    title: page.title?.slice(0, 1000) ?? null,
  })
  const words = `${page.title ?? ''} ${page.text.slice(0, 200)}`
  const reason = softNotFound({ title: words, sameTextCount, status: page.status })
  return reason === null
    ? settlement
    : { verdict: 'unpublished', reason: `soft 404: ${reason}`, valid }
}

/** schedule: what robots.txt says from now on, and what else the host has to say. Returns the reason for people. */
async function resolveRobots(
  options: PipelineOptions,
  tx: Queryable,
  task: TaskUnderDecision,
  robots: Extract<Settlement, { verdict: 'robots' }>['robots'],
): Promise<string> {
  const { agent } = options
  if (robots.state === 'disallow-all' && robots.reason === 'redirect-refused') {
    // It leads outside of what contributors agreed to. What was known stays, as long as it is fresh.
    await addAuditorTasks(tx, [{ kind: 'robots', hostId: task.hostId, target: task.url }])
    return 'left to the auditor: a redirect out of the campaign'
  }
  await applyRobots(
    tx,
    task.hostId,
    robots.state === 'rules'
      ? { ...robots, digest: fromBase64Url(robots.payloadDigest), reason: 'observed by a quorum' }
      : robots,
    agent,
  )
  return robots.state === 'rules' ? 'rules' : `${robots.state}: ${robots.reason}`
}

/** schedule: when to come back, from this page's own history. */
async function remember(
  options: PipelineOptions,
  tx: Queryable,
  { campaign, manifest, urlDigest, url, hostId, taskId }: TaskUnderDecision,
  settlement: Settlement,
  novelty: 'new' | 'duplicate' | 'robots',
) {
  const nowMs = options.now()
  const before = (await pageHistory(tx, campaign, urlDigest)) ?? {
    visits: 0,
    changes: 0,
    failures: 0,
    firstVisitMs: null,
    lastVisitMs: null,
    textDigest: null,
  }
  const failure = failureOf(settlement)
  if (failure === 'unreachable')
    await holdHost(tx, hostId, settlement.verdict === 'unpublished' ? settlement.reason : '')
  const retryMs = failure === null ? null : pageRetryMs(before.failures)
  const textDigest = settlement.verdict === 'valid' ? identityOf(settlement.page) : null
  const history: PageHistory =
    failure !== null
      ? { ...before, failures: before.failures + 1 }
      : {
          visits: before.visits + 1,
          changes:
            before.changes + Number(before.visits > 0 && isChange(before.textDigest, textDigest)),
          failures: 0,
          firstVisitMs: before.firstVisitMs ?? nowMs,
          lastVisitMs: nowMs,
          textDigest: textDigest === null ? before.textDigest : Buffer.from(textDigest),
        }
  const dueAtMs = retryMs === null ? nextVisitMs({ ...history, nowMs }) : nowMs + retryMs
  await putPageHistory(tx, {
    taskId,
    history,
    dueAtMs: dueAtMs <= Date.parse(manifest.validUntil) ? dueAtMs : null,
  })
  if (settlement.verdict === 'valid' && novelty === 'new') {
    const place = { campaign, hostId, shape: shapeDigest(url) }
    await countFresh(tx, place, shapeBudgetOf, manifest.limits.pages)
  }
}

/** Whether a visit brought nothing because of the moment, not because of the page. */
function failureOf(settlement: Settlement): 'sent-away' | 'unreachable' | null {
  if (settlement.verdict === 'postponed') return 'sent-away'
  if (settlement.verdict !== 'unpublished') return null
  if (/^status (429|5\d\d)$/.test(settlement.reason)) return 'sent-away'
  return settlement.reason === 'connection' || settlement.reason === 'timeout'
    ? 'unreachable'
    : null
}

/** What makes two pages the same: their text, or their bytes where they are published as bytes. */
function identityOf({ text, textDigest, payloadDigest }: AgreedPage): Uint8Array {
  return fromBase64Url(text === '' && payloadDigest !== null ? payloadDigest : textDigest)
}

/** A page without text now and before has not changed. */
function isChange(before: Buffer | null, after: Uint8Array | null): boolean {
  return before === null ? after !== null : after !== null && !before.equals(after)
}

/** schedule: what two observers saw linked, as far as the campaign covers it. */
async function addLinks(
  { scopeRules, now }: PipelineOptions,
  tx: Queryable,
  { campaign, manifest, depth, url, chain }: TaskUnderDecision,
  links: readonly string[],
  as: 'link' | 'redirect' = 'link',
) {
  // A redirect is no step away from where it was found.
  const found = links.map((link) => ({
    url: link,
    as,
    depth: as === 'redirect' ? depth : depth + 1,
    on: { url, chain },
  }))
  await takeIn(tx, { campaign, manifest }, found, scopeRules, now())
}

/** credit: pending points for everyone whose observation held, within the campaign's budget. */
async function credit(
  tx: Queryable,
  task: TaskUnderDecision,
  settlement: Settlement,
  novelty: 'new' | 'duplicate' | 'robots',
  invalid: readonly string[],
): Promise<Ring[]> {
  const leases = await answeredLeases(tx, task.taskId)
  const { campaign, manifest } = task
  const salt = () => randomBytes(16)
  const due = leases.flatMap((lease) => {
    if (!settlement.valid.includes(lease.lease)) return []
    const roles = ['observer'] as ('observer' | 'payload')[]
    if (settlement.verdict === 'valid' && settlement.page.payloadLease === lease.lease) {
      roles.push('payload')
    }
    return roles.flatMap((role) => {
      const inputs = pointsInputs(manifest, role, novelty)
      const transfer = creditForLease(
        { ...lease, campaign },
        manifest.points.funding,
        inputs,
        salt(),
      )
      return transfer ? [{ lease: lease.lease, transfer }] : []
    })
  })
  await openAccounts(
    tx,
    leases.map((lease) => ({ id: nodeAccount(lease.accountId), kind: 'node' })),
  )
  const total = due.reduce((sum, one) => sum + one.transfer.amount, 0)
  const held = total === 0 ? 0 : await available(tx, campaignAccount(campaign))
  const paid = total <= held ? due : []
  if (total > held) await setCampaignState(tx, campaign, 'exhausted')
  await addTransfers(
    tx,
    paid.map((one) => one.transfer),
  )
  await addOutcomes(
    tx,
    leases.map((lease) => ({
      leaseId: lease.leaseId,
      verdict: outcomeOf(lease.lease, settlement, invalid),
      grade: settlement.verdict === 'valid' ? settlement.page.grade : null,
      duplicate: settlement.verdict === 'valid' && novelty === 'duplicate',
      points: paid
        .filter((one) => one.lease === lease.lease)
        .reduce((sum, one) => sum + one.transfer.amount, 0),
    })),
  )
  return [...new Set(leases.map((lease) => lease.node))].map(
    (node): Ring => ({ node, notice: 'outcomes' }),
  )
}

function outcomeOf(lease: string, settlement: Settlement, invalid: readonly string[]) {
  if (invalid.includes(lease)) return 'invalid'
  if (settlement.verdict === 'divergent') return 'divergent'
  if (!settlement.valid.includes(lease)) return 'unresolved'
  return settlement.verdict === 'valid' || settlement.verdict === 'robots' ? 'valid' : 'unpublished'
}

/** publish, first half: the log commits to every record. */
export async function commitRows({
  database,
  signCheckpoint,
}: Pick<PipelineOptions, 'database' | 'signCheckpoint'>): Promise<number> {
  return database.transaction(async (tx) => {
    const records = await unloggedRecords(tx, 256)
    if (records.length === 0) return 0
    const entries = records.map((record) =>
      canonicalJson({
        type: 'row',
        commitment: toBase64Url(
          sha256(concatBytes(record.salt, new TextEncoder().encode(record.rowJson))),
        ),
      }),
    )
    const first = await appendToLog(tx, entries, signCheckpoint)
    await setLeafIndexes(
      tx,
      records.map((record) => record.id),
      first,
    )
    return records.length
  })
}

/** Seals what the ledger took in, into the log. Returns the epoch's number, or null when there was nothing. */
export async function sealEpoch(
  { database, signCheckpoint }: Pick<PipelineOptions, 'database' | 'signCheckpoint'>,
  nowMs: number,
): Promise<number | null> {
  return database.transaction(async (tx) => {
    // One epoch at a time, whichever process seals it; and no transfer may slip in between.
    await tx.query('lock table epoch, transfer in share row exclusive mode')
    const unsealed = await transfers(tx, { unsealed: true, limit: 1_000_000 })
    if (unsealed.length === 0) return null
    const held = await balances(tx)
    const roots = epochRoots(unsealed, held)
    const number = ((await latestEpoch(tx))?.number ?? 0) + 1
    const day = new Date(nowMs).toISOString().slice(0, 10)
    const leafIndex = await appendToLog(
      tx,
      [
        canonicalJson({
          type: 'epoch',
          number,
          day,
          transfersRoot: toBase64Url(roots.transfersRoot),
          transfers: unsealed.length,
          balancesRoot: toBase64Url(roots.balancesRoot),
          accounts: held.length,
        }),
      ],
      signCheckpoint,
    )
    await addEpoch(tx, {
      number,
      day,
      transfersRoot: roots.transfersRoot,
      transferIds: unsealed.map((transfer) => transfer.id),
      balancesRoot: roots.balancesRoot,
      accounts: held.length,
      leafIndex,
    })
    return number
  })
}

/** Epochs seal daily: the first look on a new UTC day seals the day before. Sessions that are over go, too. */
async function closeTheDay(options: PipelineOptions): Promise<number> {
  await deleteExpiredSessions(options.database.pool)
  const now = Date.now()
  const today = new Date(now).toISOString().slice(0, 10)
  const { rows } = await options.database.pool.query<{ day: string | null }>(
    `select to_char(min(created_at) at time zone 'UTC', 'YYYY-MM-DD') as day
     from transfer where epoch is null`,
  )
  const [oldest] = rows
  if (!oldest?.day || oldest.day >= today) return 0
  return (await sealEpoch(options, now)) === null ? 0 : 1
}

/** Runs `work` again at once while there is any, else after `idleMs`; after an error it backs off to 5 s. */
function startLoop(
  name: string,
  idleMs: number,
  work: () => Promise<number>,
  log: Logger,
  watch: LoopWatch,
) {
  let stopped = false
  let wake: () => void = () => {}
  const pause = (ms: number) =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  const running = (async () => {
    let failures = 0
    while (!stopped) {
      try {
        watch.began()
        const done = await work()
        watch.ended(done)
        failures = 0
        // Told to stop during the work: nobody would end the pause.
        if (done === 0 && !stopped) await pause(idleMs)
      } catch (error) {
        watch.failed()
        failures += 1
        log.error({ err: error, loop: name }, 'a step of the pipeline failed; it is tried again')
        await pause(Math.min(5000, 100 * 2 ** Math.min(failures, 6)))
      }
    }
  })()
  return {
    async stop() {
      stopped = true
      wake()
      await running
    },
  }
}
