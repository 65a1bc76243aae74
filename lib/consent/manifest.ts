import { fromBase64Url, toBase64Url } from '../crypto/base64.ts'
import { sha256 } from '../crypto/digest.ts'
import { verifyEnvelope } from '../crypto/dsse.ts'
import { fingerprint } from '../crypto/ed25519.ts'
import { type Campaign, campaign, campaignList } from '../protocol/campaign.ts'
import { canonicalJson } from '../protocol/canonical-json.ts'
import { type EnvelopeMessage, envelope } from '../protocol/fields.ts'
import { type Network, network } from '../protocol/network.ts'
import { payloadType } from '../protocol/payload-type.ts'
import { openCheckpoint } from '../tlog/checkpoint.ts'
import { leafHash, verifyInclusion } from '../tlog/merkle.ts'
import { parseVerifierKey } from '../tlog/note.ts'

/** Why a network document is not accepted. */
export type NetworkRefusal =
  | 'malformed'
  | 'another-network'
  | 'bad-signature'
  | 'keys-disagree'
  | 'log-key-unusable'

/** Why a campaign, or a whole list, is not shown. */
export type ManifestRefusal =
  | 'malformed'
  | 'bad-signature'
  | 'checkpoint-unusable'
  | 'not-in-log'
  | 'not-yet-valid'
  | 'expired'

/** What each refusal means, for the person: what is wrong, then what to do. */
export const refusalSentence: Record<NetworkRefusal | ManifestRefusal, string> = {
  malformed:
    'The server sent something this version does not understand. Update the extension, or ask the operator.',
  'another-network':
    'This is not the network that your join link names: its key is another. Do not go on; ask the operator for a new link.',
  'bad-signature':
    'The signature does not fit, so this text may have been changed on the way. Do not go on; tell the operator.',
  'keys-disagree':
    'The network document names another key than the one that signed it. Do not go on; tell the operator.',
  'log-key-unusable':
    'The network names no usable key for its public log, so nothing can be checked. Tell the operator.',
  'checkpoint-unusable':
    "The public log's state is not signed by the network's log key. Nothing is shown until it is; try again later.",
  'not-in-log':
    'This campaign is not in the public log, so nobody else could see its terms. It is not offered until it is.',
  'not-yet-valid': 'This campaign has not begun yet. Come back on its first day.',
  expired: 'This campaign is over. Nothing is needed from you.',
}

export type OpenedNetwork = { ok: true; network: Network } | { ok: false; reason: NetworkRefusal }

/** Opens `GET /v1/network` for the fingerprint that the join link pinned (protocol README §2). */
export async function openNetwork(answer: unknown, pinned: string): Promise<OpenedNetwork> {
  const parsed = envelope.safeParse(answer)
  if (!parsed.success) return { ok: false, reason: 'malformed' }
  // The pin chooses the key; a keyid only says where to find its bytes.
  const key = parsed.data.signatures
    .map(({ keyid }) => fromBase64Url(keyid))
    .find((bytes) => fingerprint(bytes) === pinned)
  if (key === undefined) return { ok: false, reason: 'another-network' }
  const opened = await verifyEnvelope(parsed.data, payloadType.network, key)
  if (!opened.ok) return { ok: false, reason: 'bad-signature' }
  const document = network.safeParse(parseJson(opened.payload))
  if (!document.success) return { ok: false, reason: 'malformed' }
  if (document.data.campaignKey !== toBase64Url(key)) return { ok: false, reason: 'keys-disagree' }
  if (parseVerifierKey(document.data.logKey) === undefined) {
    return { ok: false, reason: 'log-key-unusable' }
  }
  return { ok: true, network: document.data }
}

export type OpenedCampaign =
  | {
      ok: true
      /** Manifest digest: the campaign's name everywhere. */
      digest: string
      campaign: Campaign
      manifest: EnvelopeMessage
    }
  | {
      ok: false
      reason: ManifestRefusal
      /** Of the terms, as far as they are signed by the operator; else null. */
      title: string | null
    }

export type OpenedCampaignList =
  | { ok: true; campaigns: OpenedCampaign[] }
  | { ok: false; reason: ManifestRefusal }

/**
 * Opens `GET /v1/campaigns` of an opened network: signature, inclusion in the log, validity
 * (protocol README §4). A bad campaign does not hide the others.
 */
export async function openCampaigns(
  answer: unknown,
  of: Network,
  nowMs: number,
): Promise<OpenedCampaignList> {
  const parsed = campaignList.safeParse(answer)
  if (!parsed.success) return { ok: false, reason: 'malformed' }
  const logKey = parseVerifierKey(of.logKey)
  if (logKey === undefined) return { ok: false, reason: 'checkpoint-unusable' }
  // The key's name is the log's origin (protocol README §2, §10).
  const opened = await openCheckpoint(parsed.data.checkpoint, logKey.name, [logKey])
  if (!opened.ok) return { ok: false, reason: 'checkpoint-unusable' }

  const { size, rootHash } = opened.checkpoint
  const campaigns: OpenedCampaign[] = []
  for (const { manifest, leafIndex, inclusionProof } of parsed.data.campaigns) {
    const signed = await openManifest(manifest, of)
    if (!signed.ok) {
      campaigns.push({ ok: false, reason: signed.reason, title: null })
      continue
    }
    const { title } = signed.campaign
    const entry = new TextEncoder().encode(canonicalJson({ type: 'campaign', envelope: manifest }))
    const isInLog = verifyInclusion({
      leafHash: leafHash(entry),
      index: leafIndex,
      size,
      rootHash,
      proof: inclusionProof.map(fromBase64Url),
    })
    const refused = isInLog ? validity(signed.campaign, nowMs) : 'not-in-log'
    campaigns.push(
      refused === null ? { ...signed, manifest } : { ok: false, reason: refused, title },
    )
  }
  return { ok: true, campaigns }
}

/** Checks the operator's signature and the form of one manifest; neither the log nor the dates. */
export async function openManifest(
  manifest: EnvelopeMessage,
  of: Pick<Network, 'campaignKey'>,
): Promise<
  | { ok: true; digest: string; campaign: Campaign }
  | { ok: false; reason: Extract<ManifestRefusal, 'malformed' | 'bad-signature'> }
> {
  const opened = await verifyEnvelope(manifest, payloadType.campaign, fromBase64Url(of.campaignKey))
  if (!opened.ok) return { ok: false, reason: 'bad-signature' }
  const terms = campaign.safeParse(parseJson(opened.payload))
  if (!terms.success) return { ok: false, reason: 'malformed' }
  return { ok: true, digest: toBase64Url(sha256(opened.payload)), campaign: terms.data }
}

/** Null while `validFrom <= now < validUntil`. */
export function validity(
  terms: Pick<Campaign, 'validFrom' | 'validUntil'>,
  nowMs: number,
): Extract<ManifestRefusal, 'not-yet-valid' | 'expired'> | null {
  // An instant can fit the pattern and still be no date (month 13): it is never valid.
  if (!(Date.parse(terms.validFrom) <= nowMs)) return 'not-yet-valid'
  return nowMs < Date.parse(terms.validUntil) ? null : 'expired'
}

/** Undefined when the bytes are not UTF-8 JSON, which no schema here accepts. */
function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    return undefined
  }
}
