import type { FastifyInstance } from 'fastify'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import { consistencyProof, inclusionProof } from '../../lib/tlog/merkle.ts'
import { campaigns, networkEnvelope } from '../store/campaigns.ts'
import { latestCheckpoint, leafHashes, leafIndexOf } from '../store/log.ts'
import type { Queryable } from '../store/queryable.ts'
import { crawlerPage } from './assets/crawler-page.ts'
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
        .filter((campaign) => campaign.state === 'running' && campaign.leafIndex !== null)
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

  app.get('/join', async (_request, reply) =>
    reply
      .type('text/html; charset=utf-8')
      .header('content-security-policy', pageSecurity)
      .send(joinPage(options)),
  )
  app.get('/crawler', async (_request, reply) =>
    reply
      .type('text/html; charset=utf-8')
      .header('content-security-policy', pageSecurity)
      .send(crawlerPage(options)),
  )
}

const pageSecurity = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

async function currentTree(db: Queryable) {
  const checkpoint = await latestCheckpoint(db)
  if (!checkpoint) throw new HttpProblem('overloaded', 'The log is being set up.', 2)
  return { note: checkpoint.note, hashes: await leafHashes(db, checkpoint.size) }
}
