import { expect, test } from 'vitest'
import { concatBytes, sha256 } from '../../../lib/crypto/digest.ts'
import { toHex } from '../../../lib/crypto/hex.ts'
import {
  campaignAccount,
  creditForLease,
  fundCampaign,
  issuanceAccount,
  nodeAccount,
  transferId,
} from '../../../server/ledger/transfer.ts'

const leaseId = sha256('a lease').slice(0, 16)
const lease = { leaseId, accountId: sha256('ada'), campaign: sha256('tea') }
const inputs = {
  role: 'observer',
  novelty: 'new',
  perPage: 10,
  perDuplicate: 2,
  perPayload: 3,
} as const
const salt = new Uint8Array(16).fill(7)

test('one cause and purpose have one id, whatever else is said', () => {
  const first = creditForLease(lease, 'subsidy', inputs, salt)
  const again = creditForLease(
    { ...lease, accountId: sha256('bob') },
    'consumer',
    { ...inputs, novelty: 'duplicate' },
    new Uint8Array(16),
  )
  expect(again?.id).toEqual(first?.id)
})

test('another cause or another purpose has another id', () => {
  const ids = [
    transferId(leaseId, 'observer'),
    transferId(leaseId, 'payload'),
    transferId(sha256('another lease').slice(0, 16), 'observer'),
    transferId(lease.campaign, 'fund'),
  ].map(toHex)
  expect(new Set(ids).size).toBe(ids.length)
})

test('an id is the digest of purpose and cause, as written down', () => {
  expect(toHex(transferId(leaseId, 'observer'))).toBe(
    toHex(sha256(concatBytes(new TextEncoder().encode('gleaner-transfer/1\nobserver\n'), leaseId))),
  )
})

test('a credit goes from the campaign to the contributor, pending, with what the formula was given', () => {
  expect(creditForLease(lease, 'consumer', inputs, salt)).toEqual({
    id: transferId(leaseId, 'observer'),
    debitAccount: campaignAccount(lease.campaign),
    creditAccount: nodeAccount(lease.accountId),
    amount: 10,
    state: 'pending',
    purpose: 'observer',
    funding: 'consumer',
    inputs,
    causeCommitment: sha256(concatBytes(salt, leaseId)),
    causeSalt: salt,
  })
})

test('nothing is transferred where the formula gives no points', () => {
  expect(creditForLease(lease, 'subsidy', { ...inputs, perPage: 0 }, salt)).toBeNull()
})

test('a campaign is funded once, from issuance, posted', () => {
  const funded = fundCampaign(lease.campaign, 1000, 'subsidy', salt)
  expect(funded).toMatchObject({
    id: transferId(lease.campaign, 'fund'),
    debitAccount: issuanceAccount,
    creditAccount: campaignAccount(lease.campaign),
    amount: 1000,
    state: 'posted',
  })
  expect(fundCampaign(lease.campaign, 5, 'consumer', salt).id).toEqual(funded.id)
})
