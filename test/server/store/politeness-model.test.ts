import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Grant, judge, type Manners } from '../../bench/frontier/politeness-model.ts'

// The model judges what the store leases (test/bench/frontier.ts): here it is judged itself.

const slow: Manners = { paceMs: 1000, inFlight: 1 }
const quick: Manners = { paceMs: 100, inFlight: 3 }

let made = 0
/** A grant at an instant that ended 50 ms later, everything about it its own. */
function grant(about: Partial<Grant> & { atMs?: number } = {}): Grant {
  made += 1
  const { atMs = 0, ...given } = about
  return {
    node: `node ${made}`,
    account: `account ${made}`,
    block: `block ${made}`,
    url: `http://a.example/${made}`,
    host: 'a.example',
    call: `call ${made}`,
    earliestMs: atMs,
    latestMs: atMs,
    heldFromMs: atMs,
    heldUntilMs: atMs + 50,
    ...given,
  }
}
const counts = (grants: readonly Grant[], manners = slow) => {
  const { doubleLeases, earlyRequests } = judge(grants, () => manners)
  return { doubleLeases, earlyRequests }
}
const clean = { doubleLeases: 0, earlyRequests: 0 }

describe('who gets what', () => {
  const url = 'http://a.example/tea'

  test('an address may go to two strangers', () => {
    expect(counts([grant({ url }), grant({ url, atMs: 1000 })])).toEqual(clean)
  })

  test.each(['node', 'account', 'block'] as const)('but not twice to one %s', (by) => {
    const same = { url, [by]: 'the same' }
    expect(counts([grant(same), grant({ ...same, atMs: 5000 })])).toEqual({
      ...clean,
      doubleLeases: 1,
    })
  })

  test('a node may get many addresses', () => {
    expect(counts([grant({ node: 'n' }), grant({ node: 'n', atMs: 1000 })])).toEqual(clean)
  })

  test('a third grant to one node is a second fault, and says which node it was', () => {
    const thrice = [0, 1000, 2000].map((atMs) => grant({ url, node: 'greedy', atMs }))
    const { doubleLeases, examples } = judge(thrice, () => slow)
    expect(doubleLeases).toBe(2)
    expect(examples[0]).toContain('twice to node greedy')
  })
})

describe('when a host is spoken to', () => {
  test('a millisecond before its turn is early, on the turn is not', () => {
    expect(counts([grant(), grant({ atMs: 1000 })])).toEqual(clean)
    expect(counts([grant(), grant({ atMs: 999 })])).toEqual({ ...clean, earlyRequests: 1 })
  })

  test('hosts do not wait for one another', () => {
    expect(counts([grant(), grant({ host: 'b.example' })])).toEqual(clean)
  })

  test('what is granted together takes its turns one after another', () => {
    const together = () => [grant({ call: 'x' }), grant({ call: 'x' }), grant({ call: 'x' })]
    expect(counts([...together(), grant({ atMs: 300 })], quick)).toEqual(clean)
    expect(counts([...together(), grant({ atMs: 299 })], quick).earlyRequests).toBe(1)
  })

  test('no more is granted together than may be in flight, nor more than a second’s worth', () => {
    const four = [1, 2, 3, 4].map(() => grant({ call: 'x', heldUntilMs: 0 }))
    expect(counts(four, quick).earlyRequests).toBe(1)
    const two = [1, 2].map(() => grant({ call: 'x', heldUntilMs: 0 }))
    expect(counts(two, { paceMs: 1000, inFlight: 2 }).earlyRequests).toBe(1)
    expect(counts(two, { paceMs: 500, inFlight: 2 })).toEqual(clean)
  })

  test('a witness who knows a time only roughly accuses nobody of what may not have been', () => {
    const rough = grant({ atMs: 1000, earliestMs: 400, latestMs: 1000 })
    expect(counts([grant(), rough])).toEqual(clean)
    expect(counts([grant(), { ...rough, latestMs: 900 }]).earlyRequests).toBe(1)
  })

  test('one more in flight than declared is early, also when its turn has come', () => {
    const lasting = grant({ heldUntilMs: 1500 })
    expect(counts([lasting, grant({ atMs: 1000 })]).earlyRequests).toBe(1)
    expect(counts([lasting, grant({ atMs: 1500 })])).toEqual(clean)
  })

  test('what never ended is in flight for ever', () => {
    const lost = grant({ heldUntilMs: null })
    expect(counts([lost, grant({ atMs: 3_600_000 })]).earlyRequests).toBe(1)
  })

  test('a host that nobody declared is not judged in silence', () => {
    expect(() => judge([grant()], () => undefined)).toThrow('nobody declared')
  })
})

test('a log that keeps all rules is clean in whatever order it is read, and one moved grant is found', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 3000 }), { minLength: 2, maxLength: 30 }),
      fc.nat(),
      (rests, seed) => {
        let atMs = 0
        const log = rests.map((rest) => {
          atMs += 1000 + rest
          return grant({ atMs })
        })
        const shuffled = [...log].sort((a, b) => ((a.latestMs * 31 + seed) % 7) - (b.latestMs % 7))
        expect(counts(shuffled)).toEqual(clean)
        const moved = seed % (log.length - 1)
        const before = log[moved]?.latestMs ?? 0
        const early = log.map((one, i) =>
          i === moved + 1 ? { ...one, earliestMs: before + 999, latestMs: before + 999 } : one,
        )
        expect(counts(early).earlyRequests).toBe(1)
      },
    ),
  )
})
