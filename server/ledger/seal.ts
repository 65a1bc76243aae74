import { toBase64Url } from '../../lib/crypto/base64.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import { leafHash, rootHash } from '../../lib/tlog/merkle.ts'
import type { Balance } from './balance.ts'
import type { StoredTransfer } from './transfer.ts'

/**
 * Merkle roots of an epoch (RFC 6962 hashes): over its transfers in order of
 * id, and over every account's balance in order of account.
 */
export function epochRoots(transfers: readonly StoredTransfer[], balances: readonly Balance[]) {
  const bytes = new TextEncoder()
  return {
    transfersRoot: rootHash(
      transfers.map((transfer) =>
        leafHash(
          bytes.encode(
            canonicalJson({
              amount: transfer.amount,
              credit: transfer.creditAccount,
              debit: transfer.debitAccount,
              funding: transfer.funding,
              id: toBase64Url(transfer.id),
              purpose: transfer.purpose,
              state: transfer.state,
            }),
          ),
        ),
      ),
    ),
    balancesRoot: rootHash(
      [...balances]
        .sort((a, b) => (a.id < b.id ? -1 : 1))
        .map((balance) =>
          leafHash(
            bytes.encode(
              canonicalJson({
                account: balance.id,
                creditsPending: balance.creditsPending,
                creditsPosted: balance.creditsPosted,
                debitsPending: balance.debitsPending,
                debitsPosted: balance.debitsPosted,
              }),
            ),
          ),
        ),
    ),
  }
}
