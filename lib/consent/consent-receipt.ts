import { toBase64Url } from '../crypto/base64.ts'
import { sha256 } from '../crypto/digest.ts'
import type { Campaign } from '../protocol/campaign.ts'
import { canonicalJson } from '../protocol/canonical-json.ts'

/** What a receipt is made from. */
export interface ConsentAct {
  /** 16 random bytes, base64url. */
  receiptId: string
  nowMs: number
  /** Manifest digest. */
  digest: string
  campaign: Campaign
  network: { name: string; fingerprint: string; origin: string }
  /** The node's id: who agreed, as far as the network knows. */
  nodeId: string
  /** BCP 47 tag of the language in which the terms were shown. */
  language: string
  /** What the person did, in words: pressed a button of this text, gave this flag. */
  act: string
}

/**
 * A record of what a person agreed to, kept on the device, with the members of ISO/IEC TS
 * 27560:2023 that apply, in its order: who, what, why, on what terms, when, how to end it.
 */
export type ConsentReceipt = {
  schema_version: 'ISO/IEC TS 27560:2023'
  receipt_id: string
  /** The contributor, by the only name that the network has. */
  pii_principal_id: string
  /** The terms: their exact bytes hash to this. */
  privacy_notice: string
  language: string
  purposes: readonly {
    purpose: string
    purpose_type: Campaign['use']
    lawful_basis: 'consent'
    pii_information: readonly {
      pii_type: string
      pii_attribute: string
      retention_period: string
    }[]
    processing: string
    /** Sites that the device fetches from: scheme, host and path prefixes; the list of a wide one. */
    services: readonly string[]
    recipient_third_parties: readonly string[]
    withdrawal_method: string
    validity_from: string
    validity_until: string
  }[]
  party_identification: readonly {
    party_id: string
    party_name: string
    party_role: 'controller'
    party_contact: string
    party_address: string
  }[]
  event: readonly {
    event_time: string
    event_type: 'explicit'
    event_state: 'given' | 'withdrawn'
    event_act: string
  }[]
}

/** Builds the receipt of an affirmative act. */
export function consentReceipt(given: ConsentAct): ConsentReceipt {
  const { campaign, network } = given
  return {
    schema_version: 'ISO/IEC TS 27560:2023',
    receipt_id: given.receiptId,
    pii_principal_id: given.nodeId,
    privacy_notice: `sha256:${given.digest}`,
    language: given.language,
    purposes: [
      {
        purpose: `${campaign.title}: ${campaign.purpose}`,
        purpose_type: campaign.use,
        lawful_basis: 'consent',
        pii_information: [
          {
            pii_type: 'network address',
            pii_attribute:
              'seen by the sites and the server; the server stores its block (/24, /48)',
            retention_period: `P${campaign.retentionDays}D`,
          },
          {
            pii_type: 'device and account identifier',
            pii_attribute: 'public keys made by this installation; never published',
            retention_period: `P${campaign.retentionDays}D`,
          },
        ],
        processing:
          'This device fetches public pages of the services named and reports what it saw.',
        services: services(campaign),
        recipient_third_parties: ['the sites named under services'],
        withdrawal_method: 'Withdraw in the list of campaigns; running fetches stop at once.',
        validity_from: campaign.validFrom,
        validity_until: campaign.validUntil,
      },
    ],
    party_identification: [
      {
        party_id: network.fingerprint,
        party_name: campaign.operator.name,
        party_role: 'controller',
        party_contact: campaign.operator.contact,
        party_address: network.origin,
      },
    ],
    event: [
      {
        event_time: new Date(given.nowMs).toISOString(),
        event_type: 'explicit',
        event_state: 'given',
        event_act: given.act,
      },
    ],
  }
}

function services({ sites, wide }: Campaign): string[] {
  const named = sites.map(
    ({ scheme, host, pathPrefixes }) => `${scheme}://${host} ${pathPrefixes.join(' ')}`,
  )
  if (wide === undefined) return named
  // The root stands for the names: whoever has the list can show that it is this one.
  const list = `${wide.size} domains (${wide.category}) with all names below them, by ${wide.scheme}, of the list with RFC 6962 root sha256:${wide.root}`
  return [...named, list]
}

/** The same receipt after the person withdrew. Its digest changes; the first one stays the reference. */
export function withdrawnReceipt(
  receipt: ConsentReceipt,
  nowMs: number,
  act: string,
): ConsentReceipt {
  const withdrawn = {
    event_time: new Date(nowMs).toISOString(),
    event_type: 'explicit',
    event_state: 'withdrawn',
    event_act: act,
  } as const
  return { ...receipt, event: [...receipt.event, withdrawn] }
}

/** What the server is told of the receipt: SHA-256 of its canonical JSON, base64url. */
export function receiptDigest(receipt: ConsentReceipt): string {
  return toBase64Url(sha256(canonicalJson(receipt)))
}
