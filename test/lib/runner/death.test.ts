import { expect, test } from 'vitest'
import { domainLeaf } from '../../../lib/consent/domain-list.ts'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import type { RunnerStore } from '../../../lib/runner/ports.ts'
import { rootHash } from '../../../lib/tlog/merkle.ts'
import { campaignOver } from './operator.ts'
import { isDone, Place, until } from './place.ts'

// A worker may die on any line. What matters is where it stands between two writes: before each
// write that a page needs, and after each, it dies here and a new one goes on over the same store.

const writes = [
  'addUsage',
  'deleteConsentNotice',
  'putTask',
  'putBody',
  'putTaskAndEntry',
  'putEntry',
  'deleteTask',
  'setOutcomeCursor',
] as const

// Usage is written after every call; the first few stand for the rest.
const MOST_STRIKES_EACH = 4

/** A store whose owner dies at the n-th write of this kind: before it, or when it is durable but not yet told. */
function mortal(
  store: RunnerStore,
  write: (typeof writes)[number],
  nth: number,
  when: 'before' | 'after',
) {
  let seen = 0
  let isDead = false
  const never = () => new Promise<never>(() => {})
  const proxy = new Proxy(store, {
    get(target, name: keyof RunnerStore) {
      const method = target[name] as (...given: unknown[]) => Promise<unknown>
      return async (...given: unknown[]) => {
        if (isDead) return never()
        if (name === write) seen += 1
        if (name === write && seen === nth) {
          isDead = true
          if (when === 'after') await method.apply(target, given)
          return never()
        }
        return method.apply(target, given)
      }
    },
  })
  return {
    store: proxy,
    isDead: () => isDead,
    /** It lived; nothing shall strike while it is stopped. */
    disarm: () => {
      seen = Number.POSITIVE_INFINITY
    },
  }
}

const cases = writes.flatMap((write) => [[write, 'before'] as const, [write, 'after'] as const])

test.each(cases)(
  'a runner that dies at %s, %s it, is followed by one that finishes its work',
  async (write, when) => {
    let struck = 0
    while (struck < MOST_STRIKES_EACH) {
      const place = await Place.make()
      try {
        place.server.queue.push({ url: 'http://site.example/1' })
        place.server.script = ['payload', 'attest']
        const life = mortal(place.store, write, struck + 1, when)
        const { isDead } = life
        await place.runner({ store: life.store, isDead }).start()
        await until('it died or finished', async () => isDead() || (await isFinished(place)))
        if (!isDead()) {
          life.disarm()
          break
        }
        struck += 1
        await finishes(place)
      } finally {
        await place.end()
      }
    }
    expect(struck, 'this kind of write never happened').toBeGreaterThan(0)
  },
)

test('what was seen for a wide campaign is told by the next life, even after the last day', async () => {
  const place = await Place.make()
  try {
    const { operator } = place.server
    const leaves = [domainLeaf('site.example')]
    const wide = {
      root: toBase64Url(rootHash(leaves)),
      size: 1,
      category: 'one site',
      scheme: 'http' as const,
      requestsPerSecond: 100,
      requestsInFlight: 1,
    }
    const offered = await operator.offer(campaignOver('x.example', { sites: [], wide }))
    place.server.campaigns.push(offered)
    const { digest, campaign } = offered
    const consented = { ...place.consented, digest, campaign }
    const consent = { network: place.network, campaign: digest, act: 'given' as const }
    await place.store.putConsentNotice({ ...consent, at: consented.givenAt, receipt: digest })
    Object.assign(place, { consented })
    place.server.queue.push({
      url: 'http://site.example/1',
      campaign: digest,
      changes: { domain: { name: 'site.example', index: 0, proof: '' } },
    })
    // Dies when the statement is durable, before anybody was told.
    const life = mortal(place.store, 'putTaskAndEntry', 1, 'after')
    await place.runner({ store: life.store, isDead: life.isDead }).start()
    await until('it died', life.isDead)
    expect(place.server.records()[0]?.statement).toBeUndefined()

    const over = { ...campaign, validUntil: new Date(0).toISOString() }
    Object.assign(place, { consented: { ...consented, campaign: over } })
    await place.runner().start()
    await until('it is told', () => place.server.records()[0]?.statement !== undefined)
  } finally {
    await place.end()
  }
})

async function isFinished(place: Place): Promise<boolean> {
  const cursor = await place.store.outcomeCursor(place.network)
  return toldOutcome(place) && cursor > 0 && (await isDone(place))
}

async function finishes(place: Place): Promise<void> {
  await place.runner().start()
  // A lease that was granted but never stored is lost; the real server gives the page out again.
  // Lost twice in a row: a lease on its way into the store is not lost.
  let lostLooks = 0
  const reissue = setInterval(async () => {
    const isUnseen = place.server.records().every(({ statement }) => statement === undefined)
    const isLost = isUnseen && place.server.queue.length === 0 && (await isDone(place))
    lostLooks = isLost ? lostLooks + 1 : 0
    if (lostLooks < 2) return
    lostLooks = 0
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
