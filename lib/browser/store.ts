import { type DBSchema, type IDBPDatabase, openDB } from 'idb'
import type { ConsentReceipt } from '../consent/consent-receipt.ts'
import { defaultLimits, type Limits, limits, type Pause, type Usage } from '../consent/limits.ts'
import type { OpenedCampaign } from '../consent/manifest.ts'
import type { EnvelopeMessage } from '../protocol/fields.ts'
import type { AccountBalance } from '../protocol/outcome.ts'
import type {
  ConsentedCampaign,
  ConsentNotice,
  JoinedNetwork,
  JournalEntry,
  NodeIdentity,
  RunnerStore,
  RunnerTask,
} from '../runner/ports.ts'
import { createIdentity, type MasterSeed, sealMasterSeed } from './identity.ts'
import type { MeterRecord } from './line-meter.ts'

/** A yes, with everything that proves it. */
export interface StoredConsent extends ConsentedCampaign {
  network: string
  manifest: EnvelopeMessage
  /** The whole receipt; `receipt` above is the digest of its first form. */
  document: ConsentReceipt
  /** When the person took it back, or null. */
  withdrawnAt: string | null
}

/** The answer on the welcome page. `wording` is the number of the text that was shown. */
export interface TermsAnswer {
  answer: 'yes' | 'no'
  wording: number
  at: string
}

/** What a network last offered, already checked. */
export interface Offers {
  network: string
  atMs: number
  campaigns: OpenedCampaign[]
}

/** Points in one network, as the server last told. */
export interface StoredBalance extends AccountBalance {
  network: string
  atMs: number
}

/** Which part of the journal to read, newest first. */
export interface JournalQuery {
  /** Entries before this time; all when null. */
  beforeMs: number | null
  limit: number
  /** Part of the URL; all when empty. */
  search: string
}

/** Everything this installation keeps, in IndexedDB. Nothing of it is synced. */
export interface DeviceStore extends RunnerStore {
  networks(): Promise<JoinedNetwork[]>
  putNetwork(joined: JoinedNetwork): Promise<void>
  /** The network with its keys, consents, offers, points and tasks. The journal stays. */
  deleteNetwork(fingerprint: string): Promise<void>
  consents(): Promise<StoredConsent[]>
  putConsent(consent: StoredConsent): Promise<void>
  offers(network: string): Promise<Offers | undefined>
  putOffers(offers: Offers): Promise<void>
  balances(): Promise<StoredBalance[]>
  putBalance(balance: StoredBalance): Promise<void>
  journal(query: JournalQuery): Promise<JournalEntry[]>
  deleteJournal(): Promise<void>
  terms(): Promise<TermsAnswer | undefined>
  putTerms(answer: TermsAnswer): Promise<void>
  limits(): Promise<Limits>
  putLimits(wanted: Limits): Promise<void>
  pause(): Promise<Pause | null>
  putPause(pause: Pause | null): Promise<void>
  meter(): Promise<MeterRecord | undefined>
  putMeter(record: MeterRecord): Promise<void>
}

interface Settings {
  terms: TermsAnswer
  limits: Limits
  pause: Pause | null
  meter: MeterRecord
  masterSeed: MasterSeed
}

interface Schema extends DBSchema {
  settings: { key: keyof Settings; value: Settings[keyof Settings] }
  networks: { key: string; value: JoinedNetwork }
  identities: { key: string; value: NodeIdentity & { network: string } }
  consents: { key: [string, string]; value: StoredConsent }
  consentNotices: { key: [string, string]; value: ConsentNotice }
  offers: { key: string; value: Offers }
  balances: { key: string; value: StoredBalance }
  outcomeCursors: { key: string; value: { network: string; sequence: number } }
  tasks: { key: string; value: RunnerTask; indexes: { network: string } }
  bodies: { key: string; value: Uint8Array<ArrayBuffer> }
  journal: { key: string; value: JournalEntry; indexes: { atMs: number } }
  usage: { key: string; value: Usage }
}

const NAME = 'gleaner'

/** Each entry takes the database from its index to the next version. Never change one; add one. */
const upgrades: ((db: IDBPDatabase<Schema>) => void)[] = [
  (db) => {
    db.createObjectStore('settings')
    db.createObjectStore('networks', { keyPath: 'fingerprint' })
    db.createObjectStore('identities', { keyPath: 'network' })
    db.createObjectStore('consents', { keyPath: ['network', 'digest'] })
    db.createObjectStore('consentNotices', { keyPath: ['network', 'campaign'] })
    db.createObjectStore('offers', { keyPath: 'network' })
    db.createObjectStore('balances', { keyPath: 'network' })
    db.createObjectStore('outcomeCursors', { keyPath: 'network' })
    db.createObjectStore('tasks', { keyPath: 'id' }).createIndex('network', 'network')
    db.createObjectStore('bodies')
    db.createObjectStore('journal', { keyPath: 'id' }).createIndex('atMs', 'atMs')
    db.createObjectStore('usage', { keyPath: 'day' })
  },
]

/** Opens the store, making or upgrading it first. */
export async function openStore(): Promise<DeviceStore> {
  const db = await openDB<Schema>(NAME, upgrades.length, {
    upgrade: (opened, oldVersion) => {
      for (const upgrade of upgrades.slice(oldVersion)) upgrade(opened)
    },
    // A newer worker waits to upgrade: let it.
    blocking: () => db.close(),
  })

  async function setting<K extends keyof Settings>(key: K): Promise<Settings[K] | undefined> {
    return (await db.get('settings', key)) as Settings[K] | undefined
  }

  async function putSetting<K extends keyof Settings>(key: K, value: Settings[K]): Promise<void> {
    await db.put('settings', value, key)
  }

  /** Writes what is not there yet; answers what is there then. Keys cannot be made inside a transaction. */
  async function masterSeed(): Promise<MasterSeed> {
    const known = await setting('masterSeed')
    if (known) return known
    const made = await sealMasterSeed()
    const tx = db.transaction('settings', 'readwrite')
    const raced = (await tx.store.get('masterSeed')) as MasterSeed | undefined
    if (!raced) await tx.store.put(made, 'masterSeed')
    await tx.done
    return raced ?? made
  }

  return {
    identity: async (network) => {
      const known = await db.get('identities', network)
      if (known) return known
      const made = { network, ...(await createIdentity(await masterSeed(), network)) }
      const tx = db.transaction('identities', 'readwrite')
      const raced = await tx.store.get(network)
      if (!raced) await tx.store.put(made)
      await tx.done
      return raced ?? made
    },

    tasks: (network) => db.getAllFromIndex('tasks', 'network', network),
    putTask: async (task) => {
      await db.put('tasks', task)
    },
    putTaskAndEntry: async (task, entry) => {
      const tx = db.transaction(['tasks', 'journal'], 'readwrite')
      await Promise.all([
        tx.objectStore('tasks').put(task),
        tx.objectStore('journal').put(entry),
        tx.done,
      ])
    },
    deleteTask: async (id) => {
      const tx = db.transaction(['tasks', 'bodies'], 'readwrite')
      await Promise.all([
        tx.objectStore('tasks').delete(id),
        tx.objectStore('bodies').delete(id),
        tx.done,
      ])
    },
    putBody: async (id, payload) => {
      await db.put('bodies', payload, id)
    },
    body: (id) => db.get('bodies', id),

    putEntry: async (entry) => {
      await db.put('journal', entry)
    },
    entry: (id) => db.get('journal', id),
    journal: async ({ beforeMs, limit, search }) => {
      const range = beforeMs === null ? null : IDBKeyRange.upperBound(beforeMs, true)
      const found: JournalEntry[] = []
      const index = db.transaction('journal').store.index('atMs')
      for await (const { value } of index.iterate(range, 'prev')) {
        if (value.url.includes(search)) found.push(value)
        if (found.length >= limit) break
      }
      return found
    },
    deleteJournal: () => db.clear('journal'),

    addUsage: async (day, bytesUp, bytesDown) => {
      const tx = db.transaction('usage', 'readwrite')
      const before = (await tx.store.get(day)) ?? { day, bytesUp: 0, bytesDown: 0 }
      await tx.store.put({
        day,
        bytesUp: before.bytesUp + bytesUp,
        bytesDown: before.bytesDown + bytesDown,
      })
      await tx.done
    },
    usage: (firstDay) => db.getAll('usage', IDBKeyRange.lowerBound(firstDay)),

    outcomeCursor: async (network) => (await db.get('outcomeCursors', network))?.sequence ?? 0,
    setOutcomeCursor: async (network, sequence) => {
      await db.put('outcomeCursors', { network, sequence })
    },

    consentNotices: async (network) =>
      (await db.getAll('consentNotices')).filter((notice) => notice.network === network),
    putConsentNotice: async (notice) => {
      await db.put('consentNotices', notice)
    },
    deleteConsentNotice: async ({ network, campaign, at }) => {
      const tx = db.transaction('consentNotices', 'readwrite')
      const stored = await tx.store.get([network, campaign])
      if (stored?.at === at) await tx.store.delete([network, campaign])
      await tx.done
    },

    networks: () => db.getAll('networks'),
    putNetwork: async (joined) => {
      await db.put('networks', joined)
    },
    deleteNetwork: async (fingerprint) => {
      const tx = db.transaction(
        [
          'networks',
          'identities',
          'consents',
          'consentNotices',
          'offers',
          'balances',
          'outcomeCursors',
          'tasks',
          'bodies',
        ],
        'readwrite',
      )
      // An array sorts after every string, so this spans all second parts of the key.
      const ofNetwork = IDBKeyRange.bound([fingerprint], [fingerprint, []])
      const taskIds = await tx.objectStore('tasks').index('network').getAllKeys(fingerprint)
      await Promise.all([
        ...taskIds.flatMap((id) => [
          tx.objectStore('tasks').delete(id),
          tx.objectStore('bodies').delete(id),
        ]),
        tx.objectStore('networks').delete(fingerprint),
        tx.objectStore('identities').delete(fingerprint),
        tx.objectStore('consents').delete(ofNetwork),
        tx.objectStore('consentNotices').delete(ofNetwork),
        tx.objectStore('offers').delete(fingerprint),
        tx.objectStore('balances').delete(fingerprint),
        tx.objectStore('outcomeCursors').delete(fingerprint),
        tx.done,
      ])
    },

    consents: () => db.getAll('consents'),
    putConsent: async (consent) => {
      await db.put('consents', consent)
    },
    offers: (network) => db.get('offers', network),
    putOffers: async (offers) => {
      await db.put('offers', offers)
    },
    balances: () => db.getAll('balances'),
    putBalance: async (balance) => {
      await db.put('balances', balance)
    },

    terms: () => setting('terms'),
    putTerms: (answer) => putSetting('terms', answer),
    limits: async () => {
      const parsed = limits.safeParse(await setting('limits'))
      return parsed.success ? parsed.data : defaultLimits
    },
    putLimits: (wanted) => putSetting('limits', limits.parse(wanted)),
    pause: async () => (await setting('pause')) ?? null,
    putPause: (pause) => putSetting('pause', pause),
    meter: () => setting('meter'),
    putMeter: (record) => putSetting('meter', record),
  }
}

/** What the person agreed to and did not take back, of one network or of all. */
export async function activeConsents(
  store: DeviceStore,
  network?: string,
): Promise<StoredConsent[]> {
  return (await store.consents()).filter(
    (consent) =>
      consent.withdrawnAt === null && (network === undefined || consent.network === network),
  )
}
