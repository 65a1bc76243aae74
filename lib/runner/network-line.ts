import type { WaitingReason } from '../consent/limits.ts'
import { openNetwork, validity } from '../consent/manifest.ts'
import type { ScopeRules } from '../consent/scope.ts'
import { fromBase64, fromBase64Url } from '../crypto/base64.ts'
import { verifyEnvelope } from '../crypto/dsse.ts'
import { generateKeyPair } from '../crypto/ed25519.ts'
import { batchReply } from '../protocol/attestation-batch.ts'
import type { Site } from '../protocol/campaign.ts'
import type { EnvelopeMessage } from '../protocol/fields.ts'
import { type FollowUp, type FollowUpRefusalReason, followUpList } from '../protocol/follow-up.ts'
import { type Lease, leaseGrant, lease as leaseMessage } from '../protocol/lease.ts'
import { observationReply, receipt as receiptMessage } from '../protocol/observation.ts'
import { outcomeList } from '../protocol/outcome.ts'
import { payloadType } from '../protocol/payload-type.ts'
import { problemReason } from '../protocol/problem.ts'
import type { LeaseRefusalReason } from '../protocol/refusal.ts'
import type { SocketNotice } from '../protocol/socket.ts'
import { answerFollowUp, statementDigest } from './answer.ts'
import { fetchPage, type PageFetch } from './fetch-page.ts'
import { judgeLease, leaseCoverage } from './judge-lease.ts'
import type { Action, DoorbellFacts, NetworkFacts, TaskFacts } from './machine.ts'
import { BATCH_WAIT_MS, type CallKind, type CampaignFacts, KEEP_MS } from './machine.ts'
import { observeFailure, observePage } from './observe.ts'
import type {
  ConsentedCampaign,
  ConsentNotice,
  JoinedNetwork,
  JournalEntry,
  RunnerPorts,
  RunnerTask,
  ServerConnection,
} from './ports.ts'
import { ServerProblem, ServerUnreachable, signed, understood } from './server-connection.ts'

/** What all networks of a runner share. */
export interface LineContext {
  ports: RunnerPorts
  scope: ScopeRules
  /** When a request to a site last began, by host, whichever network asked for it. */
  lastStartMs: Map<string, number>
  /** Adds to the usage that the caps look at. */
  used: (bytesUp: number, bytesDown: number) => Promise<void>
  /** Something changed: decide again. */
  wake: () => void
}

interface HeldTask {
  task: RunnerTask
  site: Site
  /** Of the running fetch. */
  fetching: AbortController | null
  sending: boolean
  /** When the call began that brought its lease; 0 when that was in an earlier life. */
  askedAtMs: number
  observedAtMs: number
  /** Why it left the table while its fetch was running. */
  ended?: LeaseRefusalReason
}

interface HeldCampaign {
  consented: ConsentedCampaign
  haltedUntilMs: number
  refused: boolean
}

// Heads of a request and its answer, which no platform counts: so that a cap is not undercut.
const HEAD_BYTES_UP = 500
const HEAD_BYTES_DOWN = 700
const FIRST_BACKOFF_MS = 1_000
const LONGEST_BACKOFF_MS = 5 * 60_000
/** However long a server wants to be left alone, it is asked again within the hour. */
const LONGEST_RETRY_AFTER_MS = 60 * 60_000
const SOONEST_LEASE_MS = 100
const LONGEST_LEASE_WAIT_MS = 10 * 60_000
// A halt lasts until the server says `resume`, and it says again now and then that it lasts. Only
// when it does neither the halt ends by itself: nothing of a halted campaign is leased anyway.
const HALT_MS = 5 * 60_000
// One batch of refusals (refusalBatch). Older ones are dropped: the server sees those leases expire.
const MOST_REFUSALS = 64
const FULL_FOLLOW_UPS = 64
const FULL_OUTCOMES = 500
// Lease ids remembered after a withdrawal, to answer a follow-up with the true reason.
const MOST_WITHDRAWN = 1_000

/** One joined network: what is in hand for it, and every call to its server. */
export class NetworkLine {
  joined: JoinedNetwork
  readonly #server: ServerConnection
  readonly #context: LineContext
  readonly #campaigns = new Map<string, HeldCampaign>()
  readonly #tasks = new Map<string, HeldTask>()
  readonly #notices = new Map<string, ConsentNotice>()
  readonly #withdrawn = new Set<string>()
  readonly #calls = new Set<CallKind>()
  #trusted: boolean | null = null
  /** For all calls: the server is away, or wants to be left alone. */
  #backoff: { untilMs: number; reason: WaitingReason } | null = null
  #failures = 0
  /** For one kind of call that fails while others work. */
  readonly #callBackoff = new Map<CallKind, { untilMs: number; failures: number }>()
  readonly #retiring = new AbortController()
  readonly #running = new Set<Promise<void>>()
  /** Of everything; a campaign that was halted by name stays halted when this ends. */
  #haltedUntilMs = 0
  #silentSinceMs: number | null = null
  #leaseAtMs = 0
  #followUpsRangMs: number | null = null
  #followUpsAskedMs: number | null = null
  #outcomesRangMs: number | null = null
  #outcomesAskedMs: number | null = null
  #leaseRefusals: { lease: string; reason: LeaseRefusalReason }[] = []
  #followUpRefusals: { followUp: string; reason: FollowUpRefusalReason }[] = []
  #refusalsSinceMs = 0
  #counted = { bytesUp: 0, bytesDown: 0 }

  constructor(
    joined: JoinedNetwork,
    server: ServerConnection,
    campaigns: readonly ConsentedCampaign[],
    context: LineContext,
  ) {
    this.joined = joined
    this.#server = server
    this.#context = context
    this.#counted = server.traffic()
    for (const consented of campaigns) this.#hold(consented)
  }

  get id(): string {
    return this.joined.fingerprint
  }

  /** Takes up what an earlier life left. Tasks outside today's consent are let go. */
  async load(): Promise<void> {
    const { store, now } = this.#context.ports
    for (const notice of await store.consentNotices(this.id)) {
      this.#notices.set(notice.campaign, notice)
    }
    for (const task of await store.tasks(this.id)) {
      const campaign = this.#campaigns.get(task.campaign)?.consented.campaign
      const { scope } = this.#context
      const judged = judgeLease(task.lease, this.#consented(), now(), scope)
      // What was seen in time is still told after a campaign's last day; new fetches are not begun.
      const covered =
        judged.ok || campaign === undefined || task.state === 'leased'
          ? judged
          : leaseCoverage(task.lease, campaign, scope)
      if (covered.ok) {
        this.#put(task, covered.site, 0)
      } else {
        await store.deleteTask(task.id)
        if (!judged.ok && task.state === 'leased') await this.#refuse(task.lease, judged.reason)
      }
    }
  }

  facts(nowMs: number): NetworkFacts {
    const waiting = this.#leaseRefusals.length + this.#followUpRefusals.length
    return {
      id: this.id,
      trusted: this.#trusted,
      doorbell: this.#doorbellFacts(nowMs),
      campaigns: [...this.#campaigns.values()].map((held) => this.#campaignFacts(held, nowMs)),
      tasks: [...this.#tasks.values()].map(taskFacts),
      calls: this.#calls,
      backoff: this.#backoff,
      callNotBeforeMs: new Map(
        [...this.#callBackoff].map(([kind, { untilMs }]) => [kind, untilMs]),
      ),
      leaseAtMs: this.#leaseAtMs,
      followUpsRangMs: this.#followUpsRangMs,
      outcomesRangMs: this.#outcomesRangMs,
      followUpsAskedMs: this.#followUpsAskedMs,
      outcomesAskedMs: this.#outcomesAskedMs,
      consentNotices: this.#notices.size,
      refusals: waiting === 0 ? null : { count: waiting, sinceMs: this.#refusalsSinceMs },
    }
  }

  /** Begins what was decided; marks it as begun before it returns. What fails is logged and waited out. */
  perform(action: Action): void {
    this.#track(this.#perform(action))
  }

  /** Aborts what runs. Resolves when nothing of this line will touch ports again. */
  async retire(): Promise<void> {
    this.#retiring.abort()
    await Promise.all(this.#running)
  }

  ring(notice: SocketNotice): void {
    const nowMs = this.#context.ports.now()
    switch (notice.type) {
      case 'ready':
        // The server is there again, and notices may have been missed.
        if (this.#backoff?.reason === 'server-unreachable') this.#backoff = null
        this.#leaseAtMs = nowMs
        this.#followUpsRangMs ??= nowMs
        this.#outcomesRangMs ??= nowMs
        return
      case 'work':
        this.#leaseAtMs = nowMs
        return
      case 'follow-ups':
        this.#followUpsRangMs ??= nowMs
        return
      case 'outcomes':
        this.#outcomesRangMs ??= nowMs
        return
      case 'halt':
        this.#halt(notice.campaign, nowMs)
        return
      case 'resume':
        this.#resume(notice.campaign, nowMs)
        return
      case 'recall':
        this.#track(this.#guarded('recall', () => this.#recall(notice.leases)))
        return
      case 'pong':
        return
    }
  }

  /** Aborts running fetches; their tasks stay leased. */
  abortFetches(): void {
    for (const { fetching } of this.#tasks.values()) fetching?.abort()
  }

  async consent(consented: ConsentedCampaign): Promise<void> {
    await this.#notify(consented, 'given', consented.givenAt)
    this.#hold(consented)
  }

  /** Aborts at once; resolves when the tasks are gone from the store and the notice is in it. */
  async withdraw(digest: string): Promise<void> {
    const { ports } = this.#context
    const held = this.#campaigns.get(digest)
    this.#campaigns.delete(digest)
    const tasks = [...this.#tasks.values()].filter(({ task }) => task.campaign === digest)
    for (const ending of tasks) {
      ending.ended = 'consent-withdrawn'
      this.#tasks.delete(ending.task.id)
      this.#rememberWithdrawn(ending.task.id)
      ending.fetching?.abort()
    }
    if (held !== undefined) {
      await this.#notify(held.consented, 'withdrawn', new Date(ports.now()).toISOString())
    }
    for (const { task, fetching } of tasks) {
      await ports.store.deleteTask(task.id)
      // A running fetch writes its own line, with the bytes it moved.
      if (task.state === 'leased' && fetching === null) {
        await this.#journal(entryOf(task, ports.now(), refused('consent-withdrawn')))
      }
    }
  }

  /** Ends everything here: the network was left. Its server is told once, if it can be reached. */
  async leave(): Promise<void> {
    for (const digest of [...this.#campaigns.keys()]) await this.withdraw(digest)
    for (const id of [...this.#tasks.keys()]) await this.#delete(id)
    if (this.#trusted === true) await this.#call('tell-consents', () => this.#tellConsents())
  }

  #track(performed: Promise<void>): void {
    this.#running.add(performed)
    void performed.finally(() => this.#running.delete(performed))
  }

  #perform(action: Action): Promise<void> {
    switch (action.kind) {
      case 'ask-doorbell':
        this.#context.ports.doorbell(this.id)?.ask()
        return Promise.resolve()
      case 'fetch':
        return this.#guarded('fetch', () => this.#fetch(action.task))
      case 'give-back':
        return this.#guarded('give-back', () => this.#giveBack(action.task))
      case 'let-go':
        return this.#guarded('let-go', () => this.#delete(action.task))
      case 'send-observations':
        return this.#call(action.kind, () => this.#sendObservations(action.tasks))
      case 'lease':
        return this.#call(action.kind, () => this.#lease(action.campaigns, action.max))
      case 'check-network':
        return this.#call(action.kind, () => this.#checkNetwork())
      case 'tell-consents':
        return this.#call(action.kind, () => this.#tellConsents())
      case 'send-refusals':
        return this.#call(action.kind, () => this.#sendRefusals())
      case 'answer-follow-ups':
        return this.#call(action.kind, () => this.#answerFollowUps())
      case 'ask-outcomes':
        return this.#call(action.kind, () => this.#askOutcomes())
    }
  }

  // Fetching.

  async #fetch(id: string): Promise<void> {
    const { ports, scope } = this.#context
    const stopped = this.#retiring.signal
    const held = this.#tasks.get(id)
    const campaign = held && this.#campaigns.get(held.task.campaign)?.consented.campaign
    if (held === undefined || campaign === undefined || held.fetching !== null) return
    const aborter = new AbortController()
    held.fetching = aborter
    const { lease } = held.task
    // Once begun it may run to its end, at most the manifest's pageMs: when the doorbell closes it is
    // not aborted, since a line that breaks now and then would make sites pay for every page twice.
    this.#context.lastStartMs.set(held.site.host, ports.now())
    try {
      const signal = AbortSignal.any([aborter.signal, stopped])
      const page = await fetchPage({ lease, campaign, scope, signal }, ports)
      await this.#countPage(page)
      if (stopped.aborted) return
      if (this.#tasks.get(id) !== held) {
        const entry = entryOf(held.task, ports.now(), refused(held.ended ?? 'expired'), page)
        return await this.#journal(entry)
      }
      // Not the site's fault: the task stays leased, and is fetched again while it is good.
      if (page.kind === 'aborted' || (await this.#isOwnLineDown(page))) return
      if (page.kind === 'refused') {
        await this.#delete(id)
        return await this.#refuse(lease, page.reason)
      }
      await this.#observe(held, page)
      // Dropped while it was read: nothing is said of it, but its bytes were moved.
      if (held.ended !== undefined) {
        await this.#journal(entryOf(held.task, ports.now(), refused(held.ended), page))
      }
    } catch (error) {
      // The store failed. Fetching the page again and again would make the site pay for that, so the
      // task rests in the store until the next life, or expires.
      this.#tasks.delete(id)
      throw error
    } finally {
      held.fetching = null
    }
  }

  async #isOwnLineDown(page: PageFetch): Promise<boolean> {
    if (page.kind !== 'failed' || page.reason !== 'connection') return false
    return (await this.#context.ports.device()).online === false
  }

  async #observe(
    held: HeldTask,
    page: Extract<PageFetch, { kind: 'fetched' | 'failed' }>,
  ): Promise<void> {
    const { store, now } = this.#context.ports
    const { task } = held
    const isHeld = () => this.#tasks.get(task.id) === held
    if (page.kind === 'failed') {
      const statement = await observeFailure(task.lease, page, task.oneUseKey)
      if (!isHeld()) return
      held.task = { ...task, state: 'observed', statement }
    } else {
      const { statement, body } = await observePage(task.lease, page, task.oneUseKey)
      if (!isHeld()) return
      if (body !== undefined) await store.putBody(task.id, page.payload)
      if (!isHeld()) return
      held.task = { ...task, state: 'observed', statement, ...(body && { body }) }
    }
    const result: JournalEntry['result'] =
      page.kind === 'fetched'
        ? { kind: 'fetched', status: page.status }
        : { kind: 'failed', reason: page.reason }
    const entry = entryOf(task, now(), result, page)
    await store.putTaskAndEntry(held.task, entry)
    // Dropped meanwhile: the write would bring it back at the next start.
    if (!isHeld()) return store.deleteTask(task.id)
    // Committed. A crash from here sends the same statement again, which changes nothing.
    held.observedAtMs = now()
    this.#context.ports.log({ kind: 'journal', entry })
  }

  async #countPage(page: PageFetch): Promise<void> {
    if (page.kind === 'refused') return
    const requests = 1 + (page.kind === 'fetched' ? page.hops.length : page.hops)
    await this.#context.used(requests * HEAD_BYTES_UP, requests * HEAD_BYTES_DOWN + page.wireBytes)
  }

  async #giveBack(id: string): Promise<void> {
    const held = this.#tasks.get(id)
    if (held === undefined) return
    await this.#delete(id)
    await this.#refuse(held.task.lease, 'expired')
  }

  // Calls. Each may throw ServerProblem or ServerUnreachable, which #call turns into waiting.

  async #checkNetwork(): Promise<void> {
    const answer = await this.#server.getWithoutSession('/v1/network', this.#retiring.signal)
    const opened = await openNetwork(answer, this.id)
    this.#trusted = opened.ok
    if (!opened.ok) {
      this.abortFetches()
      return this.#problem('check-network', new Error(`network document refused: ${opened.reason}`))
    }
    const isChanged = JSON.stringify(opened.network) !== JSON.stringify(this.joined.network)
    this.joined = { ...this.joined, network: opened.network }
    if (isChanged) this.#context.ports.log({ kind: 'network', joined: this.joined })
  }

  async #tellConsents(): Promise<void> {
    const { store } = this.#context.ports
    const { nodeKey } = await store.identity(this.id)
    for (const notice of [...this.#notices.values()]) {
      const { network: _, ...choice } = notice
      const envelope = await signed(payloadType.consent, nodeKey, { version: 1, ...choice })
      try {
        await this.#server.postJson('/v1/consents', envelope, this.#retiring.signal)
      } catch (error) {
        if (!(error instanceof ServerProblem) || error.reason !== 'unknown-campaign') throw error
        // The server will never know it: one such campaign must not hold up the others.
        const held = this.#campaigns.get(notice.campaign)
        if (held !== undefined) held.refused = true
        this.#problem('tell-consents', error)
      }
      await store.deleteConsentNotice(notice)
      if (this.#notices.get(notice.campaign) === notice) this.#notices.delete(notice.campaign)
    }
  }

  async #lease(campaigns: readonly string[], max: number): Promise<void> {
    const { ports } = this.#context
    const stopped = this.#retiring.signal
    const dueAtMs = this.#leaseAtMs
    const askedAtMs = ports.now()
    let grant: ReturnType<typeof leaseGrant.parse>
    try {
      const answer = await this.#server.postJson('/v1/leases', { campaigns, max }, stopped)
      grant = understood(leaseGrant, answer)
    } catch (error) {
      if (error instanceof ServerProblem && error.reason === 'no-consent') {
        await this.#consentAgain(campaigns)
      }
      throw error
    }
    const leases = grant.leases.slice(0, max)
    // A bell during the call has set the time anew and wins. A full grant means that there is more.
    if (this.#leaseAtMs === dueAtMs && leases.length < max) {
      const waitMs = Math.max(SOONEST_LEASE_MS, grant.retryAfterMs)
      this.#leaseAtMs = ports.now() + Math.min(waitMs, LONGEST_LEASE_WAIT_MS)
    }
    for (const envelope of leases) await this.#take(envelope, askedAtMs)
  }

  async #take(envelope: EnvelopeMessage, askedAtMs: number): Promise<void> {
    const { ports, scope } = this.#context
    const { leaseKey } = this.joined.network
    const opened = await verifyEnvelope(envelope, payloadType.lease, fromBase64Url(leaseKey))
    if (!opened.ok) return this.#suspect(envelope)
    const parsed = leaseMessage.safeParse(parseJson(opened.payload))
    if (!parsed.success) {
      return this.#problem('lease', new Error('a signed lease of another version'))
    }
    const lease = parsed.data
    const nowMs = ports.now()
    const judged = judgeLease(lease, this.#consented(), nowMs, scope)
    if (!judged.ok) return this.#refuse(lease, judged.reason)
    // The same lease again: its key and state stay.
    if (this.#tasks.has(lease.id)) return
    // Leased a moment before the operator stopped.
    if (this.#isHalted(lease.campaign, nowMs)) return this.#refuse(lease, 'paused')
    const task: RunnerTask = {
      id: lease.id,
      network: this.id,
      campaign: lease.campaign,
      lease,
      state: 'leased',
      receivedAtMs: nowMs,
      expiresAtMs: nowMs + lease.validForMs,
      oneUseKey: await generateKeyPair({ extractable: false }),
    }
    await ports.store.putTask(task)
    if (!this.#campaigns.has(lease.campaign)) {
      // Withdrawn between the two writes.
      return ports.store.deleteTask(task.id)
    }
    if (this.#isHalted(lease.campaign, ports.now())) {
      await ports.store.deleteTask(task.id)
      return this.#refuse(lease, 'paused')
    }
    this.#put(task, judged.site, askedAtMs)
  }

  /** A lease that the lease key did not sign: keys may have been rotated, so ask who this is. */
  async #suspect(envelope: EnvelopeMessage): Promise<void> {
    this.#trusted = null
    this.#leaseAtMs = this.#context.ports.now() + LONGEST_LEASE_WAIT_MS / 10
    this.#problem('lease', new Error('a lease that is not signed by the lease key'))
    const parsed = leaseMessage.safeParse(parseJson(decoded(envelope.payload)))
    if (parsed.success) await this.#refuse(parsed.data, 'bad-signature')
  }

  async #sendObservations(ids: readonly string[]): Promise<void> {
    const { ports } = this.#context
    const stopped = this.#retiring.signal
    const batch = ids.flatMap((id) => {
      const held = this.#tasks.get(id)
      const statement = held?.task.statement
      return held && statement ? [{ held, statement }] : []
    })
    if (batch.length === 0) return
    for (const { held } of batch) held.sending = true
    try {
      const before = this.#server.traffic().bytesUp
      const body = { observations: batch.map(({ statement }) => statement) }
      const answer = await this.#server.postJson('/v1/observations', body, stopped)
      const { results } = understood(observationReply, answer)
      if (results.length !== batch.length) {
        throw new ServerUnreachable(`${results.length} answers to ${batch.length} observations`)
      }
      const bytesUp = Math.round((this.#server.traffic().bytesUp - before) / batch.length)
      for (const [index, { held, statement }] of batch.entries()) {
        const result = results[index]
        if (result === undefined || this.#tasks.get(held.task.id) !== held) continue
        if (result.ok) {
          await this.#checkReceipt(result.receipt, held.task.id, statement.statement)
          await this.#acknowledged(held, result.receipt, bytesUp)
          continue
        }
        const reason = problemReason(result.problem)
        this.#problem('send-observations', new ServerProblem(reason, result.problem.detail))
        // The server's own trouble passes; every other refusal is final for this lease.
        if (reason === 'internal' || reason === 'overloaded') {
          held.observedAtMs = ports.now() + FIRST_BACKOFF_MS
        } else {
          await this.#delete(held.task.id)
        }
      }
    } finally {
      for (const { held } of batch) held.sending = false
    }
  }

  async #acknowledged(held: HeldTask, receipt: EnvelopeMessage, bytesUp: number): Promise<void> {
    const { store, now } = this.#context.ports
    const { id, body } = held.task
    const entry = await store.entry(id)
    const updated = entry && { ...entry, bytesUp: entry.bytesUp + bytesUp, receipt }
    if (this.#tasks.get(id) !== held) return
    if (body === undefined) {
      if (updated !== undefined) await store.putEntry(updated)
      return this.#delete(id)
    }
    held.task = { ...held.task, state: 'kept', keptUntilMs: now() + KEEP_MS }
    if (updated === undefined) await store.putTask(held.task)
    else await store.putTaskAndEntry(held.task, updated)
  }

  /** A receipt that does not fit is the operator's fault to explain; the observation stands. */
  async #checkReceipt(envelope: EnvelopeMessage, lease: string, statement: string): Promise<void> {
    const key = fromBase64Url(this.joined.network.receiptKey)
    const opened = await verifyEnvelope(envelope, payloadType.receipt, key)
    const parsed = opened.ok ? receiptMessage.safeParse(parseJson(opened.payload)) : undefined
    const fits =
      parsed?.success === true &&
      parsed.data.lease === lease &&
      parsed.data.statement === statementDigest(statement)
    if (!fits) this.#problem('send-observations', new Error('a receipt that does not fit'))
  }

  async #answerFollowUps(): Promise<void> {
    const { ports } = this.#context
    const stopped = this.#retiring.signal
    this.#followUpsRangMs = null
    this.#followUpsAskedMs = ports.now()
    const list = understood(followUpList, await this.#server.get('/v1/follow-ups', stopped))
    const asked = new Set(list.followUps.map(({ lease }) => lease))
    for (const id of list.released) if (!asked.has(id)) await this.#delete(id)

    const attestations: { followUp: string; gaps: number; sig: string }[] = []
    const uploads: { followUp: FollowUp; gzipBody: Uint8Array<ArrayBuffer> }[] = []
    for (const followUp of list.followUps) {
      const answer = await this.#answer(followUp)
      if (answer.kind === 'refused') {
        this.#queueFollowUpRefusal(followUp.id, answer.reason)
      } else if (answer.kind === 'attestation') {
        attestations.push({ followUp: followUp.id, gaps: answer.gaps, sig: answer.sig })
      } else {
        uploads.push({ followUp, gzipBody: answer.gzipBody })
      }
    }
    // Small ones first: a payload may take a slow line minutes.
    if (attestations.length > 0) {
      const body = { attestations }
      const answer = await this.#server.postJson('/v1/attestations', body, stopped)
      for (const result of understood(batchReply, answer).results) {
        if (result.ok) continue
        const reason = problemReason(result.problem)
        this.#problem('attest', new ServerProblem(reason, result.problem.detail))
      }
    }
    for (const { followUp, gzipBody } of uploads) await this.#upload(followUp, gzipBody)
    if (list.followUps.length >= FULL_FOLLOW_UPS) {
      this.#followUpsRangMs = ports.now() - BATCH_WAIT_MS
    }
  }

  async #answer(followUp: FollowUp) {
    const { store, now } = this.#context.ports
    const held = this.#tasks.get(followUp.lease)
    if (held === undefined) {
      const isWithdrawn = this.#withdrawn.has(followUp.lease)
      const reason = isWithdrawn ? ('consent-withdrawn' as const) : ('body-gone' as const)
      return { kind: 'refused' as const, reason }
    }
    const payload = held.task.body && (await store.body(held.task.id))
    return answerFollowUp(followUp, held.task, payload, now())
  }

  async #upload(followUp: FollowUp, gzipBody: Uint8Array<ArrayBuffer>): Promise<void> {
    const { store } = this.#context.ports
    const path = `/v1/follow-ups/${followUp.id}/${followUp.kind}`
    try {
      await this.#server.postBytes(path, gzipBody, this.#retiring.signal)
    } catch (error) {
      if (!(error instanceof ServerProblem) || !ofThisFollowUp.has(error.reason)) throw error
      return this.#problem(followUp.kind, error)
    }
    const entry = await store.entry(followUp.lease)
    if (entry !== undefined) {
      await store.putEntry({ ...entry, bytesUp: entry.bytesUp + gzipBody.length })
    }
  }

  async #askOutcomes(): Promise<void> {
    const { ports } = this.#context
    const stopped = this.#retiring.signal
    const { store } = ports
    this.#outcomesRangMs = null
    const after = await store.outcomeCursor(this.id)
    const answer = await this.#server.get(`/v1/outcomes?after=${after}`, stopped)
    const { outcomes } = understood(outcomeList, answer)
    this.#outcomesAskedMs = ports.now()
    let cursor = after
    for (const outcome of outcomes) {
      const entry = await store.entry(outcome.lease)
      if (entry !== undefined) await this.#journal({ ...entry, outcome })
      await this.#delete(outcome.lease)
      cursor = Math.max(cursor, outcome.sequence)
    }
    if (cursor > after) await store.setOutcomeCursor(this.id, cursor)
    // Committed. A crash before asks for the same outcomes again, which changes nothing.
    if (outcomes.length >= FULL_OUTCOMES && cursor > after) {
      this.#outcomesRangMs = ports.now() - BATCH_WAIT_MS
    }
  }

  async #sendRefusals(): Promise<void> {
    const leases = this.#leaseRefusals
    const followUps = this.#followUpRefusals
    this.#leaseRefusals = []
    this.#followUpRefusals = []
    try {
      await this.#server.postJson('/v1/refusals', { leases, followUps }, this.#retiring.signal)
    } catch (error) {
      this.#leaseRefusals = [...leases, ...this.#leaseRefusals].slice(-MOST_REFUSALS)
      this.#followUpRefusals = [...followUps, ...this.#followUpRefusals].slice(-MOST_REFUSALS)
      throw error
    }
  }

  // What calls have in common.

  async #call(kind: CallKind, work: () => Promise<void>): Promise<void> {
    this.#calls.add(kind)
    try {
      await work()
      this.#failures = 0
      this.#callBackoff.delete(kind)
    } catch (error) {
      if (!this.#retiring.signal.aborted) this.#backOff(kind, error)
    } finally {
      this.#calls.delete(kind)
      await this.#guarded('usage', () => this.#countTraffic())
    }
  }

  async #guarded(where: string, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      this.#problem(where, error)
    } finally {
      this.#context.wake()
    }
  }

  #backOff(kind: CallKind, error: unknown): void {
    const nowMs = this.#context.ports.now()
    this.#problem(kind, error)
    // Still unanswered: due when the waiting is over, not at the next look by itself.
    if (kind === 'answer-follow-ups') this.#followUpsRangMs ??= nowMs
    if (kind === 'ask-outcomes') this.#outcomesRangMs ??= nowMs
    if (!(error instanceof ServerProblem) || concernsAllCalls.has(error.reason)) {
      this.#failures += 1
      const asked = error instanceof ServerProblem ? (error.retryAfterMs ?? 0) : 0
      const waitMs = Math.max(
        this.#jittered(this.#failures),
        Math.min(asked, LONGEST_RETRY_AFTER_MS),
      )
      const reason = error instanceof ServerProblem ? 'server-refuses' : 'server-unreachable'
      this.#backoff = { untilMs: nowMs + waitMs, reason }
      return
    }
    const failures = (this.#callBackoff.get(kind)?.failures ?? 0) + 1
    this.#callBackoff.set(kind, { untilMs: nowMs + this.#jittered(failures), failures })
  }

  /** Doubles with each failure up to a ceiling; the upper half of it is random. */
  #jittered(failures: number): number {
    const doubled = FIRST_BACKOFF_MS * 2 ** Math.min(failures - 1, 10)
    const [random = 0] = this.#context.ports.randomBytes(1)
    return Math.min(LONGEST_BACKOFF_MS, doubled) * (0.5 + random / 512)
  }

  async #countTraffic(): Promise<void> {
    const { bytesUp, bytesDown } = this.#server.traffic()
    const before = this.#counted
    this.#counted = { bytesUp, bytesDown }
    await this.#context.used(
      bytesUp - before.bytesUp + HEAD_BYTES_UP,
      bytesDown - before.bytesDown + HEAD_BYTES_DOWN,
    )
  }

  // Campaigns and tasks in hand.

  #hold(consented: ConsentedCampaign): void {
    this.#campaigns.set(consented.digest, { consented, haltedUntilMs: 0, refused: false })
    this.#leaseAtMs = 0
  }

  #consented(): ReadonlyMap<string, ConsentedCampaign['campaign']> {
    return new Map(
      [...this.#campaigns].map(([digest, { consented }]) => [digest, consented.campaign]),
    )
  }

  #doorbellFacts(nowMs: number): DoorbellFacts {
    const doorbell = this.#context.ports.doorbell(this.id)
    const heardMs = doorbell?.heardMs() ?? null
    if (doorbell === undefined || heardMs === null) {
      this.#silentSinceMs ??= nowMs
      return { isOpen: false, sinceMs: this.#silentSinceMs }
    }
    this.#silentSinceMs = null
    return { isOpen: true, heardMs, askedMs: doorbell.askedMs() }
  }

  #campaignFacts(held: HeldCampaign, nowMs: number): CampaignFacts {
    const { digest, campaign } = held.consented
    const standing = held.refused
      ? 'refused'
      : this.#isHalted(digest, nowMs)
        ? 'halted'
        : validity(campaign, nowMs) !== null
          ? 'outside-validity'
          : this.#notices.has(digest)
            ? 'not-yet-told'
            : 'ready'
    return { digest, standing, pageBytes: campaign.limits.pageBytes }
  }

  /** Aborts at once. Tasks go back, so that the sites' slots are free for when it goes on. */
  #halt(digest: string | null, nowMs: number): void {
    if (digest === null) this.#haltedUntilMs = nowMs + HALT_MS
    const held = digest === null ? undefined : this.#campaigns.get(digest)
    if (held !== undefined) held.haltedUntilMs = nowMs + HALT_MS
    for (const { task } of [...this.#tasks.values()]) {
      if (task.state !== 'leased' || (digest !== null && task.campaign !== digest)) continue
      this.#track(this.#guarded('halt', () => this.#drop(task.id, 'paused')))
    }
  }

  #resume(digest: string | null, nowMs: number): void {
    if (digest === null) this.#haltedUntilMs = 0
    const held = digest === null ? undefined : this.#campaigns.get(digest)
    if (held !== undefined) held.haltedUntilMs = 0
    this.#leaseAtMs = nowMs
  }

  #isHalted(digest: string, nowMs: number): boolean {
    const untilMs = Math.max(this.#haltedUntilMs, this.#campaigns.get(digest)?.haltedUntilMs ?? 0)
    return untilMs > nowMs
  }

  /** The site's owner opted out: what runs is aborted, and what was read is deleted. */
  async #recall(leases: readonly string[]): Promise<void> {
    const { store } = this.#context.ports
    // All at once: the second fetch must not go on while the first is written down.
    const dropped = leases.flatMap((id) => {
      const state = this.#tasks.get(id)?.task.state
      return state === undefined ? [] : [{ id, state, done: this.#drop(id, 'recalled') }]
    })
    for (const { id, state, done } of dropped) {
      await done
      if (state === 'leased') continue
      const entry = await store.entry(id)
      if (entry !== undefined) await this.#journal({ ...entry, result: refused('recalled') })
    }
  }

  /**
   * Takes a task out of the table and aborts its fetch, both before it returns; then forgets it and
   * tells the server, if that still waits for an answer. A running fetch writes its own line in the
   * journal, with the bytes it moved.
   */
  async #drop(id: string, reason: 'paused' | 'recalled'): Promise<void> {
    const held = this.#tasks.get(id)
    if (held === undefined) return
    const { task, fetching } = held
    held.ended = reason
    this.#tasks.delete(id)
    fetching?.abort()
    if (task.state === 'leased') this.#queueLeaseRefusal(id, reason)
    await this.#context.ports.store.deleteTask(id)
    if (task.state === 'leased' && fetching === null) {
      await this.#journal(entryOf(task, this.#context.ports.now(), refused(reason)))
    }
  }

  /** The server knows of no consent, though the person gave it: tell it again. */
  async #consentAgain(campaigns: readonly string[]): Promise<void> {
    for (const digest of campaigns) {
      const held = this.#campaigns.get(digest)
      if (held === undefined || this.#notices.has(digest)) continue
      await this.#notify(held.consented, 'given', held.consented.givenAt)
    }
  }

  async #notify(
    { digest, receipt }: ConsentedCampaign,
    act: ConsentNotice['act'],
    at: string,
  ): Promise<void> {
    const notice = { network: this.id, campaign: digest, act, at, receipt }
    await this.#context.ports.store.putConsentNotice(notice)
    this.#notices.set(digest, notice)
  }

  async #refuse(lease: Lease, reason: LeaseRefusalReason): Promise<void> {
    this.#queueLeaseRefusal(lease.id, reason)
    const { campaign, url, id } = lease
    const atMs = this.#context.ports.now()
    const facts = { id, atMs, network: this.id, campaign, url }
    await this.#journal({ ...facts, result: refused(reason), bytesUp: 0, bytesDown: 0, totalMs: 0 })
  }

  #queueLeaseRefusal(lease: string, reason: LeaseRefusalReason): void {
    if (this.#leaseRefusals.length + this.#followUpRefusals.length === 0) {
      this.#refusalsSinceMs = this.#context.ports.now()
    }
    this.#leaseRefusals = [...this.#leaseRefusals, { lease, reason }].slice(-MOST_REFUSALS)
  }

  #queueFollowUpRefusal(followUp: string, reason: FollowUpRefusalReason): void {
    if (this.#leaseRefusals.length + this.#followUpRefusals.length === 0) {
      this.#refusalsSinceMs = this.#context.ports.now()
    }
    this.#followUpRefusals = [...this.#followUpRefusals, { followUp, reason }].slice(-MOST_REFUSALS)
  }

  async #delete(id: string): Promise<void> {
    if (!this.#tasks.delete(id)) return
    await this.#context.ports.store.deleteTask(id)
  }

  #put(task: RunnerTask, site: Site, askedAtMs: number): void {
    const idle = { fetching: null, sending: false, observedAtMs: 0 }
    this.#tasks.set(task.id, { task, site, askedAtMs, ...idle })
  }

  #rememberWithdrawn(lease: string): void {
    this.#withdrawn.add(lease)
    const [oldest] = this.#withdrawn
    if (this.#withdrawn.size > MOST_WITHDRAWN && oldest !== undefined)
      this.#withdrawn.delete(oldest)
  }

  async #journal(entry: JournalEntry): Promise<void> {
    await this.#context.ports.store.putEntry(entry)
    this.#context.ports.log({ kind: 'journal', entry })
  }

  #problem(where: string, error: unknown): void {
    this.#context.ports.log({ kind: 'problem', where, error })
  }
}

/** Refusals after which no other call has a better chance now. */
const concernsAllCalls: ReadonlySet<string> = new Set([
  'too-many-requests',
  'overloaded',
  'no-session',
  'unknown-challenge',
  'bad-signature',
  'wrong-network',
])

/** Refusals that concern one follow-up only; others stop the whole call. */
const ofThisFollowUp: ReadonlySet<string> = new Set([
  'unknown-follow-up',
  'not-your-lease',
  'not-found',
  'lease-expired',
  'digest-mismatch',
  'too-large',
  'malformed',
])

function taskFacts({ task, site, fetching, sending, ...held }: HeldTask): TaskFacts {
  return {
    id: task.id,
    state: task.state,
    host: site.host,
    pace: site,
    maxBytes: task.lease.maxBytes,
    expiresAtMs: task.expiresAtMs,
    askedAtMs: held.askedAtMs,
    busy: fetching !== null || sending,
    observedAtMs: held.observedAtMs,
    keptUntilMs: task.keptUntilMs ?? 0,
    bodyBytes: task.body?.bytes ?? 0,
  }
}

function refused(reason: LeaseRefusalReason): JournalEntry['result'] {
  return { kind: 'refused', reason }
}

function entryOf(
  task: RunnerTask,
  atMs: number,
  result: JournalEntry['result'],
  page?: PageFetch,
): JournalEntry {
  const moved = page === undefined || page.kind === 'refused' ? undefined : page
  return {
    id: task.id,
    atMs,
    network: task.network,
    campaign: task.campaign,
    url: task.lease.url,
    result,
    bytesUp: 0,
    bytesDown: moved?.wireBytes ?? 0,
    totalMs: moved?.totalMs ?? 0,
  }
}

/** Undefined when the bytes are not UTF-8 JSON, which no schema here accepts. */
function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    return undefined
  }
}

function decoded(base64: string): Uint8Array {
  try {
    return fromBase64(base64)
  } catch {
    // Not base64: nothing in it can be read.
    return new Uint8Array(0)
  }
}
