import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fromBase64Url, toBase64Url } from '../lib/crypto/base64.ts'
import { sha256 } from '../lib/crypto/digest.ts'
import { signEnvelope, verifyEnvelope } from '../lib/crypto/dsse.ts'
import { type Campaign, campaign } from '../lib/protocol/campaign.ts'
import { canonicalJson } from '../lib/protocol/canonical-json.ts'
import type { EnvelopeMessage } from '../lib/protocol/fields.ts'
import type { Network } from '../lib/protocol/network.ts'
import { payloadType } from '../lib/protocol/payload-type.ts'
import { signCheckpoint } from '../lib/tlog/checkpoint.ts'
import { checkBalances, type LedgerCheck } from './ledger/balance.ts'
import { campaignAccount, fundCampaign, issuanceAccount } from './ledger/transfer.ts'
import { commitRows, sealEpoch } from './pipeline.ts'
import { buildRelease, type ReleaseRow } from './publish/build-release.ts'
import { sealRelease } from './publish/seal-release.ts'
import type { BlobStore } from './store/blob-store.ts'
import {
  addCampaign,
  campaigns,
  networkEnvelope,
  networkOf,
  putNetworkEnvelope,
} from './store/campaigns.ts'
import type { Database } from './store/database.ts'
import { domainListSize } from './store/domain-list.ts'
import { ring } from './store/doorbell.ts'
import { addTransfers, balances, balancesFromTransfers, openAccounts } from './store/ledger.ts'
import { appendToLog, entriesAt, latestCheckpoint, leafHashes } from './store/log.ts'
import { logSigner, type OperatorKeys } from './store/operator-keys.ts'
import type { Queryable } from './store/queryable.ts'
import { addRelease, recordsAfter, releaseNamed } from './store/releases.ts'

/** What an operator's action works on: the database, bodies and keys of one network. */
export interface Workspace {
  database: Database
  blobs: BlobStore
  keys: OperatorKeys
  logOrigin: string
}

/** An action that cannot be done as asked; the message says what to do instead. */
export class OperatorProblem extends Error {
  override name = 'OperatorProblem'
}

export const generator = 'gleaner/0.1.0'

/** Signs the log's checkpoints. */
export function checkpointSigner({ keys, logOrigin }: Pick<Workspace, 'keys' | 'logOrigin'>) {
  const { signer } = logSigner(logOrigin, keys.log)
  return (size: number, root: Uint8Array) =>
    signCheckpoint({ origin: logOrigin, size, rootHash: root, extensions: [] }, [signer])
}

/**
 * Signs the network document at first start; it becomes entry 0 of the log.
 * Refuses to start with other keys, or under another log origin, than it names.
 */
export async function foundNetwork(
  workspace: Workspace,
  about: { name: string; operator: Network['operator'] },
): Promise<Network> {
  const { database, keys, logOrigin } = workspace
  const { verifierKey } = logSigner(logOrigin, keys.log)
  const network = await networkOf(database.pool)
  if (network) {
    const different = (
      [
        ['campaign', network.campaignKey, keys.campaign.keyid],
        ['lease', network.leaseKey, keys.lease.keyid],
        ['receipt', network.receiptKey, keys.receipt.keyid],
      ] as const
    ).find(([, stored, mine]) => stored !== mine)
    if (different) {
      throw new OperatorProblem(
        `The ${different[0]} key in ${keys[different[0]].file} is not the one this network was founded with. Restore the key file from your backup.`,
      )
    }
    if (network.logKey !== verifierKey) {
      throw new OperatorProblem(
        `This network's log is ${network.logKey.split('+')[0]}, and the server was told ${logOrigin}. Start it with --log-origin ${network.logKey.split('+')[0]}, and with the log key it was founded with.`,
      )
    }
    return network
  }
  const made: Network = {
    version: 1,
    name: about.name,
    operator: about.operator,
    campaignKey: keys.campaign.keyid,
    leaseKey: keys.lease.keyid,
    receiptKey: keys.receipt.keyid,
    logKey: verifierKey,
    createdAt: new Date().toISOString(),
  }
  const envelope = await signEnvelope(
    payloadType.network,
    new TextEncoder().encode(canonicalJson(made)),
    [keys.campaign],
  )
  const founded = await database.transaction(async (tx) => {
    if (!(await putNetworkEnvelope(tx, envelope))) return false
    await appendToLog(
      tx,
      [canonicalJson({ type: 'network', envelope })],
      checkpointSigner(workspace),
    )
    await openAccounts(tx, [{ id: issuanceAccount, kind: 'issuance' }])
    return true
  })
  // Another process on the same database was first: check against what it signed.
  return founded ? made : foundNetwork(workspace, about)
}

/** Signs a manifest with the campaign key. Needs no server: the key may live on another machine. */
export function signCampaign(
  manifest: Campaign,
  key: OperatorKeys['campaign'],
): Promise<EnvelopeMessage> {
  // Not canonical JSON: rates need not be integers, and the signed bytes are what counts.
  return signEnvelope(payloadType.campaign, new TextEncoder().encode(JSON.stringify(manifest)), [
    key,
  ])
}

/** Puts a signed campaign into the log, funds it, and opens it to contributors. */
export async function openCampaign(
  workspace: Workspace,
  envelope: EnvelopeMessage,
): Promise<{ manifest: Campaign; digest: string }> {
  const { database, keys } = workspace
  const verdict = await verifyEnvelope(envelope, payloadType.campaign, keys.campaign.publicKey)
  if (!verdict.ok) {
    throw new OperatorProblem(
      `The manifest is not signed by this network's campaign key (${verdict.reason}). Sign it with: gleaner campaign sign FILE`,
    )
  }
  if (!(await networkOf(database.pool))) {
    throw new OperatorProblem(
      'This network is not founded yet: its first start signs its name, operator and contact. Run "gleaner start" once, then open the campaign.',
    )
  }
  const manifest = parseManifest(new TextDecoder().decode(verdict.payload))
  const digest = sha256(verdict.payload)
  if (manifest.wide) await requireList(database.pool, manifest.wide)
  await database.transaction(async (tx) => {
    const leafIndex = await appendToLog(
      tx,
      [canonicalJson({ type: 'campaign', envelope })],
      checkpointSigner(workspace),
    )
    if (!(await addCampaign(tx, { digest, manifest, envelope, leafIndex }))) {
      throw new OperatorProblem(
        `There is a campaign ${manifest.id} already. A changed campaign is a new consent: give it another id.`,
      )
    }
    await openAccounts(tx, [{ id: campaignAccount(digest), kind: 'campaign' }])
    if (manifest.points.budget > 0) {
      await addTransfers(tx, [
        fundCampaign(digest, manifest.points.budget, manifest.points.funding, randomBytes(16)),
      ])
    }
    await ring(tx, [{ node: null, notice: 'work' }])
  })
  return { manifest, digest: toBase64Url(digest) }
}

/** Without its list nobody could prove a lease, or check what the root stands for. */
async function requireList(db: Queryable, wide: NonNullable<Campaign['wide']>) {
  const size = await domainListSize(db, fromBase64Url(wide.root))
  if (size === null) {
    throw new OperatorProblem(
      `The list of domains with root ${wide.root} is not stored here. Give its file: gleaner campaign create --list FILE beside --manifest or --signed`,
    )
  }
  if (size !== wide.size) {
    throw new OperatorProblem(
      `The manifest says ${wide.size} domains, and the list with root ${wide.root} has ${size}. Write the right size and sign it again.`,
    )
  }
}

/** Reads a manifest, or says which member is wrong. */
export function parseManifest(json: string): Campaign {
  let given: unknown
  try {
    given = JSON.parse(json)
  } catch (error) {
    throw new OperatorProblem(`The manifest is not JSON: ${(error as Error).message}.`)
  }
  const result = campaign.safeParse(given)
  if (!result.success) {
    const [issue] = result.error.issues
    throw new OperatorProblem(
      `The manifest's ${issue?.path.join('.') || 'top level'} is wrong: ${issue?.message}. lib/protocol/campaign.ts lists what is accepted.`,
    )
  }
  return result.data
}

export interface Published {
  name: string
  folder: string
  rows: number
  duplicates: number
  verifierKey: string
}

/**
 * publish: commits what is not in the log yet, seals the epoch, builds the
 * release, enters it in the log and seals it with a checkpoint. May be called
 * again after a crash: a folder that is not sealed is built anew.
 */
export async function publishRelease(
  workspace: Workspace,
  wanted: { campaignId: string; folder: string; name: string; nowMs: number },
): Promise<Published> {
  const { database, blobs } = workspace
  const sign = checkpointSigner(workspace)
  const stored = (await campaigns(database.pool)).find(
    (one) => one.manifest.id === wanted.campaignId,
  )
  if (!stored || stored.leafIndex === null) {
    throw new OperatorProblem(
      `There is no campaign ${wanted.campaignId} here. See: gleaner campaign list`,
    )
  }
  const earlier = await releaseNamed(database.pool, wanted.name)
  if (earlier) {
    // Killed between the log and the seal: the folder is whole but for its log/.
    if (!existsSync(join(earlier.folder, 'log')))
      return sealPublished(workspace, earlier, stored.leafIndex)
    throw new OperatorProblem(
      `There is a release ${wanted.name} already, and releases do not change. Give another --name.`,
    )
  }
  while ((await commitRows({ database, signCheckpoint: sign })) > 0);
  await sealEpoch({ database, signCheckpoint: sign }, wanted.nowMs)
  const network = await networkEnvelope(database.pool)
  if (!network) throw new Error('a network without its document')

  const payloadOf = new Map<number, () => Promise<Uint8Array>>()
  async function* rows(): AsyncGenerator<ReleaseRow> {
    let after = -1
    for (;;) {
      const batch = await recordsAfter(
        database.pool,
        stored?.digest ?? new Uint8Array(),
        after,
        200,
      )
      if (batch.length === 0) return
      for (const record of batch) {
        const { payloadBlob } = record
        if (payloadBlob) payloadOf.set(record.leafIndex, () => blobs.get(payloadBlob))
        yield {
          rowJson: record.rowJson,
          salt: toBase64Url(record.salt),
          leafIndex: record.leafIndex,
          attestations: record.attestations,
          text: record.duplicate
            ? null
            : new TextDecoder('utf-8', { ignoreBOM: true }).decode(
                await blobs.get(record.textBlob),
              ),
          headers: record.headers,
        }
        payloadOf.delete(record.leafIndex)
        after = record.leafIndex
      }
    }
  }
  await mkdir(dirname(wanted.folder), { recursive: true })
  const built = await buildRelease({
    folder: wanted.folder,
    name: wanted.name,
    createdAt: new Date(wanted.nowMs).toISOString(),
    generator,
    network,
    campaigns: [stored.envelope],
    rows: rows(),
    readPayload: async (released) => {
      const read = payloadOf.get(released.leafIndex)
      if (!read) throw new Error(`no payload for leaf ${released.leafIndex}`)
      return read()
    },
  })
  const leafIndex = await database.transaction(async (tx) => {
    const index = await appendToLog(
      tx,
      [
        canonicalJson({
          type: 'release',
          name: wanted.name,
          sums: toBase64Url(built.sums),
          rows: built.rows,
        }),
      ],
      sign,
    )
    await addRelease(tx, {
      name: wanted.name,
      campaign: stored.digest,
      folder: wanted.folder,
      rows: built.rows,
      duplicates: built.duplicates,
      sums: built.sums,
      leafIndex: index,
    })
    return index
  })
  // Committed: the log holds the release. Sealing again writes the same files.
  return sealPublished(workspace, { ...wanted, ...built, leafIndex }, stored.leafIndex)
}

/** Adds the log to a release's folder: what a consumer needs to check it offline. */
async function sealPublished(
  workspace: Workspace,
  release: { name: string; folder: string; rows: number; duplicates: number; leafIndex: number },
  campaignLeaf: number,
): Promise<Published> {
  const db = workspace.database.pool
  const checkpoint = await latestCheckpoint(db)
  if (!checkpoint) throw new Error('a release without a checkpoint')
  await sealRelease({
    folder: release.folder,
    checkpoint: checkpoint.note,
    leafHashes: await leafHashes(db, checkpoint.size),
    entries: await entriesAt(db, [0, campaignLeaf, release.leafIndex]),
  })
  const { name, folder, rows, duplicates } = release
  const { verifierKey } = logSigner(workspace.logOrigin, workspace.keys.log)
  return { name, folder, rows, duplicates, verifierKey }
}

/** Compares every stored balance with the transfers, in one snapshot. */
export function checkLedger(database: Database): Promise<LedgerCheck> {
  return database.transaction(
    async (tx) => checkBalances(await balances(tx), await balancesFromTransfers(tx)),
    { isolation: 'repeatable read' },
  )
}
