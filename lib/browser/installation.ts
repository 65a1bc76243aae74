import { consentReceipt, receiptDigest, withdrawnReceipt } from '../consent/consent-receipt.ts'
import { joinLinkSentence, parseJoinLink } from '../consent/join-link.ts'
import { utcDay } from '../consent/limits.ts'
import { refusalSentence } from '../consent/manifest.ts'
import { toBase64Url } from '../crypto/base64.ts'
import { DEFAULT_IDLE_SHARE, idleShareBitsPerSecond } from '../meter/budget.ts'
import { accountBalance } from '../protocol/outcome.ts'
import { askCampaigns, askNetwork } from '../runner/join.ts'
import type { JoinedNetwork, RunnerEvent, ServerConnection } from '../runner/ports.ts'
import { createRunner, type Runner } from '../runner/runner.ts'
import {
  createServerConnection,
  type ServerFetch,
  ServerProblem,
  ServerUnreachable,
} from '../runner/server-connection.ts'
import { createDoorbell, type Doorbell } from '../runner/socket.ts'
import { stateName, stateSentence } from '../ui/words.ts'
import { build, clientName } from './build.ts'
import { readDevice } from './device.ts'
import { createHop } from './hop.ts'
import { iconOf, showIcon } from './icon.ts'
import { identify } from './identify.ts'
import { measureIfDue } from './line-meter.ts'
import type { Handlers, NetworkAnswer, NetworkView, OfferView, Overview } from './messages.ts'
import { createPace } from './pace.ts'
import { campaignOrigins, dropOrigins, holdsOrigins } from './permissions.ts'
import { platformRefusal } from './platform.ts'
import type { Sightings } from './sightings.ts'
import { sleep } from './sleep.ts'
import type { DeviceStore, StoredConsent } from './store.ts'
import type { WireBytes } from './wire-bytes.ts'

/** Number of the text on the welcome page. Raise it when its meaning changes: people are asked anew. */
export const TERMS_WORDING = 1

// Looking at points is for the person's eyes: no oftener than they can follow.
const BALANCE_EVERY_MS = 10_000

/** This installation at work: what it joined and agreed to, and the runner that acts on it. */
export interface Installation extends Handlers {
  /** The alarm, or a change of the device: look at everything again. */
  ring(): Promise<void>
  /** The line itself changed: what was measured no longer holds. */
  lineChanged(): void
  /** The person took site access back in the browser's own settings. */
  accessRemoved(): Promise<void>
}

/**
 * Restores the installation from its store and goes on with its work. Contacts nobody unless the
 * person said yes on the welcome page and agreed to a campaign.
 */
export async function restoreInstallation(parts: {
  store: DeviceStore
  sightings: Sightings
  wireBytes: WireBytes
}): Promise<Installation> {
  const { store } = parts
  const unsupported = platformRefusal()
  const servers = new Map<string, ServerConnection>()
  const doorbells = new Map<string, Doorbell>()
  let runner: Runner | null = null
  let networkChangedAtMs: number | null = null
  let isMeasuring = false

  const monotonic = () => performance.now()
  const share = idleShareBitsPerSecond((await store.meter())?.last ?? null, DEFAULT_IDLE_SHARE)
  const downPace = createPace(share.downBitsPerSecond, monotonic)
  const upPace = createPace(share.upBitsPerSecond, monotonic)

  const serverFetch: ServerFetch = async (url, init) => {
    const bytes = init.body === undefined ? 0 : init.body.length
    await upPace.take(bytes, init.signal)
    return fetch(url, init)
  }

  let identified = identifyNow()
  const hop = createHop({
    sightings: parts.sightings,
    wireBytes: parts.wireBytes,
    pace: downPace,
    ready: () => identified,
  })

  async function activeConsents(): Promise<StoredConsent[]> {
    return (await store.consents()).filter(({ withdrawnAt }) => withdrawnAt === null)
  }

  async function consentsOf(network: string): Promise<StoredConsent[]> {
    return (await activeConsents()).filter((consent) => consent.network === network)
  }

  async function identifyNow(): Promise<void> {
    const consents = await activeConsents()
    await identify(
      consents.map(({ campaign }) => ({
        hosts: campaign.sites.map(({ host }) => host),
        contact: campaign.operator.contact,
      })),
    )
  }

  function connectionTo({ origin, fingerprint }: JoinedNetwork): ServerConnection {
    const known = servers.get(fingerprint)
    if (known) return known
    const made = createServerConnection({
      origin,
      fingerprint,
      identity: () => store.identity(fingerprint),
      client: clientName,
      fetch: serverFetch,
      now: Date.now,
    })
    servers.set(fingerprint, made)
    return made
  }

  async function runnerNetwork(joined: JoinedNetwork) {
    const campaigns = await consentsOf(joined.fingerprint)
    return { joined, server: connectionTo(joined), campaigns }
  }

  /** Begins once the person has said yes, and not before. */
  async function startRunner(): Promise<void> {
    if (runner !== null || unsupported !== null) return
    if ((await terms()) !== 'yes') return
    const networks = await store.networks()
    const started = createRunner({
      ports: {
        hop,
        store,
        device: readDevice,
        now: Date.now,
        sleep,
        randomBytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
        log: onEvent,
      },
      networks: await Promise.all(networks.map(runnerNetwork)),
      limits: await store.limits(),
      pause: await store.pause(),
      scope: { loopbackAllowed: build.loopbackSitesAllowed },
    })
    runner = started
    await started.start()
    for (const network of networks) await connectDoorbell(network)
  }

  /** A network is listened to while there is something to hear: a campaign, and no pause. */
  async function connectDoorbell(joined: JoinedNetwork): Promise<void> {
    const { fingerprint, origin } = joined
    const wanted = (await consentsOf(fingerprint)).length > 0 && (await store.pause()) === null
    if (!wanted) {
      doorbells.get(fingerprint)?.stop()
      return
    }
    let doorbell = doorbells.get(fingerprint)
    if (doorbell === undefined) {
      doorbell = createDoorbell({
        origin,
        token: () => connectionTo(joined).token(),
        connect: (url) => new WebSocket(url),
        sleep,
        random: Math.random,
        onNotice: (notice) => {
          runner?.doorbell(fingerprint, notice)
          if (notice.type === 'outcomes') refreshBalance(joined)
        },
      })
      doorbells.set(fingerprint, doorbell)
    }
    doorbell.start()
  }

  function onEvent(event: RunnerEvent): void {
    switch (event.kind) {
      case 'state':
        showState()
        return
      case 'network':
        void store.putNetwork(event.joined).catch(report('store the network'))
        return
      case 'journal':
        return
      case 'problem':
        report(event.where)(event.error)
        return
    }
  }

  async function terms(): Promise<Overview['terms']> {
    const given = await store.terms()
    if (given === undefined || given.wording !== TERMS_WORDING) return 'unasked'
    return given.answer
  }

  function showState(): void {
    const state = runner?.state() ?? { kind: 'off' as const }
    const icon = unsupported === null ? iconOf(state) : 'stopped'
    const title = unsupported ?? `${stateName(state)}: ${stateSentence(state)}`
    void showIcon(icon, `Gleaner. ${title}`).catch(report('show the icon'))
  }

  const balanceAskedAtMs = new Map<string, number>()

  function refreshBalance(joined: JoinedNetwork): void {
    const { fingerprint } = joined
    const nowMs = Date.now()
    if (nowMs - (balanceAskedAtMs.get(fingerprint) ?? 0) < BALANCE_EVERY_MS) return
    balanceAskedAtMs.set(fingerprint, nowMs)
    const refresh = async () => {
      const balance = accountBalance.parse(await connectionTo(joined).get('/v1/account'))
      await store.putBalance({ network: fingerprint, atMs: nowMs, ...balance })
    }
    void refresh().catch(report('read the points'))
  }

  function measure(): void {
    if (isMeasuring) return
    isMeasuring = true
    void measureNow()
      .catch(report('measure the line'))
      .finally(() => {
        isMeasuring = false
      })
  }

  /** Measures against the first network that the person works for. */
  async function measureNow(): Promise<void> {
    const state = runner?.state()
    const mayWork =
      state?.kind === 'working' || (state?.kind === 'waiting' && state.reason === 'no-work')
    const [consent] = await activeConsents()
    const joined = (await store.networks()).find(
      ({ fingerprint }) => fingerprint === consent?.network,
    )
    if (!mayWork || joined === undefined) return
    const record = await measureIfDue({
      store,
      server: connectionTo(joined),
      origin: joined.origin,
      device: await readDevice(),
      networkChangedAtMs,
      nowMs: Date.now(),
    })
    if (record === null) return
    const bounds = idleShareBitsPerSecond(record.last, DEFAULT_IDLE_SHARE)
    downPace.setRate(bounds.downBitsPerSecond)
    upPace.setRate(bounds.upBitsPerSecond)
  }

  async function networkView(joined: JoinedNetwork): Promise<NetworkView> {
    const { fingerprint, origin, network } = joined
    const balance = (await store.balances()).find((stored) => stored.network === fingerprint)
    return {
      fingerprint,
      origin,
      name: network.name,
      operator: network.operator,
      points: balance
        ? {
            pendingPoints: balance.pendingPoints,
            postedPoints: balance.postedPoints,
            atMs: balance.atMs,
          }
        : null,
      campaigns: (await consentsOf(fingerprint)).map(({ digest, campaign, givenAt }) => ({
        digest,
        campaign,
        givenAt,
      })),
    }
  }

  async function overview(): Promise<Overview> {
    const networks = await store.networks()
    const today = utcDay(Date.now())
    const used = (await store.usage(today)).find(({ day }) => day === today)
    const meter = await store.meter()
    const views = await Promise.all(networks.map(networkView))
    for (const [index, view] of views.entries()) {
      const joined = networks[index]
      if (joined && runner !== null && view.campaigns.length > 0) refreshBalance(joined)
    }
    return {
      unsupported,
      terms: await terms(),
      state: runner?.state() ?? { kind: 'off' },
      networks: views,
      today: {
        bytesUp: used?.bytesUp ?? 0,
        bytesDown: used?.bytesDown ?? 0,
        capBytes: (await store.limits()).bytesPerDay,
      },
      meter: meter ? { last: meter.last, failure: meter.failure } : null,
    }
  }

  /** The network and what it offers, from the store. */
  async function stored(fingerprint: string): Promise<NetworkAnswer> {
    const joined = await joinedNetwork(fingerprint)
    const view = await networkView(joined)
    const agreed = new Set(view.campaigns.map(({ digest }) => digest))
    const offers = (await store.offers(fingerprint))?.campaigns ?? []
    return {
      ok: true,
      network: view,
      offers: offers.map(
        (offer): OfferView =>
          offer.ok
            ? {
                ok: true,
                digest: offer.digest,
                campaign: offer.campaign,
                agreed: agreed.has(offer.digest),
              }
            : { ok: false, title: offer.title, sentence: refusalSentence[offer.reason] },
      ),
    }
  }

  async function joinedNetwork(fingerprint: string): Promise<JoinedNetwork> {
    const joined = (await store.networks()).find((stored) => stored.fingerprint === fingerprint)
    if (joined === undefined) throw new Error('This network is no longer joined. Join it again.')
    return joined
  }

  /** Asks the server what it offers, checks every campaign and keeps the answer. */
  async function askOffers(joined: JoinedNetwork): Promise<NetworkAnswer> {
    const nowMs = Date.now()
    const asked = await askCampaigns(joined, serverFetch, nowMs)
    if (!asked.ok) return { ok: false, sentence: refusalSentence[asked.reason] }
    await store.putOffers({ network: joined.fingerprint, atMs: nowMs, campaigns: asked.campaigns })
    return stored(joined.fingerprint)
  }

  async function requireYes(): Promise<void> {
    if (unsupported !== null) throw new Error(unsupported)
    if ((await terms()) !== 'yes') throw new Error('Nothing is contacted before you said yes.')
  }

  async function withdraw(consent: StoredConsent, act: string): Promise<void> {
    const nowMs = Date.now()
    await store.putConsent({
      ...consent,
      document: withdrawnReceipt(consent.document, nowMs, act),
      withdrawnAt: new Date(nowMs).toISOString(),
    })
    // Committed. A worker that dies from here never starts this campaign again.
    await runner?.withdraw(consent.network, consent.digest)
    identified = identifyNow()
    await connectDoorbell(await joinedNetwork(consent.network))
    const stillNeeded = new Set(
      (await activeConsents()).flatMap(({ campaign }) => campaignOrigins(campaign)),
    )
    await dropOrigins(
      campaignOrigins(consent.campaign).filter((origin) => !stillNeeded.has(origin)),
    )
    showState()
  }

  /** Access that is gone means that the person took it: the same as withdrawing here. */
  async function accessRemoved(): Promise<void> {
    for (const consent of await activeConsents()) {
      if (await holdsOrigins(campaignOrigins(consent.campaign))) continue
      await withdraw(consent, 'Removed access to the sites in the browser')
    }
  }

  async function setPause(pause: { untilMs: null } | null): Promise<Overview> {
    await store.putPause(pause)
    if (pause) runner?.pause(pause.untilMs)
    else runner?.resume()
    for (const network of await store.networks()) await connectDoorbell(network)
    showState()
    return overview()
  }

  await accessRemoved()
  await startRunner()
  showState()
  measure()

  return {
    overview,
    accessRemoved,

    ring: async () => {
      // A failed rule must not stop work for ever.
      await identified.catch(() => {
        identified = identifyNow()
      })
      runner?.wake()
      showState()
      measure()
    },

    lineChanged: () => {
      networkChangedAtMs = Date.now()
      runner?.wake()
    },

    'answer-terms': async (answer) => {
      await store.putTerms({ answer, wording: TERMS_WORDING, at: new Date().toISOString() })
      if (answer === 'yes') {
        await startRunner()
      } else {
        for (const doorbell of doorbells.values()) doorbell.stop()
        await runner?.stop()
        runner = null
      }
      showState()
      return overview()
    },

    'join-network': async ({ link }) => {
      await requireYes()
      const parsed = parseJoinLink(link)
      if (!parsed.ok) return { ok: false, sentence: joinLinkSentence[parsed.reason] }
      return orSentence(async () => {
        const answer = await askNetwork(parsed, serverFetch)
        if (!answer.ok) return { ok: false, sentence: refusalSentence[answer.reason] }
        await store.putNetwork(answer.joined)
        await runner?.join(await runnerNetwork(answer.joined))
        return askOffers(answer.joined)
      })
    },

    offers: async ({ network }) => {
      await requireYes()
      const joined = await joinedNetwork(network)
      return orSentence(() => askOffers(joined))
    },

    agree: async ({ network, digest, act }) => {
      await requireYes()
      const joined = await joinedNetwork(network)
      const offers = (await store.offers(network))?.campaigns ?? []
      const offer = offers.find((offered) => offered.ok && offered.digest === digest)
      if (!offer?.ok) {
        return { ok: false, sentence: 'The server no longer offers these terms. Load them again.' }
      }
      if (!(await holdsOrigins(campaignOrigins(offer.campaign)))) {
        return {
          ok: false,
          sentence:
            'The browser did not give access to the sites, so nothing was agreed. Press Agree again and allow it.',
        }
      }
      const nowMs = Date.now()
      const document = consentReceipt({
        receiptId: toBase64Url(crypto.getRandomValues(new Uint8Array(16))),
        nowMs,
        digest,
        campaign: offer.campaign,
        network: { name: joined.network.name, fingerprint: network, origin: joined.origin },
        nodeId: (await store.identity(network)).nodeId,
        language: 'en',
        act,
      })
      const consent: StoredConsent = {
        network,
        digest,
        campaign: offer.campaign,
        manifest: offer.manifest,
        givenAt: new Date(nowMs).toISOString(),
        receipt: receiptDigest(document),
        document,
        withdrawnAt: null,
      }
      await store.putConsent(consent)
      // Committed. A worker that dies from here starts this campaign when it is back.
      identified = identifyNow()
      await runner?.consent(network, consent)
      await connectDoorbell(joined)
      showState()
      measure()
      return stored(network)
    },

    withdraw: async ({ network, digest, act }) => {
      const consent = (await consentsOf(network)).find((given) => given.digest === digest)
      if (consent) await withdraw(consent, act)
      return stored(network)
    },

    leave: async ({ network }) => {
      const consents = await consentsOf(network)
      for (const consent of consents) await withdraw(consent, 'Left the network')
      doorbells.get(network)?.stop()
      doorbells.delete(network)
      await runner?.leave(network)
      await store.deleteNetwork(network)
      servers.delete(network)
      return overview()
    },

    pause: () => setPause({ untilMs: null }),
    resume: () => setPause(null),
    journal: (query) => store.journal(query),
    'delete-journal': async () => {
      await store.deleteJournal()
      return null
    },
  }
}

/** Turns a server's silence or refusal into words for the person. */
async function orSentence(work: () => Promise<NetworkAnswer>): Promise<NetworkAnswer> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof ServerProblem) {
      return { ok: false, sentence: `The server refused: ${error.detail}` }
    }
    if (error instanceof ServerUnreachable) {
      return {
        ok: false,
        sentence: 'The server does not answer. Check the link and your connection, then try again.',
      }
    }
    throw error
  }
}

/** The edge at which background failures are caught: they are told, and work goes on. */
function report(where: string): (error: unknown) => void {
  return (error) => console.warn(`gleaner: could not ${where}:`, error)
}
