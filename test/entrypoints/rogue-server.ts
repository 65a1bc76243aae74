import { randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { WebSocketServer } from 'ws'
import { formatJoinLink } from '../../lib/consent/join-link.ts'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import { type EnvelopeSigner, signEnvelope } from '../../lib/crypto/dsse.ts'
import { fingerprint, generateKeyPair, publicKeyBytes } from '../../lib/crypto/ed25519.ts'
import type { Campaign, Site } from '../../lib/protocol/campaign.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import type { EnvelopeMessage } from '../../lib/protocol/fields.ts'
import type { Lease } from '../../lib/protocol/lease.ts'
import type { Network } from '../../lib/protocol/network.ts'
import type { Observation } from '../../lib/protocol/observation.ts'
import { payloadType } from '../../lib/protocol/payload-type.ts'
import type { RefusalBatch } from '../../lib/protocol/refusal.ts'
import { signCheckpoint } from '../../lib/tlog/checkpoint.ts'
import { inclusionProof, leafHash, rootHash } from '../../lib/tlog/merkle.ts'
import { formatVerifierKey, noteSigner, noteVerifier } from '../../lib/tlog/note.ts'

/** One HTTP request that reached the server. */
export interface SeenRequest {
  method: string
  path: string
  headers: IncomingMessage['headers']
  body: unknown
}

/**
 * A task server that holds the right keys and does what a test tells it, also what no honest server
 * would: the guards on the device must hold against it. It believes every session.
 */
export interface RogueServer {
  joinLink: string
  campaign: Campaign
  seen: SeenRequest[]
  /** Sockets opened so far. */
  sockets: () => number
  observations: Observation[]
  refusals: RefusalBatch['leases']
  /** Leases the next one who asks gets, signed with the real lease key. */
  offer: (lease: Partial<Lease> & { url: string }) => Lease
  close: () => Promise<void>
}

/** Starts one. `host` is what it listens on and what the join link names. */
export async function startRogueServer(options: {
  host: string
  sites: Site[]
}): Promise<RogueServer> {
  const campaignKey = await makeKey()
  const leaseKey = await makeKey()
  const receiptKey = await makeKey()
  const logKey = await generateKeyPair({ extractable: false })
  const logName = 'rogue.test/log'
  const now = Date.now()

  const network: Network = {
    version: 1,
    name: 'Test network',
    operator: { name: 'Example University', contact: 'crawl@university.example' },
    campaignKey: campaignKey.keyid,
    leaseKey: leaseKey.keyid,
    receiptKey: receiptKey.keyid,
    logKey: formatVerifierKey(noteVerifier(logName, await publicKeyBytes(logKey.publicKey))),
    createdAt: new Date(now).toISOString(),
  }
  const campaign: Campaign = {
    version: 1,
    id: 'manual-pages',
    title: 'Manual pages of the package manager',
    purpose:
      'We gather the public manual so that changes in its wording can be followed over the years. ' +
      'The text becomes an open dataset in which every row can be checked.',
    operator: network.operator,
    use: 'research',
    sites: options.sites,
    canaryHosts: [],
    seeds: options.sites.map(({ scheme, host }) => `${scheme}://${host}/`),
    limits: { pageBytes: 1024 * 1024, pageMs: 20_000, pages: 1_000, depth: 5 },
    retentionDays: 365,
    quorum: 2,
    points: { perPage: 10, perDuplicate: 2, perPayload: 1, budget: 100_000, funding: 'subsidy' },
    validFrom: new Date(now - 86_400_000).toISOString(),
    validUntil: new Date(now + 86_400_000 * 90).toISOString(),
  }
  const networkEnvelope = await envelope(payloadType.network, network, campaignKey)
  const manifest = await envelope(payloadType.campaign, campaign, campaignKey)
  const digest = toBase64Url(sha256(Buffer.from(manifest.payload, 'base64')))
  const leaves = [
    { type: 'network', envelope: networkEnvelope },
    { type: 'campaign', envelope: manifest },
  ].map((entry) => leafHash(Buffer.from(canonicalJson(entry))))
  const checkpoint = await signCheckpoint(
    { origin: logName, size: leaves.length, rootHash: rootHash(leaves), extensions: [] },
    [await noteSigner(logName, logKey)],
  )

  const seen: SeenRequest[] = []
  const observations: Observation[] = []
  const refusals: RefusalBatch['leases'] = []
  const queue: Lease[] = []
  let sockets = 0

  async function answer(path: string, body: unknown): Promise<unknown> {
    switch (path) {
      case '/v1/network':
        return networkEnvelope
      case '/v1/campaigns':
        return {
          checkpoint,
          campaigns: [
            {
              manifest,
              leafIndex: 1,
              inclusionProof: inclusionProof(leaves, 1).map((hash) => toBase64Url(hash)),
            },
          ],
        }
      case '/v1/challenges':
        return { challenge: randomId(), validForMs: 60_000 }
      case '/v1/sessions':
        return {
          token: toBase64Url(randomBytes(32)),
          nodeId: toBase64Url(randomBytes(32)),
          validForMs: 3_600_000,
        }
      case '/v1/consents':
        return undefined
      case '/v1/leases': {
        const { max } = body as { max: number }
        const given = queue.splice(0, max)
        return {
          leases: await Promise.all(
            given.map((lease) => envelope(payloadType.lease, lease, leaseKey)),
          ),
          retryAfterMs: 200,
        }
      }
      case '/v1/observations': {
        const batch = body as { observations: { statement: string }[] }
        return {
          results: await Promise.all(
            batch.observations.map(async ({ statement }) => {
              const observation = JSON.parse(statement) as Observation
              observations.push(observation)
              const receipt = {
                version: 1,
                lease: observation.lease,
                statement: toBase64Url(sha256(statement)),
              }
              return { ok: true, receipt: await envelope(payloadType.receipt, receipt, receiptKey) }
            }),
          ),
        }
      }
      case '/v1/refusals':
        refusals.push(...(body as RefusalBatch).leases)
        return undefined
      case '/v1/follow-ups':
        return { followUps: [], released: [] }
      case '/v1/outcomes':
        return { outcomes: [] }
      case '/v1/account':
        return { pendingPoints: 1_240, postedPoints: 8_630 }
      default:
        return null
    }
  }

  const server = createServer((request, response) => {
    void receive(request).then(async (body) => {
      const path = new URL(request.url ?? '/', 'http://server').pathname
      seen.push({ method: request.method ?? '', path, headers: request.headers, body })
      reply(response, await answer(path, body))
    })
  })
  const socketServer = new WebSocketServer({ server, path: '/v1/socket', maxPayload: 65_536 })
  socketServer.on('connection', (socket) => {
    sockets += 1
    socket.on('message', (text) => {
      const { type } = JSON.parse(String(text)) as { type: string }
      socket.send(JSON.stringify({ type: type === 'authenticate' ? 'ready' : 'pong' }))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, options.host, resolve))
  const { port } = server.address() as AddressInfo

  return {
    joinLink: formatJoinLink(`http://${options.host}:${port}`, campaignKey.fingerprint),
    campaign,
    seen,
    sockets: () => sockets,
    observations,
    refusals,
    offer: (wanted) => {
      const lease: Lease = {
        version: 1,
        id: randomId(),
        campaign: digest,
        kind: 'page',
        nonce: randomId(),
        validForMs: 60_000,
        maxBytes: 1024 * 1024,
        maxMs: 20_000,
        maxRedirects: 3,
        ...wanted,
      }
      queue.push(lease)
      for (const client of socketServer.clients) client.send(JSON.stringify({ type: 'work' }))
      return lease
    },
    close: async () => {
      for (const client of socketServer.clients) client.terminate()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

type Key = EnvelopeSigner & { fingerprint: string }

async function makeKey(): Promise<Key> {
  const pair = await generateKeyPair({ extractable: false })
  const raw = await publicKeyBytes(pair.publicKey)
  return { keyid: toBase64Url(raw), privateKey: pair.privateKey, fingerprint: fingerprint(raw) }
}

function envelope(type: string, statement: object, key: Key): Promise<EnvelopeMessage> {
  return signEnvelope(type, Buffer.from(JSON.stringify(statement)), [key])
}

function randomId(): string {
  return toBase64Url(randomBytes(16))
}

async function receive(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const bytes = Buffer.concat(chunks)
  const body = request.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes
  const isJson = request.headers['content-type']?.startsWith('application/json')
  return isJson && body.length > 0 ? JSON.parse(body.toString()) : body
}

function reply(response: ServerResponse, answer: unknown): void {
  if (answer === undefined) {
    response.writeHead(204).end()
    return
  }
  const status = answer === null ? 404 : 200
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(answer))
}
