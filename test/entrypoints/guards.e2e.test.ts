import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findChrome } from '../../server/demo/chrome.ts'
import { buildExtension } from './build-extension.ts'
import type { SceneReport } from './guard-scene.ts'

// Public and private addresses can only be had in a network of one's own. Elsewhere than on Linux
// with user namespaces (or root) there is none, and these tests are skipped, visibly.
const isolated = ['unshare', '--map-root-user', '--net']
const canIsolate = spawnSync('unshare', [...isolated.slice(1), 'ip', 'link']).status === 0

describe.skipIf(!canIsolate)('the production build, against a task server that cheats', () => {
  const folder = mkdtempSync(join(tmpdir(), 'gleaner-guards-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  let scene: SceneReport

  beforeAll(async () => {
    const chromium = await findChrome(console.error)
    const build = buildExtension('chrome', folder)
    const [unshare = '', ...flags] = isolated
    const script = [process.execPath, '--import', 'tsx', 'test/entrypoints/guard-scene.ts']
    const { stdout } = await promisify(execFile)(
      unshare,
      [...flags, ...script, build, chromium],
      // The scene takes about 20 s; puppeteer's own waits end it after 30 s more.
      { timeout: 90_000 },
    )
    scene = JSON.parse(stdout) as SceneReport
  }, 150_000)

  const everything = () => Object.values(scene.reached).flat()

  test('nothing leaves before the person says yes', () => {
    expect(scene.beforeYes).toEqual({ requests: [], sockets: 0 })
  })

  test('joining asks for the terms and nothing more', () => {
    expect(scene.beforeAgreement).toEqual(['/v1/network', '/v1/campaigns'])
  })

  test('access to a site comes with the click on Agree', () => {
    expect(scene.permission).toEqual({ before: false, after: true })
  })

  test('a page inside the campaign is fetched', () => {
    expect(scene.told.page).toBe('fetched: 200')
  })

  test('a URL outside the manifest is refused and not asked for', () => {
    expect(scene.told.offManifest).toBe('refused: out-of-scope')
    expect(scene.told.outsidePrefix).toBe('refused: out-of-scope')
    expect(everything().filter(({ host }) => host === 'other.example')).toEqual([])
  })

  test('a lease above the limits of the manifest is refused', () => {
    expect(scene.told.overLimit).toBe('refused: over-limit')
  })

  test('an address literal is refused', () => {
    expect(scene.told.literal).toBe('refused: host-not-public')
  })

  test('a name that resolves to a private address gets no request', () => {
    expect(scene.told.privateName).toBe('failed: private-address')
    expect(scene.reached['10.9.9.9']).toEqual([])
  })

  test('a redirect to a private address, by name or literal, gets no request', () => {
    expect(scene.told.redirectToPrivateName).toBe('failed: private-address')
    expect(scene.told.redirectToPrivateLiteral).toMatch(
      /^failed: (private-address|redirect-refused)$/,
    )
    expect(scene.reached['10.9.9.9']).toEqual([])
  })

  test('a redirect out of the campaign is not followed', () => {
    expect(scene.told.redirectOffManifest).toBe('failed: redirect-refused')
  })

  test('a reserved address that Chromium lets through gives not a byte of its answer', () => {
    expect(scene.told.reservedName).toBe('failed: private-address')
  })

  test('a site sees who asks, and nothing of the person', () => {
    expect(scene.pageCookie, 'the person has a cookie there').toBe('session=secret')
    expect(everything().length).toBeGreaterThan(0)
    for (const { headers } of everything()) {
      expect(headers.cookie).toBeUndefined()
      expect(headers.referer).toBeUndefined()
      expect(headers.origin).toBeUndefined()
      expect(headers.authorization).toBeUndefined()
      expect(headers['user-agent']).toMatch(/ Gleaner\/[\d.]+ \(\+crawl@university\.example\)$/)
      expect(headers.from).toBe('crawl@university.example')
    }
  })

  test('a body that is not what its head says has a name of its own', () => {
    expect(scene.told.notGzip).toBe('failed: undecodable')
    expect(scene.told.brokenGzip).toBe('failed: undecodable')
    expect(scene.told.cutOff).toBe('failed: connection')
  })

  test('a worker that was killed goes on where it was', () => {
    expect(scene.told.afterWorkerDeath).toBe('fetched: 200')
  })

  test('withdrawing ends it at once', () => {
    expect(scene.leaseRequestsAfterWithdrawal).toBe(0)
    expect(everything().filter(({ path }) => path === '/after-withdrawal')).toEqual([])
  })
})
