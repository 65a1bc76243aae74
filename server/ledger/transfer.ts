import { toBase64Url } from '../../lib/crypto/base64.ts'
import { concatBytes, sha256 } from '../../lib/crypto/digest.ts'
import { type PointsInputs, points } from './formula.ts'

export interface NewTransfer {
  id: Uint8Array
  debitAccount: string
  creditAccount: string
  amount: number
  state: 'pending' | 'posted'
  purpose: string
  funding: 'subsidy' | 'consumer'
  inputs: unknown
  causeCommitment: Uint8Array
  causeSalt: Uint8Array
}

export interface StoredTransfer {
  id: Buffer
  debitAccount: string
  creditAccount: string
  amount: number
  state: 'pending' | 'posted' | 'voided'
  purpose: string
  funding: string
  inputs: unknown
  epoch: number | null
}

export const issuanceAccount = 'issuance'
export const campaignAccount = (digest: Uint8Array) => `campaign:${toBase64Url(digest)}`
export const nodeAccount = (accountId: Uint8Array) => `node:${toBase64Url(accountId)}`

/** Id of a transfer: from its cause and purpose, so that a repeat is recognised. */
export function transferId(cause: Uint8Array, purpose: string): Uint8Array {
  return sha256(concatBytes(new TextEncoder().encode(`gleaner-transfer/1\n${purpose}\n`), cause))
}

/** Points for one lease, pending until the node's next passed audit. Null when the formula gives none. */
export function creditForLease(
  lease: { leaseId: Uint8Array; accountId: Uint8Array; campaign: Uint8Array },
  funding: 'subsidy' | 'consumer',
  inputs: PointsInputs,
  salt: Uint8Array,
): NewTransfer | null {
  const amount = points(inputs)
  if (amount === 0) return null
  return {
    id: transferId(lease.leaseId, inputs.role),
    debitAccount: campaignAccount(lease.campaign),
    creditAccount: nodeAccount(lease.accountId),
    amount,
    state: 'pending',
    purpose: inputs.role,
    funding,
    inputs,
    causeCommitment: sha256(concatBytes(salt, lease.leaseId)),
    causeSalt: salt,
  }
}

/** The budget that a campaign's points come from, once. */
export function fundCampaign(
  campaign: Uint8Array,
  budget: number,
  funding: 'subsidy' | 'consumer',
  salt: Uint8Array,
): NewTransfer {
  return {
    id: transferId(campaign, 'fund'),
    debitAccount: issuanceAccount,
    creditAccount: campaignAccount(campaign),
    amount: budget,
    state: 'posted',
    purpose: 'fund',
    funding,
    inputs: { budget },
    causeCommitment: sha256(concatBytes(salt, campaign)),
    causeSalt: salt,
  }
}
