import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { encodeSentenceList } from '../../../lib/capture/sentence-list.ts'
import type { Campaign } from '../../../lib/protocol/campaign.ts'
import { addCampaign } from '../../../server/store/campaigns.ts'
import { openSession, putConsent } from '../../../server/store/contributors.ts'
import { askFollowUps, closeTask } from '../../../server/store/decisions.ts'
import { takeTasksWithNews } from '../../../server/store/facts.ts'
import { addPages, openTasks } from '../../../server/store/frontier.ts'
import { endLeases, expireLeases, grantLeases } from '../../../server/store/leases.ts'
import {
  acceptObservations,
  askedFollowUps,
  expireFollowUps,
  openFollowUps,
  putSentenceList,
} from '../../../server/store/observations.ts'
import { allowAll, allowEverywhere, foundPage } from './found-page.ts'
import { openTestDatabase } from './test-database.ts'

const hosts = ['a', 'b', 'c', 'd'].map((name) => `https://${name}.example.org`)

test('nodes, pipeline and expiry work on the same tasks and hosts without a deadlock', async () => {
  const database = await openTestDatabase()
  const campaign = randomBytes(32)
  await database.transaction((tx) =>
    addCampaign(tx, {
      digest: campaign,
      manifest,
      envelope: { payloadType: 'x', payload: '', signatures: [] },
      leafIndex: 0,
    }),
  )
  const pages = Array.from({ length: 120 }, (_, i) =>
    foundPage(`${hosts[i % hosts.length]}/${i}`, hosts[i % hosts.length] ?? ''),
  )
  await database.transaction(async (tx) => {
    await addPages(tx, campaign, 3, pages)
    await allowEverywhere(tx)
    const { rows } = await tx.query<{ id: number }>('select id from task')
    await openTasks(
      tx,
      rows.map((row) => row.id),
    )
  })
  let isOver = false
  const working = [
    ...Array.from({ length: 6 }, (_, i) => contribute(i)),
    decideAll(),
    decideAll(),
    expireAll(),
  ]
  for (let round = 0; round < 200 && !isOver; round += 1) {
    await sleep(50)
    const { rows } = await database.pool.query(`select 1 from task where state <> 'closed' limit 1`)
    isOver = rows.length === 0
  }
  const wasFinished = isOver
  isOver = true
  await Promise.all(working)

  const { rows } = await database.pool.query<{ deadlocks: number }>(
    'select deadlocks from pg_stat_database where datname = current_database()',
  )
  expect(rows).toMatchObject([{ deadlocks: 0 }])
  expect(wasFinished).toBe(true)

  /** Leases, answers some and gives back others, in no order of its own; answers follow-ups. */
  async function contribute(number: number): Promise<void> {
    const [nodeId, accountId] = [randomBytes(32), randomBytes(32)]
    const block = `10.0.${number}.0/24`
    await database.transaction((tx) =>
      openSession(tx, {
        tokenDigest: randomBytes(32),
        nodeId,
        accountId,
        publicKey: randomBytes(32),
        client: 'test',
        block,
        blockWide: '10.0.0.0/16',
        validForMs: 600_000,
      }),
    )
    await putConsent(database.pool, { nodeId, campaign, act: 'given', envelope: {} })
    while (!isOver) {
      const leased = await database.transaction((tx) =>
        grantLeases(tx, {
          nodeId,
          accountId,
          block,
          campaigns: [campaign],
          max: 8,
          validForMs: 600_000,
          newLease: () => ({ id: randomBytes(16), nonce: randomBytes(16) }),
        }),
      )
      const returned = leased.filter((_, i) => i % 5 === 4)
      const answered = leased.filter((_, i) => i % 5 !== 4).reverse()
      await database.transaction((tx) =>
        acceptObservations(tx, nodeId, answered.map(observationOf)),
      )
      await database.transaction((tx) =>
        endLeases(
          tx,
          returned.map(({ id }) => ({ id, reason: 'given back' })),
          // Others and this node may have the task again.
          'expired',
        ),
      )
      for (const { id } of await openFollowUps(database.pool, nodeId)) {
        await database.transaction(async (tx) => {
          const [asked] = await askedFollowUps(tx, nodeId, [id])
          if (asked) await putSentenceList(tx, asked, encodeSentenceList([], []))
        })
      }
    }
  }

  /** As the verify stage: three observers are asked for their lists, two lists close the task. */
  async function decideAll(): Promise<void> {
    while (!isOver) {
      const taken = await database.transaction(async (tx) => {
        const { rows: answers } = await tx.query<{ task_id: number; n: number }>(
          `select task_id, count(*) as n from sentence_list join observation using (lease_id) group by 1`,
        )
        const lists = new Map(answers.map(({ task_id, n }) => [task_id, n]))
        const tasks = await takeTasksWithNews(tx, 16)
        for (const { taskId, hostId, facts } of tasks) {
          if ((lists.get(taskId) ?? 0) >= 2) {
            await allowAll(tx, hostId)
            await closeTask(tx, taskId, 'unpublished', null)
          } else if (facts.observers.length >= 3) {
            const asks = facts.observers.map(({ lease }) => ({ lease, kind: 'sentences' as const }))
            await askFollowUps(tx, taskId, asks, '2026-01-01', 600_000)
          }
        }
        return tasks.length
      })
      if (taken === 0) await sleep(5)
    }
  }

  async function expireAll(): Promise<void> {
    while (!isOver) {
      await database.transaction((tx) => expireLeases(tx, 50))
      await database.transaction((tx) => expireFollowUps(tx, 50))
      await sleep(10)
    }
  }
}, 60_000)

function observationOf({ id }: { id: Uint8Array }) {
  const observation = {
    version: 1 as const,
    outcome: 'failed' as const,
    lease: Buffer.from(id).toString('base64url'),
    reason: 'timeout' as const,
    totalMs: 1,
    wireBytes: 0,
  }
  return {
    leaseId: id,
    statement: JSON.stringify(observation),
    key: randomBytes(32),
    signature: randomBytes(64),
    observation,
  }
}

const manifest: Campaign = {
  version: 1,
  id: 'locks',
  title: 'Locks',
  purpose: 'Nobody waits for somebody who waits.',
  operator: { name: 'Test', contact: 'test@example.org' },
  use: 'research',
  sites: hosts.map((origin) => ({
    host: new URL(origin).hostname,
    scheme: 'https',
    pathPrefixes: ['/'],
    requestsPerSecond: 100,
    requestsInFlight: 32,
  })),
  canaryHosts: [],
  seeds: [`${hosts[0]}/`],
  limits: { pageBytes: 1024, pageMs: 1000, pages: 1000, depth: 1 },
  retentionDays: 1,
  quorum: 3,
  points: { perPage: 1, perDuplicate: 1, perPayload: 1, budget: 1, funding: 'subsidy' },
  validFrom: '2026-01-01T00:00:00Z',
  validUntil: '2027-01-01T00:00:00Z',
}
