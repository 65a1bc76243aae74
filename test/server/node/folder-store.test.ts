import { mkdtemp, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openFolderStore } from '../../../server/node/folder-store.ts'
import { runnerStoreContract } from '../../lib/runner/store-contract.ts'

const network = 'NNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNA'
const campaign = 'CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCA'
const newFolder = () => mkdtemp(join(tmpdir(), 'gleaner-folder-store-'))

runnerStoreContract('the folder store', async () => openFolderStore(await newFolder()))

test('keys, usage, cursors and choices survive the process, for this user alone', async () => {
  const folder = join(await newFolder(), 'node')
  const first = await openFolderStore(folder)
  const identity = await first.identity(network)
  const notice = {
    network,
    campaign,
    act: 'withdrawn' as const,
    at: '2026-11-22T16:00:00Z',
    receipt: campaign,
  }
  await first.addUsage('2026-11-22', 3, 4)
  await first.setOutcomeCursor(network, 9)
  await first.putConsentNotice(notice)

  const second = await openFolderStore(folder)
  expect((await second.identity(network)).nodeId).toBe(identity.nodeId)
  expect((await second.identity(network)).accountId).toBe(identity.accountId)
  expect(await second.usage('2026-11-01')).toEqual([
    { day: '2026-11-22', bytesUp: 3, bytesDown: 4 },
  ])
  expect(await second.outcomeCursor(network)).toBe(9)
  expect(await second.consentNotices(network)).toEqual([notice])
  for (const name of await readdir(folder)) {
    expect((await stat(join(folder, name))).mode & 0o777, name).toBe(0o600)
  }
  expect((await stat(folder)).mode & 0o777).toBe(0o700)
})

test('many writes at once leave one whole file', async () => {
  const folder = await newFolder()
  const store = await openFolderStore(folder)
  await Promise.all(Array.from({ length: 200 }, () => store.addUsage('2026-11-22', 1, 1)))
  const state = JSON.parse(await readFile(join(folder, 'state.json'), 'utf8'))
  expect(state.usage).toEqual([{ day: '2026-11-22', bytesUp: 200, bytesDown: 200 }])
})

test('a damaged file is named, and not written over', async () => {
  const folder = await newFolder()
  await writeFile(join(folder, 'state.json'), '{"version":1,"usage":[{"day":"x"}]}')
  await expect(openFolderStore(folder)).rejects.toThrow(`${join(folder, 'state.json')} is damaged`)
  await writeFile(join(folder, 'state.json'), 'half a fi')
  await expect(openFolderStore(folder)).rejects.toThrow('is damaged')
})
