import { mkdtemp } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { formatJoinLink } from '../../../lib/consent/join-link.ts'
import type { FetchHop } from '../../../lib/runner/ports.ts'
import { createNodeHop, type NodeHop } from '../../../server/node/hop.ts'
import { type NodeOptions, type RunningNode, runNode } from '../../../server/node/run-node.ts'
import { campaignOver, Operator } from '../../lib/runner/operator.ts'
import { page, until } from '../../lib/runner/place.ts'
import { ScriptedServer } from '../../lib/runner/scripted-server.ts'

let server: ScriptedServer
let site: Server
let node: NodeHop
let folder: string
let running: RunningNode | undefined

beforeEach(async () => {
  const operator = await Operator.make()
  server = await ScriptedServer.start(operator)
  server.campaigns.push(
    await operator.offer(campaignOver('site.example', { id: 'docs' })),
    await operator.offer(campaignOver('blog.example', { id: 'blog' })),
  )
  site = createServer(page)
  await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve))
  const address = `127.0.0.1:${(site.address() as AddressInfo).port}`
  node = createNodeHop({
    userAgent: 'gleaner-test',
    hostMap: { 'site.example': address },
    loopbackAllowed: true,
  })
  folder = await mkdtemp(join(tmpdir(), 'gleaner-node-'))
})
afterEach(async () => {
  await running?.stop()
  running = undefined
  await node.close()
  await server.stop()
  site.close()
})

async function run(changes: Partial<NodeOptions> = {}): Promise<RunningNode> {
  running = await runNode({
    joinLink: formatJoinLink(server.origin, server.operator.fingerprint),
    folder,
    campaigns: 'all',
    act: '--campaign all',
    hop: node.hop,
    scope: { loopbackAllowed: true },
    client: 'gleaner-test/1',
    ...changes,
  })
  return running
}

test('joins, consents, and works a page to its outcome', async () => {
  server.queue.push({ url: 'http://site.example/1' })
  const node = await run()
  expect(node.campaigns.map(({ campaign }) => campaign.id)).toEqual(['docs', 'blog'])
  await until('the page is closed', () => server.outcomes.length === 1)
  await until('the journal knows', () => node.journal()[0]?.outcome?.verdict === 'valid')
  expect(server.consents.map(({ act }) => act)).toEqual(['given', 'given'])
  expect(server.complaints).toEqual([])
  await node.stop()
  expect(node.state()).toEqual({ kind: 'off' })
})

test('is the same node under the same consent when it is started again', async () => {
  const first = await run({ campaigns: ['docs'] })
  await until('consent was told', () => server.consents.length === 1)
  await first.stop()
  const second = await run({ campaigns: ['docs'] })
  await until('consent was told again', () => server.consents.length === 2)
  expect(second.nodeId).toBe(first.nodeId)
  expect(second.accountId).toBe(first.accountId)
  expect(server.consents[1]).toEqual(server.consents[0])
})

test('a hop that is wrapped changes what is observed: how the demo’s cheat is made', async () => {
  const forging: FetchHop = async (request) => {
    const hop = await node.hop(request)
    if (hop.kind !== 'response') return hop
    const honest = hop.body
    async function* forged(): AsyncGenerator<Uint8Array> {
      for await (const chunk of honest) {
        yield new TextEncoder().encode(new TextDecoder().decode(chunk).replaceAll('1', '7'))
      }
    }
    return { ...hop, body: forged() }
  }
  server.queue.push({ url: 'http://site.example/1' })
  await run({ hop: forging })
  await until('the page is closed', () => server.outcomes.length === 1)
  expect(server.records()[0]?.attestation?.text).toBe('This is /7. It is a page.\nThe end.')
})

describe('refuses to join', () => {
  const link = () => formatJoinLink(server.origin, server.operator.fingerprint)
  test.each<[string, () => Partial<NodeOptions>, string]>([
    ['text that is no link', () => ({ joinLink: 'hello' }), 'not-a-link'],
    ['a link without fingerprint', () => ({ joinLink: `${server.origin}/join` }), 'no-fingerprint'],
    [
      'plain http to another machine',
      () => ({ joinLink: link().replace('127.0.0.1', 'barley.example') }),
      'insecure',
    ],
    [
      'a network under another key',
      () => ({ joinLink: formatJoinLink(server.origin, `${'A'.repeat(43)}`) }),
      'another-network',
    ],
    ['a campaign that is not offered', () => ({ campaigns: ['news'] }), 'unknown-campaign'],
  ])('%s', async (_, changes, reason) => {
    await expect(run(changes())).rejects.toMatchObject({ name: 'JoinRefused', reason })
    expect(server.calls).not.toContain('POST /v1/sessions')
  })

  test('and says what to do', async () => {
    await expect(run({ campaigns: ['news'] })).rejects.toThrow(
      'The network offers no campaign "news" now. It offers: docs, blog.',
    )
  })
})
