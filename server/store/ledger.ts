import type { Balance } from '../ledger/balance.ts'
import type { NewTransfer, StoredTransfer } from '../ledger/transfer.ts'
import type { Queryable } from './queryable.ts'

export async function openAccounts(
  tx: Queryable,
  accounts: readonly { id: string; kind: string }[],
) {
  await tx.query(
    `insert into account (id, kind) select distinct id, kind
     from unnest($1::text[], $2::text[]) as a (id, kind) on conflict do nothing`,
    [accounts.map((account) => account.id), accounts.map((account) => account.kind)],
  )
}

/**
 * Writes transfers and moves the balances, in the caller's transaction. A
 * transfer whose id exists is left as it is: a retry counts nothing twice.
 * Throws when an account would promise more than it holds.
 */
export async function addTransfers(tx: Queryable, transfers: readonly NewTransfer[]) {
  if (transfers.length === 0) return
  await tx.query(
    `with added as (
       insert into transfer (id, debit_account, credit_account, amount, state, purpose, funding,
                             inputs, cause_commitment, cause_salt)
       select * from unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[],
                            $7::text[], $8::jsonb[], $9::bytea[], $10::bytea[])
       on conflict (id) do nothing
       returning debit_account, credit_account, amount, state
     ), moves as (
       select debit_account as id, state, amount as debit, 0::bigint as credit from added
       union all select credit_account, state, 0, amount from added
     ), sums as (
       select id,
         coalesce(sum(debit) filter (where state = 'pending'), 0)::bigint as debits_pending,
         coalesce(sum(debit) filter (where state = 'posted'), 0)::bigint as debits_posted,
         coalesce(sum(credit) filter (where state = 'pending'), 0)::bigint as credits_pending,
         coalesce(sum(credit) filter (where state = 'posted'), 0)::bigint as credits_posted
       from moves group by id
     )
     update account a set
       debits_pending = a.debits_pending + s.debits_pending,
       debits_posted = a.debits_posted + s.debits_posted,
       credits_pending = a.credits_pending + s.credits_pending,
       credits_posted = a.credits_posted + s.credits_posted
     from sums s where a.id = s.id`,
    [
      transfers.map((one) => one.id),
      transfers.map((one) => one.debitAccount),
      transfers.map((one) => one.creditAccount),
      transfers.map((one) => one.amount),
      transfers.map((one) => one.state),
      transfers.map((one) => one.purpose),
      transfers.map((one) => one.funding),
      transfers.map((one) => JSON.stringify(one.inputs)),
      transfers.map((one) => one.causeCommitment),
      transfers.map((one) => one.causeSalt),
    ],
  )
}

/** What a campaign can still promise. Locks its account until the transaction ends. */
export async function available(tx: Queryable, account: string): Promise<number> {
  const { rows } = await tx.query<{ left: number }>(
    `select credits_posted - debits_posted - debits_pending as left from account where id = $1 for update`,
    [account],
  )
  return rows[0]?.left ?? 0
}

export async function balances(db: Queryable): Promise<Balance[]> {
  const { rows } = await db.query<{
    id: string
    kind: string
    debits_pending: number
    debits_posted: number
    credits_pending: number
    credits_posted: number
  }>('select * from account order by kind, id')
  return rows.map((row) => ({
    id: row.id,
    kind: row.kind,
    debitsPending: row.debits_pending,
    debitsPosted: row.debits_posted,
    creditsPending: row.credits_pending,
    creditsPosted: row.credits_posted,
  }))
}

/** Balances computed again from nothing but the transfers. */
export async function balancesFromTransfers(db: Queryable): Promise<Omit<Balance, 'kind'>[]> {
  const { rows } = await db.query<{
    id: string
    debits_pending: number
    debits_posted: number
    credits_pending: number
    credits_posted: number
  }>(
    `select id,
       coalesce(sum(debit) filter (where state = 'pending'), 0)::bigint as debits_pending,
       coalesce(sum(debit) filter (where state = 'posted'), 0)::bigint as debits_posted,
       coalesce(sum(credit) filter (where state = 'pending'), 0)::bigint as credits_pending,
       coalesce(sum(credit) filter (where state = 'posted'), 0)::bigint as credits_posted
     from (
       select debit_account as id, state, amount as debit, 0::bigint as credit from transfer
       union all select credit_account, state, 0, amount from transfer
     ) as moves group by id order by id`,
  )
  return rows.map((row) => ({
    id: row.id,
    debitsPending: row.debits_pending,
    debitsPosted: row.debits_posted,
    creditsPending: row.credits_pending,
    creditsPosted: row.credits_posted,
  }))
}

export async function transfers(
  db: Queryable,
  filter: { account?: string; unsealed?: boolean; limit: number },
): Promise<StoredTransfer[]> {
  const { rows } = await db.query<{
    id: Buffer
    debit_account: string
    credit_account: string
    amount: number
    state: StoredTransfer['state']
    purpose: string
    funding: string
    inputs: unknown
    epoch: number | null
  }>(
    `select id, debit_account, credit_account, amount, state, purpose, funding, inputs, epoch
     from transfer
     where ($1::text is null or debit_account = $1 or credit_account = $1)
       and (not $2 or epoch is null)
     order by id limit $3`,
    [filter.account ?? null, filter.unsealed ?? false, filter.limit],
  )
  return rows.map((row) => ({
    id: row.id,
    debitAccount: row.debit_account,
    creditAccount: row.credit_account,
    amount: row.amount,
    state: row.state,
    purpose: row.purpose,
    funding: row.funding,
    inputs: row.inputs,
    epoch: row.epoch,
  }))
}

export async function latestEpoch(db: Queryable): Promise<{ number: number; day: string } | null> {
  const { rows } = await db.query<{ number: number; day: string }>(
    'select number, day from epoch order by number desc limit 1',
  )
  return rows[0] ?? null
}

export async function addEpoch(
  tx: Queryable,
  sealed: {
    number: number
    day: string
    transfersRoot: Uint8Array
    transferIds: readonly Uint8Array[]
    balancesRoot: Uint8Array
    accounts: number
    leafIndex: number
  },
) {
  await tx.query(
    `insert into epoch (number, day, transfers_root, transfers, balances_root, accounts, leaf_index)
     values ($1, $2, $3, $4, $5, $6, $7)`,
    [
      sealed.number,
      sealed.day,
      sealed.transfersRoot,
      sealed.transferIds.length,
      sealed.balancesRoot,
      sealed.accounts,
      sealed.leafIndex,
    ],
  )
  await tx.query('update transfer set epoch = $1 where id = any($2::bytea[])', [
    sealed.number,
    sealed.transferIds,
  ])
}
