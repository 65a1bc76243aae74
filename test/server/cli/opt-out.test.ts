import { spawn } from 'node:child_process'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { requestOptOut, settleProof } from '../../../server/store/opt-outs.ts'
import { openTestDatabase } from '../store/test-database.ts'

// Each command is a process of its own, a second or two of work; a busy machine takes several.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 90_000 })

const program = fileURLToPath(new URL('../../../server/gleaner.mjs', import.meta.url))
const waiting = Buffer.alloc(16, 1)
const verified = Buffer.alloc(16, 2)

let folder: string
let databaseUrl: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gleaner-opt-out-'))
  await chmod(folder, 0o711)
  const database = await openTestDatabase()
  const { user, password, host, port, database: name } = database.connection
  databaseUrl = `postgresql://${user}:${password}@localhost:${port}/${name}?host=${encodeURIComponent(host)}`
  await database.transaction(async (tx) => {
    const target = { scope: 'prefix', host: 'www.example.org', path: '/blog' } as const
    await requestOptOut(tx, target, { id: waiting, token: 'waiting' })
  })
  await database.transaction(async (tx) => {
    const target = { scope: 'domain', host: 'example.net', path: '/' } as const
    await requestOptOut(tx, target, { id: verified, token: 'verified' })
    await settleProof(tx, verified, { found: true, reason: 'The token is there.' })
  })
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** Runs `gleaner opt-out`. */
function optOut(...args: string[]) {
  const child = spawn(process.execPath, [
    program,
    'opt-out',
    ...args,
    '--data',
    folder,
    '--database-url',
    databaseUrl,
  ])
  let [out, err] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text
  })
  return new Promise<{ status: number | null; out: string; err: string }>((resolve) =>
    child.once('close', (status) => resolve({ status, out, err })),
  )
}

test('the list has every request, and one state alone when asked', async () => {
  const { status, out, err } = await optOut('list')
  expect({ status, err }).toEqual({ status: 0, err: '' })
  expect(out.trim().split('\n').sort()).toEqual(
    [
      `${waiting.toString('base64url')}  waiting    prefix  www.example.org/blog`,
      `${verified.toString('base64url')}  verified   domain  example.net`,
    ].sort(),
  )
  const only = await optOut('list', '--state', 'verified', '--json')
  expect(JSON.parse(only.out)).toMatchObject({
    optOuts: [{ id: verified.toString('base64url'), target: 'example.net', state: 'verified' }],
  })
})

test('one is shown with its proof, and what it stopped so far', async () => {
  const { status, out } = await optOut('show', verified.toString('base64url'))
  expect(status).toBe(0)
  expect(out).toMatch(/proof {5}\d{4}-.*, The token is there\./)
  expect(out).toMatch(/stopped {3}0 tasks, 0 leases, 0 records, so far/)
  expect(out).toContain('_gleaner.example.net: not looked at yet')
})

test('an id that is none, and one that nobody has, are refused with what to do', async () => {
  const none = await optOut('show', 'nonsense')
  expect(none.status).toBe(1)
  expect(none.err).toMatch(/is no id of an opt-out.*gleaner opt-out list/)
  const unknown = await optOut('show', Buffer.alloc(16, 3).toString('base64url'))
  expect(unknown.status).toBe(1)
  expect(unknown.err).toMatch(/No opt-out .*gleaner opt-out list/)
})
