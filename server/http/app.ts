import { createGunzip } from 'node:zlib'
import Fastify, { type FastifyInstance, type FastifyRequest, LogController } from 'fastify'
import type { Logger } from 'pino'
import type * as z from 'zod/mini'
import { BlobStoreOverloaded } from '../store/blob-store.ts'
import { isAway } from '../store/database.ts'
import { HttpProblem, problemBody } from './problem.ts'

/** Decoded JSON. 32 observations of 4 KiB and their signatures are 140 KiB. */
const jsonBytes = 256 * 1024
/** Decoded octets: the largest page a campaign may allow. */
const octetBytes = 16 * 1024 * 1024

/**
 * A Fastify instance with the protocol's limits: bodies decoded and bounded,
 * every request timed, every refusal a problem document. Routes are registered
 * by the caller.
 */
export function createApp(options: { log: Logger; trustedProxies: number }): FastifyInstance {
  const app = Fastify({
    loggerInstance: options.log,
    logController: new LogController({ disableRequestLogging: true }),
    trustProxy: trust(options.trustedProxies),
    bodyLimit: octetBytes,
    // Fastify leaves these off; a slow sender must not hold a connection for ever.
    connectionTimeout: 30_000,
    requestTimeout: 60_000,
    keepAliveTimeout: 60_000,
    forceCloseConnections: true,
  }) as unknown as FastifyInstance

  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    'application/json',
    async (request: FastifyRequest, payload: NodeJS.ReadableStream) => {
      const bytes = await decodedBody(request, payload, jsonBytes)
      try {
        // Refuses __proto__ as Fastify's own parser does; every message is then read by a closed schema.
        return JSON.parse(bytes.toString('utf8'), (key, value) => {
          if (key === '__proto__') throw new SyntaxError('__proto__ is not a member name here')
          return value as unknown
        }) as unknown
      } catch (error) {
        throw new HttpProblem('malformed', `The body is not JSON: ${(error as Error).message}.`)
      }
    },
  )
  app.addContentTypeParser(
    'application/octet-stream',
    (request: FastifyRequest, payload: NodeJS.ReadableStream) =>
      decodedBody(request, payload, octetBytes),
  )

  app.setNotFoundHandler((request, reply) =>
    reply
      .code(404)
      .type('application/problem+json')
      .send(problemBody('not-found', `There is nothing at ${request.method} ${request.url}.`)),
  )
  app.setErrorHandler((error: unknown, request, reply) => {
    const problem = asProblem(error)
    if (problem.reason === 'internal') request.log.error({ err: error }, 'request failed')
    if (problem.retryAfterSeconds !== undefined) {
      reply.header('retry-after', String(problem.retryAfterSeconds))
    }
    const body = problemBody(problem.reason, problem.message)
    return reply.code(body.status).type('application/problem+json').send(body)
  })
  return app
}

/** Believes X-Forwarded-For as far as our own proxies wrote it. */
function trust(proxies: number): false | ((address: string, hop: number) => boolean) {
  return proxies === 0 ? false : (_address, hop) => hop < proxies
}

/** Reads a body against its schema, or refuses it naming the first thing that is wrong. */
export function parsed<T extends z.ZodMiniType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(body)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const place = issue?.path.length ? issue.path.join('.') : 'the body'
  throw new HttpProblem('malformed', `${place}: ${issue?.message ?? 'does not fit the schema'}.`)
}

function asProblem(error: unknown): HttpProblem {
  if (error instanceof HttpProblem) return error
  const { statusCode, message } = error as { statusCode?: number; message?: string }
  if (statusCode === 413)
    return new HttpProblem('too-large', 'The body is larger than this call takes.')
  if (statusCode === 415) {
    return new HttpProblem('malformed', 'Send application/json or application/octet-stream.')
  }
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new HttpProblem('malformed', message ?? 'The request is not well formed.')
  }
  // Not logged here: the pool and the loops of the pipeline say it.
  if (isAway(error)) return new HttpProblem('overloaded', 'The database is busy. Try again.', 2)
  if (error instanceof BlobStoreOverloaded) {
    return new HttpProblem('overloaded', 'Payloads come faster than they can be stored.', 5)
  }
  return new HttpProblem('internal', 'Something failed here; it is logged. Try again later.', 30)
}

async function decodedBody(
  request: FastifyRequest,
  payload: NodeJS.ReadableStream,
  limit: number,
): Promise<Buffer> {
  const encoding = request.headers['content-encoding'] ?? 'identity'
  if (encoding !== 'identity' && encoding !== 'gzip') {
    throw new HttpProblem(
      'malformed',
      `Content-Encoding ${encoding} is not taken here; use gzip or none.`,
    )
  }
  const source = encoding === 'gzip' ? payload.pipe(createGunzip()) : payload
  const parts: Buffer[] = []
  let length = 0
  try {
    for await (const part of source) {
      length += (part as Buffer).length
      // Counted as it is unpacked: a bomb stops here, not in memory.
      if (length > limit)
        throw new HttpProblem('too-large', `More than ${limit} bytes when decoded.`)
      parts.push(part as Buffer)
    }
  } catch (error) {
    payload.unpipe?.()
    if (error instanceof HttpProblem) throw error
    throw new HttpProblem('malformed', `The body could not be read: ${(error as Error).message}.`)
  }
  return Buffer.concat(parts)
}
