import { describe, expect, test } from 'vitest'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import type { FetchedObservation } from '../../../lib/protocol/observation.ts'
import { decide, maxObservers } from '../../../server/verify/decide.ts'
import { changed, paragraphs, replaced, teaPage } from './tea-page.ts'
import { converse, failedWitness, pageUrl, settlement, task, witness } from './witness.ts'

const articleText = paragraphs.join('\n')
/** Pages of the same article whose bytes differ, as those of a live site do. */
const noisy = (number: number, shown: Parameters<typeof teaPage>[0] = {}) =>
  teaPage({ promotion: `Visitor ${number} reads this.`, ...shown })

/** Pages whose bytes differ where nobody looks: their lists are equal. */
const unseen = (lease: string, number: number, said: Parameters<typeof witness>[2] = {}) =>
  witness(lease, `${teaPage()}<!-- made for visitor ${number} -->`, said)

describe('equal payloads', () => {
  test('two settle it, from one payload and a signature of each', () => {
    const { decision, asks } = converse([witness('ada', teaPage()), witness('bob', teaPage())])
    expect(asks.map(({ kind, lease }) => `${kind} ${lease}`)).toEqual([
      'payload ada',
      'attest ada',
      'attest bob',
    ])
    expect(decision).toMatchObject({
      kind: 'settle',
      invalid: [],
      settlement: {
        verdict: 'valid',
        valid: ['ada', 'bob'],
        page: {
          url: pageUrl,
          status: 200,
          type: 'text/html',
          grade: 'exact',
          agreementPermille: 1000,
          gaps: 0,
          text: articleText,
          title: 'On tea',
          language: 'en',
          attesters: ['ada', 'bob'],
          payloadLease: 'ada',
          links: ['https://barley.example/', 'https://barley.example/coffee'],
        },
      },
    })
  })

  test('a quorum of three needs three, and three signatures', () => {
    const three = ['ada', 'bob', 'cyd'].map((lease) => witness(lease, teaPage()))
    expect(converse(three.slice(0, 2), { quorum: 3 }).decision).toEqual({
      kind: 'observer',
      links: [],
    })
    expect(settlement(three, { quorum: 3 })).toMatchObject({
      verdict: 'valid',
      page: { grade: 'exact', attesters: ['ada', 'bob', 'cyd'] },
    })
  })

  test('one observer alone waits for another, live or not', () => {
    const one = [witness('ada', teaPage())]
    expect(converse(one, { live: 1 })).toEqual({ decision: { kind: 'wait' }, asks: [] })
    expect(converse(one, { live: 0, available: 0 }).decision).toEqual({
      kind: 'observer',
      links: [],
    })
  })

  test('the payload is asked of an observer drawn at random', () => {
    const drawn = (random: number) => {
      const three = ['ada', 'bob', 'cyd'].map((lease) => witness(lease, teaPage()))
      return decide(task(three), () => random)
    }
    expect(drawn(0)).toEqual({ kind: 'ask', asks: [{ lease: 'ada', kind: 'payload' }] })
    expect(drawn(0.5)).toEqual({ kind: 'ask', asks: [{ lease: 'bob', kind: 'payload' }] })
    expect(drawn(0.999)).toEqual({ kind: 'ask', asks: [{ lease: 'cyd', kind: 'payload' }] })
  })

  test('the next one is asked when the payload does not come', () => {
    const { decision, asks } = converse([
      witness('ada', teaPage(), { silentOn: ['payload'] }),
      witness('bob', teaPage()),
    ])
    expect(asks.slice(0, 2)).toEqual([
      { lease: 'ada', kind: 'payload' },
      { lease: 'bob', kind: 'payload' },
    ])
    expect(decision).toMatchObject({ settlement: { page: { payloadLease: 'bob' } } })
  })

  test('a payload under way is waited for, not asked of two', () => {
    const [ada, bob] = [witness('ada', teaPage()), witness('bob', teaPage())]
    ada.facts.payload = 'asked'
    expect(decide(task([ada, bob]), () => 0)).toEqual({ kind: 'wait' })
  })

  test('another observer is wanted when no payload comes from anybody', () => {
    const silent = ['ada', 'bob'].map((lease) =>
      witness(lease, teaPage(), { silentOn: ['payload'] }),
    )
    expect(converse(silent).decision).toEqual({ kind: 'observer', links: [] })
    expect(converse([...silent, witness('cyd', teaPage())]).decision).toMatchObject({
      settlement: { verdict: 'valid', page: { payloadLease: 'cyd' } },
    })
  })

  test('a payload that cannot be read counts as one that did not come', () => {
    const [ada, bob] = [witness('ada', teaPage()), witness('bob', teaPage())]
    ada.facts.payload = { ok: false, reason: 'not read within 5000 ms' }
    expect(decide(task([ada, bob]), () => 0)).toEqual({
      kind: 'ask',
      asks: [{ lease: 'bob', kind: 'payload' }],
    })
  })

  test('whoever names a list that the payload does not give is invalid, and a third stands in', () => {
    const liar = witness('ada', teaPage(), { claims: teaPage({ title: 'On coffee' }) })
    const bob = witness('bob', teaPage())
    expect(converse([liar, bob]).decision).toEqual({ kind: 'observer', links: [] })
    expect(settlement([liar, bob, witness('cyd', teaPage())])).toMatchObject({
      verdict: 'valid',
      valid: ['bob', 'cyd'],
      invalid: ['ada'],
      page: { attesters: ['bob', 'cyd'], payloadLease: 'ada' },
    })
  })

  test('nothing is published when nobody’s statement follows from the payload', () => {
    const claims = teaPage({ paragraphs: changed(3, 'nine', 'five') })
    const liars = ['ada', 'bob'].map((lease) => witness(lease, teaPage(), { claims }))
    expect(settlement(liars)).toMatchObject({
      verdict: 'unpublished',
      reason: 'sentences cannot be derived again',
      valid: [],
      invalid: ['ada', 'bob'],
    })
  })

  test('a page without text is settled and not published', () => {
    const empty = '<html><body><img src="/tea.png"></body></html>'
    expect(settlement([witness('ada', empty), witness('bob', empty)])).toMatchObject({
      verdict: 'unpublished',
      reason: 'no text',
      valid: ['ada', 'bob'],
    })
  })

  test('equal bytes among three outvote a third page', () => {
    expect(
      settlement([
        witness('ada', teaPage({ paragraphs: changed(3, 'nine', 'five') })),
        witness('bob', teaPage()),
        witness('cyd', teaPage()),
      ]),
    ).toMatchObject({
      verdict: 'valid',
      valid: ['bob', 'cyd'],
      page: { grade: 'exact', text: articleText },
    })
  })
})

describe('different payloads', () => {
  test('both lists are asked for, then two settle what they agree on', () => {
    const { decision, asks } = converse([witness('ada', noisy(1)), witness('bob', noisy(2))])
    expect(asks.map(({ kind, lease }) => `${kind} ${lease}`)).toEqual([
      'sentences ada',
      'sentences bob',
      'payload ada',
      'attest ada',
      'attest bob',
    ])
    expect(decision).toMatchObject({
      kind: 'settle',
      settlement: {
        verdict: 'valid',
        valid: ['ada', 'bob'],
        page: { grade: 'sentences', text: articleText, payloadDigest: null },
      },
    })
  })

  test('lists of one digest need not be sent: the payload tells them', () => {
    const { decision, asks } = converse([unseen('ada', 1), unseen('bob', 2)])
    expect(asks.map(({ kind, lease }) => `${kind} ${lease}`)).toEqual([
      'payload ada',
      'attest ada',
      'attest bob',
    ])
    expect(decision).toMatchObject({
      kind: 'settle',
      invalid: [],
      settlement: {
        verdict: 'valid',
        valid: ['ada', 'bob'],
        page: { grade: 'sentences', text: articleText, agreementPermille: 1000 },
      },
    })
  })

  test('one observer sends a list for all who named its digest', () => {
    const three = [unseen('ada', 1), unseen('bob', 2), witness('cyd', noisy(3))]
    const { decision, asks } = converse(three, { quorum: 3 })
    expect(asks.map(({ kind, lease }) => `${kind} ${lease}`).slice(0, 2)).toEqual([
      'sentences ada',
      'sentences cyd',
    ])
    expect(decision).toMatchObject({ kind: 'settle', settlement: { verdict: 'valid' } })
    const silent = [unseen('ada', 1, { silentOn: ['sentences'] }), ...three.slice(1)]
    for (const { facts } of three) facts.sentences = facts.payload = 'unasked'
    expect(
      converse(silent, { quorum: 3 })
        .asks.filter(({ kind }) => kind === 'sentences')
        .map(({ lease }) => lease),
    ).toEqual(['ada', 'cyd', 'bob'])
  })

  test('a digest that its payload does not bear out is nobody’s list', () => {
    const liar = unseen('ada', 1, { claims: teaPage({ promotion: 'Not what it holds.' }) })
    const echo = unseen('bob', 2, { claims: teaPage({ promotion: 'Not what it holds.' }) })
    const { decision } = converse([liar, echo, unseen('cyd', 3), unseen('dan', 4)])
    expect(decision).toMatchObject({
      kind: 'settle',
      settlement: { verdict: 'valid', valid: ['cyd', 'dan'] },
    })
    expect(decision.kind === 'settle' && decision.invalid).toContain('ada')
  })

  test('of a quorum of one digest the next is asked when the payload does not come', () => {
    const gone = unseen('ada', 1, { silentOn: ['payload'] })
    expect(settlement([gone, unseen('bob', 2)])).toMatchObject({
      verdict: 'valid',
      page: { payloadLease: 'bob', attesters: ['bob', 'ada'] },
    })
    const neither = ['ada', 'bob'].map((lease, i) => unseen(lease, i, { silentOn: ['payload'] }))
    expect(converse(neither).decision).toEqual({ kind: 'observer', links: [] })
  })

  test('a list under way is waited for', () => {
    const [ada, bob] = [witness('ada', noisy(1)), witness('bob', noisy(2))]
    ada.facts.sentences = 'asked'
    bob.facts.sentences = bob.list
    expect(decide(task([ada, bob]), () => 0)).toEqual({ kind: 'wait' })
  })

  test('a list that does not come costs its observer the vote', () => {
    const gone = witness('ada', noisy(1), { silentOn: ['sentences'] })
    const bob = witness('bob', noisy(2))
    expect(converse([gone, bob]).decision).toEqual({ kind: 'observer', links: [] })
    expect(settlement([gone, bob, witness('cyd', noisy(3))])).toMatchObject({
      verdict: 'valid',
      page: { attesters: ['bob', 'cyd'] },
    })
  })

  test('a third is asked when the lists disagree, and outvotes the one that stands alone', () => {
    const stranger = witness('ada', noisy(1, { paragraphs: replaced(6, 'xylo') }))
    const bob = witness('bob', noisy(2))
    expect(converse([stranger, bob]).decision).toEqual({ kind: 'observer', links: [] })
    expect(settlement([stranger, bob, witness('cyd', noisy(3))])).toMatchObject({
      verdict: 'valid',
      invalid: ['ada'],
      valid: ['bob', 'cyd'],
      page: { text: articleText },
    })
  })

  test('one contested sentence forces a third, however much the rest agrees', () => {
    const forger = witness('ada', noisy(1, { paragraphs: changed(3, 'nine', 'five') }))
    const bob = witness('bob', noisy(2))
    const { decision, asks } = converse([forger, bob])
    expect(decision).toEqual({ kind: 'observer', links: [] })
    expect(asks.map((ask) => ask.kind)).toEqual(['sentences', 'sentences'])
  })

  test('a third that sides with one of them settles the sentence', () => {
    const page = settlement([
      witness('ada', noisy(1, { paragraphs: changed(3, 'nine', 'five') })),
      witness('bob', noisy(2)),
      witness('cyd', noisy(3)),
    ])
    expect(page).toMatchObject({
      verdict: 'valid',
      valid: ['bob', 'cyd'],
      page: { text: articleText, agreementPermille: 1000 },
    })
  })

  test('a block that stays contested among three is withheld whole', () => {
    const price = (number: number, euros: string) =>
      witness(`w${number}`, noisy(number, { paragraphs: changed(3, 'nine', euros) }))
    expect(
      settlement([price(1, 'five'), price(2, 'six'), price(3, 'seven')], { available: 0 }),
    ).toMatchObject({
      verdict: 'valid',
      page: {
        text: paragraphs.filter((_, i) => i !== 3).join('\n'),
        gaps: 0,
        grade: 'sentences',
      },
    })
  })

  test('a sentence that one of two leaves out is not dropped unseen', () => {
    const without = noisy(1, { paragraphs: changed(3, / The same tin[^.]*\./, '') })
    const [ada, bob] = [witness('ada', without), witness('bob', noisy(2))]
    expect(converse([ada, bob]).decision).toEqual({ kind: 'observer', links: [] })
    expect(settlement([ada, bob, witness('cyd', noisy(3))])).toMatchObject({
      page: { text: articleText, attesters: ['bob', 'cyd'] },
    })
  })

  test('in the middle band two ask for a third, and three publish what two of them share', () => {
    const half = (number: number, word: string) =>
      witness(`w${number}`, noisy(number, { paragraphs: replaced(2, word) }))
    const two = [half(1, 'xylo'), half(2, 'yara')]
    expect(converse(two).decision).toEqual({ kind: 'observer', links: [] })
    const settled = settlement([...two, half(3, 'zulu')])
    expect(settled).toMatchObject({
      verdict: 'valid',
      page: { text: paragraphs.slice(2).join('\n') },
    })
    if (settled.verdict !== 'valid') throw new Error('not valid')
    expect(settled.page.agreementPermille).toBeGreaterThanOrEqual(500)
    expect(settled.page.agreementPermille).toBeLessThan(900)
  })

  test('a failed fetch is no third opinion on a contested sentence', () => {
    const two = [
      witness('ada', noisy(1, { paragraphs: changed(3, 'nine', 'five') })),
      witness('bob', noisy(2)),
    ]
    expect(converse([...two, failedWitness('cyd', 'timeout')]).decision).toEqual({
      kind: 'observer',
      links: [],
    })
  })

  test('with nobody left to ask, the contested block is withheld after a failed fetch too', () => {
    const three = [
      witness('ada', noisy(1, { paragraphs: changed(3, 'nine', 'five') })),
      witness('bob', noisy(2)),
      failedWitness('cyd', 'timeout'),
    ]
    expect(settlement(three, { available: 0 })).toMatchObject({
      verdict: 'valid',
      page: { text: paragraphs.filter((_, i) => i !== 3).join('\n') },
    })
  })

  test('a third list that never comes is no third opinion either', () => {
    const three = [
      witness('ada', noisy(1, { paragraphs: changed(3, 'nine', 'five') })),
      witness('bob', noisy(2)),
      witness('cyd', noisy(3), { silentOn: ['sentences'] }),
    ]
    expect(converse(three).decision).toEqual({ kind: 'observer', links: [] })
  })

  test('a holder whose statement does not follow from its payload is left out, and named', () => {
    const liar = witness('ada', noisy(1, { paragraphs: changed(3, 'nine', 'five') }), {
      claims: noisy(1),
    })
    const bob = witness('bob', noisy(2))
    expect(converse([liar, bob]).decision).toEqual({ kind: 'observer', links: [] })
    expect(settlement([liar, bob, witness('cyd', noisy(3))])).toMatchObject({
      verdict: 'valid',
      invalid: ['ada'],
      valid: ['bob', 'cyd'],
      page: { text: articleText },
    })
  })

  test('a quorum of three needs three lists that agree', () => {
    const three = [1, 2, 3].map((number) => witness(`w${number}`, noisy(number)))
    expect(settlement(three, { quorum: 3 })).toMatchObject({
      verdict: 'valid',
      page: { grade: 'sentences', attesters: ['w1', 'w2', 'w3'] },
    })
  })

  test('two that share only what is not main text have nothing to publish', () => {
    const alone = (number: number, word: string) =>
      witness(`w${number}`, noisy(number, { paragraphs: replaced(6, word) }))
    expect(converse([alone(1, 'xylo'), alone(2, 'yara')]).decision).toEqual({
      kind: 'observer',
      links: [],
    })
  })
})

describe('nobody agrees', () => {
  const strangers = (words: readonly string[]) =>
    words.map((word, i) => witness(`w${i}`, noisy(i, { paragraphs: replaced(6, word) })))

  test('three that differ are divergent when nobody else is there', () => {
    expect(settlement(strangers(['xylo', 'yara', 'zulu']), { available: 0 })).toMatchObject({
      verdict: 'divergent',
      valid: [],
      reason: 'no two observers agree',
    })
  })

  test('three that differ ask on while somebody is there, and wait while somebody is at it', () => {
    const three = strangers(['xylo', 'yara', 'zulu'])
    expect(converse(three, { available: 1 }).decision).toEqual({ kind: 'observer', links: [] })
    expect(converse(three, { available: 1, live: 1 }).decision).toEqual({ kind: 'wait' })
  })

  test('a liar is heard too: without it the others are divergent, not asked for ever', () => {
    const liar = witness('ada', noisy(1, { paragraphs: changed(3, 'nine', 'five') }), {
      claims: noisy(1),
    })
    const honest = [
      witness('bob', noisy(2)),
      witness('cyd', noisy(3, { paragraphs: replaced(6, 'xylo') })),
    ]
    expect(settlement([liar, ...honest], { available: 0 })).toMatchObject({
      verdict: 'divergent',
      invalid: ['ada'],
    })
  })

  test('two that differ are not divergent, even when nobody else is there', () => {
    expect(converse(strangers(['xylo', 'yara']), { available: 0 }).decision).toEqual({
      kind: 'observer',
      links: [],
    })
  })

  test('five that differ are divergent, whoever else is there', () => {
    const five = strangers(['xylo', 'yara', 'zulu', 'wolf', 'vase'])
    expect(five).toHaveLength(maxObservers)
    expect(settlement(five, { available: 9 })).toMatchObject({ verdict: 'divergent' })
  })

  test('different responses need another observer', () => {
    expect(
      converse([witness('ada', teaPage()), witness('bob', teaPage(), { seen: { status: 404 } })])
        .decision,
    ).toEqual({ kind: 'observer', links: [] })
    expect(
      converse([
        witness('ada', teaPage()),
        witness('bob', teaPage(), { seen: { type: 'application/xhtml+xml' } }),
      ]).decision,
    ).toEqual({ kind: 'observer', links: [] })
  })

  test('a fetch that worked and one that did not need another observer', () => {
    expect(
      converse([witness('ada', teaPage()), failedWitness('bob', 'connection')]).decision,
    ).toEqual({ kind: 'observer', links: [] })
  })
})

describe('responses that are no page', () => {
  test('failures that agree are settled with their reason', () => {
    expect(
      settlement([failedWitness('ada', 'timeout'), failedWitness('bob', 'timeout')]),
    ).toMatchObject({ verdict: 'unpublished', reason: 'timeout', valid: ['ada', 'bob'] })
  })

  test('failures of different kinds do not agree', () => {
    expect(
      converse([failedWitness('ada', 'timeout'), failedWitness('bob', 'too-large')]).decision,
    ).toEqual({ kind: 'observer', links: [] })
  })

  test.each([404, 410, 500])('status %d is settled and not published', (status) => {
    const gone = ['ada', 'bob'].map((lease) => witness(lease, teaPage(), { seen: { status } }))
    expect(converse(gone)).toEqual({
      asks: [],
      decision: {
        kind: 'settle',
        invalid: [],
        settlement: {
          verdict: 'unpublished',
          reason: `status ${status}`,
          valid: ['ada', 'bob'],
        },
      },
    })
  })

  test.each([429, 503])('one observer that was sent away with %d postpones the page', (status) => {
    const busy = witness('bob', teaPage(), { seen: { status } })
    expect(settlement([witness('ada', teaPage()), busy])).toMatchObject({
      verdict: 'postponed',
      reason: `status ${status}`,
      valid: ['bob'],
    })
  })

  test('after five postponements one observer is not enough, and two settle it', () => {
    const busy = ['ada', 'bob'].map((lease) => witness(lease, teaPage(), { seen: { status: 429 } }))
    const facts = { failures: 5 }
    expect(converse(busy.slice(0, 1), facts).decision).toEqual({ kind: 'observer', links: [] })
    expect(converse(busy, facts).decision).toMatchObject({
      settlement: { verdict: 'unpublished', reason: 'status 429' },
    })
  })

  test('a redirect that two followed names its target', () => {
    const seen = { url: 'https://barley.example/on-tea', hops: [301] }
    expect(settlement(['ada', 'bob'].map((l) => witness(l, teaPage(), { seen })))).toMatchObject({
      verdict: 'redirect',
      target: 'https://barley.example/on-tea',
      valid: ['ada', 'bob'],
    })
  })

  test('redirects to different places do not agree', () => {
    const to = (lease: string) =>
      witness(lease, teaPage(), { seen: { url: `https://barley.example/${lease}`, hops: [302] } })
    expect(converse([to('ada'), to('bob')]).decision).toEqual({ kind: 'observer', links: [] })
  })
})

describe('robots.txt', () => {
  const url = 'https://barley.example/robots.txt'
  const robots = (lease: string, rules: string, seen: Partial<FetchedObservation> = {}) =>
    witness(lease, rules, { seen: { url, type: 'text/plain', ...seen } })
  const about = { kind: 'robots', url } as const
  const rules = 'User-agent: *\nDisallow: /private/\n'

  test('rules that two received alike are in force, word for word', () => {
    const { decision, asks } = converse([robots('ada', rules), robots('bob', rules)], about)
    expect(asks).toEqual([{ lease: 'ada', kind: 'payload' }])
    expect(decision).toMatchObject({
      settlement: {
        verdict: 'robots',
        robots: {
          state: 'rules',
          text: rules,
          payloadDigest: toBase64Url(sha256(rules)),
        },
        valid: ['ada', 'bob'],
      },
    })
  })

  test.each([
    [404, 'allow-all'],
    [410, 'allow-all'],
    [401, 'disallow-all'],
    [403, 'disallow-all'],
    [429, 'disallow-all'],
    [503, 'disallow-all'],
  ] as const)('status %d means %s', (status, state) => {
    expect(
      settlement([robots('ada', rules, { status }), robots('bob', rules, { status })], about),
    ).toMatchObject({ verdict: 'robots', robots: { state }, valid: ['ada', 'bob'] })
  })

  test('unreachable for two forbids everything', () => {
    expect(
      settlement([failedWitness('ada', 'connection'), failedWitness('bob', 'connection')], about),
    ).toMatchObject({ verdict: 'robots', robots: { state: 'disallow-all' } })
  })

  test('rules that differ for everybody forbid everything', () => {
    const different = ['ada', 'bob', 'cyd'].map((lease) => robots(lease, `${rules}# ${lease}\n`))
    expect(converse(different.slice(0, 2), about).decision).toEqual({ kind: 'observer', links: [] })
    expect(settlement(different, { ...about, available: 0 })).toMatchObject({
      verdict: 'robots',
      robots: { state: 'disallow-all' },
      valid: [],
    })
  })

  test('two that received the same outvote a third, which earns nothing', () => {
    const three = [robots('ada', 'Allow: /'), robots('bob', rules), robots('cyd', rules)]
    expect(settlement(three, about)).toMatchObject({
      robots: { text: rules },
      valid: ['bob', 'cyd'],
    })
  })

  test('a payload that nobody sends needs another observer', () => {
    const silent = ['ada', 'bob'].map((lease) =>
      witness(lease, rules, { seen: { url, type: 'text/plain' }, silentOn: ['payload'] }),
    )
    expect(converse(silent, about).decision).toEqual({ kind: 'observer', links: [] })
  })

  test('a page of HTML instead of rules forbids everything', () => {
    const html = ['ada', 'bob'].map((lease) => robots(lease, teaPage(), { type: 'text/html' }))
    expect(settlement(html, about)).toMatchObject({
      verdict: 'robots',
      robots: { state: 'disallow-all' },
    })
  })
})

describe('attestation', () => {
  test('of equal payloads: another observer signs for the one that does not', () => {
    const three = [
      witness('ada', teaPage()),
      witness('bob', teaPage(), { silentOn: ['attest'] }),
      witness('cyd', teaPage()),
    ]
    expect(settlement(three)).toMatchObject({
      verdict: 'valid',
      page: { attesters: ['ada', 'cyd'] },
    })
  })

  test('of sentences: a third observer signs for the one that does not', () => {
    const two = [witness('ada', noisy(1)), witness('bob', noisy(2), { silentOn: ['attest'] })]
    expect(converse(two).decision).toEqual({ kind: 'observer', links: [] })
    expect(settlement([...two, witness('cyd', noisy(3))])).toMatchObject({
      verdict: 'valid',
      page: { text: articleText, attesters: ['ada', 'cyd'] },
    })
  })

  test('of sentences: two others stand in when the payload’s holders vanish', () => {
    const vanished = (['ada', 'bob'] as const).map((lease, i) =>
      witness(lease, noisy(i), { silentOn: ['payload'] }),
    )
    expect(converse(vanished).decision).toEqual({ kind: 'observer', links: [] })
    expect(
      settlement([...vanished, witness('cyd', noisy(3)), witness('dan', noisy(4))]),
    ).toMatchObject({ verdict: 'valid', page: { attesters: ['cyd', 'dan'] } })
  })

  test('with nobody left to sign, three are divergent', () => {
    const silent = ['ada', 'bob', 'cyd'].map((lease) =>
      witness(lease, teaPage(), { silentOn: ['attest'] }),
    )
    expect(settlement(silent, { available: 0 })).toMatchObject({
      verdict: 'divergent',
      reason: 'an attestation is missing',
    })
  })

  test('one under way is waited for', () => {
    const [ada, bob] = [witness('ada', teaPage()), witness('bob', teaPage())]
    ada.facts.payload = ada.analysis
    const asked = decide(task([ada, bob]), () => 0)
    if (asked.kind !== 'ask' || asked.asks[0]?.kind !== 'attest') throw new Error('not asked')
    for (const one of [ada, bob]) {
      one.facts.attestationsAsked = new Map([[asked.asks[0].text, 'asked']])
    }
    expect(decide(task([ada, bob]), () => 0)).toEqual({ kind: 'wait' })
  })

  test('the row says the most gaps that a signer counted', () => {
    const [ada, bob] = [witness('ada', teaPage()), witness('bob', teaPage())]
    converse([ada, bob])
    const [text] = [...bob.facts.attestations.keys()]
    bob.facts.attestations = new Map([[text ?? '', { gaps: 3 }]])
    expect(decide(task([ada, bob]), () => 0)).toMatchObject({ settlement: { page: { gaps: 3 } } })
  })
})

describe('metadata', () => {
  const noai = '<meta name="robots" content="noai">'
  const differ = { source: 'meta', name: 'observers-differ', value: '' }

  test('signals of every observer of the page count', () => {
    const settled = settlement(
      [
        witness('ada', teaPage({ head: noai }), { seen: { headers: { 'tdm-reservation': '1' } } }),
        witness('bob', teaPage({ head: noai }), {
          seen: { headers: { 'content-usage': 'train-ai=n' } },
        }),
        witness('cyd', teaPage(), {
          seen: { headers: { 'content-signal': 'ai-input=no', etag: '"1"' } },
        }),
      ],
      { use: 'search', hostSignals: [{ source: 'tdmrep', name: 'tdm-reservation', value: '1' }] },
    )
    if (settled.verdict !== 'valid') throw new Error('not valid')
    expect(settled.page.signals).toEqual([
      { source: 'header', name: 'tdm-reservation', value: '1' },
      { source: 'header', name: 'content-usage', value: 'train-ai=n' },
      { source: 'header', name: 'content-signal', value: 'ai-input=no' },
      { source: 'meta', name: 'robots', value: 'noai' },
      differ,
      { source: 'tdmrep', name: 'tdm-reservation', value: '1' },
    ])
  })

  test.each([
    ['an error page', { status: 404 }],
    ['another page that it was led to', { url: 'https://barley.example/sorry' }],
    ['another type', { type: 'text/plain' }],
  ])('headers of an observer who got %s say nothing of the page', (_, other) => {
    const settled = settlement([
      witness('cyd', teaPage(), { seen: { ...other, headers: { 'x-robots-tag': 'noindex' } } }),
      witness('ada', teaPage(), { seen: { headers: { 'content-usage': 'search=y' } } }),
      witness('bob', teaPage(), { seen: { headers: { 'content-usage': 'search=y' } } }),
    ])
    if (settled.verdict !== 'valid') throw new Error('not valid')
    expect(settled.page.signals).toEqual([
      { source: 'header', name: 'content-usage', value: 'search=y' },
    ])
  })

  test('an error page of one observer does not keep the links of a page without text', () => {
    const seen = { status: 404, headers: { 'x-robots-tag': 'nofollow' } }
    const empty = '<p><a href="/next"></a></p>'
    const settled = settlement([
      witness('cyd', empty, { seen }),
      witness('ada', empty),
      witness('bob', empty),
    ])
    expect(settled).toMatchObject({ verdict: 'unpublished', reason: 'no text' })
    expect(settled).toHaveProperty('links', ['https://barley.example/next'])
  })

  test('where observers of one page saw other signals in it, each payload is read', () => {
    const two = [witness('ada', noisy(1)), witness('bob', noisy(2, { head: noai }))]
    const { decision, asks } = converse(two)
    expect(asks.filter(({ kind }) => kind === 'payload').map(({ lease }) => lease)).toEqual([
      'ada',
      'bob',
    ])
    expect(decision).toMatchObject({
      settlement: {
        page: { signals: [{ source: 'meta', name: 'robots', value: 'noai' }, differ] },
      },
    })
  })

  test('signals that nobody shows are unknown', () => {
    const settled = settlement([
      witness('ada', noisy(1)),
      witness('bob', noisy(2, { head: noai }), { silentOn: ['payload'] }),
    ])
    if (settled.verdict !== 'valid') throw new Error('not valid')
    expect(settled.page.signals).toEqual([differ])
  })

  test('who names other signals for the same bytes is asked nothing', () => {
    const { asks } = converse([
      witness('ada', teaPage()),
      witness('bob', teaPage()),
      witness('cyd', teaPage(), { claims: teaPage({ head: noai }) }),
    ])
    expect(asks.filter(({ lease }) => lease === 'cyd')).toEqual([])
  })

  test('nofollow of one observer’s header keeps the links out of the frontier', () => {
    const settled = settlement([
      witness('ada', teaPage()),
      witness('bob', teaPage(), { seen: { headers: { 'x-robots-tag': 'nofollow' } } }),
    ])
    expect(settled).toMatchObject({ verdict: 'valid', page: { links: [] } })
  })

  test('of too many signals those that say no are kept', () => {
    const names = Array.from({ length: 60 }, (_, i) => `<meta name="rights" content="${i}">`)
    const more = Array.from({ length: 60 }, (_, i) => `<meta name="license" content="${i}">`)
    const settled = settlement(
      [
        witness('ada', noisy(1, { head: names.join('') })),
        witness('bob', noisy(2, { head: more.join('') })),
      ],
      { hostSignals: [{ source: 'robots', name: 'content-usage', value: 'train-ai=n' }] },
    )
    if (settled.verdict !== 'valid') throw new Error('not valid')
    expect(settled.page.signals).toHaveLength(100)
    expect(settled.page.signals.slice(0, 2)).toEqual([
      differ,
      { source: 'robots', name: 'content-usage', value: 'train-ai=n' },
    ])
  })

  test('equal signals are named once', () => {
    const seen = { headers: { 'tdm-reservation': '1' } }
    const settled = settlement(
      ['ada', 'bob'].map((l) => witness(l, teaPage(), { seen })),
      {
        use: 'archive',
      },
    )
    if (settled.verdict !== 'valid') throw new Error('not valid')
    expect(settled.page.signals).toEqual([
      { source: 'header', name: 'tdm-reservation', value: '1' },
    ])
  })

  test('title and language are published only where two say the same', () => {
    const told = (number: number, title: string, language: string) =>
      witness(`w${number}`, noisy(number, { title, language }))
    expect(settlement([told(1, 'Tea for 1', 'en'), told(2, 'Tea for 2', 'en')])).toMatchObject({
      page: { title: null, language: 'en' },
    })
    expect(settlement([told(1, 'On tea', 'en'), told(2, 'On tea', 'fr')])).toMatchObject({
      page: { title: 'On tea', language: null },
    })
  })

  test('links enter only where every member has them, and never with nofollow', () => {
    const linked = (number: number, links: string) =>
      witness(`w${number}`, noisy(number, { links }))
    const both = '<a href="/both">Both</a><a rel="nofollow" href="/paid">Paid</a>'
    const settled = settlement([
      linked(1, `${both}<a href="/trap-1">Only the first</a>`),
      linked(2, `${both}<a href="/trap-2">Only the second</a>`),
    ])
    expect(settled).toMatchObject({
      page: {
        links: [
          'https://barley.example/',
          'https://barley.example/coffee',
          'https://barley.example/both',
        ],
      },
    })
  })
})

test('the same facts give the same decision', () => {
  const two = () => [witness('ada', noisy(1)), witness('bob', noisy(2))]
  expect(converse(two())).toEqual(converse(two()))
})

describe('use', () => {
  const head = (content: string) => `<meta name="robots" content="${content}">`
  const two = (first: string, second: string) => [
    witness('ada', noisy(1, { head: first })),
    witness('bob', noisy(2, { head: second })),
  ]

  test('a page that forbids what the campaign is for is not published, and who saw it was right', () => {
    const { decision, asks } = converse(two(head('noai'), head('noai')), { use: 'ai-training' })
    expect(decision).toEqual({
      kind: 'settle',
      settlement: {
        verdict: 'unpublished',
        reason: 'use: noai in meta robots',
        valid: ['ada', 'bob'],
        // Not to be used is not: not to be followed.
        links: ['https://barley.example/', 'https://barley.example/coffee'],
      },
      invalid: [],
    })
    expect(asks.map(({ kind }) => kind)).not.toContain('attest')
  })

  test('one observer of two who sees noai is enough', () => {
    for (const pages of [two(head('noai'), ''), two('', head('noai'))]) {
      expect(settlement(pages, { use: 'ai-training' })).toMatchObject({
        verdict: 'unpublished',
        reason: 'use: noai in meta robots',
        valid: ['ada', 'bob'],
      })
    }
  })

  test('one observer’s header is enough, of equal bytes too', () => {
    const settled = settlement(
      [
        witness('ada', teaPage()),
        witness('bob', teaPage(), { seen: { headers: { 'content-usage': 'train-ai=n' } } }),
      ],
      { use: 'ai-training' },
    )
    expect(settled).toMatchObject({
      verdict: 'unpublished',
      reason: 'use: train-ai=n in header content-usage',
      valid: ['ada', 'bob'],
    })
  })

  test.each(['research', 'search', 'ai-training', 'archive'] as const)(
    'noindex and noarchive keep a page out of a release for %s',
    (use) => {
      for (const said of ['noindex', 'noarchive', 'none']) {
        expect(settlement(two(head(said), head(said)), { use })).toMatchObject({
          verdict: 'unpublished',
          reason: `use: ${said} in meta robots`,
        })
      }
    },
  )

  test('noai alone does not keep a page from research', () => {
    expect(settlement(two(head('noai'), head('noai')))).toMatchObject({ verdict: 'valid' })
  })

  test('what the host says forbids, and the page may lift a reservation of TDMRep', () => {
    const hostSignals = [{ source: 'tdmrep', name: 'tdm-reservation', value: '1' } as const]
    expect(settlement(two('', ''), { hostSignals })).toMatchObject({
      verdict: 'unpublished',
      reason: 'use: tdm-reservation=1 in /.well-known/tdmrep.json',
    })
    const lifted = '<meta name="tdm-reservation" content="0">'
    expect(settlement(two(lifted, lifted), { hostSignals })).toMatchObject({ verdict: 'valid' })
    // Whoever saw it not lifted saw it stand.
    expect(settlement(two(lifted, ''), { hostSignals })).toMatchObject({ verdict: 'unpublished' })
  })
})
