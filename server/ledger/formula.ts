import type { Campaign } from '../../lib/protocol/campaign.ts'

/** What the points of one transfer depend on. Stored with it, so that an audit can compute it again. */
export interface PointsInputs {
  role: 'observer' | 'payload'
  novelty: 'new' | 'duplicate' | 'robots'
  perPage: number
  perDuplicate: number
  perPayload: number
}

/**
 * Points for one verified contribution: what it added, not who was connected.
 * New content pays `perPage`, known content and robots.txt `perDuplicate`, and
 * the observer whose payload was taken gets `perPayload` on top.
 */
export function points(inputs: PointsInputs): number {
  if (inputs.role === 'payload') return inputs.perPayload
  return inputs.novelty === 'new' ? inputs.perPage : inputs.perDuplicate
}

export function pointsInputs(
  campaign: Campaign,
  role: PointsInputs['role'],
  novelty: PointsInputs['novelty'],
): PointsInputs {
  const { perPage, perDuplicate, perPayload } = campaign.points
  return { role, novelty, perPage, perDuplicate, perPayload }
}
