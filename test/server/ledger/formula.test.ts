import { expect, test } from 'vitest'
import { type PointsInputs, points, pointsInputs } from '../../../server/ledger/formula.ts'
import { campaignOver } from '../../lib/runner/operator.ts'

const prices = { perPage: 10, perDuplicate: 2, perPayload: 3 }

test.each<[PointsInputs['role'], PointsInputs['novelty'], number]>([
  ['observer', 'new', 10],
  ['observer', 'duplicate', 2],
  ['observer', 'robots', 2],
  ['payload', 'new', 3],
  ['payload', 'duplicate', 3],
  ['payload', 'robots', 3],
])('as %s of what is %s one earns %d points', (role, novelty, expected) => {
  expect(points({ role, novelty, ...prices })).toBe(expected)
})

test('prices are those of the campaign that was consented to', () => {
  const campaign = campaignOver('barley.example', {
    points: { ...prices, budget: 1000, funding: 'subsidy' },
  })
  expect(pointsInputs(campaign, 'observer', 'new')).toEqual({
    role: 'observer',
    novelty: 'new',
    ...prices,
  })
})

test('the inputs that are stored give the points again', () => {
  const campaign = campaignOver('barley.example')
  const stored = JSON.parse(JSON.stringify(pointsInputs(campaign, 'payload', 'duplicate')))
  expect(points(stored)).toBe(campaign.points.perPayload)
})
