import fc from 'fast-check'
import { beforeEach, expect, test } from 'vitest'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { canonicalJson } from '../../../lib/protocol/canonical-json.ts'
import { logEntry } from '../../../lib/protocol/log-entry.ts'
import {
  campaignAccount,
  creditForLease,
  fundCampaign,
  issuanceAccount,
  type NewTransfer,
  nodeAccount,
  transferId,
} from '../../../server/ledger/transfer.ts'
import { checkLedger } from '../../../server/operator.ts'
import { sealEpoch } from '../../../server/pipeline.ts'
import {
  addTransfers,
  available,
  balances,
  latestEpoch,
  openAccounts,
  transfers,
} from '../../../server/store/ledger.ts'
import { entriesAt } from '../../../server/store/log.ts'
import { openTestDatabase, type TestDatabase } from './test-database.ts'

const tea = sha256('tea')
const ada = sha256('ada')
const salt = new Uint8Array(16)
const prices = { novelty: 'new', perPage: 10, perDuplicate: 1, perPayload: 2 } as const

let database: TestDatabase
beforeEach(async () => {
  database = await openTestDatabase()
  await openAccounts(database.pool, [
    { id: issuanceAccount, kind: 'issuance' },
    { id: campaignAccount(tea), kind: 'campaign' },
    { id: nodeAccount(ada), kind: 'node' },
  ])
})

const fund = (budget: number) =>
  addTransfers(database.pool, [fundCampaign(tea, budget, 'subsidy', salt)])
function credit(lease: string, role: 'observer' | 'payload' = 'observer'): NewTransfer {
  const made = creditForLease(
    { leaseId: sha256(lease).slice(0, 16), accountId: ada, campaign: tea },
    'subsidy',
    { role, ...prices },
    salt,
  )
  if (!made) throw new Error('no points')
  return made
}
const balanceOf = async (id: string) =>
  (await balances(database.pool)).find((balance) => balance.id === id)

test('a transfer moves both balances', async () => {
  await fund(100)
  await addTransfers(database.pool, [credit('one'), credit('one', 'payload')])
  expect(await balanceOf(campaignAccount(tea))).toMatchObject({
    creditsPosted: 100,
    debitsPending: 12,
  })
  expect(await balanceOf(nodeAccount(ada))).toMatchObject({ creditsPending: 12, creditsPosted: 0 })
})

test('a repeated transfer counts once: later, in one batch, and from two processes at once', async () => {
  await fund(100)
  await fund(100)
  await addTransfers(database.pool, [credit('one'), credit('one')])
  await addTransfers(database.pool, [credit('one')])
  await Promise.all(
    Array.from({ length: 8 }, () =>
      database.transaction((tx) => addTransfers(tx, [credit('one'), credit('two')])),
    ),
  )
  expect(await balanceOf(nodeAccount(ada))).toMatchObject({ creditsPending: 20 })
  expect(await transfers(database.pool, { limit: 10 })).toHaveLength(3)
  expect(await checkLedger(database)).toMatchObject({ balanced: true, debits: 120, credits: 120 })
})

test('a campaign cannot promise more than it holds, and the attempt changes nothing', async () => {
  await fund(25)
  await addTransfers(database.pool, [credit('one'), credit('two')])
  await expect(addTransfers(database.pool, [credit('three')])).rejects.toThrow(/account_check/)
  await expect(
    database.transaction((tx) => addTransfers(tx, [credit('four', 'payload'), credit('five')])),
  ).rejects.toThrow(/account_check/)
  expect(await available(database.pool, campaignAccount(tea))).toBe(5)
  expect(await transfers(database.pool, { limit: 10 })).toHaveLength(3)
  expect(await checkLedger(database)).toMatchObject({ balanced: true })
})

test('two processes cannot promise the same points', async () => {
  await fund(15)
  const tried = await Promise.allSettled(
    ['one', 'two', 'three'].map((lease) =>
      database.transaction((tx) => addTransfers(tx, [credit(lease)])),
    ),
  )
  expect(tried.filter((one) => one.status === 'fulfilled')).toHaveLength(1)
  expect(await available(database.pool, campaignAccount(tea))).toBe(5)
})

test('an account that is not there takes nothing', async () => {
  await fund(100)
  const stranger = { ...credit('one'), creditAccount: nodeAccount(sha256('nobody')) }
  await expect(addTransfers(database.pool, [stranger])).rejects.toThrow(/foreign key/)
  expect(await checkLedger(database)).toMatchObject({ balanced: true, debits: 100 })
})

test('a changed balance is found, and named', async () => {
  await fund(100)
  await addTransfers(database.pool, [credit('one')])
  await database.pool.query('update account set credits_pending = 11 where id = $1', [
    nodeAccount(ada),
  ])
  expect(await checkLedger(database)).toEqual({
    balanced: false,
    account: nodeAccount(ada),
    stored: 'debits 0+0, credits 11+0',
    recomputed: 'debits 0+0, credits 10+0',
  })
})

test('random transfers, repeats and overdrafts among them, conserve every point', async () => {
  const people = ['ada', 'bob', 'cyd', 'dan'].map((name) => nodeAccount(sha256(name)))
  const campaigns = ['tea', 'coffee'].map((name) => campaignAccount(sha256(name)))
  await openAccounts(database.pool, [
    ...people.map((id) => ({ id, kind: 'node' })),
    ...campaigns.map((id) => ({ id, kind: 'campaign' })),
  ])
  const transfer = fc
    .record({
      // Few causes, so that many are repeats.
      cause: fc.integer({ min: 0, max: 400 }),
      from: fc.constantFrom(issuanceAccount, ...campaigns),
      to: fc.constantFrom(...people, ...campaigns),
      amount: fc.integer({ min: 1, max: 50 }),
      state: fc.constantFrom('pending', 'posted'),
    })
    .filter(({ from, to }) => from !== to)
    .map(
      ({ cause, from, to, amount, state }): NewTransfer => ({
        id: transferId(Uint8Array.of(cause >> 8, cause & 255), 'random'),
        debitAccount: from,
        creditAccount: to,
        amount,
        state: state as 'pending' | 'posted',
        purpose: 'random',
        funding: 'subsidy',
        inputs: {},
        causeCommitment: sha256('cause'),
        causeSalt: salt,
      }),
    )
  const batches = fc.sample(fc.array(transfer, { minLength: 1, maxLength: 8 }), {
    seed: 20261122,
    numRuns: 400,
  })
  let refused = 0
  const counted = new Map<string, number>()
  for (const [n, batch] of batches.entries()) {
    try {
      await database.transaction((tx) => addTransfers(tx, batch))
      for (const { id, amount } of batch) {
        const key = Buffer.from(id).toString('hex')
        if (!counted.has(key)) counted.set(key, amount)
      }
    } catch (error) {
      // Only the promise rule may say no.
      expect(String(error)).toMatch(/account_check/)
      refused += 1
    }
    if (n % 50 === 49) expect(await checkLedger(database)).toMatchObject({ balanced: true })
  }
  const total = [...counted.values()].reduce((sum, amount) => sum + amount, 0)
  expect(await checkLedger(database)).toMatchObject({
    balanced: true,
    debits: total,
    credits: total,
  })
  expect(refused).toBeGreaterThan(0)
  expect(counted.size).toBeGreaterThan(80)
  for (const held of await balances(database.pool)) {
    if (held.kind !== 'campaign') continue
    expect(held.creditsPosted).toBeGreaterThanOrEqual(held.debitsPosted + held.debitsPending)
  }
})

test('a sealed epoch holds each transfer once, and nothing is sealed twice', async () => {
  const signCheckpoint = async (size: number) => `checkpoint ${size}`
  const seal = () => sealEpoch({ database, signCheckpoint }, Date.UTC(2026, 10, 22, 12))
  await fund(100)
  await addTransfers(database.pool, [credit('one')])
  expect(await seal()).toBe(1)
  expect(await seal()).toBeNull()
  await addTransfers(database.pool, [credit('two')])
  expect(await Promise.all([seal(), seal()])).toEqual(expect.arrayContaining([2, null]))
  expect(await latestEpoch(database.pool)).toEqual({ number: 2, day: '2026-11-22' })
  expect(await transfers(database.pool, { unsealed: true, limit: 10 })).toEqual([])
  const sealed = await entriesAt(database.pool, [0, 1])
  const entries = sealed.map(({ entry }) => logEntry.parse(JSON.parse(entry)))
  expect(entries).toMatchObject([
    { type: 'epoch', number: 1, day: '2026-11-22', transfers: 2 },
    { type: 'epoch', number: 2, day: '2026-11-22', transfers: 1 },
  ])
  expect(sealed[0]?.entry).toBe(canonicalJson(entries[0] ?? {}))
})
