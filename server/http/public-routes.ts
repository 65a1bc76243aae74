import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { fromBase64Url, toBase64Url } from '../../lib/crypto/base64.ts'
import { digest } from '../../lib/protocol/fields.ts'
import { consistencyProof, inclusionProof } from '../../lib/tlog/merkle.ts'
import { campaigns, networkEnvelope } from '../store/campaigns.ts'
import { domainListSize, listedDomains } from '../store/domain-list.ts'
import { latestCheckpoint, leafHashes, leafIndexOf } from '../store/log.ts'
import type { Queryable } from '../store/queryable.ts'
import { joinPage } from './assets/join-page.ts'
import { HttpProblem } from './problem.ts'

/** What anyone may read: who the operator is, campaigns, the log, and two pages for people. */
export function registerPublicRoutes(
  app: FastifyInstance,
  options: { db: Queryable; networkName: string; operatorContact: string; publicOrigin: string },
) {
  const { db } = options
  // Nothing here depends on who asks, and the extension asks from its own origin.
  app.addHook('onRequest', async (request, reply) => {
    reply.header('access-control-allow-origin', '*')
    if (request.method === 'OPTIONS') {
      await reply
        .header('access-control-allow-methods', 'GET, POST')
        .header('access-control-allow-headers', 'authorization, content-type, content-encoding')
        .header('access-control-max-age', '86400')
        .code(204)
        .send()
    }
  })

  app.get('/v1/network', async () => {
    const envelope = await networkEnvelope(db)
    if (!envelope) throw new HttpProblem('overloaded', 'The network is being set up.', 2)
    return envelope
  })

  app.get('/v1/campaigns', async () => {
    const [stored, tree] = await Promise.all([campaigns(db), currentTree(db)])
    return {
      checkpoint: tree.note,
      campaigns: stored
        // A paused one goes on: whoever agreed to it finds its terms here, and can withdraw.
        .filter(({ state }) => state === 'running' || state === 'paused')
        .filter(({ leafIndex }) => leafIndex !== null)
        .map((campaign) => ({
          manifest: campaign.envelope,
          leafIndex: campaign.leafIndex as number,
          inclusionProof: inclusionProof(tree.hashes, campaign.leafIndex as number).map(
            toBase64Url,
          ),
        })),
    }
  })

  app.get('/v1/log/checkpoint', async (_request, reply) => {
    const checkpoint = await latestCheckpoint(db)
    if (!checkpoint) throw new HttpProblem('overloaded', 'The log is being set up.', 2)
    return reply.type('text/plain; charset=utf-8').send(checkpoint.note)
  })

  app.get<{ Querystring: { leaf?: string } }>('/v1/log/proof', async (request) => {
    const leaf = request.query.leaf ?? ''
    if (!/^[0-9a-f]{64}$/.test(leaf)) {
      throw new HttpProblem('malformed', 'Give leaf=HEX, the 64 hexadecimal digits of a leaf hash.')
    }
    const index = await leafIndexOf(db, Buffer.from(leaf, 'hex'))
    const tree = await currentTree(db)
    if (index === null || index >= tree.hashes.length) {
      throw new HttpProblem('not-found', 'No entry of the log has this leaf hash.')
    }
    return {
      leafIndex: index,
      inclusionProof: inclusionProof(tree.hashes, index).map(toBase64Url),
      checkpoint: tree.note,
    }
  })

  app.get<{ Querystring: { from?: string } }>('/v1/log/consistency', async (request) => {
    const tree = await currentTree(db)
    const from = Number(request.query.from)
    if (!Number.isSafeInteger(from) || from < 1 || from > tree.hashes.length) {
      throw new HttpProblem(
        'malformed',
        `Give from=SIZE, a tree size from 1 to ${tree.hashes.length}.`,
      )
    }
    return {
      consistencyProof: consistencyProof(tree.hashes, from).map(toBase64Url),
      checkpoint: tree.note,
    }
  })

  app.get<{ Params: { root: string } }>('/v1/lists/:root', async (request, reply) => {
    const root = digest.safeParse(request.params.root)
    if (!root.success) {
      throw new HttpProblem('malformed', 'A list is named by its root, 32 bytes as base64url.')
    }
    const bytes = fromBase64Url(root.data)
    if ((await domainListSize(db, bytes)) === null) {
      throw new HttpProblem('not-found', 'No list of domains has this root.')
    }
    return (
      reply
        .type('text/plain; charset=utf-8')
        // Named by its digest: another list has another address.
        .header('cache-control', 'public, max-age=31536000, immutable')
        .send(Readable.from(linesOfList(db, bytes), { objectMode: false }))
    )
  })

  app.get('/join', async (_request, reply) =>
    reply
      .type('text/html; charset=utf-8')
      .header('content-security-policy', pageSecurity)
      .send(joinPage(options)),
  )
}

/** Some 200 kB: a slow reader holds that much, and no connection to the database. */
const NAMES_A_PAGE = 10_000

async function* linesOfList(db: Queryable, root: Uint8Array) {
  for (let after = ''; ; ) {
    const names = await listedDomains(db, root, after, NAMES_A_PAGE)
    const last = names.at(-1)
    if (last === undefined) return
    yield `${names.join('\n')}\n`
    after = last
  }
}

const pageSecurity = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

async function currentTree(db: Queryable) {
  const checkpoint = await latestCheckpoint(db)
  if (!checkpoint) throw new HttpProblem('overloaded', 'The log is being set up.', 2)
  return { note: checkpoint.note, hashes: await leafHashes(db, checkpoint.size) }
}
