import { randomBytes } from 'node:crypto'
import { setTimeout as sleepFor } from 'node:timers/promises'
import { Agent, fetch as undiciFetch } from 'undici'
import WebSocket from 'ws'
import { consentReceipt, receiptDigest } from '../../lib/consent/consent-receipt.ts'
import { joinLinkSentence, parseJoinLink } from '../../lib/consent/join-link.ts'
import {
  type DeviceState,
  defaultLimits,
  type Limits,
  type RunnerState,
} from '../../lib/consent/limits.ts'
import { refusalSentence } from '../../lib/consent/manifest.ts'
import type { ScopeRules } from '../../lib/consent/scope.ts'
import { askCampaigns, askNetwork } from '../../lib/runner/join.ts'
import type {
  ConsentedCampaign,
  FetchHop,
  JoinedNetwork,
  JournalEntry,
  RunnerEvent,
  RunnerPorts,
} from '../../lib/runner/ports.ts'
import { createRunner, type Runner } from '../../lib/runner/runner.ts'
import { createServerConnection, type ServerFetch } from '../../lib/runner/server-connection.ts'
import { createDoorbell, type SocketLike } from '../../lib/runner/socket.ts'
import { type FolderStore, openFolderStore } from './folder-store.ts'

export interface NodeOptions {
  joinLink: string
  /** Keys and usage; made when missing. */
  folder: string
  /** Ids of the campaigns agreed to, or all that the network offers now. The flag is the affirmative act. */
  campaigns: 'all' | readonly string[]
  /** How the choice was made, for the consent receipt: the flag as given. */
  act: string
  hop: FetchHop
  scope: ScopeRules
  limits?: Limits
  /** Name and version of this client. */
  client: string
  /** Source address of the connections to the task server. */
  localAddress?: string
  log?: (event: RunnerEvent) => void
}

export interface RunningNode {
  joined: JoinedNetwork
  campaigns: readonly ConsentedCampaign[]
  accountId: string
  nodeId: string
  runner: Runner
  state(): RunnerState
  journal(): JournalEntry[]
  /** Ends fetches, connections and timers. */
  stop(): Promise<void>
}

/** Joining was refused, in a sentence for the person. */
export class JoinRefused extends Error {
  readonly reason: string

  constructor(reason: string, sentence: string) {
    super(sentence)
    this.name = 'JoinRefused'
    this.reason = reason
  }
}

/**
 * Joins a network by its link, consents to the named campaigns and works until stopped: the runner
 * of the extension without a browser. Prints nothing.
 *
 * @throws JoinRefused, or ServerUnreachable when the server does not answer
 */
export async function runNode(options: NodeOptions): Promise<RunningNode> {
  const link = parseJoinLink(options.joinLink)
  if (!link.ok) throw new JoinRefused(link.reason, joinLinkSentence[link.reason])
  const store = await openFolderStore(options.folder)
  const agent = new Agent(
    options.localAddress === undefined ? {} : { localAddress: options.localAddress },
  )
  const fetch = fetchThrough(agent)
  try {
    const asked = await askNetwork(link, fetch)
    if (!asked.ok) throw new JoinRefused(asked.reason, refusalSentence[asked.reason])
    const { joined } = asked
    const { fingerprint, origin } = joined
    const identity = await store.identity(fingerprint)
    const campaigns = await chosenCampaigns(options, joined, identity.nodeId, store, fetch)
    const server = createServerConnection({
      origin,
      fingerprint,
      identity: () => store.identity(fingerprint),
      client: options.client,
      fetch,
      now: Date.now,
    })
    const ports: RunnerPorts = {
      hop: options.hop,
      store,
      device: async () => untoldDevice,
      now: Date.now,
      sleep,
      randomBytes: (length) => new Uint8Array(randomBytes(length)),
      doorbell: () => doorbell,
      log: options.log ?? (() => {}),
    }
    for (const campaign of campaigns) await store.putConsentNotice(givenNotice(joined, campaign))
    const runner = createRunner({
      ports,
      networks: [{ joined, server, campaigns }],
      limits: options.limits ?? defaultLimits,
      pause: null,
      scope: options.scope,
    })
    const doorbell = createDoorbell({
      origin,
      token: () => server.token(),
      connect: (url) => connect(url, options.localAddress),
      sleep,
      random: Math.random,
      now: Date.now,
      onNotice: (notice) => runner.doorbell(fingerprint, notice),
    })
    await runner.start()
    doorbell.start()
    return {
      joined,
      campaigns,
      accountId: identity.accountId,
      nodeId: identity.nodeId,
      runner,
      state: () => runner.state(),
      journal: () => store.journal(),
      async stop() {
        doorbell.stop()
        await runner.stop()
        await agent.destroy()
      },
    }
  } catch (error) {
    await agent.destroy()
    throw error
  }
}

/** A server or a shell: the platform says nothing about battery, metering and idleness. */
const untoldDevice: DeviceState = { onBattery: null, metered: null, idle: null, online: null }

async function chosenCampaigns(
  options: NodeOptions,
  joined: JoinedNetwork,
  nodeId: string,
  store: FolderStore,
  fetch: ServerFetch,
): Promise<ConsentedCampaign[]> {
  const nowMs = Date.now()
  const offered = await askCampaigns(joined, fetch, nowMs)
  if (!offered.ok) throw new JoinRefused(offered.reason, refusalSentence[offered.reason])
  const good = offered.campaigns.filter((campaign) => campaign.ok)
  const chosen =
    options.campaigns === 'all'
      ? good
      : options.campaigns.map((id) => {
          const found = good.find(({ campaign }) => campaign.id === id)
          if (found !== undefined) return found
          const ids = good.map(({ campaign }) => campaign.id).join(', ') || 'none'
          throw new JoinRefused(
            'unknown-campaign',
            `The network offers no campaign "${id}" now. It offers: ${ids}.`,
          )
        })
  const consented: ConsentedCampaign[] = []
  for (const { digest, campaign } of chosen) {
    const { network, fingerprint, origin } = joined
    // Of the first time: starting again under the same terms is the same consent.
    const receipt = await store.receipt(digest, () =>
      consentReceipt({
        receiptId: randomBytes(16).toString('base64url'),
        nowMs,
        digest,
        campaign,
        network: { name: network.name, fingerprint, origin },
        nodeId,
        language: 'en',
        act: options.act,
      }),
    )
    const givenAt = receipt.event[0]?.event_time ?? new Date(nowMs).toISOString()
    consented.push({ digest, campaign, givenAt, receipt: receiptDigest(receipt) })
  }
  return consented
}

function givenNotice({ fingerprint }: JoinedNetwork, campaign: ConsentedCampaign) {
  const { digest, givenAt, receipt } = campaign
  return { network: fingerprint, campaign: digest, act: 'given' as const, at: givenAt, receipt }
}

function fetchThrough(dispatcher: Agent): ServerFetch {
  return async (url, init) => {
    const response = await undiciFetch(url, { ...init, dispatcher })
    // The same class by standard; the two packages only declare it twice.
    return response as unknown as Response
  }
}

function connect(url: string, localAddress: string | undefined): SocketLike {
  // Messages of the doorbell are short and rare (protocol README §9).
  const socket = new WebSocket(url, {
    perMessageDeflate: false,
    maxPayload: 65_536,
    ...(localAddress === undefined ? {} : { localAddress }),
  })
  return socket as unknown as SocketLike
}

async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await sleepFor(ms, undefined, signal === undefined ? {} : { signal })
  } catch (error) {
    throw signal?.aborted === true ? signal.reason : error
  }
}
