import { mkdtemp } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleepFor } from 'node:timers/promises'
import WebSocket from 'ws'
import {
  type DeviceState,
  defaultLimits,
  type Limits,
  type Pause,
  type WaitingReason,
} from '../../../lib/consent/limits.ts'
import type {
  ConsentedCampaign,
  FetchHop,
  RunnerEvent,
  RunnerPorts,
  RunnerStore,
} from '../../../lib/runner/ports.ts'
import { createRunner, type Runner } from '../../../lib/runner/runner.ts'
import { createServerConnection } from '../../../lib/runner/server-connection.ts'
import { createDoorbell, type SocketLike } from '../../../lib/runner/socket.ts'
import { type FolderStore, openFolderStore } from '../../../server/node/folder-store.ts'
import { createNodeHop } from '../../../server/node/hop.ts'
import { campaignOver, Operator } from './operator.ts'
import { ScriptedServer } from './scripted-server.ts'

/** Ten times real time: batches wait 40 ms, backoffs 100 ms. */
export const FASTER = 10

const startedMs = Date.now()

export const now = () => startedMs + performance.now() * FASTER

export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  await sleepFor(ms / FASTER, undefined, signal === undefined ? {} : { signal })
}

/** A site, a task server with one campaign over it, and a store: everything around a runner. */
export class Place {
  readonly server: ScriptedServer
  readonly store: FolderStore
  readonly folder: string
  readonly consented: ConsentedCampaign
  readonly events: RunnerEvent[] = []
  readonly device: DeviceState = { onBattery: null, metered: null, idle: null, online: null }
  /** Paths that the site was asked for. */
  readonly asked: string[]
  hop: FetchHop
  readonly #ends: (() => unknown)[] = []

  private constructor(
    server: ScriptedServer,
    store: FolderStore,
    folder: string,
    consented: ConsentedCampaign,
    hop: FetchHop,
    asked: string[],
  ) {
    this.asked = asked
    this.server = server
    this.store = store
    this.folder = folder
    this.consented = consented
    this.hop = hop
  }

  static async make(listener: RequestListener = page): Promise<Place> {
    const asked: string[] = []
    const site = createServer((request, response) => {
      asked.push(request.url ?? '')
      listener(request, response)
    })
    await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve))
    const address = `127.0.0.1:${(site.address() as AddressInfo).port}`
    const hop = createNodeHop({
      userAgent: 'gleaner-test',
      hostMap: { 'site.example': address },
      loopbackAllowed: true,
    })
    const operator = await Operator.make()
    const server = await ScriptedServer.start(operator)
    const offered = await operator.offer(campaignOver('site.example'))
    server.campaigns.push(offered)
    const folder = await mkdtemp(join(tmpdir(), 'gleaner-runner-'))
    const { digest, campaign } = offered
    const consented = { digest, campaign, givenAt: '2026-11-22T16:00:00Z', receipt: digest }
    const store = await openFolderStore(folder)
    await store.putConsentNotice({
      network: operator.fingerprint,
      campaign: digest,
      act: 'given',
      at: consented.givenAt,
      receipt: consented.receipt,
    })
    const place = new Place(server, store, folder, consented, hop.hop, asked)
    place.#ends.push(
      () => server.stop(),
      () => hop.close(),
      () => {
        site.closeAllConnections()
        site.close()
      },
    )
    return place
  }

  get network(): string {
    return this.server.operator.fingerprint
  }

  /** A runner in this place, with its doorbell; not started. */
  runner(
    options: {
      store?: RunnerStore
      limits?: Partial<Limits>
      pause?: Pause
      doorbell?: boolean
      /** A dead runner's calls never come back. */
      isDead?: () => boolean
    } = {},
  ): Runner {
    const { store = this.store, doorbell: withDoorbell = true, isDead = () => false } = options
    const ports: RunnerPorts = {
      hop: (request) => (isDead() ? new Promise(() => {}) : this.hop(request)),
      store,
      device: async () => ({ ...this.device }),
      now,
      sleep,
      randomBytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
      doorbell: () => (withDoorbell ? doorbell : undefined),
      log: (event) => this.events.push(event),
    }
    const { origin } = this.server
    const server = createServerConnection({
      origin,
      fingerprint: this.network,
      identity: () => store.identity(this.network),
      client: 'gleaner-test/1',
      fetch: (url, init) => (isDead() ? new Promise(() => {}) : fetch(url, init)),
      now,
    })
    const runner = createRunner({
      ports,
      networks: [
        { joined: this.server.operator.joined(origin), server, campaigns: [this.consented] },
      ],
      limits: { ...defaultLimits, ...options.limits },
      pause: options.pause ?? null,
      scope: { loopbackAllowed: true },
    })
    const doorbell = createDoorbell({
      origin,
      token: () => server.token(),
      connect: (url) => new WebSocket(url) as unknown as SocketLike,
      sleep,
      random: Math.random,
      now,
      onNotice: (notice) => runner.doorbell(this.network, notice),
    })
    if (withDoorbell) doorbell.start()
    this.#ends.unshift(async () => {
      doorbell.stop()
      if (!isDead()) await runner.stop()
    })
    return runner
  }

  problems(): string[] {
    return this.events.flatMap((event) =>
      event.kind === 'problem' ? [`${event.where}: ${event.error}`] : [],
    )
  }

  async end(): Promise<void> {
    for (const end of this.#ends.splice(0)) await end()
  }
}

/** A page of its own for each path. */
export const page: RequestListener = (request, response) => {
  response
    .writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
    .end(`<title>${request.url}</title><p>This is ${request.url}. It is a page.</p><p>The end.</p>`)
}

/** Whether the last state told is waiting, for this reason. */
export function waits(place: Place, reason: WaitingReason): boolean {
  const state = place.events.findLast((event) => event.kind === 'state')?.state
  return state?.kind === 'waiting' && state.reason === reason
}

/** Whether the store holds no task any more. */
export async function isDone(place: Place): Promise<boolean> {
  return (await place.store.tasks(place.network)).length === 0
}

/** Waits until it is so, looking often; fails after `ms` of real time. */
export async function until(
  what: string,
  is: () => boolean | Promise<boolean>,
  ms = 8_000,
): Promise<void> {
  const deadline = performance.now() + ms
  while (!(await is())) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`)
    await sleepFor(5)
  }
}
