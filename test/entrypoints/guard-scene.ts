/**
 * The scene of guards.e2e.test.ts, run in a network namespace of its own: the production build in a
 * real Chromium, sites on addresses that are public or private to every check, and a task server
 * that asks for what it must not get. Prints what happened as one line of JSON.
 *
 *   unshare --map-root-user --net node --import tsx test/entrypoints/guard-scene.ts BUILD CHROMIUM
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import puppeteer, { type Browser } from 'puppeteer-core'
import type { Site } from '../../lib/protocol/campaign.ts'
import type { Observation } from '../../lib/protocol/observation.ts'
import { startRogueServer } from './rogue-server.ts'

/** What the scene prints. */
export interface SceneReport {
  /** Requests that reached the task server, and sockets, before the person said yes. */
  beforeYes: { requests: string[]; sockets: number }
  /** Requests that reached it after yes and join, before a campaign was agreed to. */
  beforeAgreement: string[]
  /** The host permission before and after the click on Agree. */
  permission: { before: boolean; after: boolean }
  /** What the device told the server about each lease: an observation or a refusal. */
  told: Record<LeaseName, string>
  /** Requests by the address that they reached, and how they looked. */
  reached: Record<string, ReachedRequest[]>
  /** The Cookie header with which the page itself came, once it had been given one. */
  pageCookie: string | undefined
  /** Lease requests in three seconds after the person withdrew. */
  leaseRequestsAfterWithdrawal: number
}

export interface ReachedRequest {
  host: string | undefined
  path: string
  headers: IncomingHttpHeaders
}

type LeaseName =
  | 'page'
  | 'offManifest'
  | 'outsidePrefix'
  | 'literal'
  | 'privateName'
  | 'redirectToPrivateName'
  | 'redirectToPrivateLiteral'
  | 'redirectOffManifest'
  | 'reservedName'
  | 'overLimit'
  | 'notGzip'
  | 'brokenGzip'
  | 'cutOff'
  | 'afterWorkerDeath'

const PUBLIC = '203.0.113.10'
const PRIVATE = '10.9.9.9'
// Chromium's address spaces let 198.18/15 through; our own list must not.
const RESERVED = '198.18.0.1'
const names = {
  'site.example': PUBLIC,
  'other.example': PUBLIC,
  'private.example': PRIVATE,
  'reserved.example': RESERVED,
}

const reached: SceneReport['reached'] = {}
let pageCookie: string | undefined

async function main(build: string, chromium: string): Promise<SceneReport> {
  ip('link', 'set', 'lo', 'up')
  // With loopback alone the browser says that it is offline, and then nothing is fetched.
  ip('link', 'add', 'outside', 'type', 'veth', 'peer', 'name', 'far')
  ip('link', 'set', 'far', 'up')
  ip('link', 'set', 'outside', 'up')
  ip('addr', 'add', '192.0.2.1/24', 'dev', 'outside')
  for (const address of [PUBLIC, PRIVATE, RESERVED]) {
    ip('addr', 'add', `${address}/32`, 'dev', 'lo')
    await serveSite(address)
  }
  const server = await startRogueServer({
    host: '127.0.0.1',
    sites: ['site.example', 'private.example', 'reserved.example'].map(site),
  })
  const profile = mkdtempSync(join(tmpdir(), 'gleaner-profile-'))
  const extension = await seedPermissions(build, chromium, profile)
  const browser = await launch(build, chromium, profile)
  try {
    // The person visits the site as people do and gets a cookie.
    const visit = await browser.newPage()
    await visit.goto('http://site.example/visit')
    await visit.goto('http://site.example/visit')

    await closeWelcome(browser)
    const page = await browser.newPage()
    await page.goto(`chrome-extension://${extension}/join.html#${server.joinLink}`)
    await page.waitForSelector('[data-testid=consent-yes]')
    await pause(3_000)
    const beforeYes = { requests: server.seen.map(({ path }) => path), sockets: server.sockets() }

    await page.click('[data-testid=consent-yes]')
    await page.waitForSelector('[data-testid=join-network]')
    await page.click('[data-testid=join-network]')
    await page.waitForSelector('[data-testid=campaign-agree]')
    await pause(1_000)
    const beforeAgreement = server.seen.map(({ path }) => path)
    // As text: this project has no types of the extension's own APIs.
    const contains = "chrome.permissions.contains({ origins: ['http://site.example/*'] })"
    const holds = async () => (await page.evaluate(contains)) === true
    const before = await holds()
    await page.click('[data-testid=campaign-agree]')
    await page.waitForSelector('[data-testid=agreed]')
    const permission = { before, after: await holds() }

    const leases: Record<LeaseName, string> = {
      page: server.offer({ url: 'http://site.example/page' }).id,
      offManifest: server.offer({ url: 'http://other.example/page' }).id,
      outsidePrefix: server.offer({ url: 'http://private.example/outside' }).id,
      literal: server.offer({ url: `http://${PRIVATE}/page` }).id,
      privateName: server.offer({ url: 'http://private.example/page' }).id,
      redirectToPrivateName: server.offer({
        url: 'http://site.example/page?to=http://private.example/page',
      }).id,
      redirectToPrivateLiteral: server.offer({
        url: `http://site.example/page?to=http://${PRIVATE}/page`,
      }).id,
      redirectOffManifest: server.offer({
        url: 'http://site.example/page?to=http://other.example/page',
      }).id,
      reservedName: server.offer({ url: 'http://reserved.example/page' }).id,
      overLimit: server.offer({ url: 'http://site.example/page', maxBytes: 64 * 1024 * 1024 }).id,
      notGzip: server.offer({ url: 'http://site.example/page?body=notGzip' }).id,
      brokenGzip: server.offer({ url: 'http://site.example/page?body=brokenGzip' }).id,
      cutOff: server.offer({ url: 'http://site.example/page?body=cutOff' }).id,
      afterWorkerDeath: '',
    }
    const toldOf = (id: string) => {
      const refusal = server.refusals.find(({ lease }) => lease === id)
      const observation = server.observations.find(({ lease }) => lease === id)
      if (refusal) return `refused: ${refusal.reason}`
      return observation ? inWords(observation) : 'nothing'
    }
    const told = () =>
      Object.fromEntries(
        Object.entries(leases).map(([name, id]) => [name, toldOf(id)]),
      ) as SceneReport['told']
    await until(() => unanswered(told()).join() === 'afterWorkerDeath', 20_000)

    // The open page asks for the overview each second, which starts the worker anew.
    const devtools = await page.createCDPSession()
    await devtools.send('ServiceWorker.enable')
    await devtools.send('ServiceWorker.stopAllWorkers')
    leases.afterWorkerDeath = server.offer({ url: 'http://site.example/page' }).id
    await until(() => unanswered(told()).length === 0, 20_000)

    await page.click('[data-testid=campaign-withdraw]')
    await page.waitForSelector('[data-testid=campaign-agree]')
    await pause(500)
    const isLeaseRequest = ({ path }: { path: string }) => path === '/v1/leases'
    const asked = server.seen.filter(isLeaseRequest).length
    server.offer({ url: 'http://site.example/after-withdrawal' })
    await pause(3_000)
    return {
      beforeYes,
      beforeAgreement,
      permission,
      told: told(),
      reached,
      pageCookie,
      leaseRequestsAfterWithdrawal: server.seen.filter(isLeaseRequest).length - asked,
    }
  } finally {
    await browser.close()
    await server.close()
    rmSync(profile, { recursive: true, force: true })
  }
}

function ip(...words: string[]): void {
  execFileSync('ip', words)
}

function site(host: string): Site {
  return {
    host,
    scheme: 'http',
    pathPrefixes: ['/page', '/after-withdrawal'],
    requestsPerSecond: 20,
    requestsInFlight: 2,
  }
}

/** A site on port 80 of this address. `?to=` redirects; `/visit` gives a cookie. */
async function serveSite(address: string): Promise<void> {
  reached[address] = []
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://site')
    if (pathname === '/visit') {
      pageCookie = request.headers.cookie
      response.writeHead(200, { 'content-type': 'text/html', 'set-cookie': 'session=secret' })
      response.end('<!doctype html><link rel="icon" href="data:,"><p>Welcome back.</p>')
      return
    }
    const { host } = request.headers
    reached[address]?.push({ host, path: request.url ?? '', headers: request.headers })
    const target = searchParams.get('to')
    if (target !== null) {
      response.writeHead(302, { location: target }).end()
      return
    }
    const broken = searchParams.get('body')
    if (broken !== null) {
      sendBroken(response, broken)
      return
    }
    response.writeHead(200, { 'content-type': 'text/html', 'set-cookie': 'crawled=1' })
    response.end(`<!doctype html><title>Page</title><p>A page at ${address}.</p>`)
  })
  await new Promise<void>((resolve) => server.listen(80, address, resolve))
  server.unref()
}

/** Bodies that are not what the head says. */
function sendBroken(response: ServerResponse, kind: string): void {
  const page = gzipSync('<!doctype html><p>A long page.</p>'.repeat(20_000), { level: 0 })
  const head = { 'content-type': 'text/html', 'content-encoding': 'gzip' }
  if (kind === 'notGzip') {
    response.writeHead(200, head).end('This is no gzip at all.')
  } else if (kind === 'brokenGzip') {
    // The first half is good, so the browser hands out bytes before it notices.
    page.fill(0xff, page.length / 2)
    response.writeHead(200, head).end(page)
  } else {
    response.writeHead(200, { 'content-type': 'text/html', 'content-length': 100_000 })
    response.write('<!doctype html><p>The beginning.</p>')
    setTimeout(() => response.destroy(), 100)
  }
}

/**
 * Gives the profile the permission that a person would give in the browser's prompt, which cannot
 * be clicked in a headless browser. The extension still has to ask in a click, and gets nothing
 * before (feasibility notes, row 3c).
 */
async function seedPermissions(build: string, chromium: string, profile: string): Promise<string> {
  const browser = await launch(build, chromium, profile)
  const worker = await browser.waitForTarget((target) => target.type() === 'service_worker')
  const extension = new URL(worker.url()).host
  await browser.close()

  const file = join(profile, 'Default', 'Preferences')
  const preferences = JSON.parse(readFileSync(file, 'utf8'))
  const everySite = {
    api: [],
    explicit_host: ['*://*/*', 'http://*/*', 'https://*/*'],
    manifest_permissions: [],
    scriptable_host: [],
  }
  preferences.extensions.settings[extension].granted_permissions = everySite
  preferences.extensions.settings[extension].runtime_granted_permissions = everySite
  writeFileSync(file, JSON.stringify(preferences))
  return extension
}

function launch(build: string, chromium: string, profile: string): Promise<Browser> {
  const rules = Object.entries(names).map(([name, address]) => `MAP ${name} ${address}`)
  return puppeteer.launch({
    executablePath: chromium,
    headless: true,
    userDataDir: profile,
    // A list of paths here would rewrite the entry in the profile.
    enableExtensions: true,
    args: [
      '--no-sandbox',
      '--disable-features=DisableLoadExtensionCommandLineSwitch',
      `--load-extension=${build}`,
      `--host-resolver-rules=${rules.join(',')}`,
    ],
  })
}

/** The tab that opens on install comes to the front, and a click in a hidden tab never ends. */
async function closeWelcome(browser: Browser): Promise<void> {
  const welcome = await browser.waitForTarget((target) => target.url().endsWith('/welcome.html'))
  await (await welcome.page())?.close()
}

function inWords(observation: Observation): string {
  return observation.outcome === 'fetched'
    ? `fetched: ${observation.status}`
    : `failed: ${observation.reason}`
}

function unanswered(told: SceneReport['told']): string[] {
  return Object.entries(told).flatMap(([name, words]) => (words === 'nothing' ? [name] : []))
}

async function until(isSo: () => boolean, limitMs: number): Promise<void> {
  const endMs = Date.now() + limitMs
  while (!isSo() && Date.now() < endMs) await pause(100)
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

const [build, chromium] = process.argv.slice(2)
if (build === undefined || chromium === undefined) throw new Error('usage: BUILD CHROMIUM')
console.log(JSON.stringify(await main(build, chromium)))
process.exit(0)
