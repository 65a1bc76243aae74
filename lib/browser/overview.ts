import { type RunnerState, utcDay } from '../consent/limits.ts'
import { refusalSentence } from '../consent/manifest.ts'
import type { JoinedNetwork } from '../runner/ports.ts'
import type { NetworkAnswer, NetworkView, OfferView, Overview } from './messages.ts'
import { activeConsents, type DeviceStore } from './store.ts'

/**
 * Number of the text on the welcome page. Raise it when its meaning changes: people are asked anew
 * and nothing runs until they answer.
 */
export const TERMS_WORDING = 1

/** What the person answered on the welcome page, to the text as it is now. */
export async function termsAnswer(store: DeviceStore): Promise<Overview['terms']> {
  const given = await store.terms()
  if (given === undefined || given.wording !== TERMS_WORDING) return 'unasked'
  return given.answer
}

/** Everything a page shows, from the store alone: no network is needed to draw it. */
export async function readOverview(
  store: DeviceStore,
  now: { nowMs: number; state: RunnerState; unsupported: string | null },
): Promise<Overview> {
  const networks = await store.networks()
  const today = utcDay(now.nowMs)
  const used = (await store.usage(today)).find(({ day }) => day === today)
  const meter = await store.meter()
  return {
    unsupported: now.unsupported,
    terms: await termsAnswer(store),
    state: now.state,
    networks: await Promise.all(networks.map((joined) => networkView(store, joined))),
    today: {
      bytesUp: used?.bytesUp ?? 0,
      bytesDown: used?.bytesDown ?? 0,
      capBytes: (await store.limits()).bytesPerDay,
    },
    meter: meter ? { last: meter.last, failure: meter.failure } : null,
  }
}

/** A joined network with what it last offered. */
export async function readOffers(
  store: DeviceStore,
  joined: JoinedNetwork,
): Promise<NetworkAnswer> {
  const network = await networkView(store, joined)
  const agreed = new Set(network.campaigns.map(({ digest }) => digest))
  const offers = (await store.offers(joined.fingerprint))?.campaigns ?? []
  return {
    ok: true,
    network,
    offers: offers.map((offer): OfferView => {
      if (!offer.ok)
        return { ok: false, title: offer.title, sentence: refusalSentence[offer.reason] }
      const { digest, campaign } = offer
      return { ok: true, digest, campaign, agreed: agreed.has(digest) }
    }),
  }
}

async function networkView(store: DeviceStore, joined: JoinedNetwork): Promise<NetworkView> {
  const { fingerprint, origin, network } = joined
  const balance = (await store.balances()).find((stored) => stored.network === fingerprint)
  const consents = await activeConsents(store, fingerprint)
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
    campaigns: consents.map(({ digest, campaign, givenAt }) => ({ digest, campaign, givenAt })),
  }
}
