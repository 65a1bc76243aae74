import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { pino } from 'pino'
import { afterAll, expect, test } from 'vitest'
import { openCheckpoint } from '../../lib/tlog/checkpoint.ts'
import { consistencyProof, verifyConsistency } from '../../lib/tlog/merkle.ts'
import { parseVerifierKey } from '../../lib/tlog/note.ts'
import { crawlCounts } from '../../server/demo/progress.ts'
import { checkLedger } from '../../server/operator.ts'
import { verifyRelease } from '../../server/publish/verify-release.ts'
import { type Database, openDatabase } from '../../server/store/database.ts'
import { latestCheckpoint, leafHashes } from '../../server/store/log.ts'
import { alive, readPostmasterFile } from '../../server/store/postmaster-file.ts'
import { type Contributor, startContributor } from './contributor.ts'
import { freePort, MortalServer, Struck } from './mortal-server.ts'
import { type SmallSite, startSmallSite } from './small-site.ts'
import { expectAcknowledgedIsStored, expectNothingCreditedTwice, untilTold } from './soundness.ts'
import { allStrikes } from './strikes.ts'

// The server dies at every commit point, one life after the other, on one data folder, while its
// nodes go on. What was acknowledged must be there at the end, and nothing twice.

const addresses = ['127.0.21.1', '127.0.22.1', '127.0.23.1']
/** A lease whose grant was lost is out until then. */
const leaseMs = 4_000
/** Several times what a crawl needs that nobody disturbs. */
const lifeMs = 60_000

const stops: (() => Promise<void>)[] = []
afterAll(async () => {
  for (const stop of stops.reverse()) await stop()
})

test('a server that is killed at any commit point loses nothing that it acknowledged, and finishes', async () => {
  const scene = await Scene.make()
  while (!(await scene.liveOnce()));
  const { left, nodes } = scene
  expect(left, 'commit points that the work never came to').toEqual([])

  await scene.everythingTold()
  await expectAcknowledgedIsStored(scene.database, nodes)
  await expectNothingCreditedTwice(scene.database, nodes)
  await expectEverythingPublished(scene)
  expect(scene.faults(), 'errors that a server logged').toEqual([])
}, 300_000)

/** Site, nodes and data folder that outlive every server. */
class Scene {
  left = allStrikes()
  nodes: Contributor[] = []
  readonly #folder: string
  readonly #port: number
  readonly #site: SmallSite
  readonly #campaignMs = Date.now()
  readonly #lives: MortalServer[] = []
  /** Loading takes longer than everything else: the next one is always ready. */
  #next = new MortalServer()
  #database: Database | null = null
  /** When after the first start, and where. */
  readonly #struck: string[] = []
  #isOver = false
  #joining: Promise<void> | null = null
  /** Every checkpoint that somebody may have seen, by size. */
  readonly #checkpoints = new Map<number, string>()
  verifierKey = ''

  private constructor(folder: string, port: number, site: SmallSite) {
    this.#folder = folder
    this.#port = port
    this.#site = site
    stops.push(() => this.#end())
  }

  static async make(): Promise<Scene> {
    const folder = await mkdtemp(join(tmpdir(), 'gleaner-crash-'))
    // As root, PostgreSQL runs as nobody and must pass through.
    await chmod(folder, 0o711)
    return new Scene(folder, await freePort(), await startSmallSite())
  }

  get database(): Database {
    if (!this.#database) throw new Error('no server has lived yet')
    return this.#database
  }

  get site(): SmallSite {
    return this.#site
  }

  get releaseFolder(): string {
    return join(this.#folder, 'releases', 'fields')
  }

  /** One server from its start to its end. True when it was not struck and came to the end. */
  async liveOnce(): Promise<boolean> {
    if (this.#isOver) throw new Error('the test is over')
    const server = this.#next
    this.#next = new MortalServer()
    this.#lives.push(server)
    try {
      await this.#live(server)
      return true
    } catch (error) {
      if (!(error instanceof Struck)) throw error
      await server.ended
      const { step, when } = error.strike
      const seconds = ((Date.now() - this.#campaignMs) / 1000).toFixed(1)
      this.#struck.push(`${seconds.padStart(6)} s  ${step}: ${when}`)
      this.left = this.left.filter((one) => one.step !== step || one.when !== when)
      await this.#expectSoundLog()
      return false
    }
  }

  async #live(server: MortalServer): Promise<void> {
    const begun = (await server.tell({
      do: 'start',
      data: this.#folder,
      port: String(this.#port),
      strikes: this.left,
      leaseMs,
    })) as { joinLink: string; verifierKey: string; connection: pg.PoolConfig }
    this.verifierKey = begun.verifierKey
    this.#database ??= openDatabase({
      connection: begun.connection,
      log: pino({ level: 'silent' }),
      maxConnections: 2,
    })
    await server.tell({ do: 'open', nowMs: this.#campaignMs })
    expect(await checkLedger(this.database)).toMatchObject({ balanced: true })
    this.#joining ??= this.#join(begun.joinLink)
    const deadline = Date.now() + lifeMs
    for (let looks = 0; ; looks += 1) {
      if (looks % 20 === 0) this.#ringAll()
      if (server.strike) throw new Struck(server.strike)
      const counts = await crawlCounts(this.database.pool)
      if (counts.done) break
      if (Date.now() > deadline) {
        throw new Error(`still crawling: ${JSON.stringify(counts)}\n${server.log}`)
      }
      await sleep(50)
    }
    await server.tell({ do: 'publish', name: 'fields', folder: this.releaseFolder })
  }

  /**
   * In place of the nodes' own doorbells: those wait up to a minute after a row of deaths, which no
   * server dies outside of this test.
   */
  #ringAll(): void {
    for (const { runner, joined } of this.nodes) {
      runner.doorbell(joined.fingerprint, { type: 'ready' })
    }
  }

  async #join(joinLink: string): Promise<void> {
    const { port: sitePort } = this.#site
    const joined = addresses.map((address) =>
      startContributor({ joinLink, folder: this.#folder, address, sitePort }),
    )
    this.nodes = await Promise.all(joined)
  }

  /** Resolves when every node has heard what became of everything it sent. */
  async everythingTold(): Promise<void> {
    await this.#joining
    await untilTold(this.nodes, lifeMs)
  }

  /** The log holds all that it ever signed and showed. */
  async #expectSoundLog(): Promise<void> {
    if (!this.#database || this.verifierKey === '') return
    const { rows } = await this.database.pool.query<{ size: number; note: string }>(
      'select size, note from log_checkpoint order by size',
    )
    const verifier = parseVerifierKey(this.verifierKey)
    if (!verifier) throw new Error('a verifier key that does not parse')
    const newest = await latestCheckpoint(this.database.pool)
    const leaves = await leafHashes(this.database.pool, newest?.size ?? 0)
    const read = async (note: string) => {
      const opened = await openCheckpoint(note, verifier.name, [verifier])
      if (!opened.ok) throw new Error(opened.reason)
      return opened.checkpoint
    }
    for (const { size, note } of rows)
      this.#checkpoints.set(size, this.#checkpoints.get(size) ?? note)
    const now = await read(newest?.note ?? '')
    for (const [size, note] of this.#checkpoints) {
      const seen = await read(note)
      const isConsistent = verifyConsistency({
        oldSize: size,
        oldRootHash: seen.rootHash,
        newSize: now.size,
        newRootHash: now.rootHash,
        proof: consistencyProof(leaves, size),
      })
      expect(isConsistent, `the tree of ${now.size} begins with that of ${size}`).toBe(true)
    }
  }

  /** Lines of level error that servers wrote. */
  faults(): string[] {
    return this.#lives
      .flatMap((life) => life.log.split('\n'))
      .filter((line) => line !== '' && !/"level":(30|40)/.test(line))
  }

  async #end(): Promise<void> {
    this.#isOver = true
    console.log(`Killed ${this.#struck.length} times:\n${this.#struck.join('\n')}`)
    for (const node of this.nodes) await node.stop()
    await this.#site.close()
    await this.#database?.close()
    this.#next.kill()
    await this.#lives
      .at(-1)
      ?.tell({ do: 'stop' })
      .catch(() => undefined) // It may be dead.
    for (const life of this.#lives) life.kill()
    const orphan = await readPostmasterFile(join(this.#folder, 'postgres', 'cluster'))
    if (orphan !== undefined && alive(orphan.pid)) {
      process.kill(orphan.pid, 'SIGQUIT')
      while (alive(orphan.pid)) await sleep(10)
    }
    await rm(this.#folder, { recursive: true, force: true })
  }
}

async function expectEverythingPublished(scene: Scene): Promise<void> {
  const { rows } = await scene.database.pool.query<{ url: string; grade: string }>(
    `select row_json::jsonb->>'url' as url, row_json::jsonb->>'grade' as grade from record`,
  )
  expect(rows.map(({ url }) => url).sort()).toEqual([...scene.site.published].sort())
  const bySentences = rows.filter(({ grade }) => grade === 'sentences').map(({ url }) => url)
  expect(bySentences.sort()).toEqual([...scene.site.lively].sort())
  const report = await verifyRelease(scene.releaseFolder, scene.verifierKey)
  expect(report.failures).toEqual([])
  expect(report.ok).toBe(true)
  expect(report.counted.rows).toBe(scene.site.published.length)
}
