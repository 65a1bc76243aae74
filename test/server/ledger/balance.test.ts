import { expect, test } from 'vitest'
import { type Balance, checkBalances } from '../../../server/ledger/balance.ts'

const balance = (id: string, debits: number, credits: number): Balance => ({
  id,
  kind: id.split(':')[0] ?? '',
  debitsPending: 0,
  debitsPosted: debits,
  creditsPending: credits,
  creditsPosted: 0,
})
const good = [balance('issuance', 30, 0), balance('node:ada', 0, 20), balance('node:bob', 0, 10)]

test('balances that the transfers give again are balanced', () => {
  expect(checkBalances(good, good)).toEqual({
    balanced: true,
    accounts: 3,
    debits: 30,
    credits: 30,
  })
  expect(checkBalances([], [])).toMatchObject({ balanced: true, accounts: 0 })
})

test('an account without any transfer is balanced at nothing', () => {
  expect(checkBalances([...good, balance('node:new', 0, 0)], good)).toMatchObject({
    balanced: true,
  })
})

test('the first account that differs is named, with both sides', () => {
  const wrong = [balance('issuance', 30, 0), balance('node:ada', 0, 21), balance('node:bob', 0, 9)]
  expect(checkBalances(wrong, good)).toEqual({
    balanced: false,
    account: 'node:ada',
    stored: 'debits 0+0, credits 21+0',
    recomputed: 'debits 0+0, credits 20+0',
  })
})

test('pending and posted are not exchanged for each other', () => {
  const posted = good.map((one) => ({
    ...one,
    creditsPending: 0,
    creditsPosted: one.creditsPending,
  }))
  expect(checkBalances(posted, good)).toMatchObject({ balanced: false, account: 'node:ada' })
})

test('a balance that no transfer explains is named', () => {
  expect(checkBalances([...good, balance('node:eve', 0, 5)], good)).toEqual({
    balanced: false,
    account: 'node:eve',
    stored: 'debits 0+0, credits 5+0',
    recomputed: 'debits 0+0, credits 0+0',
  })
})

test('transfers of an account that is not there are named', () => {
  expect(checkBalances(good, [...good, balance('node:eve', 0, 5)])).toEqual({
    balanced: false,
    account: 'node:eve',
    stored: 'no account',
    recomputed: 'debits 0+0, credits 5+0',
  })
})

test('debits and credits that do not add up are named, though every account fits', () => {
  const lopsided = [balance('issuance', 30, 0), balance('node:ada', 0, 20)]
  expect(checkBalances(lopsided, lopsided)).toEqual({
    balanced: false,
    account: 'all',
    stored: 'debits 30',
    recomputed: 'credits 20',
  })
})
