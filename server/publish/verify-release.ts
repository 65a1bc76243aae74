import { toBase64 } from '../../lib/crypto/base64.ts'
import type { Release } from '../../lib/protocol/release.ts'
import { maxRows } from './build-release.ts'
import { Findings, type VerifyFailure } from './findings.ts'
import { proves, provesNot } from './proof.ts'
import { ReleaseFolder } from './release-folder.ts'
import { verifyFiles } from './verify-files.ts'
import {
  verifyCampaigns,
  verifyCheckpoint,
  verifyEntries,
  verifyNetwork,
  verifyReleaseEntry,
  verifyTiles,
} from './verify-log.ts'
import { verifyParquet } from './verify-parquet.ts'
import { type RowCounts, verifyRows } from './verify-rows.ts'
import { verifyCoverage, verifyIndex } from './verify-warc.ts'

/** One of the nine steps of README §11. */
export type VerifyStep = {
  step: number
  title: string
  /** `not-checked` when an earlier failure left nothing to check against. Never so in a good release. */
  state: 'passed' | 'failed' | 'not-checked'
}

export type VerifyReport = {
  ok: boolean
  folder: string
  steps: VerifyStep[]
  /** At most a hundred, besides the first of every step. */
  failures: VerifyFailure[]
  /** All that were found. */
  failuresFound: number
  /** Null without a checkpoint that verifies. Root in base64, as in the checkpoint. */
  log: { origin: string; size: number; root: string } | null
  /** As the folder says; true only when `ok`. */
  release: Pick<Release, 'name' | 'createdAt' | 'campaigns'> | null
  counted: RowCounts & { files: number; bytesHashed: number }
  /** What a success means and what not, in plain words. */
  proves: readonly string[]
  provesNot: readonly string[]
}

/** How far a step is; `total` where it is known. */
export type VerifyProgress = { step: number; title: string; done: number; total?: number }

/** Far above what the files of a release of `maxRows` need. */
const sumsBytes = 64 * 1024 * 1024

const titles = [
  'the checkpoint is signed by the log’s key',
  'the leaf hashes give the checkpoint’s root',
  'entries in clear are in the log; the network is its first and names this key',
  'the log commits to this release',
  'every file is listed and as listed',
  'every campaign is signed by the operator and in the log',
  'every row is in the log and signed by its quorum; its text and payload are those signed',
  'rows and duplicates are as many as stated',
  'the Parquet file says what the rows say',
]

/**
 * Verifies a release offline, by the nine steps of lib/protocol/README.md §11. Goes on after a
 * failure as far as there is something to check against. The folder may be hostile: it is read
 * within bounds, and never outside of itself.
 *
 * @param verifierKey of the log, `NAME+HEX+BASE64`, from anywhere but the folder
 * @throws Error only when the folder cannot be read at all
 */
export async function verifyRelease(
  path: string,
  verifierKey: string,
  options: { onProgress?: (progress: VerifyProgress) => void } = {},
): Promise<VerifyReport> {
  const folder = await ReleaseFolder.open(path)
  const findings = new Findings()
  const run = new Run(findings, options.onProgress ?? (() => {}))

  const opened = await run.step(1, () => verifyCheckpoint(folder, verifierKey, findings))
  const leaves =
    opened && (await run.step(2, () => verifyTiles(folder, opened.checkpoint, findings)))
  const clear = await run.step(3, async () => {
    const entries = await verifyEntries(folder, leaves, findings)
    return { entries, operator: await verifyNetwork(folder, entries, opened?.key, findings) }
  })
  const entries = clear?.entries ?? []
  const sums = await folder.read('SHA256SUMS', sumsBytes)
  const release = await run.step(4, () => verifyReleaseEntry(folder, entries, sums, findings))
  const bytesHashed = await run.step(5, (progress) => verifyFiles(folder, sums, findings, progress))
  const campaigns = await run.step(6, () =>
    verifyCampaigns(folder, release, clear?.operator, entries, findings),
  )
  const counts = await run.step(7, async (progress) => {
    const named = await verifyIndex(folder, maxRows, findings)
    const context = { folder, leaves, release, campaigns: campaigns ?? new Map(), named }
    const counted = await verifyRows(context, findings, progress)
    await verifyCoverage(folder, named, release, findings)
    return counted
  })
  if (release !== undefined && counts !== undefined) {
    await run.step(8, async () => {})
    await run.step(9, (progress) =>
      verifyParquet(folder, release.name, findings, (done) => progress(done, release.rows)),
    )
  }
  const checkpoint = opened?.checkpoint
  return {
    ok: findings.total === 0 && run.steps.every(({ state }) => state === 'passed'),
    folder: path,
    steps: run.steps,
    failures: findings.failures.sort((a, b) => a.step - b.step),
    failuresFound: findings.total,
    log: checkpoint
      ? {
          origin: checkpoint.origin,
          size: checkpoint.size,
          root: toBase64(checkpoint.rootHash),
        }
      : null,
    release: release
      ? { name: release.name, createdAt: release.createdAt, campaigns: release.campaigns }
      : null,
    counted: {
      ...(counts ?? { rows: 0, duplicates: 0, exact: 0, attestations: 0 }),
      files: [...folder.paths].length,
      bytesHashed: bytesHashed ?? 0,
    },
    proves,
    provesNot,
  }
}

/** Runs steps and keeps what became of each. */
class Run {
  readonly #findings: Findings
  readonly #onProgress: (progress: VerifyProgress) => void
  readonly #ran = new Set<number>()

  constructor(findings: Findings, onProgress: (progress: VerifyProgress) => void) {
    this.#findings = findings
    this.#onProgress = onProgress
  }

  /** Undefined when the step came to nothing; whatever it threw is a failure of the folder. */
  async step<T>(
    step: number,
    check: (progress: (done: number, total?: number) => void) => Promise<T>,
  ): Promise<T | undefined> {
    const title = titles[step - 1] ?? ''
    this.#ran.add(step)
    this.#onProgress({ step, title, done: 0 })
    try {
      return await check((done, total) => {
        this.#onProgress({ step, title, done, ...(total === undefined ? {} : { total }) })
      })
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      this.#findings.add(step, 'the folder', `could not be checked: ${reason}`)
      return undefined
    }
  }

  get steps(): VerifyStep[] {
    return titles.map((title, at) => {
      const step = at + 1
      const failed = this.#findings.count(step) > 0
      const state = failed ? 'failed' : this.#ran.has(step) ? 'passed' : 'not-checked'
      return { step, title, state }
    })
  }
}
