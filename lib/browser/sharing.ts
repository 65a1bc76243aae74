import type { RunnerState } from '../consent/limits.ts'
import { accountBalance } from '../protocol/outcome.ts'
import type { FetchHop, JoinedNetwork, RunnerEvent, ServerConnection } from '../runner/ports.ts'
import { createRunner, type Runner } from '../runner/runner.ts'
import { createServerConnection, type ServerFetch } from '../runner/server-connection.ts'
import { createDoorbell, type Doorbell } from '../runner/socket.ts'
import { build, clientName } from './build.ts'
import { readDevice } from './device.ts'
import { report } from './report.ts'
import { sleep } from './sleep.ts'
import { activeConsents, type DeviceStore, type StoredConsent } from './store.ts'

// Looking at points is for the person's eyes: no oftener than they can follow.
const BALANCE_EVERY_MS = 10_000

/**
 * The runner with its connections to every joined network. It keeps nothing of its own: the caller
 * stores first and then tells, and a new one over the same store goes on.
 */
export interface Sharing {
  state(): RunnerState
  /** Begins with what is stored. Contacts only networks with a campaign that was agreed to. */
  start(): Promise<void>
  stop(): Promise<void>
  /** Look at everything again: the alarm rang, or the device changed. */
  wake(): void
  joined(network: JoinedNetwork): Promise<void>
  leave(network: string): Promise<void>
  agreed(consent: StoredConsent): Promise<void>
  withdrawn(consent: StoredConsent): Promise<void>
  /** The stored pause changed. */
  pauseChanged(): Promise<void>
  /** The connection to a joined network, with its session. */
  connectionTo(joined: JoinedNetwork): ServerConnection
  /** Asks for the points of a network in the background, if it was not just done. */
  refreshPoints(joined: JoinedNetwork): void
}

/** Makes one; nothing happens before `start`. */
export function createSharing(parts: {
  store: DeviceStore
  hop: FetchHop
  serverFetch: ServerFetch
  onState: () => void
}): Sharing {
  const { store } = parts
  const servers = new Map<string, ServerConnection>()
  const doorbells = new Map<string, Doorbell>()
  const pointsAskedAtMs = new Map<string, number>()
  // Networks that the runner has.
  const running = new Set<string>()
  let runner: Runner | null = null

  function connectionTo({ origin, fingerprint }: JoinedNetwork): ServerConnection {
    const known = servers.get(fingerprint)
    if (known) return known
    const made = createServerConnection({
      origin,
      fingerprint,
      identity: () => store.identity(fingerprint),
      client: clientName,
      fetch: parts.serverFetch,
      now: Date.now,
    })
    servers.set(fingerprint, made)
    return made
  }

  async function runnerNetwork(joined: JoinedNetwork) {
    const campaigns = await activeConsents(store, joined.fingerprint)
    return { joined, server: connectionTo(joined), campaigns }
  }

  /** A network with no campaign is not contacted, unless it must still hear of a withdrawal. */
  async function isContacted({ fingerprint }: JoinedNetwork): Promise<boolean> {
    if ((await activeConsents(store, fingerprint)).length > 0) return true
    return (await store.consentNotices(fingerprint)).length > 0
  }

  /** Hands the network to the runner, or hands it again. */
  async function run(joined: JoinedNetwork): Promise<void> {
    if (runner === null) return
    await runner.join(await runnerNetwork(joined))
    running.add(joined.fingerprint)
    doorbells.get(joined.fingerprint)?.stop()
    doorbells.delete(joined.fingerprint)
    await listenTo(joined)
  }

  /** A network is listened to while there is something to hear: a campaign, and no pause. */
  async function listenTo(joined: JoinedNetwork): Promise<void> {
    const { fingerprint } = joined
    const hasCampaign = (await activeConsents(store, fingerprint)).length > 0
    if (runner !== null && hasCampaign && (await store.pause()) === null) {
      const doorbell = doorbells.get(fingerprint) ?? makeDoorbell(joined)
      doorbells.set(fingerprint, doorbell)
      doorbell.start()
    } else {
      doorbells.get(fingerprint)?.stop()
    }
  }

  function makeDoorbell(joined: JoinedNetwork): Doorbell {
    return createDoorbell({
      origin: joined.origin,
      token: () => connectionTo(joined).token(),
      connect: (url) => new WebSocket(url),
      sleep,
      random: Math.random,
      now: Date.now,
      onNotice: (notice) => {
        runner?.doorbell(joined.fingerprint, notice)
        if (notice.type === 'outcomes') refreshPoints(joined)
      },
    })
  }

  function refreshPoints(joined: JoinedNetwork): void {
    const { fingerprint } = joined
    const nowMs = Date.now()
    if (nowMs - (pointsAskedAtMs.get(fingerprint) ?? 0) < BALANCE_EVERY_MS) return
    pointsAskedAtMs.set(fingerprint, nowMs)
    const refresh = async () => {
      const balance = accountBalance.parse(await connectionTo(joined).get('/v1/account'))
      await store.putBalance({ network: fingerprint, atMs: nowMs, ...balance })
    }
    void refresh().catch(report('read the points'))
  }

  function onEvent(event: RunnerEvent): void {
    switch (event.kind) {
      case 'state':
        parts.onState()
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

  return {
    connectionTo,
    refreshPoints,
    state: () => runner?.state() ?? { kind: 'off' },
    wake: () => runner?.wake(),

    start: async () => {
      if (runner !== null) return
      const networks: JoinedNetwork[] = []
      for (const joined of await store.networks()) {
        if (await isContacted(joined)) networks.push(joined)
      }
      const started = createRunner({
        ports: {
          hop: parts.hop,
          store,
          device: readDevice,
          now: Date.now,
          sleep,
          randomBytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
          doorbell: (network) => doorbells.get(network),
          log: onEvent,
        },
        networks: await Promise.all(networks.map(runnerNetwork)),
        limits: await store.limits(),
        pause: await store.pause(),
        scope: { loopbackAllowed: build.loopbackSitesAllowed },
      })
      runner = started
      await started.start()
      for (const network of networks) {
        running.add(network.fingerprint)
        await listenTo(network)
      }
    },

    stop: async () => {
      for (const doorbell of doorbells.values()) doorbell.stop()
      const stopping = runner
      runner = null
      running.clear()
      await stopping?.stop()
    },

    joined: async (network) => {
      // Joined anew: its address may be another. The first time nobody is contacted yet.
      servers.delete(network.fingerprint)
      if (await isContacted(network)) await run(network)
    },

    leave: async (network) => {
      doorbells.get(network)?.stop()
      doorbells.delete(network)
      if (running.delete(network)) await runner?.leave(network)
      servers.delete(network)
    },

    agreed: async (consent) => {
      const joined = await joinedNetwork(store, consent.network)
      if (!running.has(consent.network)) await run(joined)
      await runner?.consent(consent.network, consent)
      await listenTo(joined)
    },

    withdrawn: async (consent) => {
      await runner?.withdraw(consent.network, consent.digest)
      await listenTo(await joinedNetwork(store, consent.network))
    },

    pauseChanged: async () => {
      const pause = await store.pause()
      if (pause) runner?.pause(pause.untilMs)
      else runner?.resume()
      for (const network of await store.networks()) await listenTo(network)
    },
  }
}

/** A network that must be joined. A page that asks for another one is out of date. */
export async function joinedNetwork(
  store: DeviceStore,
  fingerprint: string,
): Promise<JoinedNetwork> {
  const joined = (await store.networks()).find((stored) => stored.fingerprint === fingerprint)
  if (joined === undefined) throw new Error('This network is no longer joined. Join it again.')
  return joined
}
