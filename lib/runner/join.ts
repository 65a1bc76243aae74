import {
  type ManifestRefusal,
  type NetworkRefusal,
  type OpenedCampaign,
  openCampaigns,
  openNetwork,
} from '../consent/manifest.ts'
import type { JoinedNetwork } from './ports.ts'
import { askWithoutSession, type ServerFetch } from './server-connection.ts'

/** Asks a server who it is and checks the answer against the pinned fingerprint. Throws when there is no answer. */
export async function askNetwork(
  link: { origin: string; fingerprint: string },
  fetch: ServerFetch,
  signal?: AbortSignal,
): Promise<{ ok: true; joined: JoinedNetwork } | { ok: false; reason: NetworkRefusal }> {
  const { origin, fingerprint } = link
  const answer = await askWithoutSession('/v1/network', { origin, fetch }, signal)
  const opened = await openNetwork(answer, fingerprint)
  if (!opened.ok) return opened
  return { ok: true, joined: { origin, fingerprint, network: opened.network } }
}

/** Asks a joined network for its campaigns, each checked. Throws when there is no answer. */
export async function askCampaigns(
  joined: JoinedNetwork,
  fetch: ServerFetch,
  nowMs: number,
  signal?: AbortSignal,
): Promise<{ ok: true; campaigns: OpenedCampaign[] } | { ok: false; reason: ManifestRefusal }> {
  const answer = await askWithoutSession('/v1/campaigns', { origin: joined.origin, fetch }, signal)
  return openCampaigns(answer, joined.network, nowMs)
}
