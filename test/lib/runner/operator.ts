import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { type Envelope, signEnvelope } from '../../../lib/crypto/dsse.ts'
import {
  fingerprint,
  generateKeyPair,
  publicKeyBytes,
  type SigningKeyPair,
} from '../../../lib/crypto/ed25519.ts'
import type { Campaign, CampaignList } from '../../../lib/protocol/campaign.ts'
import { canonicalJson } from '../../../lib/protocol/canonical-json.ts'
import type { Network } from '../../../lib/protocol/network.ts'
import { payloadType } from '../../../lib/protocol/payload-type.ts'
import type { JoinedNetwork } from '../../../lib/runner/ports.ts'
import { signCheckpoint } from '../../../lib/tlog/checkpoint.ts'
import { inclusionProof, leafHash, rootHash } from '../../../lib/tlog/merkle.ts'
import { formatVerifierKey, noteSigner, noteVerifier } from '../../../lib/tlog/note.ts'

const origin = 'barley.example/log'

export interface OfferedCampaign {
  digest: string
  campaign: Campaign
  manifest: Envelope
}

/** An operator as a node sees one: real keys, a real log of network and campaigns. */
export class Operator {
  readonly campaignKey: SigningKeyPair
  readonly leaseKey: SigningKeyPair
  readonly receiptKey: SigningKeyPair
  readonly logKey: SigningKeyPair
  readonly network: Network
  readonly fingerprint: string
  readonly networkEnvelope: Envelope

  private constructor(
    keys: Pick<Operator, 'campaignKey' | 'leaseKey' | 'receiptKey' | 'logKey'>,
    network: Network,
    print: string,
    envelope: Envelope,
  ) {
    this.campaignKey = keys.campaignKey
    this.leaseKey = keys.leaseKey
    this.receiptKey = keys.receiptKey
    this.logKey = keys.logKey
    this.network = network
    this.fingerprint = print
    this.networkEnvelope = envelope
  }

  static async make(changes: Partial<Network> = {}): Promise<Operator> {
    const pair = () => generateKeyPair({ extractable: false })
    const keys = {
      campaignKey: await pair(),
      leaseKey: await pair(),
      receiptKey: await pair(),
      logKey: await pair(),
    }
    const raw = (of: SigningKeyPair) => publicKeyBytes(of.publicKey)
    const network: Network = {
      version: 1,
      name: 'Barley',
      operator: { name: 'Barley e. V.', contact: 'crawl@barley.example' },
      campaignKey: toBase64Url(await raw(keys.campaignKey)),
      leaseKey: toBase64Url(await raw(keys.leaseKey)),
      receiptKey: toBase64Url(await raw(keys.receiptKey)),
      logKey: formatVerifierKey(noteVerifier(origin, await raw(keys.logKey))),
      createdAt: '2026-11-22T16:00:00Z',
      ...changes,
    }
    const envelope = await seal('network', keys.campaignKey, network)
    return new Operator(keys, network, fingerprint(await raw(keys.campaignKey)), envelope)
  }

  joined(serverOrigin: string): JoinedNetwork {
    return { origin: serverOrigin, fingerprint: this.fingerprint, network: this.network }
  }

  async offer(campaign: Campaign, key = this.campaignKey): Promise<OfferedCampaign> {
    const payload = new TextEncoder().encode(JSON.stringify(campaign))
    const manifest = await seal('campaign', key, campaign)
    return { digest: toBase64Url(sha256(payload)), campaign, manifest }
  }

  /** The answer to `GET /v1/campaigns`: entry 0 of the log is the network. */
  async list(offered: readonly OfferedCampaign[], logKey = this.logKey): Promise<CampaignList> {
    const entries = [
      { type: 'network', envelope: this.networkEnvelope },
      ...offered.map(({ manifest }) => ({ type: 'campaign', envelope: manifest })),
    ]
    const leaves = entries.map((entry) => leafHash(new TextEncoder().encode(canonicalJson(entry))))
    const checkpoint = await signCheckpoint(
      { origin, size: leaves.length, rootHash: rootHash(leaves), extensions: [] },
      [await noteSigner(origin, logKey)],
    )
    return {
      checkpoint,
      campaigns: offered.map(({ manifest }, index) => ({
        manifest,
        leafIndex: index + 1,
        inclusionProof: inclusionProof(leaves, index + 1).map(toBase64Url),
      })),
    }
  }
}

/** Signs a statement as the envelope of its type. */
export async function seal(
  type: keyof typeof payloadType,
  key: SigningKeyPair,
  statement: object,
): Promise<Envelope> {
  const keyid = toBase64Url(await publicKeyBytes(key.publicKey))
  const payload = new TextEncoder().encode(JSON.stringify(statement))
  return signEnvelope(payloadType[type], payload, [{ keyid, privateKey: key.privateKey }])
}

/** A campaign over one site, valid today and for a year. */
export function campaignOver(host: string, changes: Partial<Campaign> = {}): Campaign {
  return {
    version: 1,
    id: 'barley-docs',
    title: 'Barley manuals',
    purpose: 'A free copy of the manuals, for search.',
    operator: { name: 'Barley e. V.', contact: 'crawl@barley.example' },
    use: 'search',
    sites: [
      {
        host,
        scheme: 'http',
        pathPrefixes: ['/'],
        requestsPerSecond: 100,
        requestsInFlight: 4,
      },
    ],
    canaryHosts: [],
    seeds: [`http://${host}/`],
    limits: { pageBytes: 1_000_000, pageMs: 10_000, pages: 1000, depth: 10 },
    retentionDays: 30,
    quorum: 2,
    points: { perPage: 10, perDuplicate: 2, perPayload: 3, budget: 10_000, funding: 'subsidy' },
    validFrom: '2020-01-01T00:00:00Z',
    validUntil: '2100-01-01T00:00:00Z',
    ...changes,
  }
}
