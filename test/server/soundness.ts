import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { fromBase64Url, toBase64Url } from '../../lib/crypto/base64.ts'
import { concatBytes, equalBytes, sha256 } from '../../lib/crypto/digest.ts'
import { verifyEnvelope } from '../../lib/crypto/dsse.ts'
import { receipt } from '../../lib/protocol/observation.ts'
import { payloadType } from '../../lib/protocol/payload-type.ts'
import { nodeAccount, transferId } from '../../server/ledger/transfer.ts'
import { checkLedger } from '../../server/operator.ts'
import type { Database } from '../../server/store/database.ts'
import { balances, transfers } from '../../server/store/ledger.ts'
import type { Contributor } from './contributor.ts'

// What must hold after any fault, judged from both ends: the database, and what nodes were told.

/** Resolves when every node has heard what became of everything it sent. */
export async function untilTold(nodes: readonly Contributor[], withinMs: number): Promise<void> {
  const deadline = Date.now() + withinMs
  for (;;) {
    const entries = nodes.flatMap((node) => node.journal())
    const open = entries.filter((entry) => entry.receipt && !entry.outcome)
    if (open.length === 0) return
    if (Date.now() > deadline) throw new Error(`outcomes untold: ${JSON.stringify(open)}`)
    await sleep(50)
  }
}

/** Receipts that nodes hold and observations in the database are the same, byte for byte. */
export async function expectAcknowledgedIsStored(
  database: Database,
  nodes: readonly Contributor[],
): Promise<void> {
  const { rows } = await database.pool.query<{ lease_id: Buffer; statement: string }>(
    'select lease_id, statement from observation',
  )
  const stored = rows.map(({ lease_id, statement }) => [
    toBase64Url(lease_id),
    toBase64Url(sha256(statement)),
  ])
  const acknowledged: string[][] = []
  for (const node of nodes) {
    const key = fromBase64Url(node.joined.network.receiptKey)
    for (const entry of node.journal()) {
      if (!entry.receipt) continue
      const opened = await verifyEnvelope(entry.receipt, payloadType.receipt, key)
      if (!opened.ok) throw new Error(`a receipt that does not verify: ${opened.reason}`)
      const said = receipt.parse(JSON.parse(new TextDecoder().decode(opened.payload)))
      acknowledged.push([said.lease, said.statement])
    }
  }
  expect(acknowledged.length).toBeGreaterThan(0)
  expect(acknowledged.sort()).toEqual(stored.sort())
}

/** Each transfer has one cause, each cause one transfer, and nodes were told what they have. */
export async function expectNothingCreditedTwice(
  database: Database,
  nodes: readonly Contributor[],
): Promise<void> {
  expect(await checkLedger(database)).toMatchObject({ balanced: true })
  const leases = await database.pool.query<{ id: Buffer }>('select id from lease')
  const credits = (await transfers(database.pool, { limit: 10_000 })).filter(
    ({ purpose }) => purpose !== 'fund',
  )
  const commitments = await database.pool.query<{ id: Buffer; salt: Buffer; commitment: Buffer }>(
    'select id, cause_salt as salt, cause_commitment as commitment from transfer',
  )
  const causes = credits.map((credit) => {
    const cause = leases.rows.find(({ id }) =>
      equalBytes(transferId(id, credit.purpose), credit.id),
    )
    const kept = commitments.rows.find(({ id }) => id.equals(credit.id))
    if (!cause || !kept) throw new Error('a credit without a lease')
    expect(equalBytes(sha256(concatBytes(kept.salt, cause.id)), kept.commitment)).toBe(true)
    return `${credit.purpose} ${toBase64Url(cause.id)}`
  })
  expect(causes.length).toBeGreaterThan(0)
  expect(new Set(causes).size).toBe(causes.length)

  const held = await balances(database.pool)
  for (const node of nodes) {
    const account = nodeAccount(fromBase64Url(node.accountId))
    const told = node.journal().reduce((sum, entry) => sum + (entry.outcome?.points ?? 0), 0)
    expect(told).toBe(held.find(({ id }) => id === account)?.creditsPending ?? 0)
  }
}
