import { expect, test } from 'vitest'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { toHex } from '../../../lib/crypto/hex.ts'
import { leafHash, rootHash } from '../../../lib/tlog/merkle.ts'
import type { Balance } from '../../../server/ledger/balance.ts'
import { epochRoots } from '../../../server/ledger/seal.ts'
import type { StoredTransfer } from '../../../server/ledger/transfer.ts'

const transfer = (cause: string, changes: Partial<StoredTransfer> = {}): StoredTransfer => ({
  id: Buffer.from(sha256(cause)),
  debitAccount: 'campaign:tea',
  creditAccount: 'node:ada',
  amount: 10,
  state: 'pending',
  purpose: 'observer',
  funding: 'subsidy',
  inputs: {},
  epoch: null,
  ...changes,
})
const balance = (id: string, changes: Partial<Balance> = {}): Balance => ({
  id,
  kind: 'node',
  debitsPending: 0,
  debitsPosted: 0,
  creditsPending: 10,
  creditsPosted: 0,
  ...changes,
})
const roots = (transfers: StoredTransfer[], balances: Balance[]) => {
  const { transfersRoot, balancesRoot } = epochRoots(transfers, balances)
  return { transfers: toHex(transfersRoot), balances: toHex(balancesRoot) }
}

test('a leaf is the canonical JSON of a transfer, or of a balance', () => {
  const leaf = (json: string) => toHex(rootHash([leafHash(new TextEncoder().encode(json))]))
  const id = Buffer.from(sha256('lease')).toString('base64url')
  expect(roots([transfer('lease')], [balance('node:ada')])).toEqual({
    transfers: leaf(
      `{"amount":10,"credit":"node:ada","debit":"campaign:tea","funding":"subsidy","id":"${id}","purpose":"observer","state":"pending"}`,
    ),
    balances: leaf(
      '{"account":"node:ada","creditsPending":10,"creditsPosted":0,"debitsPending":0,"debitsPosted":0}',
    ),
  })
})

test('nothing at all has the root of the empty tree', () => {
  const empty = toHex(sha256(''))
  expect(roots([], [])).toEqual({ transfers: empty, balances: empty })
})

test('balances are taken in order of account, whatever order they come in', () => {
  const three = ['node:b', 'campaign:z', 'node:a'].map((id) => balance(id))
  expect(roots([], [...three].reverse())).toEqual(roots([], three))
})

test.each<[string, Partial<StoredTransfer>]>([
  ['amount', { amount: 11 }],
  ['state', { state: 'posted' }],
  ['credited account', { creditAccount: 'node:bob' }],
  ['debited account', { debitAccount: 'campaign:coffee' }],
  ['funding', { funding: 'consumer' }],
  ['purpose', { purpose: 'payload' }],
])('another %s gives another root', (_what, changes) => {
  expect(roots([transfer('lease', changes)], []).transfers).not.toBe(
    roots([transfer('lease')], []).transfers,
  )
})

test('a point more or less in any balance gives another root', () => {
  const root = roots([], [balance('node:ada')]).balances
  for (const name of [
    'debitsPending',
    'debitsPosted',
    'creditsPending',
    'creditsPosted',
  ] as const) {
    expect(roots([], [balance('node:ada', { [name]: 9 })]).balances).not.toBe(root)
  }
})
