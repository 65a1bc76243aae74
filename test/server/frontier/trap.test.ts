import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { shapeOf } from '../../../server/frontier/address.ts'
import {
  type FoundAs,
  priorityOf,
  type Suspect,
  softNotFound,
  trapOf,
} from '../../../server/frontier/trap.ts'

const site = 'https://barley.example'
const nowMs = Date.UTC(2026, 10, 22)

/** An unsuspicious link, with what the case says on top. */
const suspect = (path: string, rest: Partial<Suspect> = {}): Suspect => ({
  url: site + path,
  foundAs: 'link',
  depth: 3,
  chain: 0,
  sameShape: false,
  shape: { known: 0, fresh: 0 },
  nowMs,
  ...rest,
})

/** The rule that an address falls under; null for none. */
function ruleFor(path: string, rest?: Partial<Suspect>): string | null {
  const verdict = trapOf(suspect(path, rest))
  return verdict.kind === 'trap' ? verdict.rule : null
}
const inChain = (chain: number) => ({ chain, sameShape: chain > 0 })

describe('the look of an address', () => {
  test.each([
    '/',
    '/a/a/b',
    '/a/b/a/b',
    '/a/b/c/a/b/c',
    '/de/x/de/y/de/z',
    // Book, chapter, verse.
    '/bible/1/1/1',
    '/2024/12/12/12-things',
    '/a//b//c/',
    `/${'abcdefghijklmnopqrst'.split('').join('/')}`,
    `/${'abcdefghijklmnopqrst'.split('').join('/')}/`,
    `/search?${'abcdefghijkl'.split('').join('=1&')}=1`,
    '/a?b=/x/x/x/x/x',
  ])('%s is no trap', (path) => {
    expect(ruleFor(path)).toBeNull()
  })

  test.each([
    ['/a/a/a', 'repeating-segments'],
    ['/a/a/a/', 'repeating-segments'],
    ['/x/about/about/about/index.html', 'repeating-segments'],
    ['/a/b/a/b/a/b', 'repeating-segments'],
    ['/x/a/b/c/a/b/c/a/b/c/y', 'repeating-segments'],
    ['/a/1/a/1/a/1', 'repeating-segments'],
    ['/7/7/7/7', 'repeating-segments'],
    ['/en/a/en/b/en/c/en', 'repeating-segments'],
    ['/a////b', 'repeating-segments'],
    [`/${'abcdefghijklmnopqrstu'.split('').join('/')}`, 'too-many-segments'],
    [`/search?${'abcdefghijklm'.split('').join('=1&')}=1`, 'too-many-parameters'],
    [`/search?${'f=1&'.repeat(13)}`, 'too-many-parameters'],
  ])('%s is a trap: %s', (path, rule) => {
    expect(ruleFor(path)).toBe(rule)
  })

  test('does not count for what the operator named', () => {
    expect(ruleFor('/a/a/a/a', { depth: 0 })).toBeNull()
    expect(ruleFor('/calendar/2099-01', { depth: 0 })).toBeNull()
    expect(ruleFor('/a', { depth: 0, shape: { known: 500, fresh: 0 } })).toBe('shape-budget')
  })

  test('is judged in bounded time, and never throws', () => {
    for (const piece of ['a/', '1/', '2031-', '2031/05/', '/', 'a=1&', 'date=2031&', '%']) {
      const many = piece.repeat(Math.floor(2_000 / piece.length))
      trapOf(suspect(`/${many}`))
      trapOf(suspect(`/?${many}`))
    }
    fc.assert(
      fc.property(fc.webUrl({ withQueryParameters: true, withFragments: false }), (url) => {
        trapOf({ ...suspect('/'), url: new URL(url).href })
      }),
    )
  })
})

describe('a calendar', () => {
  const near = [
    '/events/2026-12',
    '/events/2028-11/',
    '/events/month/1970-01',
    '/events/2026-W48',
    '/calendar/2026/12/24.html',
    '/calendar?date=2026-12-24',
    '/calendar?year=2027&month=3',
    '/calendar/view.php?view=day&time=1764000000',
  ]
  test.each(near)('that shows %s is read', (path) => {
    expect(ruleFor(path)).toBeNull()
    expect(ruleFor(path, inChain(24))).toBeNull()
  })

  test.each(near)('is left after 25 addresses one after another, at %s', (path) => {
    expect(ruleFor(path, inChain(25))).toBe('calendar')
    // A chain of other addresses says nothing about this one.
    expect(ruleFor(path, { chain: 25, sameShape: false })).toBeNull()
  })

  test.each([
    '/events/2029-01/',
    '/events/month/2031-05',
    '/events/2031-05-12.html',
    '/events/2031-w05',
    '/calendar/2031/5',
    '/calendar/1969/12/31',
    '/events/1969-12',
    '/events/0007-01',
    '/calendar?date=2031-05-12',
    '/calendar?date=20310512',
    '/events?tribe-bar-date=2031-05-12T00:00',
    '/calendar?month=2031-05',
    '/calendar?year=2031&month=5',
    '/calendar?calyear=1923&calmonth=02&day=31',
    '/calendar?y=2031&m=12',
    '/book?start=2031-05-01',
    '/calendar/view.php?time=1924905600',
    '/calendar/view.php?time=-157766400',
  ])('is left at %s, years away', (path) => {
    expect(ruleFor(path)).toBe('calendar')
  })

  test('without a word for it is seen by its own pages', () => {
    expect(ruleFor('/barley/2031/05', inChain(1))).toBe('calendar')
    expect(ruleFor('/barley/2031/05')).toBeNull()
  })

  test.each([
    // Articles, numbers, and what only looks like a date.
    '/1923/05/12/archives/harvest.html',
    '/2031/05/12/harvest',
    '/thread/2031/7',
    '/items/4711/12',
    '/items/1234-56',
    '/films?year=1955',
    '/list?start=203105',
    '/list?from=1923',
    '/x?year=2031&month=13',
    '/x?date=soon',
    '/x?time=5',
    '/x?id=2031-05',
    '/phone/2031-05-1234',
  ])('is not seen in %s', (path) => {
    expect(ruleFor(path, inChain(30))).toBeNull()
  })

  test('that has no end ends within two years either way', () => {
    for (const step of [1, -1]) {
      let [month, chain] = [2026 * 12 + 10, 0]
      const address = () =>
        `/calendar/${Math.floor(month / 12)}/${String((month % 12) + 1).padStart(2, '0')}`
      while (ruleFor(address(), inChain(chain)) === null) {
        expect(chain).toBeLessThan(1_000)
        month += step
        chain += 1
      }
      expect(chain).toBe(25)
    }
  })
})

describe('a chain of addresses of one shape', () => {
  test('may have a thousand, such as the pages of a list', () => {
    const proven = { shape: { known: 1_000, fresh: 1_000 } }
    expect(ruleFor('/list?page=1000', { ...inChain(1_000), ...proven })).toBeNull()
    expect(ruleFor('/list?page=1001', { ...inChain(1_001), ...proven })).toBe('long-chain')
    expect(ruleFor('/other', { chain: 1_001, sameShape: false })).toBeNull()
  })
})

describe('the budget of a shape', () => {
  const at = (known: number, fresh: number, foundAs: FoundAs = 'link') =>
    ruleFor('/article/7', { shape: { known, fresh }, foundAs })

  test('is 500 addresses, and 20 for each with new text', () => {
    expect([at(499, 0), at(500, 0), at(519, 1), at(520, 1)]).toEqual([
      null,
      'shape-budget',
      null,
      'shape-budget',
    ])
  })

  test('does not hold for what the site itself lists as its pages', () => {
    expect(at(50_000, 0, 'sitemap')).toBeNull()
    expect(at(50_000, 0, 'feed')).toBeNull()
    expect(at(50_000, 0, 'redirect')).toBe('shape-budget')
  })

  /** Visits a site of one shape whose pages each link to some more; what is refused waits. */
  function crawl(pages: number, linksPerPage: number, isFresh: (page: number) => boolean) {
    const shape = { known: 1, fresh: 0 }
    let [visited, waiting, found] = [0, 0, 1]
    while (visited < shape.known) {
      if (isFresh(visited)) shape.fresh += 1
      visited += 1
      const links = Math.min(linksPerPage, pages - found)
      found += links
      waiting += links
      while (waiting > 0 && at(shape.known, shape.fresh) === null) {
        waiting -= 1
        shape.known += 1
      }
    }
    return visited
  }

  test.each([1, 20, 10_000])(
    'lets a site of 100,000 articles pass, %i links to a page',
    (links) => {
      expect(crawl(100_000, links, () => true)).toBe(100_000)
    },
  )

  test('lets a list pass of which a tenth is new', () => {
    expect(crawl(20_000, 50, (page) => page % 10 === 0)).toBe(20_000)
  })

  test('ends a search whose facets show the same again', () => {
    expect(crawl(1_000_000, 50, () => false)).toBe(500)
    expect(crawl(1_000_000, 50, (page) => page < 30)).toBe(500 + 20 * 30)
    expect(crawl(1_000_000, 50, (page) => page % 100 === 0)).toBeLessThan(700)
  })
})

test('each reason is a sentence that names what was counted', () => {
  const reasons = [
    suspect('/a/b/a/b/a/b'),
    suspect('/en/a/en/b/en/c/en'),
    suspect(`/${'abcdefghijklmnopqrstu'.split('').join('/')}`),
    suspect(`/search?${'f=1&'.repeat(13)}`),
    suspect('/calendar/2031/05'),
    suspect('/calendar/1969/05'),
    suspect('/calendar/2026/05', inChain(25)),
    suspect('/list?page=7', inChain(1_001)),
    suspect('/x', { shape: { known: 540, fresh: 2 } }),
    suspect('/x', { shape: { known: 500, fresh: 0 } }),
  ].map((one) => {
    const verdict = trapOf(one)
    return verdict.kind === 'trap' ? verdict.reason : ''
  })
  expect(reasons).toEqual([
    expect.stringContaining('"a/b" 3 times in a row'),
    expect.stringContaining('"en" 4 times'),
    expect.stringContaining('21 segments, more than 20'),
    expect.stringContaining('13 parameters, more than 12'),
    expect.stringContaining('2031-05, more than two years from now'),
    expect.stringContaining('1969-05, before 1970'),
    expect.stringContaining('2026-05, and 25 dated addresses'),
    expect.stringContaining('1001 addresses like it'),
    expect.stringContaining('540 addresses like it are known on its host, and only 2 of them'),
    expect.stringContaining('500 addresses like it are known on its host, and none of them'),
  ])
  for (const reason of reasons) expect(reason).toMatch(/^[A-Z\d].*\.$/)
})

describe('a page that is not there, answered with 200', () => {
  test.each([
    'Page not found | Barley',
    'Error 404',
    'We couldn’t find that page',
    'Seite nicht gefunden',
    'Cette page n’existe plus',
    'Page introuvable',
    'Página no encontrada',
    'Pagina non trovata',
    'Página não encontrada',
    'Pagina niet gevonden',
    'Sidan hittades inte',
    'Siden blev ikke fundet',
    'Sivua ei löytynyt',
    'Nie znaleziono strony',
    'Stránka nenalezena',
    'Страница не найдена',
    'Sayfa bulunamadı',
    'ページが見つかりません',
    '页面不存在',
    '페이지를 찾을 수 없습니다',
    'الصفحة غير موجودة',
  ])('is told by "%s" and the text of five other addresses', (title) => {
    expect(softNotFound({ title, sameTextCount: 5, status: 200 })).toMatch(/5 other addresses/)
    expect(softNotFound({ title, sameTextCount: 4, status: 200 })).toBeNull()
    expect(softNotFound({ title, sameTextCount: 500, status: 404 })).toBeNull()
  })

  test.each(['Barley soup', 'Room 4042', '', 'Lost and found'])('is not told by "%s"', (title) => {
    expect(softNotFound({ title, sameTextCount: 19, status: 200 })).toBeNull()
  })

  test('is told by the text of twenty other addresses alone', () => {
    expect(softNotFound({ title: 'Barley', sameTextCount: 20, status: 200 })).toMatch(
      /^20 other addresses .*\.$/,
    )
  })
})

describe('priority', () => {
  const of = (as: FoundAs, depth = 1, path = '/a', given: number | null = null) =>
    priorityOf({ as, depth, url: site + path, given })

  test('puts seeds first, then what is new, listed, linked', () => {
    expect(of('seed', 0, '/?a=1')).toBe(0)
    const order = [of('seed', 0), of('redirect'), of('feed'), of('sitemap'), of('link')]
    expect(order).toEqual([...new Set(order)].sort((a, b) => a - b))
    expect(of('canonical')).toBe(of('redirect'))
  })

  test('takes the sitemap at its word, within bounds', () => {
    const [high, none, low] = [
      of('sitemap', 1, '/a', 1),
      of('sitemap'),
      of('sitemap', 1, '/a', 0),
    ] as const
    expect(high).toBeLessThan(none)
    expect(none).toBeLessThan(low)
    expect(of('sitemap', 1, '/a', 99)).toBe(high)
    expect(of('sitemap', 1, '/a', -99)).toBe(low)
    expect(of('sitemap', 1, '/a', Number.NaN)).toBe(none)
    expect(of('link', 1, '/a', 1)).toBe(of('link'))
  })

  test('puts lists after pages, but never after the next step', () => {
    const orders = ['/a', '/a?b=1', '/a?b=1&c=2', `/a?${'b=1&'.repeat(50)}`].map((path) =>
      of('link', 2, path),
    )
    expect(orders).toEqual([...orders].sort((a, b) => a - b))
    expect(orders[0]).toBeLessThan(orders[1] ?? 0)
    expect(orders.at(-1)).toBeLessThan(of('link', 3))
  })

  test('is a whole number from 0 to 10,000, and never sooner for being deeper', () => {
    const found = fc.record({
      as: fc.constantFrom<FoundAs>('seed', 'link', 'canonical', 'sitemap', 'feed', 'redirect'),
      depth: fc.integer({ min: 0, max: 1_000 }),
      url: fc.webUrl({ withQueryParameters: true }),
      given: fc.option(fc.double()),
    })
    fc.assert(
      fc.property(found, (one) => {
        const priority = priorityOf(one)
        expect(Number.isInteger(priority)).toBe(true)
        expect(priority).toBeGreaterThanOrEqual(0)
        expect(priority).toBeLessThanOrEqual(10_000)
        expect(priorityOf({ ...one, depth: one.depth + 1 })).toBeGreaterThanOrEqual(priority)
      }),
    )
  })
})

test('addresses of an endless calendar have one shape', () => {
  const shapes = ['/calendar/2026/11', '/calendar/2031/05'].map((path) => shapeOf(site + path))
  expect(new Set(shapes).size).toBe(1)
})
