import { createHash, randomBytes } from 'node:crypto'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import pLimit from 'p-limit'
import { networkBlock, networkBlockWide } from '../../lib/capture/public-host.ts'
import { decodeSentenceList } from '../../lib/capture/sentence-list.ts'
import { fromBase64Url, toBase64 } from '../../lib/crypto/base64.ts'
import { equalBytes, sha256 } from '../../lib/crypto/digest.ts'
import { preAuthEncoding, verifyEnvelope } from '../../lib/crypto/dsse.ts'
import { isUsablePublicKey, verify } from '../../lib/crypto/ed25519.ts'
import { attestationBatch } from '../../lib/protocol/attestation-batch.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import { consent } from '../../lib/protocol/consent.ts'
import { envelope as envelopeSchema } from '../../lib/protocol/fields.ts'
import { attestation } from '../../lib/protocol/follow-up.ts'
import { leaseRequest } from '../../lib/protocol/lease.ts'
import {
  type FetchedObservation,
  observation,
  observationBatch,
} from '../../lib/protocol/observation.ts'
import { payloadType } from '../../lib/protocol/payload-type.ts'
import { refusalBatch } from '../../lib/protocol/refusal.ts'
import { certificate, session, sessionRequest } from '../../lib/protocol/session.ts'
import { grantWork, leaseEnvelope } from '../lease/issue.ts'
import { nodeAccount } from '../ledger/transfer.ts'
import type { BlobStore } from '../store/blob-store.ts'
import {
  addChallenge,
  openSession,
  putConsent,
  type SessionOfNode,
  takeChallenge,
  useSession,
} from '../store/contributors.ts'
import type { Database } from '../store/database.ts'
import { domainProofs } from '../store/domain-list.ts'
import { endLeases, grantLeases } from '../store/leases.ts'
import {
  acceptObservations,
  askedFollowUps,
  openFollowUps,
  putAttestations,
  putPayload,
  putSentenceList,
  refuseFollowUps,
  releasedLeases,
  type SignedObservation,
} from '../store/observations.ts'
import type { OperatorKeys } from '../store/operator-keys.ts'
import { outcomesAfter } from '../store/outcomes.ts'
import type { Queryable } from '../store/queryable.ts'
import { parsed } from './app.ts'
import { HttpProblem, problemBody } from './problem.ts'
import { signReceipt } from './receipt.ts'

/** Minutes are enough to sign; more only helps somebody who collects challenges. */
const challengeMs = 2 * 60_000
/**
 * Lease calls at once: more only wait for each other's hosts. And how many may wait, which at some
 * fifty calls a second is ten seconds, less than a node waits for an answer.
 */
const leasesAtOnce = 4
const mostWaitingLeases = 500
/** DESIGN threat table: sessions are opened again every half hour. */
const sessionMs = 30 * 60_000

/** Not the page's fault: the same node may be given it again. A fetch may have begun. */
const passingReasons: ReadonlySet<string> = new Set(['paused', 'expired'])

/** The calls that a node makes. Handlers record; the pipeline decides. */
export function registerNodeRoutes(
  app: FastifyInstance,
  options: { database: Database; blobs: BlobStore; keys: OperatorKeys; leaseMs: number },
) {
  const { database, blobs, keys, leaseMs } = options
  const db = database.pool
  const leasing = pLimit(leasesAtOnce)

  app.post('/v1/challenges', async () => {
    const id = randomBytes(16)
    await addChallenge(db, id, challengeMs)
    return { challenge: id.toString('base64url'), validForMs: challengeMs }
  })

  app.post('/v1/sessions', async (request) => {
    const body = parsed(sessionRequest, request.body)
    const accountKey = fromBase64Url(body.certificate.signatures[0]?.keyid ?? '')
    const certified = await statement(body.certificate, payloadType.certificate, accountKey)
    const { nodeKey } = parsed(certificate, certified)
    const publicKey = fromBase64Url(nodeKey)
    const said = parsed(session, await statement(body.session, payloadType.session, publicKey))
    if (said.fingerprint !== keys.campaign.fingerprint) {
      throw new HttpProblem('wrong-network', 'The session names another network’s fingerprint.')
    }
    if (!(await takeChallenge(db, fromBase64Url(said.challenge)))) {
      throw new HttpProblem('unknown-challenge', 'Ask for a new challenge and sign that.')
    }
    const token = randomBytes(32)
    const nodeId = sha256(publicKey)
    await database.transaction((tx) =>
      openSession(tx, {
        tokenDigest: sha256(token),
        nodeId,
        accountId: sha256(accountKey),
        publicKey,
        client: said.client,
        block: networkBlock(request.ip),
        blockWide: networkBlockWide(request.ip),
        validForMs: sessionMs,
      }),
    )
    return {
      token: token.toString('base64url'),
      nodeId: Buffer.from(nodeId).toString('base64url'),
      validForMs: sessionMs,
    }
  })

  const node = async (request: FastifyRequest): Promise<SessionOfNode> => {
    const token = /^Bearer ([A-Za-z0-9_-]{43})$/.exec(request.headers.authorization ?? '')?.[1]
    const found =
      token &&
      (await useSession(
        db,
        sha256(Buffer.from(token, 'base64url')),
        networkBlock(request.ip),
        networkBlockWide(request.ip),
      ))
    if (!found) throw new HttpProblem('no-session', problemBody('no-session').detail)
    return found
  }

  app.post('/v1/consents', async (request, reply) => {
    const me = await node(request)
    const envelope = parsed(envelopeSchema, request.body)
    const said = parsed(consent, await statement(envelope, payloadType.consent, me.publicKey))
    await database.transaction(async (tx) => {
      const stored = await putConsent(tx, {
        nodeId: me.nodeId,
        campaign: fromBase64Url(said.campaign),
        act: said.act,
        envelope,
      })
      if (!stored.known) {
        throw new HttpProblem('unknown-campaign', 'No campaign here has this manifest digest.')
      }
      const reason = 'consent withdrawn'
      await endLeases(
        tx,
        stored.leases.map((id) => ({ id, reason })),
        'refused',
      )
    })
    return reply.code(204).send()
  })

  app.post('/v1/leases', async (request) => {
    const me = await node(request)
    const { campaigns, max } = parsed(leaseRequest, request.body)
    // Leases are shed first: what nodes have to say must still find a connection.
    if (leasing.pendingCount >= mostWaitingLeases) {
      throw new HttpProblem('overloaded', 'More nodes ask for work than can be served now.', 5)
    }
    const picks = await leasing(() =>
      database.transaction((tx) =>
        grantLeases(tx, {
          nodeId: me.nodeId,
          accountId: me.accountId,
          block: me.block,
          campaigns: campaigns.map(fromBase64Url),
          max,
          validForMs: leaseMs,
          newLease: () => ({ id: randomBytes(16), nonce: randomBytes(16) }),
        }),
      ),
    )
    const wide = picks.flatMap((pick) =>
      pick.list
        ? [
            {
              pick,
              root: fromBase64Url(pick.list.root),
              size: pick.list.size,
              host: new URL(pick.url).hostname,
            },
          ]
        : [],
    )
    const domains = await domainProofs(db, wide)
    const domainOf = new Map(wide.map(({ pick }, at) => [pick, domains[at] ?? null]))
    return {
      leases: await Promise.all(
        picks.map((pick) =>
          leaseEnvelope({ ...pick, domain: domainOf.get(pick) ?? null }, leaseMs, keys.lease),
        ),
      ),
      retryAfterMs:
        picks.length > 0
          ? grantWork.retryAfterMs
          : await retryAfterMs(db, campaigns.map(fromBase64Url)),
    }
  })

  app.post('/v1/observations', async (request) => {
    const me = await node(request)
    const { observations } = parsed(observationBatch, request.body)
    const read = await Promise.all(observations.map(readObservation))
    const accepted = read.filter((one): one is SignedObservation => !(one instanceof HttpProblem))
    const answers = await database.transaction((tx) => acceptObservations(tx, me.nodeId, accepted))
    const results = await Promise.all(
      read.map(async (one) => {
        if (one instanceof HttpProblem) {
          return { ok: false as const, problem: problemBody(one.reason, one.message) }
        }
        const answer = answers[accepted.indexOf(one)]
        if (!answer?.ok) {
          return { ok: false as const, problem: problemBody(answer?.reason ?? 'internal') }
        }
        return { ok: true as const, receipt: await signReceipt(one, keys.receipt) }
      }),
    )
    return { results }
  })

  app.get('/v1/follow-ups', async (request) => {
    const me = await node(request)
    const [asked, released] = await Promise.all([
      openFollowUps(db, me.nodeId),
      releasedLeases(db, me.nodeId),
    ])
    return {
      followUps: asked.map((one) => ({
        id: one.id.toString('base64url'),
        lease: one.leaseId.toString('base64url'),
        validForMs: Math.max(0, one.validForMs),
        kind: one.kind,
        ...publicRequest(one.kind, one.request),
      })),
      released: released.map((lease) => lease.toString('base64url')),
    }
  })

  app.post<{ Params: { id: string } }>('/v1/follow-ups/:id/sentences', async (request, reply) => {
    const me = await node(request)
    const list = octets(request)
    const decoded = decodeSentenceList(list)
    if (!decoded.ok) {
      throw new HttpProblem('malformed', `The sentence list does not decode: ${decoded.reason}.`)
    }
    await database.transaction(async (tx) => {
      const asked = await followUpOf(tx, me, request.params.id, 'sentences')
      const seen = fetched(asked.statement)
      if (!equalBytes(sha256(list), fromBase64Url(seen.sentences.digest))) {
        throw new HttpProblem(
          'digest-mismatch',
          'The list is not the one whose digest was observed.',
        )
      }
      await putSentenceList(tx, asked, list)
    })
    return reply.code(204).send()
  })

  app.post<{ Params: { id: string } }>('/v1/follow-ups/:id/payload', async (request, reply) => {
    const me = await node(request)
    const payload = octets(request)
    // Up to 16 MiB: the native hash takes a tenth of the time of the shared one.
    const digest = createHash('sha256').update(payload).digest()
    await database.transaction(async (tx) => {
      const asked = await followUpOf(tx, me, request.params.id, 'payload')
      const seen = fetched(asked.statement)
      if (
        payload.length !== seen.payload.bytes ||
        !equalBytes(digest, fromBase64Url(seen.payload.digest))
      ) {
        throw new HttpProblem('digest-mismatch', 'The payload is not the one that was observed.')
      }
      const freshness = createHash('sha256').update(asked.nonce).update(payload).digest()
      if (!equalBytes(freshness, fromBase64Url(seen.freshness))) {
        throw new HttpProblem('nonce-mismatch', problemBody('nonce-mismatch').title)
      }
      // Blob first, then the row that points to it: a crash between leaves an unused blob.
      const blob = await blobs.put(digest, payload)
      await putPayload(tx, asked, { digest, bytes: payload.length, blob })
    })
    return reply.code(204).send()
  })

  app.post('/v1/attestations', async (request) => {
    const me = await node(request)
    const { attestations } = parsed(attestationBatch, request.body)
    return database.transaction(async (tx) => {
      const open = await askedFollowUps(
        tx,
        me.nodeId,
        attestations.map((one) => fromBase64Url(one.followUp)),
      )
      const asked = new Map(open.map((one) => [one.id.toString('base64url'), one]))
      const good: Parameters<typeof putAttestations>[1][number][] = []
      const results = await Promise.all(
        attestations.map(async (given) => {
          const question = asked.get(given.followUp)
          // Taken out: the same follow-up twice in one batch is answered once.
          asked.delete(given.followUp)
          if (question?.kind !== 'attest') {
            return { ok: false as const, problem: problemBody('unknown-follow-up') }
          }
          const wanted = question.request as AttestRequest
          const body = canonicalJson(
            attestation.parse({
              campaign: question.campaign.toString('base64url'),
              day: wanted.day,
              gaps: given.gaps,
              ...(wanted.payload === null ? {} : { payload: wanted.payload }),
              text: wanted.text,
              transform: 'gleaner-text/1',
              url: wanted.url,
            }),
          )
          const bytes = new TextEncoder().encode(body)
          const sig = fromBase64Url(given.sig)
          const signed = preAuthEncoding(payloadType.attestation, bytes)
          if (!(await verify(question.key, sig, signed))) {
            return { ok: false as const, problem: problemBody('attestation-mismatch') }
          }
          good.push({
            asked: question,
            textDigest: fromBase64Url(wanted.text),
            gaps: given.gaps,
            envelope: {
              payloadType: payloadType.attestation,
              payload: toBase64(bytes),
              signatures: [{ keyid: question.key.toString('base64url'), sig: toBase64(sig) }],
            },
          })
          return { ok: true as const }
        }),
      )
      await putAttestations(tx, good)
      return { results }
    })
  })

  app.post('/v1/refusals', async (request, reply) => {
    const me = await node(request)
    const refused = parsed(refusalBatch, request.body)
    await database.transaction(async (tx) => {
      const mine = await tx.query<{ id: Buffer }>(
        `select id from lease where id = any($1::bytea[]) and node_id = $2 order by id for update`,
        [refused.leases.map((one) => fromBase64Url(one.lease)), me.nodeId],
      )
      const reasons = new Map(refused.leases.map((one) => [one.lease, one.reason]))
      const ends = mine.rows.map(({ id }) => ({
        id,
        reason: reasons.get(id.toString('base64url')) ?? 'refused',
      }))
      const isPassing = ({ reason }: { reason: string }) => passingReasons.has(reason)
      await endLeases(
        tx,
        ends.filter((end) => !isPassing(end)),
        'refused',
      )
      await endLeases(tx, ends.filter(isPassing), 'expired')
      await refuseFollowUps(
        tx,
        me.nodeId,
        refused.followUps.map((one) => ({ id: fromBase64Url(one.followUp), reason: one.reason })),
      )
    })
    return reply.code(204).send()
  })

  app.get<{ Querystring: { after?: string } }>('/v1/outcomes', async (request) => {
    const me = await node(request)
    const after = Number(request.query.after ?? 0)
    if (!Number.isSafeInteger(after) || after < 0) {
      throw new HttpProblem('malformed', 'Give after=SEQUENCE, the last one that was read, or 0.')
    }
    return { outcomes: await outcomesAfter(db, me.nodeId, after) }
  })

  app.get('/v1/account', async (request) => {
    const me = await node(request)
    const { rows } = await db.query<{ credits_pending: number; credits_posted: number }>(
      'select credits_pending, credits_posted from account where id = $1',
      [nodeAccount(me.accountId)],
    )
    return {
      pendingPoints: rows[0]?.credits_pending ?? 0,
      postedPoints: rows[0]?.credits_posted ?? 0,
    }
  })
}

/**
 * When a node that got nothing should ask again: soon while a host is only full, and not before the
 * first host with work may be spoken to when all are left alone.
 */
async function retryAfterMs(db: Queryable, campaigns: readonly Uint8Array[]): Promise<number> {
  const { rows } = await db.query<{
    work: boolean
    busy: boolean
    due_in_ms: number | null
    nodes: number
  }>(
    `select count(q.due_at) > 0 and not exists (select from halt) as work,
            -- A host that has work and is only full is free again at any moment.
            coalesce(bool_or(exists (select 1 from queue f where f.campaign = c.digest and f.ready
                                     and f.due_at = 'infinity')), false) as busy,
            (extract(epoch from min(q.due_at) filter (where q.due_at < 'infinity') - now()) * 1000)::float8
              as due_in_ms,
            (select count(*) from node where seen_at > now() - interval '2 minutes') as nodes
     from campaign c cross join lateral (
       select due_at from queue where campaign = c.digest and ready order by due_at limit 1) as q
     where c.digest = any($1::bytea[]) and c.state = 'running'`,
    [campaigns],
  )
  const { work, busy, due_in_ms: dueInMs, nodes } = rows[0] ?? noWork
  if (!work) return grantWork.idleRetryMs
  const sharedMs = grantWork.busyRetryMsPerNode * Math.max(1, nodes)
  // Whoever waits for one host comes back one after another.
  const untilDueMs = busy || dueInMs === null || dueInMs < sharedMs ? 0 : dueInMs
  const waitMs = untilDueMs + sharedMs * (untilDueMs > 0 ? Math.random() : 1)
  return Math.ceil(Math.min(grantWork.idleRetryMs, waitMs))
}

const noWork = { work: false, busy: false, due_in_ms: null, nodes: 1 }

/** What the verify stage asked to be attested, as the follow-up's row keeps it. */
export interface AttestRequest {
  url: string
  day: string
  indexes: number[]
  exact: boolean
  /** Digest of the row text; not sent: the node finds it by itself. */
  text: string
  payload: string | null
}

function publicRequest(kind: string, request: unknown) {
  if (kind !== 'attest') return {}
  const { url, day, indexes, exact } = request as AttestRequest
  return { url, day, indexes, exact }
}

async function readObservation(given: {
  statement: string
  key: string
  sig: string
}): Promise<SignedObservation | HttpProblem> {
  const key = fromBase64Url(given.key)
  const signature = fromBase64Url(given.sig)
  const signed = preAuthEncoding(payloadType.observation, new TextEncoder().encode(given.statement))
  if (!(await verify(key, signature, signed))) {
    return new HttpProblem('bad-signature', 'The signature does not fit statement and key.')
  }
  try {
    const said = parsed(observation, JSON.parse(given.statement))
    return {
      leaseId: fromBase64Url(said.lease),
      statement: given.statement,
      key,
      signature,
      observation: said,
    }
  } catch (error) {
    if (error instanceof HttpProblem) return error
    return new HttpProblem('malformed', `The statement is not JSON: ${(error as Error).message}.`)
  }
}

function fetched(statement: string): FetchedObservation {
  const seen = observation.parse(JSON.parse(statement))
  if (seen.outcome !== 'fetched') throw new Error('a follow-up was asked about a failed fetch')
  return seen
}

async function followUpOf(
  tx: Parameters<typeof askedFollowUps>[0],
  me: SessionOfNode,
  id: string,
  kind: 'sentences' | 'payload',
) {
  const known = /^[A-Za-z0-9_-]{22}$/.test(id)
    ? await askedFollowUps(tx, me.nodeId, [Buffer.from(id, 'base64url')])
    : []
  if (known[0]?.kind !== kind) {
    throw new HttpProblem('unknown-follow-up', 'It is answered, expired, or another node’s.')
  }
  return known[0]
}

function octets(request: FastifyRequest): Buffer {
  if (!Buffer.isBuffer(request.body)) {
    throw new HttpProblem('malformed', 'Send the bytes as application/octet-stream.')
  }
  return request.body
}

async function statement(
  envelope: Parameters<typeof verifyEnvelope>[0],
  type: string,
  key: Uint8Array,
): Promise<unknown> {
  if (!isUsablePublicKey(key)) {
    throw new HttpProblem('bad-signature', 'The key is not a usable Ed25519 public key.')
  }
  const verdict = await verifyEnvelope(envelope, type, key)
  if (!verdict.ok) {
    throw new HttpProblem(
      'bad-signature',
      `The ${type} envelope does not verify: ${verdict.reason}.`,
    )
  }
  try {
    return JSON.parse(new TextDecoder().decode(verdict.payload)) as unknown
  } catch {
    throw new HttpProblem('malformed', `The ${type} envelope does not hold JSON.`)
  }
}
