import { randomBytes } from 'node:crypto'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { fromBase64Url } from '../../lib/crypto/base64.ts'
import { randomId } from '../../lib/protocol/fields.ts'
import {
  type OptOut,
  type OptOutScope,
  optOutRequest,
  optOutScope,
  type SiteReport,
} from '../../lib/protocol/opt-out.ts'
import { problemStatus } from '../../lib/protocol/problem.ts'
import { proofPlaces, proofRecord, readTarget, targetText, waitingMs } from '../frontier/opt-out.ts'
import type { Database } from '../store/database.ts'
import {
  askForLook,
  looksFor,
  optOutById,
  optOutOfHost,
  requestOptOut,
  type StoredOptOut,
} from '../store/opt-outs.ts'
import type { Queryable } from '../store/queryable.ts'
import { campaignsOf, originsOf, publicCampaigns } from '../store/sites.ts'
import { parsed } from './app.ts'
import { crawlerPage } from './assets/crawler-page.ts'
import { optOutFormPage, optOutStatusPage } from './assets/opt-out-page.ts'
import { pageSecurity } from './assets/page.ts'
import { sitePage } from './assets/site-page.ts'
import { HttpProblem } from './problem.ts'

/** Two short fields; a form that is longer is not ours. */
const formBytes = 4096

export interface OptOutRoutes {
  database: Database
  networkName: string
  operatorContact: string
  publicOrigin: string
}

/** What a site's owner may ask and read, as calls and as pages that need no script. */
export function registerOptOutRoutes(app: FastifyInstance, options: OptOutRoutes) {
  // In a context of its own: forms are read here and nowhere else.
  app.register(async (routes) => {
    routes.addContentTypeParser(
      'application/x-www-form-urlencoded',
      { parseAs: 'string', bodyLimit: formBytes },
      async (_request: unknown, body: string | Buffer) => new URLSearchParams(String(body)),
    )
    addCalls(routes, options)
    addPages(routes, options)
  })
}

function addCalls(app: FastifyInstance, { database, publicOrigin }: OptOutRoutes) {
  const db = database.pool

  app.post('/v1/opt-outs', async (request, reply) => {
    const { scope, target } = parsed(optOutRequest, request.body)
    const asked = await ask(database, scope, target)
    const message = await messageOf(db, asked.optOut, publicOrigin)
    return reply
      .code(asked.kind === 'new' ? 201 : 200)
      .header('location', `/v1/opt-outs/${message.id}`)
      .send(message)
  })

  app.get<{ Params: { id: string } }>('/v1/opt-outs/:id', async (request) =>
    messageOf(db, await known(db, request.params.id), publicOrigin),
  )

  app.post<{ Params: { id: string } }>('/v1/opt-outs/:id/check', async (request, reply) => {
    await lookNow(database, request.params.id)
    const message = await messageOf(db, await known(db, request.params.id), publicOrigin)
    return reply.code(202).send(message)
  })

  app.get<{ Querystring: { host?: unknown } }>('/v1/sites', async (request) =>
    reportOf(db, hostGiven(request.query.host)),
  )
}

function addPages(app: FastifyInstance, options: OptOutRoutes) {
  const { database, operatorContact, publicOrigin } = options
  const db = database.pool

  app.get('/crawler', async (_request, reply) =>
    page(reply, crawlerPage(options, await publicCampaigns(db))),
  )

  app.get<{ Querystring: { host?: unknown } }>('/site', async (request, reply) => {
    const given = typeof request.query.host === 'string' ? request.query.host : ''
    if (given === '') return page(reply, sitePage({ host: '', problem: null }, null))
    const shown = await orProblem(async () => reportOf(db, hostGiven(given)))
    if (!(shown instanceof HttpProblem)) {
      return page(reply, sitePage({ host: given, problem: null }, shown))
    }
    return page(reply, sitePage({ host: given, problem: shown.message }, null), shown)
  })

  app.get<{ Querystring: { target?: unknown } }>('/opt-out', async (request, reply) => {
    const { target } = request.query
    const asked = typeof target === 'string' ? target.slice(0, 2048) : ''
    return page(
      reply,
      optOutFormPage({ scope: 'domain', target: asked, problem: null }, operatorContact),
    )
  })

  app.post('/opt-out', async (request, reply) => {
    const form = request.body instanceof URLSearchParams ? request.body : new URLSearchParams()
    const scope = optOutScope.safeParse(form.get('scope'))
    const target = form.get('target') ?? ''
    const asked = await orProblem(async () => {
      if (scope.success) return ask(database, scope.data, target)
      throw new HttpProblem('malformed', 'Choose one of the three: a domain, a host, or a part.')
    })
    if (!(asked instanceof HttpProblem)) {
      return reply.redirect(`/opt-out/${asked.optOut.id.toString('base64url')}`, 303)
    }
    const shown = {
      scope: scope.success ? scope.data : ('domain' as const),
      target,
      problem: asked.message,
    }
    return page(reply, optOutFormPage(shown, operatorContact), asked)
  })

  app.get<{ Params: { id: string } }>('/opt-out/:id', async (request, reply) => {
    const found = await orProblem(() => known(db, request.params.id))
    if (found instanceof HttpProblem) {
      const form = { scope: 'domain' as const, target: '', problem: found.message }
      return page(reply, optOutFormPage(form, operatorContact), found)
    }
    const optOut = await messageOf(db, found, publicOrigin)
    return page(reply, optOutStatusPage(optOut, operatorContact))
  })

  app.post<{ Params: { id: string } }>('/opt-out/:id/check', async (request, reply) => {
    const { id } = await messageOf(db, await known(db, request.params.id), publicOrigin)
    const refused = await orProblem(() => lookNow(database, id))
    // Pressed twice: a look is under way, and the page shows it.
    if (refused instanceof HttpProblem && refused.reason !== 'too-many-requests') throw refused
    return reply.redirect(`/opt-out/${id}`, 303)
  })
}

/** Takes a request in, or refuses it with what was wrong or when to come again. */
async function ask(database: Database, scope: OptOutScope, given: string) {
  const read = readTarget(scope, given)
  if (!read.ok) throw new HttpProblem('malformed', read.problem)
  const made = { id: randomBytes(16), token: randomBytes(16).toString('base64url') }
  const asked = await database.transaction((tx) => requestOptOut(tx, read.target, made))
  switch (asked.kind) {
    case 'new':
    case 'known':
      return asked
    case 'too-many':
      throw new HttpProblem(
        'too-many-requests',
        `Many are asking to opt out at this moment. Try again in ${asked.retryAfterSeconds} s.`,
        asked.retryAfterSeconds,
      )
    case 'full':
      throw new HttpProblem(
        'overloaded',
        'Too many requests wait for their proof. Disallow the agent gleaner in robots.txt, which holds within 24 hours, and try again later.',
        asked.retryAfterSeconds,
      )
  }
}

async function lookNow(database: Database, id: string) {
  const asked = await database.transaction((tx) => askForLook(tx, idGiven(id)))
  switch (asked.kind) {
    case 'asked':
    case 'settled':
      return
    case 'unknown':
      throw notKnown()
    case 'too-soon':
      throw new HttpProblem(
        'too-many-requests',
        `The proof is being looked for, or was a moment ago. Try again in ${asked.retryAfterSeconds} s.`,
        asked.retryAfterSeconds,
      )
  }
}

async function known(db: Queryable, id: string): Promise<StoredOptOut> {
  const optOut = await optOutById(db, idGiven(id))
  if (!optOut) throw notKnown()
  return optOut
}

function idGiven(id: string): Uint8Array {
  const read = randomId.safeParse(id)
  if (!read.success) throw notKnown()
  return fromBase64Url(read.data)
}

const notKnown = () =>
  new HttpProblem(
    'not-found',
    'No opt-out has this id. Ask again with the same target: a request that waits is found by it.',
  )

async function messageOf(db: Queryable, stored: StoredOptOut, origin: string): Promise<OptOut> {
  const id = stored.id.toString('base64url')
  const looks = await looksFor(db, stored)
  const { dns, files } = proofPlaces(stored)
  return {
    id,
    scope: stored.scope,
    target: targetText(stored),
    state: stored.state,
    token: stored.token,
    proofs: {
      // A name too long for one more label leaves the file; a parent stands in where there is one.
      dns: { name: dns[0] ?? stored.host, type: 'TXT', value: proofRecord(stored.token) },
      file: { url: files[0] ?? '', body: stored.token },
    },
    status: `${origin}/opt-out/${id}`,
    requestedAt: stored.requestedAt.toISOString(),
    expiresAt: new Date(stored.requestedAt.getTime() + waitingMs).toISOString(),
    verifiedAt: stored.verifiedAt?.toISOString() ?? null,
    reason: stored.reason?.slice(0, 1000) || null,
    stopped: { tasks: stored.tasks, leases: stored.leases, records: stored.records },
    leafIndex: stored.leafIndex,
    looks: looks.map(({ kind, at, lookedAt, found }) => ({
      kind,
      at,
      lookedAt: lookedAt?.toISOString() ?? null,
      found: found?.slice(0, 1000) || null,
    })),
  }
}

/** A host for the look-up: read as forgivingly as a target. */
function hostGiven(given: unknown): string {
  const read = readTarget('host', typeof given === 'string' ? given : '')
  if (!read.ok) throw new HttpProblem('malformed', read.problem)
  return read.target.host
}

async function reportOf(db: Queryable, host: string): Promise<SiteReport> {
  const [origins, campaigns, optOut] = await Promise.all([
    originsOf(db, host),
    campaignsOf(db, host),
    optOutOfHost(db, host),
  ])
  const optedOut = optOut && {
    id: optOut.id.toString('base64url'),
    scope: optOut.scope,
    target: targetText(optOut),
    since: (optOut.verifiedAt ?? optOut.requestedAt).toISOString(),
  }
  return { host, origins, campaigns, optedOut }
}

/** What `work` came to, or the problem that the page is to show. */
async function orProblem<T>(work: () => Promise<T>): Promise<T | HttpProblem> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof HttpProblem) return error
    throw error
  }
}

function page(reply: FastifyReply, text: string, problem?: HttpProblem) {
  if (problem) {
    reply.code(problemStatus[problem.reason])
    if (problem.retryAfterSeconds !== undefined) {
      reply.header('retry-after', String(problem.retryAfterSeconds))
    }
  }
  return reply
    .type('text/html; charset=utf-8')
    .header('content-security-policy', pageSecurity)
    .header('referrer-policy', 'no-referrer')
    .header('cache-control', 'no-store')
    .send(text)
}
