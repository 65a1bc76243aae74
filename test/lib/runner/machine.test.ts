import { describe, expect, test } from 'vitest'
import type { MayWork } from '../../../lib/consent/limits.ts'
import {
  BATCH_SIZE,
  BATCH_WAIT_MS,
  type DoorbellFacts,
  decide,
  HEARD_FRESH_MS,
  KEEP_BYTES,
  KEEP_MS,
  LEASE_FRESH_MS,
  type MachineFacts,
  type NetworkFacts,
  type TaskFacts,
  UNHEARD_MS,
} from '../../../lib/runner/machine.ts'

const nowMs = 1_000_000
const work: MayWork = { ok: true, bytesLeft: 50_000_000, tightest: 'day', freshMs: nowMs + 9e6 }
const paused: MayWork = { ok: false, state: { kind: 'paused', untilMs: null }, untilMs: null }
const onBattery: MayWork = {
  ok: false,
  state: { kind: 'waiting', reason: 'on-battery' },
  untilMs: null,
}
const offline: MayWork = { ok: false, state: { kind: 'waiting', reason: 'offline' }, untilMs: null }
const capped: MayWork = {
  ok: false,
  state: { kind: 'capped', period: 'month' },
  untilMs: nowMs + 5_000,
}

const ready = { digest: 'c1', standing: 'ready', pageBytes: 1_000_000 } as const

let serial = 0
function task(changes: Partial<TaskFacts> = {}): TaskFacts {
  serial += 1
  return {
    id: `t${serial}`,
    state: 'leased',
    host: 'site.example',
    pace: { requestsPerSecond: 100, requestsInFlight: 10 },
    maxBytes: 1_000_000,
    expiresAtMs: nowMs + 60_000,
    askedAtMs: nowMs,
    busy: false,
    observedAtMs: nowMs - 10_000,
    keptUntilMs: nowMs + KEEP_MS,
    bodyBytes: 100_000,
    ...changes,
  }
}

/** Nothing to do: trusted, asked for everything just now, no work offered for a while. */
function network(changes: Partial<NetworkFacts> = {}): NetworkFacts {
  return {
    id: 'n1',
    trusted: true,
    doorbell: { isOpen: true, heardMs: nowMs, askedMs: null },
    campaigns: [ready],
    tasks: [],
    calls: new Set(),
    backoff: null,
    callNotBeforeMs: new Map(),
    leaseAtMs: nowMs + 5_000,
    followUpsRangMs: null,
    outcomesRangMs: null,
    followUpsAskedMs: nowMs,
    outcomesAskedMs: nowMs,
    consentNotices: 0,
    refusals: null,
    ...changes,
  }
}

function facts(networks: NetworkFacts[], changes: Partial<MachineFacts> = {}): MachineFacts {
  return { nowMs, work, fetchesAtOnce: 4, networks, lastStartMs: new Map(), ...changes }
}

const kinds = (given: MachineFacts) => decide(given).actions.map(({ kind }) => kind)
const waiting = (reason: string) => ({ kind: 'waiting', reason })

test('with nothing to do it sleeps until the server wants to be asked', () => {
  const decision = decide(facts([network()]))
  expect(decision).toEqual({ actions: [], wakeAtMs: nowMs + 5_000, state: waiting('no-work') })
})

describe('the network document', () => {
  test('is checked before anything else is said', () => {
    const given = network({ trusted: null, leaseAtMs: 0, consentNotices: 1 })
    expect(kinds(facts([given]))).toEqual(['check-network'])
  })

  test('is checked once at a time', () => {
    expect(kinds(facts([network({ trusted: null, calls: new Set(['check-network']) })]))).toEqual(
      [],
    )
  })

  test('under another key stops everything with this network', () => {
    const given = network({ trusted: false, leaseAtMs: 0, tasks: [task()], consentNotices: 1 })
    const decision = decide(facts([given]))
    expect(decision.actions).toEqual([])
    expect(decision.state).toEqual(waiting('network-changed'))
  })
})

describe('leases', () => {
  test('are asked for when the time has come, twice as many as fetches', () => {
    expect(decide(facts([network({ leaseAtMs: nowMs })])).actions).toEqual([
      { kind: 'lease', network: 'n1', campaigns: ['c1'], max: 8 },
    ])
  })

  test('are asked for when half of the stock is gone', () => {
    // No page may start: the site is full.
    const full = { pace: { requestsPerSecond: 100, requestsInFlight: 0 } }
    const stock = (n: number) => Array.from({ length: n }, () => task(full))
    expect(kinds(facts([network({ leaseAtMs: 0, tasks: stock(5) })]))).toEqual([])
    expect(decide(facts([network({ leaseAtMs: 0, tasks: stock(4) })])).actions).toEqual([
      { kind: 'lease', network: 'n1', campaigns: ['c1'], max: 4 },
    ])
  })

  test('are not asked for twice for one room by two networks', () => {
    const two = [network({ leaseAtMs: 0 }), network({ id: 'n2', leaseAtMs: 0 })]
    expect(decide(facts(two)).actions).toEqual([
      { kind: 'lease', network: 'n1', campaigns: ['c1'], max: 8 },
    ])
  })

  test.each(['not-yet-told', 'outside-validity', 'halted', 'refused'] as const)(
    'are not asked for a campaign that is %s',
    (standing) => {
      const given = network({ leaseAtMs: 0, campaigns: [{ ...ready, standing }] })
      expect(kinds(facts([given]))).toEqual([])
    },
  )

  test('are not asked for when no page would fit under the cap', () => {
    const given = facts([network({ leaseAtMs: 0 })], {
      work: { ...work, bytesLeft: 999_999 } as MayWork,
    })
    expect(decide(given)).toMatchObject({ actions: [], state: { kind: 'capped', period: 'day' } })
  })

  test('name a hundred campaigns at most', () => {
    const campaigns = Array.from({ length: 150 }, (_, i) => ({ ...ready, digest: `c${i}` }))
    const [action] = decide(facts([network({ leaseAtMs: 0, campaigns })])).actions
    expect(action).toMatchObject({ kind: 'lease' })
    expect(action?.kind === 'lease' && action.campaigns.length).toBe(100)
  })
})

describe('a fetch starts only while somebody vouches that nothing was halted', () => {
  const freshLease = nowMs - LEASE_FRESH_MS + 1
  const oldLease = nowMs - LEASE_FRESH_MS
  const heard = (agoMs: number, askedMs: number | null = null): DoorbellFacts => ({
    isOpen: true,
    heardMs: nowMs - agoMs,
    askedMs,
  })
  const closed: DoorbellFacts = { isOpen: false, sinceMs: nowMs - 1_000 }

  test.each<[string, number, DoorbellFacts, ('fetch' | 'ask-doorbell')[]]>([
    ['a fresh lease, and no doorbell', freshLease, closed, ['fetch']],
    ['a fresh lease: the doorbell is not even asked', freshLease, heard(60_000), ['fetch']],
    ['an old lease, and no doorbell', oldLease, closed, []],
    ['a lease of an earlier life, and no doorbell', 0, closed, []],
    ['a lease from the future: the clock was set back', nowMs + 1, closed, []],
    ['an old lease, and an answer just now', oldLease, heard(0), ['fetch']],
    ['an answer that is getting old', oldLease, heard(2_000), ['fetch', 'ask-doorbell']],
    ['the last moment', oldLease, heard(HEARD_FRESH_MS - 1), ['fetch', 'ask-doorbell']],
    ['an answer too old', oldLease, heard(HEARD_FRESH_MS), ['ask-doorbell']],
    ['an answer from the future', oldLease, heard(-1), ['ask-doorbell']],
    ['asked already, and not answered', oldLease, heard(HEARD_FRESH_MS, nowMs - 100), []],
  ])('%s', (_, askedAtMs, doorbell, expected) => {
    expect(kinds(facts([network({ doorbell, tasks: [task({ askedAtMs })] })]))).toEqual(expected)
  })

  test('in the worst case within five seconds of the halt', () => {
    // Protocol README §9: the server itself may be 2 s behind when it answers.
    expect(HEARD_FRESH_MS + 2_000).toBeLessThan(5_000)
    expect(LEASE_FRESH_MS).toBeLessThan(5_000)
  })

  test('nobody is asked for pages that may not start anyway', () => {
    const full = { pace: { requestsPerSecond: 100, requestsInFlight: 0 }, askedAtMs: oldLease }
    const given = network({ doorbell: heard(20_000), tasks: [task(full)] })
    expect(kinds(facts([given]))).toEqual([])
    expect(kinds(facts([network({ doorbell: heard(20_000) })]))).toEqual([])
  })

  test('each network is asked for itself', () => {
    const old = { askedAtMs: oldLease }
    const two = [
      network({ doorbell: heard(9_000), tasks: [task(old), task({ ...old, host: 'b.example' })] }),
      network({ id: 'n2', tasks: [task({ ...old, host: 'c.example' })] }),
    ]
    expect(decide(facts(two)).actions).toEqual([
      { kind: 'fetch', network: 'n2', task: two[1]?.tasks[0]?.id },
      { kind: 'ask-doorbell', network: 'n1' },
    ])
  })

  test('a page that nobody vouches for goes back when the doorbell stays away', () => {
    const one = task({ askedAtMs: nowMs - UNHEARD_MS })
    const since = (agoMs: number) =>
      network({ doorbell: { isOpen: false, sinceMs: nowMs - agoMs }, tasks: [one] })
    expect(decide(facts([since(1_000)]))).toMatchObject({ actions: [], wakeAtMs: nowMs + 5_000 })
    expect(kinds(facts([since(UNHEARD_MS)]))).toEqual(['give-back'])
    const deaf = network({ doorbell: heard(99_000, nowMs - UNHEARD_MS), tasks: [one] })
    expect(kinds(facts([deaf]))).toEqual(['give-back'])
    const quiet = network({ doorbell: heard(99_000), tasks: [one] })
    expect(kinds(facts([quiet]))).toEqual(['ask-doorbell'])
  })

  test('one that runs goes on without a doorbell', () => {
    const tasks = [task({ busy: true, askedAtMs: 0 })]
    const silent: DoorbellFacts = { isOpen: false, sinceMs: 0 }
    expect(decide(facts([network({ doorbell: silent, tasks })]))).toMatchObject({
      actions: [],
      state: { kind: 'working', inFlight: 1 },
    })
  })

  test('without a doorbell no more is leased than begins at once', () => {
    const lease = (tasks: TaskFacts[]) =>
      decide(facts([network({ doorbell: closed, leaseAtMs: 0, tasks })])).actions.flatMap(
        (action) => (action.kind === 'lease' ? [action.max] : []),
      )
    expect(lease([])).toEqual([4])
    const busy = (n: number) => Array.from({ length: n }, () => task({ busy: true }))
    expect(lease(busy(3))).toEqual([1])
    expect(lease([...busy(3), task({ askedAtMs: oldLease })])).toEqual([])
    expect(lease(busy(4))).toEqual([])
  })
})

describe('fetches', () => {
  test('start up to the number allowed at once, the ones that expire first', () => {
    const tasks = [5, 1, 4, 2, 3, 6].map((minutes) =>
      task({ expiresAtMs: nowMs + minutes * 60_000 }),
    )
    // One page every 10 ms is allowed, so only one may start in this very millisecond.
    const spread = tasks.map((one, i) => ({ ...one, host: `${i}.example` }))
    const started = decide(facts([network({ tasks: spread })])).actions.map((action) =>
      action.kind === 'fetch' ? action.task : action.kind,
    )
    expect(started).toEqual([1, 3, 4, 2].map((at) => spread[at]?.id))
  })

  test('count those that run', () => {
    const running = Array.from({ length: 3 }, (_, i) => task({ busy: true, host: `${i}.example` }))
    const decision = decide(
      facts([network({ tasks: [...running, task(), task({ host: 'b.example' })] })]),
    )
    expect(decision.actions.filter(({ kind }) => kind === 'fetch')).toHaveLength(1)
    expect(decision.state).toEqual({ kind: 'working', inFlight: 4 })
  })

  test('keep the pace of the site, across networks', () => {
    const pace = { requestsPerSecond: 2, requestsInFlight: 10 }
    const given = facts(
      [network({ tasks: [task({ pace })] }), network({ id: 'n2', tasks: [task({ pace })] })],
      {
        lastStartMs: new Map([['site.example', nowMs - 100]]),
      },
    )
    expect(decide(given)).toMatchObject({
      actions: [],
      wakeAtMs: nowMs + 400,
      state: { kind: 'working', inFlight: 0 },
    })
  })

  test('keep within the requests in flight of the site', () => {
    const pace = { requestsPerSecond: 100, requestsInFlight: 1 }
    const tasks = [task({ busy: true, pace }), task({ pace }), task({ host: 'b.example', pace })]
    const decision = decide(facts([network({ tasks })]))
    expect(decision.actions).toEqual([{ kind: 'fetch', network: 'n1', task: tasks[2]?.id }])
  })

  test('set their ceiling aside, so that the cap is never passed', () => {
    const tasks = [task({ busy: true }), task({ host: 'b.example' }), task({ host: 'c.example' })]
    const given = facts([network({ tasks })], {
      work: { ...work, bytesLeft: 2_500_000 } as MayWork,
    })
    expect(kinds(given)).toEqual(['fetch'])
  })

  test('that only lack bytes show as capped', () => {
    const given = facts([network({ tasks: [task({ maxBytes: 2_000_000 })] })], {
      work: { ...work, bytesLeft: 1_500_000, tightest: 'month' } as MayWork,
    })
    expect(decide(given).state).toEqual({ kind: 'capped', period: 'month' })
  })

  test('are given back when their lease is over', () => {
    const late = task({ expiresAtMs: nowMs })
    expect(decide(facts([network({ tasks: [late] })])).actions).toEqual([
      { kind: 'give-back', network: 'n1', task: late.id },
    ])
  })

  test('that run are not given back', () => {
    expect(kinds(facts([network({ tasks: [task({ expiresAtMs: 0, busy: true })] })]))).toEqual([])
  })
})

describe('observations', () => {
  const observed = (agoMs: number, changes: Partial<TaskFacts> = {}) =>
    task({ state: 'observed', observedAtMs: nowMs - agoMs, ...changes })

  test('wait for company while more is to come', () => {
    const tasks = [observed(0), task({ state: 'leased', busy: true })]
    const decision = decide(facts([network({ tasks })]))
    expect(decision.actions).toEqual([])
    expect(decision.wakeAtMs).toBe(nowMs + BATCH_WAIT_MS)
  })

  test('go at once when nothing else is to come', () => {
    expect(kinds(facts([network({ tasks: [observed(0)] })]))).toEqual(['send-observations'])
  })

  test('wait for company while an answer may bring more, and not longer than for a page', () => {
    const calls = new Set(['lease'] as const)
    const asking = decide(facts([network({ tasks: [observed(0)], calls })]))
    expect(asking.actions).toEqual([])
    expect(asking.wakeAtMs).toBe(nowMs + BATCH_WAIT_MS)
    expect(kinds(facts([network({ tasks: [observed(BATCH_WAIT_MS)], calls })]))).toEqual([
      'send-observations',
    ])
  })

  test('go together when the first has waited long enough', () => {
    const tasks = [observed(BATCH_WAIT_MS), observed(0)]
    expect(decide(facts([network({ tasks })])).actions).toEqual([
      { kind: 'send-observations', network: 'n1', tasks: tasks.map(({ id }) => id) },
    ])
  })

  test('go at once when a batch is full', () => {
    const tasks = Array.from({ length: BATCH_SIZE }, () => observed(0))
    expect(kinds(facts([network({ tasks })]))).toEqual(['send-observations'])
  })

  test('of an earlier life go at once, at most 32 in a call', () => {
    const tasks = Array.from({ length: 40 }, () => task({ state: 'observed', observedAtMs: 0 }))
    const [action] = decide(facts([network({ tasks })])).actions
    expect(action?.kind === 'send-observations' && action.tasks.length).toBe(32)
  })

  test('are not sent twice at a time', () => {
    const tasks = [observed(BATCH_WAIT_MS, { busy: true })]
    expect(kinds(facts([network({ tasks })]))).toEqual([])
    const calls = new Set(['send-observations'] as const)
    expect(kinds(facts([network({ tasks: [observed(BATCH_WAIT_MS)], calls })]))).toEqual([])
  })

  test('that nobody took long after their lease are let go', () => {
    const old = observed(9e6, { expiresAtMs: nowMs - KEEP_MS })
    expect(decide(facts([network({ tasks: [old] })])).actions).toEqual([
      { kind: 'let-go', network: 'n1', task: old.id },
    ])
  })
})

describe('bodies', () => {
  const kept = (changes: Partial<TaskFacts> = {}) => task({ state: 'kept', ...changes })

  test('are let go when their time is over', () => {
    const old = kept({ keptUntilMs: nowMs })
    const decision = decide(facts([network({ tasks: [old, kept()] })]))
    expect(decision.actions).toEqual([{ kind: 'let-go', network: 'n1', task: old.id }])
  })

  test('are let go, oldest first, when together they take too much room', () => {
    const half = KEEP_BYTES / 2
    const oldest = kept({ keptUntilMs: nowMs + 1_000, bodyBytes: half })
    const newer = kept({ keptUntilMs: nowMs + 2_000, bodyBytes: half })
    const newest = kept({ keptUntilMs: nowMs + 3_000, bodyBytes: 1 })
    const two = [network({ tasks: [newest, oldest] }), network({ id: 'n2', tasks: [newer] })]
    expect(decide(facts(two)).actions).toEqual([{ kind: 'let-go', network: 'n1', task: oldest.id }])
  })
})

describe('questions of the server', () => {
  const tasks = [task({ state: 'kept' })]

  test('are gathered for a moment after the bell', () => {
    const rang = network({ tasks, followUpsRangMs: nowMs })
    expect(decide(facts([rang]))).toMatchObject({ actions: [], wakeAtMs: nowMs + BATCH_WAIT_MS })
    const later = network({ tasks, followUpsRangMs: nowMs - BATCH_WAIT_MS })
    expect(kinds(facts([later]))).toEqual(['answer-follow-ups'])
  })

  test('are heard without a bell now and then, while a body is here', () => {
    const long = { followUpsAskedMs: nowMs - 15_000 }
    expect(kinds(facts([network({ tasks, ...long })]))).toEqual(['answer-follow-ups'])
    expect(kinds(facts([network(long)]))).toEqual([])
  })

  test('are heard after a bell even when no body is left', () => {
    const rang = network({ followUpsRangMs: nowMs - BATCH_WAIT_MS })
    expect(kinds(facts([rang]))).toEqual(['answer-follow-ups'])
  })

  test('outcomes are asked for at first, after a bell, and now and then', () => {
    expect(kinds(facts([network({ outcomesAskedMs: null })]))).toEqual(['ask-outcomes'])
    expect(kinds(facts([network({ outcomesRangMs: nowMs - BATCH_WAIT_MS })]))).toEqual([
      'ask-outcomes',
    ])
    expect(kinds(facts([network({ outcomesAskedMs: nowMs - 600_000 })]))).toEqual(['ask-outcomes'])
    expect(kinds(facts([network({ outcomesRangMs: nowMs })]))).toEqual([])
  })
})

describe('refusals and choices', () => {
  test('refusals wait for company like observations', () => {
    const some = (count: number, sinceMs: number) =>
      facts([network({ refusals: { count, sinceMs } })])
    expect(kinds(some(1, nowMs))).toEqual([])
    expect(kinds(some(1, nowMs - BATCH_WAIT_MS))).toEqual(['send-refusals'])
    expect(kinds(some(BATCH_SIZE, nowMs))).toEqual(['send-refusals'])
  })

  test('a choice is told at once', () => {
    expect(kinds(facts([network({ consentNotices: 1 })]))).toEqual(['tell-consents'])
  })

  test.each([
    ['on battery', onBattery, ['tell-consents']],
    ['capped', capped, ['tell-consents']],
    ['paused', paused, []],
    ['offline', offline, []],
  ])('a choice is told also when the device is %s: %o', (_, given, expected) => {
    const all = network({
      consentNotices: 1,
      leaseAtMs: 0,
      outcomesAskedMs: null,
      followUpsRangMs: 0,
      refusals: { count: 9, sinceMs: 0 },
      tasks: [task(), task({ state: 'observed' }), task({ state: 'kept' })],
    })
    expect(kinds(facts([all], { work: given }))).toEqual(expected)
  })
})

describe('a server that is away or refuses', () => {
  const untilMs = nowMs + 700
  const busy = {
    leaseAtMs: 0,
    outcomesAskedMs: null,
    consentNotices: 1,
    tasks: [task({ state: 'observed' })],
  }

  test.each(['server-unreachable', 'server-refuses'] as const)(
    '%s: no call before the time',
    (reason) => {
      const decision = decide(facts([network({ ...busy, backoff: { untilMs, reason } })]))
      expect(decision).toMatchObject({ actions: [], wakeAtMs: untilMs, state: waiting(reason) })
    },
  )

  test('is asked again when the time has come', () => {
    const backoff = { untilMs: nowMs, reason: 'server-unreachable' as const }
    expect(kinds(facts([network({ ...busy, backoff })]))).toContain('lease')
  })

  test('one kind of call may wait while others go on', () => {
    const callNotBeforeMs = new Map([['lease', untilMs] as const])
    const decision = decide(facts([network({ ...busy, callNotBeforeMs })]))
    expect(decision.actions.map(({ kind }) => kind)).toEqual([
      'tell-consents',
      'send-observations',
      'ask-outcomes',
    ])
    expect(decision.wakeAtMs).toBe(untilMs)
  })

  test('does not stop pages that are leased already', () => {
    const backoff = { untilMs, reason: 'server-unreachable' as const }
    expect(kinds(facts([network({ backoff, tasks: [task()] })]))).toEqual(['fetch'])
  })
})

describe('the state that the person sees', () => {
  const standing = (of: NetworkFacts['campaigns'][number]['standing']) =>
    network({ campaigns: [{ ...ready, standing: of }] })
  test.each<[string, MachineFacts, object]>([
    ['no network', facts([]), waiting('no-campaign')],
    ['no campaign', facts([network({ campaigns: [] })]), waiting('no-campaign')],
    ['halted', facts([standing('halted')]), waiting('halted-by-operator')],
    ['refused', facts([standing('refused')]), waiting('server-refuses')],
    ['over', facts([standing('outside-validity')]), waiting('no-campaign')],
    ['working', facts([network({ tasks: [task()] })]), { kind: 'working', inFlight: 1 }],
    ['on battery', facts([network()], { work: onBattery }), waiting('on-battery')],
    [
      'on battery while a page ends',
      facts([network({ tasks: [task({ busy: true })] })], { work: onBattery }),
      { kind: 'working', inFlight: 1 },
    ],
    [
      'paused while a page ends',
      facts([network({ tasks: [task({ busy: true })] })], { work: paused }),
      { kind: 'paused', untilMs: null },
    ],
    ['capped', facts([network()], { work: capped }), { kind: 'capped', period: 'month' }],
  ])('%s', (_, given, expected) => {
    expect(decide(given).state).toEqual(expected)
  })

  test('is looked at again when the clock alone changes it', () => {
    expect(decide(facts([network()], { work: capped })).wakeAtMs).toBe(nowMs + 5_000)
  })
})
