import { beforeAll, describe, expect, test } from 'vitest'
import {
  openCampaigns,
  openNetwork,
  refusalSentence,
  validity,
} from '../../../lib/consent/manifest.ts'
import { toBase64 } from '../../../lib/crypto/base64.ts'
import { campaignOver, type OfferedCampaign, Operator, seal } from '../runner/operator.ts'

const nowMs = Date.parse('2026-11-22T16:00:00Z')
let operator: Operator
let other: Operator

beforeAll(async () => {
  operator = await Operator.make()
  other = await Operator.make()
})

describe('a network document', () => {
  test('opens under the key that the join link pins', async () => {
    const opened = await openNetwork(operator.networkEnvelope, operator.fingerprint)
    expect(opened).toEqual({ ok: true, network: operator.network })
  })

  test('opens when a second key signed it too', async () => {
    const [mine] = operator.networkEnvelope.signatures
    const [theirs] = other.networkEnvelope.signatures
    if (!mine || !theirs) throw new Error('unsigned')
    const both = { ...operator.networkEnvelope, signatures: [theirs, mine] }
    expect((await openNetwork(both, operator.fingerprint)).ok).toBe(true)
  })

  const cases: [string, () => unknown | Promise<unknown>, string][] = [
    ['no envelope', () => ({ hello: 1 }), 'malformed'],
    ['null', () => null, 'malformed'],
    ['another network', () => other.networkEnvelope, 'another-network'],
    [
      'a payload that was changed',
      () => ({ ...operator.networkEnvelope, payload: toBase64(new TextEncoder().encode('{}')) }),
      'bad-signature',
    ],
    [
      'another type',
      () => seal('campaign', operator.campaignKey, operator.network),
      'bad-signature',
    ],
    [
      'the pinned key named over a signature by another',
      () => {
        const [theirs] = other.networkEnvelope.signatures
        const [mine] = operator.networkEnvelope.signatures
        const signatures = [{ keyid: mine?.keyid, sig: theirs?.sig }]
        return { ...other.networkEnvelope, signatures }
      },
      'bad-signature',
    ],
    [
      'an unknown member',
      () => seal('network', operator.campaignKey, { ...operator.network, extra: 1 }),
      'malformed',
    ],
    [
      'another campaign key inside',
      () =>
        seal('network', operator.campaignKey, {
          ...operator.network,
          campaignKey: other.network.campaignKey,
        }),
      'keys-disagree',
    ],
    [
      'no usable log key',
      () => seal('network', operator.campaignKey, { ...operator.network, logKey: 'barley+1+AAAA' }),
      'log-key-unusable',
    ],
  ]
  test.each(cases)('with %s is refused', async (_, make, reason) => {
    const opened = await openNetwork(await make(), operator.fingerprint)
    expect(opened).toEqual({ ok: false, reason })
    expect(refusalSentence[reason as keyof typeof refusalSentence]).toMatch(/\.$/)
  })
})

describe('a campaign list', () => {
  let offered: OfferedCampaign
  beforeAll(async () => {
    offered = await operator.offer(campaignOver('www.barley.example'))
  })

  test('opens with the digest that names each campaign', async () => {
    const second = await operator.offer(campaignOver('old.barley.example', { id: 'old' }))
    const opened = await openCampaigns(
      await operator.list([offered, second]),
      operator.network,
      nowMs,
    )
    expect(opened).toMatchObject({
      ok: true,
      campaigns: [
        { ok: true, digest: offered.digest, campaign: offered.campaign },
        { ok: true, digest: second.digest },
      ],
    })
  })

  test('with an unknown member is refused', async () => {
    const list = { ...(await operator.list([offered])), extra: 1 }
    expect(await openCampaigns(list, operator.network, nowMs)).toEqual({
      ok: false,
      reason: 'malformed',
    })
  })

  test('under a checkpoint that the log key did not sign is refused', async () => {
    const list = await operator.list([offered], other.logKey)
    expect(await openCampaigns(list, operator.network, nowMs)).toEqual({
      ok: false,
      reason: 'checkpoint-unusable',
    })
  })

  test.each<[string, () => Promise<OfferedCampaign>, string, string | null]>([
    [
      'signed by another key',
      () => operator.offer(campaignOver('x.example'), other.campaignKey),
      'bad-signature',
      null,
    ],
    ['that breaks the schema', () => operator.offer(campaignOver('localhost')), 'malformed', null],
    [
      'that is over',
      () => operator.offer(campaignOver('x.example', { validUntil: '2026-11-22T16:00:00Z' })),
      'expired',
      'Barley manuals',
    ],
    [
      'that has not begun',
      () => operator.offer(campaignOver('x.example', { validFrom: '2026-11-22T16:00:01Z' })),
      'not-yet-valid',
      'Barley manuals',
    ],
  ])('shows no campaign %s, and the others still', async (_, make, reason, title) => {
    const list = await operator.list([await make(), offered])
    const opened = await openCampaigns(list, operator.network, nowMs)
    expect(opened).toMatchObject({
      ok: true,
      campaigns: [{ ok: false, reason, title }, { ok: true }],
    })
  })

  test('shows no campaign that is not in the log', async () => {
    const list = await operator.list([offered])
    const secret = await operator.offer(campaignOver('secret.example', { id: 'secret' }))
    const [listed] = list.campaigns
    if (!listed) throw new Error('nothing listed')
    for (const changed of [
      { ...listed, manifest: secret.manifest },
      { ...listed, leafIndex: 0 },
      { ...listed, inclusionProof: [] },
      { ...listed, leafIndex: 2 ** 40 },
    ]) {
      const opened = await openCampaigns({ ...list, campaigns: [changed] }, operator.network, nowMs)
      expect(opened).toMatchObject({ campaigns: [{ ok: false, reason: 'not-in-log' }] })
    }
  })
})

test.each([
  ['2026-11-22T16:00:00Z', '2027-01-01T00:00:00Z', null],
  ['2026-11-22T16:00:01Z', '2027-01-01T00:00:00Z', 'not-yet-valid'],
  ['2020-01-01T00:00:00Z', '2026-11-22T16:00:00Z', 'expired'],
  ['2026-13-01T00:00:00Z', '2027-01-01T00:00:00Z', 'not-yet-valid'],
  ['2020-01-01T00:00:00Z', '2027-02-31T25:00:00Z', 'expired'],
])('%s to %s: %s', (validFrom, validUntil, expected) => {
  expect(validity({ validFrom, validUntil }, nowMs)).toBe(expected)
})
