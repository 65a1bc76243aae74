import { describe, expect, test } from 'vitest'
import { generateKeyPair } from '../../../lib/crypto/ed25519.ts'
import type {
  ConsentNotice,
  JournalEntry,
  RunnerStore,
  RunnerTask,
} from '../../../lib/runner/ports.ts'

const network = 'NNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNA'
const other = 'OOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOA'
const campaign = 'CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCA'

async function task(id: string, changes: Partial<RunnerTask> = {}): Promise<RunnerTask> {
  return {
    id,
    network,
    campaign,
    lease: {
      version: 1,
      id,
      campaign,
      kind: 'page',
      url: 'https://site.example/',
      nonce: id,
      validForMs: 60_000,
      maxBytes: 1,
      maxMs: 1,
      maxRedirects: 1,
    },
    state: 'leased',
    receivedAtMs: 1,
    expiresAtMs: 2,
    oneUseKey: await generateKeyPair({ extractable: false }),
    ...changes,
  }
}

function entry(id: string): JournalEntry {
  return {
    id,
    atMs: 5,
    network,
    campaign,
    url: 'https://site.example/',
    result: { kind: 'fetched', status: 200 },
    bytesUp: 1,
    bytesDown: 2,
    totalMs: 3,
  }
}

const notice: ConsentNotice = {
  network,
  campaign,
  act: 'given',
  at: '2026-11-22T16:00:00Z',
  receipt: campaign,
}

/** What every RunnerStore does, whatever it stands on. `open` gives an empty store each time. */
export function runnerStoreContract(name: string, open: () => Promise<RunnerStore>): void {
  describe(`${name} keeps the contract of RunnerStore`, () => {
    test('keys of a network stay, and those of another network are others', async () => {
      const store = await open()
      const [first, again] = await Promise.all([store.identity(network), store.identity(network)])
      expect(again.nodeId).toBe(first.nodeId)
      expect((await store.identity(network)).accountId).toBe(first.accountId)
      const elsewhere = await store.identity(other)
      expect(elsewhere.nodeId).not.toBe(first.nodeId)
      expect(elsewhere.accountId).not.toBe(first.accountId)
      expect(first.nodeKey.privateKey.extractable).toBe(false)
    })

    test('tasks come back by network, with usable keys', async () => {
      const store = await open()
      await store.putTask(await task('a'))
      await store.putTask(await task('b', { network: other }))
      const [found, ...rest] = await store.tasks(network)
      expect(rest).toEqual([])
      expect(found).toMatchObject({ id: 'a', state: 'leased', lease: { nonce: 'a' } })
      const key = found?.oneUseKey.privateKey
      if (!key) throw new Error('no key')
      const signature = await crypto.subtle.sign('Ed25519', key, new Uint8Array(1))
      expect(signature.byteLength).toBe(64)
    })

    test('a task is replaced, not added', async () => {
      const store = await open()
      const given = await task('a')
      await store.putTask(given)
      const body = { bytes: 3, digest: campaign, type: 'text/html', charset: null, url: 'u' }
      await store.putTaskAndEntry({ ...given, state: 'observed', body }, entry('a'))
      expect(await store.tasks(network)).toMatchObject([{ id: 'a', state: 'observed', body }])
      expect(await store.entry('a')).toEqual(entry('a'))
    })

    test('a body comes back whole, and goes with its task', async () => {
      const store = await open()
      await store.putTask(await task('a'))
      await store.putBody('a', new Uint8Array([1, 2, 3]))
      expect(await store.body('a')).toEqual(new Uint8Array([1, 2, 3]))
      await store.deleteTask('a')
      expect(await store.body('a')).toBeUndefined()
      expect(await store.tasks(network)).toEqual([])
    })

    test('deleting what is not there is silent', async () => {
      const store = await open()
      await store.deleteTask('nothing')
      await store.deleteConsentNotice(notice)
      expect(await store.body('nothing')).toBeUndefined()
      expect(await store.entry('nothing')).toBeUndefined()
    })

    test('a journal entry is replaced by its id', async () => {
      const store = await open()
      await store.putEntry(entry('a'))
      await store.putEntry({ ...entry('a'), bytesUp: 9 })
      expect((await store.entry('a'))?.bytesUp).toBe(9)
    })

    test('usage adds up by day, also from several sides at once', async () => {
      const store = await open()
      await Promise.all([
        store.addUsage('2026-11-21', 1, 2),
        store.addUsage('2026-11-22', 10, 20),
        store.addUsage('2026-11-22', 100, 200),
        store.addUsage('2026-10-31', 5, 5),
      ])
      const days = await store.usage('2026-11-01')
      expect([...days].sort((a, b) => a.day.localeCompare(b.day))).toEqual([
        { day: '2026-11-21', bytesUp: 1, bytesDown: 2 },
        { day: '2026-11-22', bytesUp: 110, bytesDown: 220 },
      ])
    })

    test('cursors are 0 at first and apart for each network', async () => {
      const store = await open()
      expect(await store.outcomeCursor(network)).toBe(0)
      await store.setOutcomeCursor(network, 17)
      expect(await store.outcomeCursor(network)).toBe(17)
      expect(await store.outcomeCursor(other)).toBe(0)
    })

    test('of two choices about a campaign the last one counts', async () => {
      const store = await open()
      const withdrawn: ConsentNotice = { ...notice, act: 'withdrawn', at: '2026-11-22T17:00:00Z' }
      await store.putConsentNotice(notice)
      await store.putConsentNotice(withdrawn)
      await store.putConsentNotice({ ...notice, network: other })
      expect(await store.consentNotices(network)).toEqual([withdrawn])
      // Told late: the newer choice is still to be told.
      await store.deleteConsentNotice(notice)
      expect(await store.consentNotices(network)).toEqual([withdrawn])
      await store.deleteConsentNotice(withdrawn)
      expect(await store.consentNotices(network)).toEqual([])
      expect(await store.consentNotices(other)).toHaveLength(1)
    })
  })
}
