import { consentReceipt, receiptDigest, withdrawnReceipt } from '../consent/consent-receipt.ts'
import { joinLinkSentence, parseJoinLink } from '../consent/join-link.ts'
import { type OpenedCampaign, refusalSentence } from '../consent/manifest.ts'
import { toBase64Url } from '../crypto/base64.ts'
import { askCampaigns, askNetwork } from '../runner/join.ts'
import type { JoinedNetwork } from '../runner/ports.ts'
import { type ServerFetch, ServerProblem, ServerUnreachable } from '../runner/server-connection.ts'
import { stateName, stateSentence } from '../ui/words.ts'
import { createHop } from './hop.ts'
import { iconOf, showIcon } from './icon.ts'
import { identify } from './identify.ts'
import { createLine } from './line.ts'
import type { Handlers, NetworkAnswer } from './messages.ts'
import { readOffers, readOverview, TERMS_WORDING, termsAnswer } from './overview.ts'
import { dropOrigins, holdsOrigins, serverOrigins } from './permissions.ts'
import { platformRefusal } from './platform.ts'
import { report } from './report.ts'
import { createSharing, joinedNetwork } from './sharing.ts'
import type { Sightings } from './sightings.ts'
import { campaignOrigins, everySite } from './site-access.ts'
import { activeConsents, type DeviceStore, type StoredConsent } from './store.ts'
import type { WireBytes } from './wire-bytes.ts'

/** This installation at work: what it joined and agreed to, and what acts on it. */
export interface Installation extends Handlers {
  /** The alarm, or a change of the device: look at everything again. */
  ring(): Promise<void>
  /** The device is on another network, or back on the old one. */
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
  const line = await createLine(store)

  const serverFetch: ServerFetch = async (url, init) => {
    if (init.body !== undefined) await line.up.take(init.body.length, init.signal)
    return fetch(url, init)
  }
  let identified = identifyNow(store)
  const hop = createHop({
    sightings: parts.sightings,
    wireBytes: parts.wireBytes,
    pace: line.down,
    ready: () => identified,
  })
  const sharing = createSharing({ store, hop, serverFetch, onState: showState })

  function showState(): void {
    const state = sharing.state()
    const icon = unsupported === null ? iconOf(state) : 'stopped'
    const title = unsupported ?? `${stateName(state)}: ${stateSentence(state)}`
    void showIcon(icon, `Gleaner. ${title}`).catch(report('show the icon'))
  }

  async function overview() {
    for (const joined of await store.networks()) {
      const hasCampaign = (await activeConsents(store, joined.fingerprint)).length > 0
      if (hasCampaign && sharing.state().kind !== 'off') sharing.refreshPoints(joined)
    }
    return readOverview(store, { nowMs: Date.now(), state: sharing.state(), unsupported })
  }

  /** Begins once the person has said yes, and not before. */
  async function startIfAllowed(): Promise<void> {
    if (unsupported === null && (await termsAnswer(store)) === 'yes') await sharing.start()
  }

  async function requireYes(): Promise<void> {
    if (unsupported !== null) throw new Error(unsupported)
    if ((await termsAnswer(store)) !== 'yes') {
      throw new Error('Nothing is contacted before you said yes on the welcome page.')
    }
  }

  /** Asks the server what it offers, checks every campaign and keeps the answer. */
  async function askOffers(joined: JoinedNetwork): Promise<NetworkAnswer> {
    const nowMs = Date.now()
    const asked = await askCampaigns(joined, serverFetch, nowMs)
    if (!asked.ok) return { ok: false, sentence: refusalSentence[asked.reason] }
    await store.putOffers({ network: joined.fingerprint, atMs: nowMs, campaigns: asked.campaigns })
    return readOffers(store, joined)
  }

  async function agree(
    joined: JoinedNetwork,
    offer: Extract<OpenedCampaign, { ok: true }>,
    act: string,
  ): Promise<void> {
    const { nodeId } = await store.identity(joined.fingerprint)
    const consent = consentOf(joined, offer, { act, nodeId, nowMs: Date.now() })
    await store.putConsent(consent)
    // Committed. A worker that dies from here starts this campaign when it is back.
    identified = identifyNow(store)
    await sharing.agreed(consent)
    showState()
    line.measure(sharing)
  }

  async function withdraw(consent: StoredConsent, act: string): Promise<void> {
    const nowMs = Date.now()
    await store.putConsent({
      ...consent,
      document: withdrawnReceipt(consent.document, nowMs, act),
      withdrawnAt: new Date(nowMs).toISOString(),
    })
    // Committed. A worker that dies from here never starts this campaign again.
    await sharing.withdrawn(consent)
    identified = identifyNow(store)
    const needed = [
      ...(await activeConsents(store)).flatMap(({ campaign }) => campaignOrigins(campaign)),
      ...(await store.networks()).flatMap(({ origin }) => serverOrigins(origin)),
    ]
    // All sites too: an earlier withdrawal may have had to leave that access for the sake of others.
    await dropOrigins([...campaignOrigins(consent.campaign), ...everySite], needed)
    showState()
  }

  /** Access that is gone means that the person took it: the same as withdrawing here. */
  async function accessRemoved(): Promise<void> {
    for (const consent of await activeConsents(store)) {
      if (await holdsOrigins(campaignOrigins(consent.campaign))) continue
      await withdraw(consent, 'Removed access to the sites in the browser')
    }
  }

  await startIfAllowed()
  await accessRemoved()
  showState()
  line.measure(sharing)

  return {
    overview,
    accessRemoved,

    ring: async () => {
      // A rule that could not be set must not stop work for ever.
      await identified.catch(() => {
        identified = identifyNow(store)
      })
      sharing.wake()
      showState()
      line.measure(sharing)
    },

    lineChanged: () => {
      line.changed()
      sharing.wake()
    },

    'answer-terms': async (answer) => {
      await store.putTerms({ answer, wording: TERMS_WORDING, at: new Date().toISOString() })
      if (answer === 'yes') await startIfAllowed()
      else await sharing.stop()
      showState()
      return overview()
    },

    'join-network': async ({ link }) => {
      await requireYes()
      const parsed = parseJoinLink(link)
      if (!parsed.ok) return { ok: false, sentence: joinLinkSentence[parsed.reason] }
      return orSentence(async () => {
        // Not even the first call tells this network what is shared in others.
        identified = identifyNow(store, [parsed.origin])
        await identified
        const answer = await askNetwork(parsed, serverFetch)
        if (!answer.ok) return { ok: false, sentence: refusalSentence[answer.reason] }
        await store.putNetwork(answer.joined)
        await sharing.joined(answer.joined)
        return askOffers(answer.joined)
      })
    },

    offers: async ({ network }) => {
      await requireYes()
      const joined = await joinedNetwork(store, network)
      return orSentence(() => askOffers(joined))
    },

    agree: async ({ network, digest, act }) => {
      await requireYes()
      const joined = await joinedNetwork(store, network)
      const offer = (await store.offers(network))?.campaigns
        .filter((offered) => offered.ok)
        .find((offered) => offered.digest === digest)
      if (offer === undefined) {
        return { ok: false, sentence: 'The server no longer offers these terms. Load them again.' }
      }
      if (!(await holdsOrigins(campaignOrigins(offer.campaign)))) {
        return {
          ok: false,
          sentence:
            'The browser did not give access to the sites, so nothing was agreed. Press Agree again and allow it.',
        }
      }
      await agree(joined, offer, act)
      return readOffers(store, joined)
    },

    withdraw: async ({ network, digest, act }) => {
      const consent = (await activeConsents(store, network)).find(
        (given) => given.digest === digest,
      )
      if (consent) await withdraw(consent, act)
      return readOffers(store, await joinedNetwork(store, network))
    },

    leave: async ({ network }) => {
      for (const consent of await activeConsents(store, network)) {
        await withdraw(consent, 'Left the network')
      }
      await sharing.leave(network)
      await store.deleteNetwork(network)
      return overview()
    },

    pause: async () => {
      await store.putPause({ untilMs: null })
      await sharing.pauseChanged()
      showState()
      return overview()
    },

    resume: async () => {
      await store.putPause(null)
      await sharing.pauseChanged()
      showState()
      return overview()
    },

    journal: (query) => store.journal(query),

    'delete-journal': async () => {
      await store.deleteJournal()
      return null
    },
  }
}

async function identifyNow(store: DeviceStore, newServers: readonly string[] = []): Promise<void> {
  const consents = await activeConsents(store)
  const servers = [...(await store.networks()).map(({ origin }) => origin), ...newServers]
  await identify(
    consents.map(({ campaign }) => ({
      hosts: campaign.sites.map(({ host }) => host),
      wide: campaign.wide !== undefined,
      contact: campaign.operator.contact,
    })),
    servers.map((origin) => new URL(origin).hostname),
  )
}

function consentOf(
  joined: JoinedNetwork,
  { campaign, digest, manifest }: Extract<OpenedCampaign, { ok: true }>,
  { act, nodeId, nowMs }: { act: string; nodeId: string; nowMs: number },
): StoredConsent {
  const { origin, fingerprint, network } = joined
  const document = consentReceipt({
    receiptId: toBase64Url(crypto.getRandomValues(new Uint8Array(16))),
    nowMs,
    digest,
    campaign,
    network: { name: network.name, fingerprint, origin },
    nodeId,
    language: 'en',
    act,
  })
  return {
    network: fingerprint,
    digest,
    campaign,
    manifest,
    givenAt: new Date(nowMs).toISOString(),
    receipt: receiptDigest(document),
    document,
    withdrawnAt: null,
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
