import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { utcDay } from '../../../lib/consent/limits.ts'
import { campaignOver } from './operator.ts'
import { isDone, now, Place, page, sleep, until, waits } from './place.ts'

let place: Place

beforeEach(async () => {
  place = await Place.make()
})
afterEach(async () => {
  await place.end()
})

const closed = (pages: number) => () => place.server.outcomes.length === pages
const state = () => place.events.findLast((event) => event.kind === 'state')?.state

function queue(...paths: string[]): void {
  for (const path of paths) place.server.queue.push({ url: `http://site.example${path}` })
}

test('works pages through the whole line: lease, fetch, observe, answer, attest, outcome', async () => {
  queue('/1', '/2', '/3', '/4', '/5')
  const runner = place.runner()
  await runner.start()
  await until('all pages are closed', closed(5))
  await until('outcomes are in the journal', () =>
    place.store.journal().every(({ outcome }) => outcome?.verdict === 'valid'),
  )
  const journal = place.store.journal()
  expect(journal).toHaveLength(5)
  for (const entry of journal) {
    expect(entry).toMatchObject({
      network: place.network,
      campaign: place.consented.digest,
      result: { kind: 'fetched', status: 200 },
      outcome: { points: 10 },
    })
    expect(entry.bytesUp).toBeGreaterThan(300)
    expect(entry.bytesDown).toBeGreaterThan(50)
    expect(entry.receipt?.payloadType).toBe('application/vnd.gleaner.receipt+json')
  }
  const texts = place.server.records().map(({ attestation }) => attestation?.text)
  expect(texts.sort()).toEqual([1, 2, 3, 4, 5].map((n) => `This is /${n}. It is a page.\nThe end.`))
  expect(new Set(place.server.records().map(({ key }) => key)).size).toBe(5)
  expect(place.server.complaints).toEqual([])
  expect(place.problems()).toEqual([])
  await until('the tasks are gone', () => isDone(place))
  await until('it waits', () => waits(place, 'no-work'))
})

test('tells consent before it asks for work, and opens one session', async () => {
  queue('/1')
  await place.runner().start()
  await until('the page is closed', closed(1))
  const { calls } = place.server
  const first = (call: string) => calls.indexOf(call)
  expect(calls[0]).toBe('GET /v1/network')
  expect(first('POST /v1/consents')).toBeLessThan(first('POST /v1/leases'))
  expect(calls.filter((call) => call === 'POST /v1/sessions')).toHaveLength(1)
  expect(calls.filter((call) => call === 'POST /v1/leases').length).toBeLessThan(4)
  expect(place.server.consents).toEqual([
    expect.objectContaining({ campaign: place.consented.digest, act: 'given' }),
  ])
  expect(await place.store.consentNotices(place.network)).toEqual([])
})

test('sends observations and attestations together', async () => {
  queue(...Array.from({ length: 8 }, (_, i) => `/${i}`))
  place.server.script = ['payload', 'attest']
  await place.runner({ limits: { fetchesAtOnce: 8 } }).start()
  await until('all pages are closed', closed(8))
  const count = (call: string) => place.server.calls.filter((made) => made === call).length
  // How few depends on this machine's speed; the machine's table has the exact rule.
  expect(count('POST /v1/observations')).toBeLessThan(8)
  expect(count('POST /v1/attestations')).toBeLessThan(8)
})

test('a page that fails is observed as such, and nothing is kept', async () => {
  await place.end()
  place = await Place.make((_, response) => {
    response.writeHead(200, { 'content-type': 'image/png' }).end('x')
  })
  queue('/picture')
  await place.runner().start()
  await until('the task is closed', closed(1))
  expect(place.server.records()[0]?.observation).toMatchObject({
    outcome: 'failed',
    reason: 'unsupported-type',
  })
  expect(place.store.journal()[0]).toMatchObject({
    result: { kind: 'failed', reason: 'unsupported-type' },
  })
  await until('the task is gone', () => isDone(place))
})

test('the site’s pace holds for this node alone too', async () => {
  const [site] = place.consented.campaign.sites
  if (!site) throw new Error('no site')
  // Five in a second of the runner's time, which is ten times ours.
  site.requestsPerSecond = 5
  const startsMs: number[] = []
  const { hop } = place
  place.hop = (request) => {
    startsMs.push(performance.now())
    return hop(request)
  }
  queue('/1', '/2', '/3', '/4')
  await place.runner().start()
  await until('all pages were fetched', () => startsMs.length === 4)
  // Three gaps of 20 ms; a start is noted a moment before the request goes out.
  expect((startsMs[3] ?? 0) - (startsMs[0] ?? 0)).toBeGreaterThanOrEqual(45)
})

describe('a lease that goes too far', () => {
  test.each<[string, Parameters<typeof place.server.queue.push>[0], string]>([
    ['another host', { url: 'http://other.example/' }, 'out-of-scope'],
    ['https where http was agreed', { url: 'https://site.example/' }, 'scheme-not-allowed'],
    ['another port', { url: 'http://site.example:8080/' }, 'port-not-allowed'],
    ['an address literal', { url: 'http://192.168.0.1/' }, 'host-not-public'],
    ['more bytes', { url: 'http://site.example/', changes: { maxBytes: 1e9 } }, 'over-limit'],
    ['more time', { url: 'http://site.example/', changes: { maxMs: 1e9 } }, 'over-limit'],
    [
      'another campaign',
      { url: 'http://site.example/', campaign: 'A'.repeat(43) },
      'not-consented',
    ],
  ])('for %s is refused, journalled and reported', async (_, lease, reason) => {
    place.server.queue.push(lease)
    queue('/good')
    await place.runner().start()
    await until('the good page is closed', closed(1))
    await until('the refusal is reported', () => place.server.refusals.leases.length === 1)
    expect(place.server.refusals.leases[0]?.reason).toBe(reason)
    expect(place.asked).toEqual(['/good'])
    expect(place.store.journal().find(({ url }) => url === lease.url)?.result).toEqual({
      kind: 'refused',
      reason,
    })
  })

  test('for a signature that is not the lease key’s is refused', async () => {
    queue('/1')
    const { leaseKey, receiptKey } = place.server.operator
    Object.assign(place.server.operator, { leaseKey: receiptKey })
    await place.runner().start()
    await until('the refusal is reported', () => place.server.refusals.leases.length === 1)
    Object.assign(place.server.operator, { leaseKey })
    expect(place.server.refusals.leases[0]?.reason).toBe('bad-signature')
    expect(place.asked).toEqual([])
    // Keys may have been rotated, so it asked again who this is.
    expect(place.server.calls.filter((call) => call === 'GET /v1/network')).toHaveLength(2)
  })
})

test('a server under another key gets no session and no work', async () => {
  queue('/1')
  const { Operator } = await import('./operator.ts')
  place.server.networkAnswer = (await Operator.make()).networkEnvelope
  await place.runner({ doorbell: false }).start()
  await until('the state says so', () => waits(place, 'network-changed'))
  await sleep(2_000)
  expect(place.server.calls).toEqual(['GET /v1/network'])
})

describe('the person', () => {
  /** A site that answers only when it is told to. */
  async function slowPlace(): Promise<() => void> {
    await place.end()
    const waiting: (() => void)[] = []
    place = await Place.make((_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).write('<p>First part.')
      waiting.push(() => response.end('<p>Second part.'))
    })
    return () => {
      for (const go of waiting.splice(0)) go()
    }
  }

  test('withdraws: running fetches end at once, tasks go, the server is told', async () => {
    await slowPlace()
    queue('/1', '/2', '/3')
    const runner = place.runner({ limits: { fetchesAtOnce: 2 } })
    await runner.start()
    await until('two fetches run', () => place.asked.length === 2)
    const signals: AbortSignal[] = []
    const { hop } = place
    place.hop = (request) => {
      signals.push(request.signal)
      return hop(request)
    }
    const startedMs = performance.now()
    await runner.withdraw(place.network, place.consented.digest)
    expect(performance.now() - startedMs).toBeLessThan(100)
    await until('the server is told', () => place.server.consents.at(-1)?.act === 'withdrawn')
    expect(await place.store.tasks(place.network)).toEqual([])
    await until('each has its line', () => place.store.journal().length === 3)
    for (const { result } of place.store.journal()) {
      expect(result).toEqual({ kind: 'refused', reason: 'consent-withdrawn' })
    }
    expect(place.asked).toHaveLength(2)
    expect(place.server.records().every(({ statement }) => statement === undefined)).toBe(true)
    expect(runner.state()).toEqual({ kind: 'waiting', reason: 'no-campaign' })
  })

  test('agrees to another campaign while it runs: it is told, then worked', async () => {
    const { operator } = place.server
    const more = campaignOver('site.example', { id: 'more' })
    const offered = await operator.offer(more)
    place.server.campaigns.push(offered)
    const runner = place.runner()
    await runner.start()
    await until('it waits', () => waits(place, 'no-work') && place.server.socketCount() === 1)
    const { digest, campaign } = offered
    const givenAt = '2026-11-22T17:00:00Z'
    await runner.consent(place.network, { digest, campaign, givenAt, receipt: digest })
    await until('it is told', () => place.server.consents.at(-1)?.campaign === digest)
    place.server.queue.push({ url: 'http://site.example/more', campaign: digest })
    place.server.ring({ type: 'work' })
    await until('the page is closed', closed(1))
    expect(place.store.journal()[0]?.campaign).toBe(digest)
  })

  test('leaves a network: everything of it goes, and the server is told', async () => {
    await slowPlace()
    queue('/1')
    const runner = place.runner()
    await runner.start()
    await until('a fetch runs', () => place.asked.length === 1)
    await runner.leave(place.network)
    expect(place.server.consents.at(-1)?.act).toBe('withdrawn')
    expect(await isDone(place)).toBe(true)
    const calls = place.server.calls.length
    await sleep(3_000)
    expect(place.server.calls.length).toBe(calls)
    await until('it waits', () => waits(place, 'no-campaign'))
  })

  test('pauses: fetches end, nothing moves; resumes: the same leases are fetched', async () => {
    const go = await slowPlace()
    queue('/1')
    const runner = place.runner()
    await runner.start()
    await until('a fetch runs', () => place.asked.length === 1)
    runner.pause(null)
    await until('it is paused', () => runner.state().kind === 'paused')
    const calls = place.server.calls.length
    await sleep(3_000)
    expect(place.server.calls.length).toBe(calls)
    expect((await place.store.tasks(place.network)).map((task) => task.state)).toEqual(['leased'])
    runner.resume()
    await until('it is fetched again', () => place.asked.length === 2)
    await sleep(200)
    go()
    await until('the page is closed', closed(1))
  })

  test('sets a cap: it is never passed', async () => {
    queue(...Array.from({ length: 12 }, (_, i) => `/${i}`))
    // Room for the ceiling of one page, and a little more.
    await place.store.addUsage(utcDay(now()), 0, 1_980_000)
    const runner = place.runner({ limits: { bytesPerDay: 3_000_000 } })
    let most = 0
    let inFlight = 0
    const { hop } = place
    place.hop = async (request) => {
      inFlight += 1
      most = Math.max(most, inFlight)
      try {
        return await hop(request)
      } finally {
        inFlight -= 1
      }
    }
    await runner.start()
    await until('the cap shows', () => runner.state().kind === 'capped')
    expect(most).toBe(1)
    expect(place.asked.length).toBeGreaterThan(1)
    const usage = await place.store.usage('2026-01-01')
    const bytes = usage.reduce((sum, { bytesUp, bytesDown }) => sum + bytesUp + bytesDown, 0)
    expect(bytes).toBeLessThan(3_000_000)
  })

  test('plugs out: work stops at once; plugs in: it goes on', async () => {
    await slowPlace()
    queue('/1')
    const runner = place.runner()
    await runner.start()
    await until('a fetch runs', () => place.asked.length === 1)
    place.device.onBattery = true
    runner.wake()
    await until('it waits', () => waits(place, 'on-battery'))
    place.device.onBattery = false
    runner.wake()
    await until('it is fetched again', () => place.asked.length === 2)
  })

  test('loses the line: the site is not blamed', async () => {
    queue('/1')
    place.device.online = true
    const { hop } = place
    place.hop = async () => {
      place.device.online = false
      return { kind: 'failed', reason: 'connection' }
    }
    const runner = place.runner()
    await runner.start()
    await until('it is offline', () => waits(place, 'offline'))
    place.hop = hop
    place.device.online = true
    runner.wake()
    await until('the page is closed', closed(1))
    expect(place.server.records()[0]?.observation?.outcome).toBe('fetched')
  })
})

describe('the operator', () => {
  test('halts a campaign: fetches end at once, the state says so', async () => {
    await place.end()
    place = await Place.make((_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).write('begin')
    })
    queue('/1')
    const runner = place.runner()
    await runner.start()
    await until('a fetch runs', () => place.asked.length === 1)
    place.server.ring({ type: 'halt', campaign: null })
    await until('it is halted', () => waits(place, 'halted-by-operator'))
    await until('the task is gone', () => isDone(place))
    expect(place.server.records()[0]?.statement).toBeUndefined()
    const lease = place.server.records()[0]?.lease.id ?? ''
    await until('it was given back', () => place.server.refusals.leases.length === 1)
    expect(place.server.refusals.leases).toEqual([{ lease, reason: 'paused' }])
    await until('the fetch is in the journal', () => place.store.journal().length === 1)
    expect(place.store.journal()[0]?.result).toEqual({ kind: 'refused', reason: 'paused' })
  })

  test('halts what waits and what is on its way; resume asks for work again', async () => {
    queue('/1')
    const runner = place.runner()
    await runner.start()
    await until('the page is closed', closed(1))
    place.server.ring({ type: 'halt', campaign: place.consented.digest })
    await until('it is halted', () => waits(place, 'halted-by-operator'))
    queue('/2')
    // What it would be told to do although it is halted.
    place.server.ring({ type: 'work' })
    await sleep(3_000)
    expect(place.asked).toEqual(['/1'])
    expect(waits(place, 'halted-by-operator')).toBe(true)
    place.server.ring({ type: 'resume', campaign: place.consented.digest })
    await until('the second page is closed', closed(2))
  })

  test('ends a halt of everything: what was halted by name stays halted', async () => {
    const runner = place.runner()
    await runner.start()
    await until('it waits', () => waits(place, 'no-work') && place.server.socketCount() === 1)
    place.server.ring({ type: 'halt', campaign: null })
    place.server.ring({ type: 'halt', campaign: place.consented.digest })
    await until('it is halted', () => waits(place, 'halted-by-operator'))
    queue('/1')
    place.server.ring({ type: 'resume', campaign: null })
    await sleep(2_000)
    expect(place.asked).toEqual([])
    place.server.ring({ type: 'resume', campaign: place.consented.digest })
    await until('the page is closed', closed(1))
  })

  test('a lease that comes after the halt is given back unfetched', async () => {
    // The halt overtakes the answer to a lease call.
    place.server.faults.set('/v1/leases', [
      (response) => {
        place.server.ring({ type: 'halt', campaign: null })
        setTimeout(() => response.writeHead(200).end(answer), 100)
      },
    ])
    queue('/1')
    const answer = JSON.stringify(await place.server.grant(1))
    const runner = place.runner()
    await runner.start()
    await until('it was given back', () => place.server.refusals.leases.length === 1)
    expect(place.server.refusals.leases[0]?.reason).toBe('paused')
    expect(place.asked).toEqual([])
    expect(await isDone(place)).toBe(true)
  })

  test('recalls leases: the fetch is aborted, bodies are deleted, the journal says why', async () => {
    await place.end()
    place = await Place.make((request, response) => {
      if (request.url === '/slow') {
        response.writeHead(200, { 'content-type': 'text/html' }).write('begin')
      } else page(request, response)
    })
    // Nothing is asked of the page, so its body waits.
    place.server.script = []
    place.server.close = false
    queue('/quick', '/slow')
    const runner = place.runner()
    await runner.start()
    await until('one is kept and one runs', async () => {
      const states = (await place.store.tasks(place.network)).map(({ state }) => state)
      return states.sort().join() === 'kept,leased' && place.asked.length === 2
    })
    const leases = place.server.records().map(({ lease }) => lease)
    place.server.ring({ type: 'recall', leases: leases.map(({ id }) => id) })
    await until('both are gone', () => isDone(place))
    await until(
      'the journal knows of both',
      () =>
        place.store
          .journal()
          .filter(({ result }) => result.kind === 'refused' && result.reason === 'recalled')
          .length === 2,
    )
    for (const { id } of leases) expect(await place.store.body(id)).toBeUndefined()
    const quick = leases.find(({ url }) => url.endsWith('/quick'))
    expect((await place.store.entry(quick?.id ?? ''))?.bytesDown).toBeGreaterThan(50)
    const slow = leases.find(({ url }) => url.endsWith('/slow'))
    await until('it was given back', () => place.server.refusals.leases.length === 1)
    expect(place.server.refusals.leases).toEqual([{ lease: slow?.id, reason: 'recalled' }])
  })

  test('a node that no doorbell reaches works all the same', async () => {
    queue(...Array.from({ length: 6 }, (_, i) => `/${i}`))
    place.server.leaseRetryAfterMs = 1_000
    await place.runner({ doorbell: false }).start()
    await until('all pages are fetched', () => place.asked.length === 6)
  })

  test('a doorbell that falls silent: nothing is started any more on old leases', async () => {
    // The site takes one page at a time, and the pages are slow: the others wait in stock.
    await place.end()
    const held: (() => void)[] = []
    place = await Place.make((request, response) => {
      held.push(() => page(request, response))
    })
    queue('/1', '/2', '/3')
    const runner = place.runner({ limits: { fetchesAtOnce: 1 } })
    await runner.start()
    await until('the first is fetched', () => held.length === 1)
    await until('others wait', async () => (await place.store.tasks(place.network)).length > 1)
    place.server.isDeaf = true
    await sleep(6_000)
    held.shift()?.()
    await until('it was observed', () => place.server.records().some((one) => one.statement))
    await sleep(4_000)
    expect(place.asked).toHaveLength(1)
    await until('what waited was given back', () => place.server.refusals.leases.length > 0)
    expect(place.server.refusals.leases[0]?.reason).toBe('expired')
  })

  test('rings for work', async () => {
    const runner = place.runner()
    await runner.start()
    await until('it waits', () => state()?.kind === 'waiting' && place.server.socketCount() === 1)
    queue('/1')
    place.server.ring({ type: 'work' })
    await until('the page is closed', closed(1))
    expect(runner.state().kind).not.toBe('off')
  })
})

describe('a server in trouble', () => {
  test('that ends sessions gets a new one, and the call again', async () => {
    queue('/1')
    await place.runner().start()
    await until('the page was fetched', () => place.asked.length === 1)
    place.server.endSessions()
    await until('the page is closed', closed(1))
    expect(place.server.calls.filter((call) => call === 'POST /v1/sessions')).toHaveLength(2)
  })

  test.each(['overloaded', 'too-many-requests'] as const)(
    'that says %s is left alone for as long as it asks',
    async (reason) => {
      queue('/1')
      place.server.script = []
      place.server.fail('/v1/leases', reason, { 'retry-after': '3' })
      await place.runner({ doorbell: false }).start()
      await until('it was asked', () => place.server.calls.includes('POST /v1/leases'))
      const atMs = performance.now()
      await until('it waits', () => waits(place, 'server-refuses'))
      await until('the page is closed', closed(1))
      expect(performance.now() - atMs).toBeGreaterThanOrEqual(290)
    },
  )

  test('that is away is asked ever more seldom, and work goes on when it is back', async () => {
    queue('/1')
    const destroy = Array.from({ length: 4 }, () => (response: { destroy(): void }) => {
      response.destroy()
    })
    place.server.script = []
    place.server.faults.set('/v1/leases', destroy)
    await place.runner({ doorbell: false }).start()
    await until('it is unreachable', () => waits(place, 'server-unreachable'))
    await until('the page is closed', closed(1))
    expect(place.server.calls.filter((call) => call === 'POST /v1/leases').length).toBeLessThan(8)
  })

  test('that forgot the consent is told again', async () => {
    queue('/1')
    const [notice] = await place.store.consentNotices(place.network)
    if (notice) await place.store.deleteConsentNotice(notice)
    await place.runner().start()
    await until('the page is closed', closed(1))
    expect(place.server.consents).toHaveLength(1)
  })

  test.each(['internal', 'overloaded'] as const)(
    'that loses the answer to observations (%s) gets the same statement again',
    async (reason) => {
      queue('/1')
      place.server.fail('/v1/observations', reason, {}, 2)
      await place.runner().start()
      await until('the page is closed', closed(1))
      expect(place.asked).toEqual(['/1'])
    },
  )

  test('that fails while questions or outcomes wait is asked again at once, not at the next look', async () => {
    queue('/1')
    await place.runner().start()
    const told = (pages: number) => () =>
      place.store.journal().filter(({ outcome }) => outcome !== undefined).length === pages
    await until('the first is told', told(1))
    for (const path of ['/v1/follow-ups', '/v1/attestations', '/v1/outcomes']) {
      place.server.fail(path, 'internal')
    }
    queue('/2')
    place.server.ring({ type: 'work' })
    await until('the second is told', told(2))
  })

  test('that asks about a page it was never given is told so', async () => {
    queue('/1')
    place.server.script = ['payload']
    const runner = place.runner()
    await runner.start()
    await until('the page was observed', () => place.server.records()[0]?.statement !== undefined)
    await runner.stop()
    for (const task of await place.store.tasks(place.network)) await place.store.deleteTask(task.id)
    await place.runner().start()
    await until('it is told', () => place.server.refusals.followUps.length === 1)
    expect(place.server.refusals.followUps[0]?.reason).toBe('body-gone')
  })

  test('that speaks another version is not believed, and not hammered', async () => {
    place.server.faults.set(
      '/v1/leases',
      Array.from({ length: 99 }, () => (response: { end(text: string): void }) => {
        response.end('{"leases":[],"retryAfterMs":-1,"hello":1}')
      }),
    )
    await place.runner({ doorbell: false }).start()
    await sleep(10_000)
    const asked = place.server.calls.filter((call) => call === 'POST /v1/leases').length
    expect(asked).toBeGreaterThan(1)
    expect(asked).toBeLessThan(7)
  })
})
