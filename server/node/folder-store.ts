import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod/mini'
import type { ConsentReceipt } from '../../lib/consent/consent-receipt.ts'
import { fromBase64Url, toBase64Url } from '../../lib/crypto/base64.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import {
  generateKeyPair,
  importSeed,
  publicKeyBytes,
  type SigningKeyPair,
  seedOf,
} from '../../lib/crypto/ed25519.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import { consent } from '../../lib/protocol/consent.ts'
import { count, day, digest } from '../../lib/protocol/fields.ts'
import type {
  ConsentNotice,
  JournalEntry,
  NodeIdentity,
  RunnerStore,
  RunnerTask,
} from '../../lib/runner/ports.ts'
import { syncFolder } from '../store/durable-file.ts'

// A node that runs for weeks must not grow for weeks. The extension's journal is the whole one.
const MOST_ENTRIES = 10_000
// The caps look at one month; a second one is for whoever looks at the file.
const MOST_DAYS = 62

const usage = z.strictObject({ day, bytesUp: count, bytesDown: count })
const notice = z.extend(z.omit(consent, { version: true }), { network: digest })
const storedState = z.strictObject({
  version: z.literal(1),
  usage: z.array(usage),
  cursors: z.record(digest, count),
  notices: z.array(notice),
})
const storedKeys = z.strictObject({ version: z.literal(1), accountSeed: digest, nodeSeed: digest })

/** The store of `gleaner node`, with what a person at the terminal may look at. */
export interface FolderStore extends RunnerStore {
  /** Newest last. */
  journal(): JournalEntry[]
  /** The stored consent receipt of a campaign and network account; made and stored when there is none. */
  receipt(campaign: string, make: () => ConsentReceipt): Promise<ConsentReceipt>
}

/**
 * Keys, usage, outcome cursors and untold choices live in files of this folder, readable by this
 * user alone. Tasks, bodies and journal live in memory: a node that is ended lets its leases expire,
 * and the server gives them to others.
 *
 * @throws Error that names the file when one cannot be read
 */
export async function openFolderStore(folder: string): Promise<FolderStore> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const statePath = join(folder, 'state.json')
  const state = (await readIfThere(statePath, storedState)) ?? {
    version: 1 as const,
    usage: [],
    cursors: {},
    notices: [],
  }
  const save = savesTogether(() => replaceFile(folder, 'state.json', JSON.stringify(state)))
  const identities = new Map<string, Promise<NodeIdentity>>()
  const tasks = new Map<string, RunnerTask>()
  const bodies = new Map<string, Uint8Array<ArrayBuffer>>()
  const entries = new Map<string, JournalEntry>()

  const putEntry = (entry: JournalEntry) => {
    entries.set(entry.id, entry)
    const [oldest] = entries.keys()
    if (entries.size > MOST_ENTRIES && oldest !== undefined) entries.delete(oldest)
  }

  return {
    identity(network) {
      const known = identities.get(network) ?? identityIn(folder, network)
      identities.set(network, known)
      return known
    },
    async tasks(network) {
      return [...tasks.values()].filter((task) => task.network === network)
    },
    async putTask(task) {
      tasks.set(task.id, task)
    },
    async putTaskAndEntry(task, entry) {
      tasks.set(task.id, task)
      putEntry(entry)
    },
    async deleteTask(id) {
      tasks.delete(id)
      bodies.delete(id)
    },
    async putBody(id, payload) {
      bodies.set(id, payload)
    },
    async body(id) {
      return bodies.get(id)
    },
    async putEntry(entry) {
      putEntry(entry)
    },
    async entry(id) {
      return entries.get(id)
    },
    async addUsage(ofDay, bytesUp, bytesDown) {
      const today = state.usage.find((known) => known.day === ofDay)
      if (today === undefined) state.usage.push({ day: ofDay, bytesUp, bytesDown })
      else {
        today.bytesUp += bytesUp
        today.bytesDown += bytesDown
      }
      state.usage = state.usage.slice(-MOST_DAYS)
      await save()
    },
    async usage(firstDay) {
      return state.usage.filter((known) => known.day >= firstDay).map((known) => ({ ...known }))
    },
    async outcomeCursor(network) {
      return state.cursors[network] ?? 0
    },
    async setOutcomeCursor(network, sequence) {
      state.cursors[network] = sequence
      await save()
    },
    async consentNotices(network) {
      return state.notices.filter((waiting) => waiting.network === network)
    },
    async putConsentNotice(given) {
      state.notices = [...state.notices.filter((waiting) => !isSameChoice(waiting, given)), given]
      await save()
    },
    async deleteConsentNotice(given) {
      state.notices = state.notices.filter(
        (waiting) => !isSameChoice(waiting, given) || waiting.at !== given.at,
      )
      await save()
    },
    journal: () => [...entries.values()],
    async receipt(campaign, make) {
      const name = `receipt-${campaign}.json`
      // Written by this store alone; its digest, not its form, is what the server was told.
      const stored = await readIfThere(join(folder, name), z.looseObject({}))
      if (stored !== undefined) return stored as ConsentReceipt
      const receipt = make()
      await replaceFile(folder, name, canonicalJson(receipt))
      return receipt
    },
  }
}

function isSameChoice(a: ConsentNotice, b: ConsentNotice): boolean {
  return a.network === b.network && a.campaign === b.campaign
}

/** The keys of one network, made at the first call. No two networks can link them. */
async function identityIn(folder: string, network: string): Promise<NodeIdentity> {
  const name = `keys-${network}.json`
  const stored = await readIfThere(join(folder, name), storedKeys)
  const keys = stored ?? {
    version: 1,
    accountSeed: await freshSeed(),
    nodeSeed: await freshSeed(),
  }
  if (stored === undefined) await replaceFile(folder, name, JSON.stringify(keys))
  // Durable. Only now may anybody see what these keys sign.
  const accountKey = await importSeed(fromBase64Url(keys.accountSeed), { extractable: false })
  const nodeKey = await importSeed(fromBase64Url(keys.nodeSeed), { extractable: false })
  return { accountId: await idOf(accountKey), nodeId: await idOf(nodeKey), accountKey, nodeKey }
}

async function freshSeed(): Promise<string> {
  const { privateKey } = await generateKeyPair({ extractable: true })
  return toBase64Url(await seedOf(privateKey))
}

async function idOf({ publicKey }: SigningKeyPair): Promise<string> {
  return toBase64Url(sha256(await publicKeyBytes(publicKey)))
}

async function readIfThere<Schema extends z.ZodMiniType>(
  path: string,
  schema: Schema,
): Promise<z.infer<Schema> | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  try {
    return schema.parse(JSON.parse(text))
  } catch (error) {
    throw new Error(`${path} is damaged or of another version; move it away to begin anew`, {
      cause: error,
    })
  }
}

/** Writes a whole file under its name at once, durable on return. */
async function replaceFile(folder: string, name: string, text: string): Promise<void> {
  const temporary = join(folder, `${name}.new`)
  const handle = await open(temporary, 'w', 0o600)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(temporary, join(folder, name))
  await syncFolder(folder)
}

/** Runs one write at a time; calls that come meanwhile share the next one. */
function savesTogether(write: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> = Promise.resolve()
  let next: Promise<void> | null = null
  return () => {
    next ??= running
      // The failure of an earlier write was told to its own callers.
      .catch(() => {})
      .then(() => {
        next = null
        running = write()
        return running
      })
    return next
  }
}
