import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type * as z from 'zod/mini'
import { attestationBatch, batchReply } from '../../../lib/protocol/attestation-batch.ts'
import { campaign, campaignList } from '../../../lib/protocol/campaign.ts'
import { consent } from '../../../lib/protocol/consent.ts'
import { envelope } from '../../../lib/protocol/fields.ts'
import { attestation, followUp, followUpList } from '../../../lib/protocol/follow-up.ts'
import { lease, leaseGrant, leaseRequest } from '../../../lib/protocol/lease.ts'
import { logEntry } from '../../../lib/protocol/log-entry.ts'
import { network } from '../../../lib/protocol/network.ts'
import {
  observation,
  observationBatch,
  observationReply,
  receipt,
  signedStatement,
} from '../../../lib/protocol/observation.ts'
import { optOut, optOutRequest, siteReport } from '../../../lib/protocol/opt-out.ts'
import { accountBalance, outcome, outcomeList } from '../../../lib/protocol/outcome.ts'
import { problem } from '../../../lib/protocol/problem.ts'
import { refusalBatch } from '../../../lib/protocol/refusal.ts'
import { attestedRow, release, row, signal } from '../../../lib/protocol/release.ts'
import {
  certificate,
  challenge,
  session,
  sessionGrant,
  sessionRequest,
} from '../../../lib/protocol/session.ts'
import { socketNotice, socketRequest } from '../../../lib/protocol/socket.ts'

/** Every message but the meter's, whose vectors are in meter.json. */
const schemas: Readonly<Record<string, z.ZodMiniType>> = {
  'account-balance': accountBalance,
  attestation,
  'attestation-batch': attestationBatch,
  'attested-row': attestedRow,
  'batch-reply': batchReply,
  campaign,
  'campaign-list': campaignList,
  certificate,
  challenge,
  consent,
  envelope,
  'follow-up': followUp,
  'follow-up-list': followUpList,
  lease,
  'lease-grant': leaseGrant,
  'lease-request': leaseRequest,
  'log-entry': logEntry,
  network,
  observation,
  'observation-batch': observationBatch,
  'observation-reply': observationReply,
  'opt-out': optOut,
  'opt-out-request': optOutRequest,
  outcome,
  'outcome-list': outcomeList,
  problem,
  receipt,
  'refusal-batch': refusalBatch,
  release,
  row,
  session,
  'session-grant': sessionGrant,
  'session-request': sessionRequest,
  signal,
  'signed-statement': signedStatement,
  'site-report': siteReport,
  'socket-notice': socketNotice,
  'socket-request': socketRequest,
}

interface Vectors {
  valid: unknown[]
  invalid: { why: string; value: unknown }[]
}

const folder = fileURLToPath(new URL('../../vectors/messages/', import.meta.url))
const files = readdirSync(folder).map((name) => name.replace(/\.json$/, ''))
const vectors = new Map<string, Vectors>(
  files.map((name) => [name, JSON.parse(readFileSync(`${folder}${name}.json`, 'utf8'))]),
)

test('every message has vectors, and every vector file a message', () => {
  expect(files.sort()).toEqual(Object.keys(schemas).sort())
})

describe.each(Object.entries(schemas))('%s', (name, schema) => {
  const { valid, invalid } = vectors.get(name) ?? { valid: [], invalid: [] }

  test('accepts what is valid, unchanged', () => {
    expect(valid.length).toBeGreaterThan(0)
    for (const value of valid) expect(schema.parse(value)).toEqual(value)
  })

  test.each(invalid)('refuses $why', ({ value }) => {
    expect(schema.safeParse(value).success).toBe(false)
  })

  test('refuses random JSON without throwing', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
        expect(schema.safeParse(value).success).toBe(false)
      }),
      { numRuns: 200 },
    )
  })

  test('refuses a valid message with an unknown member anywhere', () => {
    const inside = valid.flatMap((value) => objectsIn(value).map((path) => ({ value, path })))
    for (const { value, path } of inside) {
      for (const key of ['extra', '__proto__', 'constructor']) {
        const changed = structuredClone(value)
        Object.defineProperty(at(changed, path), key, { value: 1, enumerable: true })
        const parsed = schema.safeParse(changed)
        // Zod's records leave `__proto__` out where strict objects refuse it: it reaches nobody.
        const kept = parsed.success && Object.hasOwn(at(parsed.data, path), key)
        expect(kept || (parsed.success && key !== '__proto__'), `${path.join('.')} ${key}`).toBe(
          false,
        )
      }
    }
  })

  test('refuses a valid message with one value of a wrong type or size', () => {
    const leaves = valid.flatMap((value) => leavesIn(value).map((path) => ({ value, path })))
    const wrong = fc.oneof(
      fc.constantFrom<unknown>(
        [],
        {},
        [null],
        true,
        Number.NaN,
        -1,
        1.5,
        2 ** 53,
        ' '.repeat(99_999),
      ),
      fc.double().filter((number) => !Number.isInteger(number) || number < 0),
    )
    fc.assert(
      fc.property(fc.constantFrom(...leaves), wrong, ({ value, path }, instead) => {
        // Booleans fit booleans, and a rate is the one number with a fraction.
        const last = path.at(-1)
        fc.pre(typeof instead !== 'boolean' || typeof at(value, path) !== 'boolean')
        fc.pre(last !== 'requestsPerSecond' || typeof instead !== 'number')
        const changed = structuredClone(value)
        at(changed, path.slice(0, -1))[String(last)] = instead
        expect(schema.safeParse(changed).success, path.join('.')).toBe(false)
      }),
      { numRuns: 300 },
    )
  })
})

type Path = readonly (string | number)[]

function at(value: unknown, path: Path): Record<string, unknown> {
  return path.reduce<unknown>(
    (inner, key) => (inner as Record<string | number, unknown>)[key],
    value,
  ) as Record<string, unknown>
}

function objectsIn(value: unknown, path: Path = []): Path[] {
  if (value === null || typeof value !== 'object') return []
  const inside = Object.entries(value).flatMap(([key, inner]) => objectsIn(inner, [...path, key]))
  return Array.isArray(value) ? inside : [path, ...inside]
}

function leavesIn(value: unknown, path: Path = []): Path[] {
  if (value === null || typeof value !== 'object') return [path]
  return Object.entries(value).flatMap(([key, inner]) => leavesIn(inner, [...path, key]))
}
