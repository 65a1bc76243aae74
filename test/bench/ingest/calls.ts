import { subscribe, unsubscribe } from 'node:diagnostics_channel'

/** A kind of call to the task server, by its path. */
export type CallName =
  | 'setup'
  | 'lease'
  | 'observe'
  | 'sentences'
  | 'payload'
  | 'attest'
  | 'refuse'
  | 'follow-ups'
  | 'outcomes'

export interface CallFigures {
  calls: number
  bodyBytes: number
  headerBytes: number
  failed: number
  /** Of each call, from its being made to the end of its answer. */
  latenciesMs: number[]
}

interface RequestMessage {
  request: { path: string; method: string; contentLength: number | null }
}

/**
 * Listens to every HTTP call that nodes of this process make through undici: nothing between the
 * node and the socket is changed for it. Body bytes are the Content-Length that is sent.
 */
export function countCalls(): { figures: Map<CallName, CallFigures>; stop: () => void } {
  const figures = new Map<CallName, CallFigures>()
  const startedMs = new WeakMap<object, number>()
  const of = (path: string) => {
    const name = callName(path)
    const known = figures.get(name)
    if (known) return known
    const fresh = { calls: 0, bodyBytes: 0, headerBytes: 0, failed: 0, latenciesMs: [] }
    figures.set(name, fresh)
    return fresh
  }
  const created = (message: unknown) => {
    startedMs.set((message as RequestMessage).request, performance.now())
  }
  const sent = (message: unknown) => {
    const { request, headers } = message as RequestMessage & { headers: string }
    const { path, method, contentLength } = request
    if (method === 'POST' && contentLength === null) throw new Error(`${path}: a body of no length`)
    const call = of(path)
    call.calls += 1
    call.bodyBytes += contentLength ?? 0
    const length = contentLength === null ? '' : `content-length: ${contentLength}\r\n`
    call.headerBytes += headers.length + length.length + '\r\n'.length
  }
  const answered = (message: unknown) => {
    const { request } = message as RequestMessage
    const since = startedMs.get(request)
    if (since !== undefined) of(request.path).latenciesMs.push(performance.now() - since)
  }
  const failed = (message: unknown) => {
    of((message as RequestMessage).request.path).failed += 1
  }
  const channels = [
    ['undici:request:create', created],
    ['undici:client:sendHeaders', sent],
    ['undici:request:trailers', answered],
    ['undici:request:error', failed],
  ] as const
  for (const [channel, listener] of channels) subscribe(channel, listener)
  return {
    figures,
    stop: () => {
      for (const [channel, listener] of channels) unsubscribe(channel, listener)
    },
  }
}

function callName(path: string): CallName {
  if (path === '/v1/leases') return 'lease'
  if (path === '/v1/observations') return 'observe'
  if (path === '/v1/attestations') return 'attest'
  if (path === '/v1/refusals') return 'refuse'
  if (path === '/v1/follow-ups') return 'follow-ups'
  if (path.startsWith('/v1/outcomes')) return 'outcomes'
  if (path.endsWith('/sentences')) return 'sentences'
  if (path.endsWith('/payload')) return 'payload'
  // Once in a session or once in a campaign, whatever the number of pages.
  return 'setup'
}
