import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  boundedSignal,
  combineUse,
  dimensions,
  lessRestrictive,
  parseSignal,
  type Use,
  useOf,
  wishes,
} from '../../../lib/capture/use-signals.ts'
import type { Signal } from '../../../lib/protocol/release.ts'
import vectors from '../../vectors/use-signals.json' with { type: 'json' }

const silent = { train: 'unknown', search: 'unknown', aiInput: 'unknown', tdm: 'unknown' }
const kindsOf = ({ train, search, aiInput, tdm }: Use) => ({ train, search, aiInput, tdm })
const signalOf = ([source, name, value]: readonly string[]) =>
  ({ source, name, value }) as unknown as Signal

describe('use signals', () => {
  test.each(vectors.cases)('$why', ({ signals, use }) => {
    expect(kindsOf(useOf(signals.map(signalOf)))).toEqual({ ...silent, ...use })
  })

  // developers.google.com, robots meta: scopes, lists, `none`; the rest ours.
  test.each([
    ['header', 'x-robots-tag', 'noindex', ['noindex']],
    [
      'header',
      'x-robots-tag',
      'noarchive, unavailable_after: 25 Jun 2010 15:00:00 PST',
      ['noarchive'],
    ],
    ['header', 'x-robots-tag', 'unavailable_after: Wednesday, 25-Jun-10 15:00:00 PST', []],
    ['header', 'x-robots-tag', 'googlebot: nofollow', []],
    ['header', 'x-robots-tag', 'googlebot: nofollow, otherbot: noindex', []],
    ['header', 'x-robots-tag', 'otherbot: noindex, nofollow', ['nofollow']],
    ['header', 'x-robots-tag', 'GLEANER : NOINDEX', ['noindex']],
    ['header', 'x-robots-tag', '*: noarchive', ['noarchive']],
    ['header', 'x-robots-tag', 'gleaner: otherbot: noindex', ['noindex']],
    ['meta', 'robots', 'none', ['nofollow', 'noindex']],
    ['meta', 'robots', 'NoIndex,NoFollow', ['nofollow', 'noindex']],
    ['meta', 'robots', 'noindex nofollow', ['nofollow', 'noindex']],
    ['meta', 'robots', 'nocache', ['noarchive']],
    ['meta', 'robots', 'index, follow, all, max-snippet:-1', []],
    ['meta', 'gleaner', 'noarchive', ['noarchive']],
    ['meta', 'googlebot', 'noindex', []],
    ['meta', 'robots', 'xnoindex, no-index', []],
  ] as const)('%s %s %j is %j', (source, name, value, expected) => {
    const use = useOf([{ source, name, value }])
    expect(wishes.filter((wish) => use[wish]).sort()).toEqual([...expected])
  })

  test('a statement says in which words, for a reason', () => {
    const signal = { source: 'robots', name: 'content-usage', value: '/x train-ai=n' } as const
    expect(parseSignal(signal, 4)).toMatchObject({ line: 4, said: { train: 'train-ai=n' }, signal })
  })

  test('a long name and value are cut to what a row holds', () => {
    const cut = boundedSignal({ source: 'meta', name: 'n'.repeat(99), value: 'v'.repeat(999) })
    expect([cut.name.length, cut.value.length]).toEqual([60, 256])
  })
})

describe('combining', () => {
  const words = `train-ai=n train-ai=y search=n search=y ai-train=no search=yes ai-input=no noai
    noindex noarchive none nofollow 0 1 gleaner: googlebot: otherbot prohibits=ai-train permits=all
    payment=crawl url=https://example.com/l / https://example.com/l`.split(/\s+/)
  const value = fc.oneof(
    fc.array(fc.constantFrom(...words), { maxLength: 4 }).map((some) => some.join(', ')),
    fc.array(fc.constantFrom(...words), { maxLength: 4 }).map((some) => some.join(' ')),
    fc.string({ unit: 'grapheme', maxLength: 300 }),
  )
  const signal: fc.Arbitrary<Signal> = fc.record({
    source: fc.constantFrom('header', 'meta', 'link', 'a', 'robots', 'tdmrep', 'rsl', 'ai-txt'),
    name: fc.oneof(
      fc.constantFrom(
        ...['content-usage', 'content-signal', 'tdm-reservation', 'x-robots-tag', 'robots'],
        ...['license', 'terms', 'unreadable', 'read', 'disallow', 'presence', 'observers-differ'],
      ),
      fc.string({ maxLength: 20 }),
    ),
    value,
  })
  const signals = fc.array(signal, { maxLength: 8 })

  test('does not depend on order, nor on how often something is said', () => {
    fc.assert(
      fc.property(signals, fc.infiniteStream(fc.nat()), (said, keys) => {
        const shuffled = said
          .flatMap((one) => [one, one])
          .map((one) => ({ one, key: keys.next().value ?? 0 }))
          .sort((a, b) => a.key - b.key)
          .map(({ one }) => one)
        expect(useOf(shuffled)).toEqual(useOf(said))
      }),
      { numRuns: 1_000 },
    )
  })

  test('is never less restrictive than any part, but where a stage overrides another', () => {
    fc.assert(
      fc.property(signals, (said) => {
        const statements = said.map((one) => parseSignal(one))
        const all = combineUse(statements)
        for (const one of statements) {
          if (one.topic === null) {
            for (const dimension of dimensions) {
              if (one[dimension] === 'n') expect(all[dimension]).toBe('n')
            }
          }
          for (const wish of wishes) if (one[wish]) expect(all[wish]).toBe(true)
        }
        for (const dimension of dimensions) {
          // A yes is somebody's.
          if (all[dimension] === 'y') {
            expect(statements.some((one) => one[dimension] === 'y')).toBe(true)
            expect(statements.some((one) => one.doubtful)).toBe(false)
          }
        }
      }),
      { numRuns: 1_000 },
    )
  })

  test('more signals are never less restrictive, unless they are of a higher stage', () => {
    fc.assert(
      fc.property(signals, signal, (said, more) => {
        fc.pre(parseSignal(more).topic === null)
        const before = useOf(said)
        const after = useOf([...said, more])
        for (const dimension of dimensions) {
          if (before[dimension] === 'n') expect(after[dimension]).toBe('n')
          if (after[dimension] === 'y' && before[dimension] === 'unknown') {
            expect(parseSignal(more)[dimension]).toBe('y')
          }
        }
      }),
      { numRuns: 1_000 },
    )
  })

  test('what a row states of bounded signals is never refused', () => {
    fc.assert(
      fc.property(signals, (said) => {
        const bounded = said.map(boundedSignal)
        const stated = useOf([...said, ...bounded])
        expect(lessRestrictive(stated, useOf(bounded))).toBeUndefined()
      }),
      { numRuns: 1_000 },
    )
  })

  test.each([
    ['y', 'y', undefined],
    ['unknown', 'y', undefined],
    ['n', 'y', undefined],
    ['n', 'unknown', undefined],
    ['y', 'unknown', 'train'],
    ['y', 'n', 'train'],
    ['unknown', 'n', 'train'],
  ] as const)('to state %s where signals say %s: %s', (stated, needed, expected) => {
    const use = useOf([])
    expect(lessRestrictive({ ...use, train: stated }, { ...use, train: needed })).toBe(expected)
  })

  test('hostile values take no time', () => {
    const long = [`${'('.repeat(20_000)}`, `${'a;'.repeat(20_000)}`, `${' \t'.repeat(20_000)}x`]
    for (const value of [...long, 'gleaner:'.repeat(9_000), `${'a '.repeat(9_000)}:`]) {
      for (const name of ['content-usage', 'content-signal', 'x-robots-tag', 'tdm-reservation']) {
        for (const source of ['header', 'robots'] as const) parseSignal({ source, name, value })
      }
      parseSignal({ source: 'rsl', name: 'terms', value })
    }
  }, 5_000)
})
