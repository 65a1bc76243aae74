import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, createServer as createLine, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, expect, test, vi } from 'vitest'
import { readConfig } from '../../server/config.ts'
import { startServer } from '../../server/main.ts'
import { openCampaign, signCampaign } from '../../server/operator.ts'
import { endHalt, putHalt } from '../../server/store/halt.ts'
import { openWorkspace } from '../../server/workspace.ts'
import { startContributor } from './contributor.ts'
import { smallCampaign } from './small-site.ts'

vi.setConfig({ testTimeout: 120_000 })
const silent = pino({ level: 'silent' })
const stops: (() => unknown)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

/** A site whose pages take 8 s; its robots.txt does not. What it was asked for, and what was cut off. */
async function startSlowSite() {
  const asked: { path: string; atMs: number }[] = []
  let cut = 0
  const open = new Set<ServerResponse>()
  const server = createServer((request, response) => {
    const path = request.url ?? ''
    asked.push({ path, atMs: performance.now() })
    if (path === '/robots.txt') {
      response.writeHead(200, { 'content-type': 'text/plain' }).end('User-agent: *\nAllow: /\n')
      return
    }
    open.add(response)
    response.on('close', () => {
      open.delete(response)
      cut += 1
    })
    response.writeHead(200, { 'content-type': 'text/html' }).write('<p>It begins.')
    // Bytes now and then, so that it is slow and not idle.
    const timer = setInterval(() => response.write('.'), 500)
    const end = setTimeout(() => response.end(), 8_000)
    response.on('close', () => {
      clearInterval(timer)
      clearTimeout(end)
    })
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  stops.push(() => {
    server.closeAllConnections()
    server.close()
  })
  const pages = () => asked.filter(({ path }) => path !== '/robots.txt')
  return {
    port: (server.address() as AddressInfo).port,
    asked,
    pages,
    cut: () => cut,
    open: () => open.size,
  }
}

async function scene() {
  const folder = await mkdtemp(join(tmpdir(), 'gleaner-halt-'))
  stops.push(() => rm(folder, { recursive: true, force: true }))
  // As root, PostgreSQL runs as nobody and must pass through.
  await chmod(folder, 0o711)
  const site = await startSlowSite()
  const config = readConfig({ data: folder, port: '0', postgres: process.env.GLEANER_POSTGRES }, {})
  const start = () => startServer(config, silent, { scopeRules: { loopbackAllowed: false } })
  return { folder, site, config, start }
}

/** Forwards until it is told to swallow everything: neither side sees the connection close. */
async function startSilentLine(address: string, targetPort: number) {
  let silent = false
  const open = new Set<Socket>()
  const server = createLine((client) => {
    const target = connect({ host: '127.0.0.1', port: targetPort, localAddress: address })
    for (const [from, to] of [
      [client, target],
      [target, client],
    ] as const) {
      open.add(from)
      from.on('data', (data) => silent || to.write(data))
      from.on('close', () => silent || to.destroy())
      from.on('error', () => {})
    }
  })
  await new Promise<void>((done) => server.listen(0, address, done))
  stops.push(() => {
    for (const socket of open) socket.destroy()
    server.close()
  })
  return {
    port: (server.address() as AddressInfo).port,
    goSilent: () => {
      silent = true
    },
  }
}

test('a halt from another process aborts what runs, stays over a restart, and ends at resume', async () => {
  const { folder, site, config, start } = await scene()
  let server = await start()
  stops.push(() => server.stop())
  const { keys } = server.workspace
  await openCampaign(server.workspace, await signCampaign(smallCampaign(Date.now()), keys.campaign))
  const join = (joinLink: string) =>
    Promise.all(
      ['127.0.61.1', '127.0.62.1'].map((address) =>
        startContributor({ joinLink, folder, address, sitePort: site.port }),
      ),
    )
  let nodes = await join(server.joinLink)
  stops.push(() => Promise.all(nodes.map((node) => node.stop())))
  await vi.waitUntil(() => site.open() > 0, { timeout: 40_000 })

  // As `gleaner halt` does it: a process of its own, which holds no socket.
  const other = await openWorkspace(config, silent, { shared: true })
  stops.push(() => other.close())
  expect(other.postgres).toBeNull()
  await other.database.transaction((tx) => putHalt(tx, 'test'))
  const haltedMs = performance.now()
  await vi.waitUntil(() => site.open() === 0, { timeout: 5_000 })
  expect(site.cut()).toBeGreaterThan(0)
  await sleep(7_000)
  expect(site.asked.filter(({ atMs }) => atMs > haltedMs + 5_000)).toEqual([])
  for (const node of nodes) {
    expect(node.state()).toEqual({ kind: 'waiting', reason: 'halted-by-operator' })
  }
  // What was given back frees the site for when it goes on.
  const { rows } = await other.database.pool.query('select in_flight from host')
  expect(rows).toEqual([{ in_flight: 0 }])

  await Promise.all(nodes.map((node) => node.stop()))
  await other.close()
  await server.stop()
  const before = site.asked.length
  server = await start()
  nodes = await join(server.joinLink)
  await vi.waitUntil(
    () => nodes.every((node) => JSON.stringify(node.state()).includes('halted-by-operator')),
    { timeout: 20_000 },
  )
  expect(site.asked.length).toBe(before)
  await server.workspace.database.transaction(endHalt)
  await vi.waitUntil(() => site.asked.length > before, { timeout: 20_000 })
})

test('a node whose line went silent starts nothing five seconds after the halt', async () => {
  const { folder, site, start } = await scene()
  const server = await start()
  stops.push(() => server.stop())
  const { keys, database } = server.workspace
  const manifest = smallCampaign(Date.now())
  const seeds = Array.from({ length: 30 }, (_, n) => `${manifest.seeds[0]}${n}.html`)
  // So many that each node has more leases than it fetches at once.
  const sites = manifest.sites.map((one) => ({ ...one, requestsInFlight: 32 }))
  const signed = await signCampaign({ ...manifest, seeds, sites }, keys.campaign)
  await openCampaign(server.workspace, signed)
  const [, fingerprint] = server.joinLink.split('#')
  const lines = await Promise.all(
    ['127.0.63.1', '127.0.64.1'].map(async (address) => {
      const line = await startSilentLine(address, Number(new URL(server.origin).port))
      const joinLink = `http://${address}:${line.port}/join#${fingerprint}`
      const node = await startContributor({ joinLink, folder, address, sitePort: site.port })
      stops.push(() => node.stop())
      return line
    }),
  )
  // Both have pages in stock, and would start them as others end, seconds from now.
  const live = `select from lease where state = 'live'`
  await vi.waitUntil(
    async () => site.open() === 8 && (await database.pool.query(live)).rows.length > 12,
    { timeout: 40_000, interval: 100 },
  )
  for (const line of lines) line.goSilent()
  await database.transaction((tx) => putHalt(tx, null))
  const haltedMs = performance.now()
  await sleep(15_000)
  expect(site.asked.filter(({ atMs }) => atMs > haltedMs + 5_000)).toEqual([])
})
