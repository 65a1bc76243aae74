import { expect, test } from 'vitest'
import {
  type ConsentAct,
  consentReceipt,
  receiptDigest,
  withdrawnReceipt,
} from '../../../lib/consent/consent-receipt.ts'
import { campaignOver } from '../runner/operator.ts'

const act: ConsentAct = {
  receiptId: 'AAAAAAAAAAAAAAAAAAAAAA',
  nowMs: Date.parse('2026-11-22T16:00:00Z'),
  digest: 'DDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDA',
  campaign: campaignOver('www.barley.example'),
  network: { name: 'Barley', fingerprint: 'F'.repeat(43), origin: 'https://barley.example' },
  nodeId: 'N'.repeat(43),
  language: 'en',
  act: 'pressed "Agree and share"',
}

test('a receipt says who, what, why, on what terms and when', () => {
  const receipt = consentReceipt(act)
  expect(receipt).toMatchObject({
    schema_version: 'ISO/IEC TS 27560:2023',
    receipt_id: act.receiptId,
    pii_principal_id: act.nodeId,
    privacy_notice: `sha256:${act.digest}`,
    purposes: [
      {
        purpose: 'Barley manuals: A free copy of the manuals, for search.',
        purpose_type: 'search',
        services: ['http://www.barley.example /'],
      },
    ],
    party_identification: [{ party_name: 'Barley e. V.', party_id: act.network.fingerprint }],
    event: [{ event_time: '2026-11-22T16:00:00.000Z', event_state: 'given', event_act: act.act }],
  })
  expect(receipt.purposes[0]?.withdrawal_method).not.toBe('')
})

test('its digest does not depend on the order of members, and changes with any of them', () => {
  const receipt = consentReceipt(act)
  const reversed = Object.fromEntries(Object.entries(receipt).reverse()) as typeof receipt
  expect(receiptDigest(reversed)).toBe(receiptDigest(receipt))
  expect(receiptDigest(receipt)).toMatch(/^[A-Za-z0-9_-]{43}$/)
  expect(receiptDigest(consentReceipt({ ...act, nowMs: act.nowMs + 1 }))).not.toBe(
    receiptDigest(receipt),
  )
})

test('withdrawal is added, what was given stays', () => {
  const receipt = consentReceipt(act)
  const withdrawn = withdrawnReceipt(receipt, act.nowMs + 60_000, 'pressed "Withdraw"')
  expect(withdrawn.event.map(({ event_state }) => event_state)).toEqual(['given', 'withdrawn'])
  expect(receipt.event).toHaveLength(1)
})

test('a receipt of a wide campaign names its list by root, size and category', () => {
  const root = `${'R'.repeat(42)}A`
  const campaign = campaignOver('www.barley.example', {
    wide: {
      root,
      size: 12_345,
      category: 'about grain',
      scheme: 'https',
      requestsPerSecond: 1,
      requestsInFlight: 1,
    },
  })
  const services = consentReceipt({ ...act, campaign }).purposes[0]?.services ?? []
  expect(services[0]).toBe('http://www.barley.example /')
  expect(services[1]).toContain('12345 domains (about grain)')
  expect(services[1]).toContain(`sha256:${root}`)
  expect(services[1]).toContain('by https')
})
