/** Of one account, in points. */
export interface Balance {
  id: string
  kind: string
  debitsPending: number
  debitsPosted: number
  creditsPending: number
  creditsPosted: number
}

export type LedgerCheck =
  | { balanced: true; accounts: number; debits: number; credits: number }
  | { balanced: false; account: string; stored: string; recomputed: string }

/** Compares every stored balance with the transfers, and debits with credits over all. First difference only. */
export function checkBalances(
  stored: readonly Balance[],
  recomputed: readonly Omit<Balance, 'kind'>[],
): LedgerCheck {
  const again = new Map(recomputed.map((balance) => [balance.id, balance]))
  const show = (balance?: Omit<Balance, 'kind'>) =>
    balance
      ? `debits ${balance.debitsPending}+${balance.debitsPosted}, credits ${balance.creditsPending}+${balance.creditsPosted}`
      : 'debits 0+0, credits 0+0'
  for (const balance of stored) {
    const other = again.get(balance.id)
    again.delete(balance.id)
    if (show(balance) !== show(other)) {
      return {
        balanced: false,
        account: balance.id,
        stored: show(balance),
        recomputed: show(other),
      }
    }
  }
  const [unknown] = again.values()
  if (unknown) {
    return { balanced: false, account: unknown.id, stored: 'no account', recomputed: show(unknown) }
  }
  const debits = stored.reduce((sum, one) => sum + one.debitsPending + one.debitsPosted, 0)
  const credits = stored.reduce((sum, one) => sum + one.creditsPending + one.creditsPosted, 0)
  if (debits !== credits) {
    return {
      balanced: false,
      account: 'all',
      stored: `debits ${debits}`,
      recomputed: `credits ${credits}`,
    }
  }
  return { balanced: true, accounts: stored.length, debits, credits }
}
