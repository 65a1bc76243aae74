import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseRobots } from '../../../lib/capture/robots.ts'
import { hostFileSignals, type UseFile } from '../../../lib/capture/use-files.ts'
import { useBeforeFetch, usePolicy, useRules } from '../../../lib/capture/use-policy.ts'
import { parseSignal, useOf } from '../../../lib/capture/use-signals.ts'
import { siteStatementsAt, siteUse, useAt } from '../../../lib/capture/use-site.ts'

const at = (path: string) => `https://barley.example${path}`
const robotsSite = (text: string) => siteUse(parseRobots(text))
const fileSite = (file: UseFile) => siteUse(null, hostFileSignals(file))
const useOn = (path: string, site: ReturnType<typeof siteUse>) => useAt(at(path), site, []).use

describe('robots.txt', () => {
  // AIPREF attachment §3.5, the example and its table.
  const example = `User-Agent: *
Allow: /
Disallow: /never/
Content-Usage: train-ai=n
Content-Usage: /ai-ok/ train-ai=y

User-Agent: ExampleBot
Allow: /
Content-Usage: train-ai=y
`
  test.each([
    ['/test', 'gleaner', 'n'],
    ['/ai-ok/test', 'gleaner', 'y'],
    ['/test', 'ExampleBot', 'y'],
    ['/ai-ok/test', 'ExampleBot', 'y'],
  ])('%s for %s is %s to training', (path, agent, expected) => {
    const site = siteUse(parseRobots(example), [], agent)
    expect(useOn(path, site).train).toBe(expected)
  })

  test.each([
    [
      'the longest path counts alone',
      'Content-Usage: train-ai=n\nContent-Usage: /x search=n',
      '/x',
      ['unknown', 'n'],
    ],
    [
      'rules of one path apply together',
      'Content-Usage: /x train-ai=y\nContent-Usage: /x train-ai=n, search=y',
      '/x',
      ['n', 'y'],
    ],
    [
      'patterns have stars and an end',
      'Content-Usage: /*.pdf$ train-ai=n',
      '/a/b.pdf',
      ['n', 'unknown'],
    ],
    [
      'and do not match beyond it',
      'Content-Usage: /*.pdf$ train-ai=n',
      '/a/b.pdf?x',
      ['unknown', 'unknown'],
    ],
    ['paths are compared as escaped', 'Content-Usage: /ü train-ai=n', '/%C3%BC', ['n', 'unknown']],
    ['a tab parts path and wish', 'Content-Usage: /x\ttrain-ai=n', '/x', ['n', 'unknown']],
    ['a comment ends it', 'Content-Usage: train-ai=n # , search=n', '/', ['n', 'unknown']],
    [
      'a longest rule that does not parse says nothing',
      'Content-Usage: train-ai=n\nContent-Usage: /x nonsense!',
      '/x',
      ['unknown', 'unknown'],
    ],
    [
      'each kind of signal has its own paths',
      'Content-Usage: train-ai=n\nContent-Signal: /x search=no',
      '/x',
      ['n', 'n'],
    ],
    ['Cloudflare’s group', 'Content-Signal: search=yes,ai-train=no\nAllow: /', '/', ['n', 'y']],
  ])('%s', (_, rules, path, expected) => {
    const use = useOn(path, robotsSite(`User-agent: *\n${rules}\n`))
    expect([use.train, use.search]).toEqual(expected)
  })

  test.each([
    [
      'a group that names us stands for the one for everyone',
      'User-agent: *\nContent-Usage: train-ai=n\nUser-agent: gleaner\nContent-Usage: train-ai=y',
      'y',
    ],
    [
      'and may be stricter',
      'User-agent: *\nContent-Usage: train-ai=y\nUser-agent: Gleaner/1.0\nContent-Usage: train-ai=n',
      'n',
    ],
    [
      'a group that names us and is silent leaves the other standing',
      'User-agent: *\nContent-Usage: train-ai=n\nAllow: /\nUser-agent: gleaner\nAllow: /',
      'n',
    ],
    [
      'what is addressed to others is not for us',
      'User-agent: otherbot\nContent-Usage: train-ai=n\nUser-agent: *\nAllow: /',
      'unknown',
    ],
    [
      'what stands outside of groups is for everyone',
      'Content-Usage: train-ai=n\nUser-agent: gleaner\nContent-Usage: train-ai=y',
      'n',
    ],
    [
      'a licence is tied to no agent',
      'User-agent: otherbot\nLicense: https://barley.example/license.xml',
      'n',
    ],
  ])('%s', (_, text, expected) => {
    expect(useOn('/', robotsSite(text)).train).toBe(expected)
  })

  test('of a file with too many rules the noes hold everywhere', () => {
    const many = Array.from({ length: 1_000 }, (_, i) => `Content-Usage: /${i}/ search=y`)
    const text = ['User-agent: *', ...many, 'Content-Usage: /late/ train-ai=n, search=y'].join('\n')
    const { use, signals } = useAt(at('/7/'), robotsSite(text), [])
    expect([use.train, use.search]).toEqual(['n', 'y'])
    expect(signals).toEqual([
      { source: 'robots', name: 'content-usage', value: '/7/ search=y' },
      { source: 'robots', name: 'content-usage', value: 'train-ai=n' },
    ])
  })
})

describe('tdmrep.json', () => {
  const site = (rules: unknown) => fileSite({ kind: 'tdmrep', body: JSON.stringify(rules) })
  // TDMRep §5, the second example.
  const example = [
    { location: '/directory-a/', 'tdm-reservation': 1 },
    {
      location: '/directory-b/html/',
      'tdm-reservation': 1,
      'tdm-policy': 'https://provider.com/policies/policy.json',
    },
    { location: '/directory-b/images/*.jpg', 'tdm-reservation': 0 },
  ]
  test.each([
    ['/directory-a/book.pdf', 'n'],
    ['/directory-b/html/index.html', 'n'],
    ['/directory-b/images/a/b.jpg', 'y'],
    ['/directory-b/images/b.png', 'unknown'],
    ['/', 'unknown'],
  ])('its example says of %s: %s', (path, expected) => {
    expect(useOn(path, site(example)).tdm).toBe(expected)
  })

  const rule = (location: unknown, reserved: unknown) => ({ location, 'tdm-reservation': reserved })
  test.each([
    ['the first match counts, not the longest', [rule('/', 0), rule('/x', 1)], '/x', 'y'],
    ['"$" ends the pattern', [rule('/this/path/exactly$', 1)], '/this/path/exactly', 'n'],
    [
      '"$" ends the pattern here',
      [rule('/this/path/exactly$', 1)],
      '/this/path/exactly/not',
      'unknown',
    ],
    ['"*" stands for anything', [rule('/this/*/then', 1)], '/this/or/that/then', 'n'],
    ['an escaped "$" is one', [rule('/path/foo-%24', 1)], '/path/foo-%24', 'n'],
    ['what need not be escaped is compared as itself', [rule('/%61bc', 1)], '/abc', 'n'],
    ['case counts', [rule('/A', 1)], '/a', 'unknown'],
    ['a whole address has a path', [rule('https://barley.example/x/*', 1)], '/x/y', 'n'],
    ['2 is unset, and still the first match', [rule('/', 2), rule('/', 1)], '/', 'unknown'],
    ['"1" is a no', [rule('/', '1')], '/', 'n'],
    ['"0" is no yes', [rule('/', '0')], '/', 'unknown'],
    ['true is unset', [rule('/', true)], '/', 'unknown'],
    [
      'a rule without a place is none',
      [rule(undefined, 1), rule('', 1), rule(7, 1)],
      '/',
      'unknown',
    ],
    ['rules that are none are passed over', [null, 1, [], 'x', rule('/', 1)], '/', 'n'],
    ['an object in place of the list is no file', rule('/', 1), '/', 'unknown'],
  ])('%s', (_, rules, path, expected) => {
    expect(useOn(path, site(rules)).tdm).toBe(expected)
  })

  test('its order is that of the rules, in whatever order they are stored', () => {
    const rules = Array.from({ length: 12 }, (_, i) => rule(i === 2 ? '/x' : `/${i}`, 1))
    const stored = hostFileSignals({
      kind: 'tdmrep',
      body: JSON.stringify([...rules, rule('/x', 0)]),
    })
    expect(useOn('/x', siteUse(null, [...stored].reverse())).tdm).toBe('n')
  })

  test('of too many rules the rest reserves everything, if one of them reserves', () => {
    const many = Array.from({ length: 1_000 }, (_, i) => rule(`/${i}/`, 0))
    expect(useOn('/y', site([...many, rule('/late', 1)])).tdm).toBe('n')
    expect(useOn('/y', site([...many, rule('/late', 0)])).tdm).toBe('unknown')
  })

  test('a file that is no JSON says nothing, and that it is there', () => {
    const signals = hostFileSignals({ kind: 'tdmrep', body: '<!doctype html>' })
    expect(signals).toEqual([{ source: 'tdmrep', name: 'unreadable', value: '' }])
    expect(useAt(at('/'), siteUse(null, signals), []).signals).toEqual(signals)
  })
})

describe('an RSL licence', () => {
  const url = 'https://barley.example/license.xml'
  const rsl = (inside: string) => `<rsl xmlns="https://rslstandard.org/rsl">${inside}</rsl>`
  const whole = (inside: string) => rsl(`<content url="/"><license>${inside}</license></content>`)
  const useOfLicence = (body: string | null, path = '/') =>
    useOn(
      path,
      siteUse(parseRobots(`License: ${url}`), hostFileSignals({ kind: 'rsl', url, body })),
    )

  test.each([
    // rslstandard.org/guide/ai-preferences.
    [
      'the guide’s example',
      whole(
        '<permits type="usage">train-ai</permits><payment type="subscription"><custom>https://your-website.com/contact-form.html</custom></payment>',
      ),
      'n',
    ],
    ['prohibits ai-train', whole('<prohibits type="usage">search, ai-train</prohibits>'), 'n'],
    ['prohibits all', whole('<prohibits type="usage">all</prohibits>'), 'n'],
    ['permits ai-train', whole('<permits type="usage">ai-train search</permits>'), 'y'],
    ['free', whole('<permits type="usage">ai-all</permits><payment type="free"/>'), 'y'],
    [
      'a price without a kind',
      whole(
        '<permits type="usage">ai-all</permits><payment><amount currency="USD">1</amount></payment>',
      ),
      'n',
    ],
    [
      'credit or money',
      whole(
        '<permits type="usage">ai-all</permits><payment type="attribution"/><payment type="purchase"/>',
      ),
      'n',
    ],
    [
      'one country',
      whole('<permits type="usage">ai-train</permits><permits type="geo">DE</permits>'),
      'unknown',
    ],
    [
      'one of two licences costs',
      rsl(
        '<content url="/"><license><permits type="usage">ai-train</permits></license><license><permits type="usage">ai-train</permits><payment type="training"/></license></content>',
      ),
      'n',
    ],
    [
      'a licence server',
      rsl(
        '<content url="/" server="https://rsl.example/api"><license><permits type="usage">all</permits></license></content>',
      ),
      'n',
    ],
    [
      'a prefix for the namespace',
      '<r:rsl xmlns:r="https://rslstandard.org/rsl"><r:content url="/"><r:license><r:permits type="usage">ai-train</r:permits></r:license></r:content></r:rsl>',
      'y',
    ],
    [
      'a declaration before it',
      `<?xml version="1.0"?>\n<!-- ours -->\n${whole('<permits type="usage">ai-train</permits>')}`,
      'y',
    ],
    [
      'another namespace',
      whole('<permits type="usage">ai-train</permits>').replace('rslstandard', 'example'),
      'n',
    ],
    ['another root', '<html xmlns="https://rslstandard.org/rsl"><rsl/></html>', 'n'],
    ['nothing in it', rsl(''), 'unknown'],
    ['an empty file', '', 'n'],
    [
      'a file that was cut',
      whole('<permits type="usage">ai-train</permits>').replace('</rsl>', ''),
      'n',
    ],
    ['no file', null, 'n'],
    ['a file beyond all bounds', whole(' '.repeat(300_000)), 'n'],
    ['more than is read', rsl('<content url="/x"><license/></content>'.repeat(1_001)), 'n'],
  ])('%s', (_, body, expected) => {
    expect(useOfLicence(body).train).toBe(expected)
  })

  test('is about the longest place that matches', () => {
    const body = rsl(
      `<content url="/"><license><prohibits type="usage">ai-train</prohibits></license></content>
       <content url="https://barley.example/open/*"><license><permits type="usage">ai-train</permits></license></content>`,
    )
    expect(useOfLicence(body, '/open/x').train).toBe('y')
    expect(useOfLicence(body, '/x').train).toBe('n')
  })

  test('entities are not expanded into words', () => {
    const body = `<!DOCTYPE rsl [<!ENTITY t "ai-train">]>${whole('<permits type="usage">&t;</permits>')}`
    expect(useOfLicence(body).train).not.toBe('y')
  })
})

describe('ai.txt', () => {
  test.each([
    ['User-Agent: *\nDisallow: /\n', ['presence', 'disallow']],
    ['# Spawning AI\nUser-Agent: *\nDisallow: *.txt\nDisallow: /*\n', ['presence', 'disallow']],
    ['User-Agent: *\nAllow: /\nDisallow: *.jpg\n', ['presence']],
    ['User-Agent: otherbot\nDisallow: /\n', ['presence']],
    ['User-Agent: otherbot\nUser-Agent: *\nDisallow: /\n', ['presence', 'disallow']],
    ['Disallow: /', ['presence', 'disallow']],
    ['# About us\nWe make tea.', ['presence']],
    ['<!DOCTYPE html><p>Not found', []],
    ['  ', []],
  ])('%j says %j', (body, expected) => {
    expect(hostFileSignals({ kind: 'ai-txt', body }).map(({ name }) => name)).toEqual(expected)
  })
})

test('no file makes a reader throw, and what it says fits where it is stored', () => {
  const place = fc.oneof(fc.constantFrom('/', '/a*', '/ü', '*'), fc.string({ maxLength: 3_000 }))
  const json = fc
    .array(fc.record({ location: place, 'tdm-reservation': fc.constantFrom(0, 1, '1', null) }))
    .map((rules) => JSON.stringify(rules))
  const xml = fc
    .array(fc.tuple(place, fc.constantFrom('ai-train', 'all', '&x;', '<b>'), fc.string()))
    .map(
      (some) =>
        `<rsl xmlns="https://rslstandard.org/rsl">${some.map(([url, use, type]) => `<content url="${url}"><license><permits type="usage">${use}</permits><payment type="${type}"/></license></content>`).join('')}`,
    )
  const body = fc.oneof(json, xml, fc.string({ maxLength: 2_000 }))
  fc.assert(
    fc.property(body, fc.webUrl(), (text, url) => {
      const said = [
        ...hostFileSignals({ kind: 'tdmrep', body: text }),
        ...hostFileSignals({ kind: 'ai-txt', body: text }),
        ...hostFileSignals({ kind: 'rsl', url: `https://barley.example/${text}`, body: text }),
      ]
      // The key of host_signal: PostgreSQL takes 2,704 bytes.
      for (const { source, name, value } of said) {
        expect(Buffer.byteLength(source + name + value)).toBeLessThan(2_600)
      }
      siteStatementsAt(url, siteUse(parseRobots(text), said))
    }),
    { numRuns: 300 },
  )
})

describe('the table of uses', () => {
  const noindex = { source: 'meta', name: 'robots', value: 'noindex' } as const
  test.each([
    ['noindex', noindex, ['research', 'search', 'ai-training', 'archive']],
    [
      'noarchive',
      { ...noindex, value: 'noarchive' },
      ['research', 'search', 'ai-training', 'archive'],
    ],
    ['train', { source: 'header', name: 'content-usage', value: 'train-ai=n' }, ['ai-training']],
    ['tdm', { source: 'header', name: 'tdm-reservation', value: '1' }, ['ai-training', 'research']],
    ['search', { source: 'header', name: 'content-usage', value: 'search=n' }, ['search']],
    ['aiInput', { source: 'header', name: 'content-signal', value: 'ai-input=no' }, []],
    ['nofollow', { ...noindex, value: 'nofollow' }, []],
  ] as const)(
    'a no by %s keeps a page out of the campaigns it names',
    (term, signal, forbidden) => {
      const uses = ['research', 'search', 'ai-training', 'archive'] as const
      const refused = uses.filter(
        (use) => usePolicy(use, [parseSignal(signal)]).kind === 'forbidden',
      )
      expect([...refused].sort()).toEqual([...forbidden].sort())
      expect(useRules.find((rule) => rule.term === term)?.forbids.toSorted()).toEqual(
        refused.toSorted(),
      )
      expect(useOf([signal])[term]).toBe(['noindex', 'noarchive', 'nofollow'].includes(term) || 'n')
    },
  )

  test('silence forbids nothing', () => {
    for (const use of ['research', 'search', 'ai-training', 'archive'] as const) {
      expect(usePolicy(use, [])).toEqual({ kind: 'allowed' })
    }
  })

  const robots =
    'User-agent: *\nAllow: /\n\nContent-Usage: train-ai=n\nContent-Usage: /ok/ search=n\n'
  test.each([
    ['/', 'ai-training', 'use: train-ai=n in robots.txt line 4'],
    ['/', 'search', null],
    ['/ok/', 'ai-training', null],
    ['/ok/', 'search', 'use: search=n in robots.txt line 5'],
  ] as const)('before the fetch, %s for %s: %s', (path, use, reason) => {
    const verdict = useBeforeFetch(at(path), robotsSite(robots), use)
    expect(verdict.kind === 'forbidden' ? verdict.reason : null).toBe(reason)
  })

  test.each([
    [
      { kind: 'tdmrep', body: '[{"location":"/","tdm-reservation":1}]' },
      'research',
      'use: tdm-reservation=1 in /.well-known/tdmrep.json',
    ],
    [
      { kind: 'ai-txt', body: 'User-agent: *\nDisallow: /' },
      'ai-training',
      'use: Disallow: / in ai.txt',
    ],
    [
      { kind: 'rsl', url: 'https://barley.example/l.xml', body: null },
      'ai-training',
      'use: a licence that cannot be read in licence https://barley.example/l.xml',
    ],
  ] as const)('a file says it, too: %j', (file, use, reason) => {
    expect(useBeforeFetch(at('/'), fileSite(file), use)).toMatchObject({ reason })
  })

  test('pages of one host are judged quickly, however long its robots.txt', () => {
    const rules = Array.from({ length: 20_000 }, (_, i) => `Content-Usage: /*${i}*x train-ai=n`)
    const site = robotsSite(['User-agent: *', ...rules].join('\n'))
    for (let page = 0; page < 500; page++) {
      useBeforeFetch(at(`/${'a/'.repeat(50)}${page}`), site, 'ai-training')
    }
  }, 5_000)
})
