import { expect, test } from 'vitest'
import type { RunnerStore } from '../../../lib/runner/ports.ts'
import { Place, until } from './place.ts'

// A worker may die on any line. What matters is where it stands between two writes: before each
// write that a page needs, and after each, it dies here and a new one goes on over the same store.

const WRITES = /^(put|delete|add|set)/

/** A store whose owner dies at the n-th write: before it, or when it is durable but not yet told. */
function mortal(store: RunnerStore, dieAt: number, when: 'before' | 'after') {
  let writes = 0
  let diedAt: string | null = null
  const never = () => new Promise<never>(() => {})
  const proxy = new Proxy(store, {
    get(target, name: keyof RunnerStore) {
      const method = target[name] as (...given: unknown[]) => Promise<unknown>
      return async (...given: unknown[]) => {
        if (diedAt !== null) return never()
        if (WRITES.test(name)) writes += 1
        if (WRITES.test(name) && writes === dieAt) {
          diedAt = name
          if (when === 'after') await method.apply(target, given)
          return never()
        }
        return method.apply(target, given)
      }
    },
  })
  return {
    store: proxy,
    diedAt: () => diedAt,
    /** It lived; nothing shall strike while it is stopped. */
    disarm: () => {
      writes = Number.POSITIVE_INFINITY
    },
  }
}

test.each(['before', 'after'] as const)(
  'a runner that dies %s any write is followed by one that finishes its work',
  async (when) => {
    const struck: string[] = []
    for (let dieAt = 1; ; dieAt++) {
      const place = await Place.make()
      try {
        place.server.queue.push({ url: 'http://site.example/1' })
        place.server.script = ['payload', 'attest']
        const life = mortal(place.store, dieAt, when)
        const isDead = () => life.diedAt() !== null
        await place.runner({ store: life.store, isDead }).start()
        await until('it died or finished', () => isDead() || place.server.outcomes.length === 1)
        await until('it died or told', () => isDead() || toldOutcome(place))
        if (!isDead()) {
          life.disarm()
          break
        }
        struck.push(life.diedAt() ?? '')
        await finishes(place)
      } finally {
        await place.end()
      }
    }
    // Each kind of write that a page needs was struck at least once.
    expect([...new Set(struck)].sort()).toEqual([
      'addUsage',
      'deleteConsentNotice',
      'deleteTask',
      'putBody',
      'putEntry',
      'putTask',
      'putTaskAndEntry',
      'setOutcomeCursor',
    ])
    console.log(`died ${when} ${struck.length} writes: ${struck.join(' ')}`)
  },
  120_000,
)

async function finishes(place: Place): Promise<void> {
  await place.runner().start()
  // A lease that was granted but never stored is lost; the real server gives the page out again.
  const reissue = setInterval(async () => {
    const isLost = place.server.records().every(({ statement }) => statement === undefined)
    if (!isLost || place.server.queue.length > 0) return
    if ((await place.store.tasks(place.network)).length > 0) return
    place.server.queue.push({ url: 'http://site.example/1' })
    place.server.ring({ type: 'work' })
  }, 200)
  try {
    await until('the page is closed', () => place.server.outcomes.length === 1)
  } finally {
    clearInterval(reissue)
  }
  await until('the outcome is told', () => toldOutcome(place))
  const records = place.server.records().filter(({ statement }) => statement !== undefined)
  expect(records).toHaveLength(1)
  expect(records[0]?.attestation?.text).toBe('This is /1. It is a page.\nThe end.')
  expect(place.server.complaints).toEqual([])
  expect(place.server.consents.at(-1)?.act).toBe('given')
  await until('the notice is gone', () => place.server.consents.length > 0)
}

function toldOutcome(place: Place): boolean {
  return place.store.journal().some(({ outcome }) => outcome?.verdict === 'valid')
}
