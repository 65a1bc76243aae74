import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { gzipSync } from 'node:zlib'
import type { HostMap } from '../../server/node/host-map.ts'

/** A web of hosts on loopback that make life hard for a crawler, each in a way of its own. */
export interface HostileSite {
  hostMap: HostMap
  /** Everything that was asked, in order. */
  requests: readonly SeenRequest[]
  /** Names of hosts that are told to answer differently from now on, where they can. */
  changed: Set<string>
  close(): Promise<void>
}

export interface SeenRequest {
  host: string
  /** Path and query, as asked. */
  path: string
  /** Address of who asked. */
  from: string
  askedMs: number
  status: number
  /** Body bytes handed to the connection. */
  sentBytes: number
  /** Null until it ends; false when the other side closed before the body's end. */
  isWhole: boolean | null
  endedMs: number
}

export const hostOf = (name: string) => `${name}.hostile.test`
export const at = (name: string, path: string) => `http://${hostOf(name)}${path}`

interface Ask {
  url: URL
  /** From 1, on this host. */
  number: number
  isChanged: boolean
}

interface Answer {
  status?: number
  type?: string
  headers?: Readonly<Record<string, string>>
  /** `never`: the connection stands open and nothing comes. */
  body?: string | Uint8Array | Iterable<string | Uint8Array> | 'never'
}

/** Undefined: what every host answers, see `usual`. */
type Trap = (ask: Ask) => Answer | undefined

const MiB = 1024 * 1024

// Endless ---------------------------------------------------------------------

/** Two calendars without an end: one in the path, forth and back, one in the query. */
const calendar: Trap = ({ url }) => {
  if (url.pathname === '/') {
    return page('the calendars', { links: ['/calendar/2026/11', '/days?year=2026&month=11'] })
  }
  const [, year, month] = /^\/calendar\/(\d{4})\/(\d\d)$/.exec(url.pathname) ?? []
  if (year !== undefined && month !== undefined) {
    const links = [-1, 1].map((by) => `/calendar/${monthAfter(year, month, by).join('/')}`)
    return page(`month ${month} of ${year}`, { links })
  }
  if (url.pathname !== '/days') return undefined
  const [nextYear, nextMonth] = monthAfter(
    url.searchParams.get('year') ?? '',
    url.searchParams.get('month') ?? '',
    1,
  )
  return page(`the days of ${url.search}`, {
    links: [`/days?year=${nextYear}&month=${nextMonth}`],
  })
}

function monthAfter(year: string, month: string, by: number): [string, string] {
  const date = new Date(Date.UTC(Number(year), Number(month) - 1 + by, 1))
  return [String(date.getUTCFullYear()), String(date.getUTCMonth() + 1).padStart(2, '0')]
}

/** Relative links that lead one folder deeper each time; every address is answered. */
const deeper: Trap = ({ url }) => {
  if (!url.pathname.endsWith('/')) return undefined
  const links =
    url.pathname === '/'
      ? ['again/', 'left/right/']
      : [url.pathname.startsWith('/again/') ? 'again/' : 'left/right/']
  return page(`the folder ${url.pathname}`, { links })
}

/** Each page names the others with the id of a session; `/fresh/` makes a new one for each visit. */
const session: Trap = ({ url, number }) => {
  const path = url.pathname.replace(/;jsessionid=[^/]*/, '')
  const isFresh = path.startsWith('/fresh/')
  if (!['/', '/times', '/prices', '/fresh/', '/fresh/times'].includes(path)) return undefined
  const id = (of: string) => hex(isFresh ? `${of} ${number}` : `${of} on ${path}`)
  return page(`the session page ${path}`, {
    links: isFresh
      ? [`/fresh/times?sid=${id('times')}`]
      : [
          `/times;jsessionid=${id('times')}`,
          `/prices?sid=${id('prices')}`,
          `/?PHPSESSID=${id('home')}`,
        ],
  })
}

/** 32 hex digits that depend on the text alone. */
function hex(text: string): string {
  let state = 1n
  for (const character of text) state = (state * 1_000_003n + BigInt(character.charCodeAt(0))) % M
  let digits = ''
  for (let n = 0; n < 32; n++) {
    state = (state * 6_364_136_223_846_793_005n + 1_442_695_040_888_963_407n) % M
    digits += (state >> 60n).toString(16)
  }
  return digits
}
const M = 1n << 64n

/** One list under five parameters in each of their 120 orders. */
const orders: Trap = ({ url }) => {
  if (url.pathname === '/list') return page('the one list', {})
  if (url.pathname !== '/') return undefined
  const pairs = ['colour=red', 'size=4', 'sort=price', 'page=1', 'view=grid']
  return page('the orders', { links: permutations(pairs).map((all) => `/list?${all.join('&')}`) })
}

function permutations(items: readonly string[]): string[][] {
  if (items.length <= 1) return [[...items]]
  return items.flatMap((first) =>
    permutations(items.filter((one) => one !== first)).map((rest) => [first, ...rest]),
  )
}

/** Ten thousand links, all into a folder that robots.txt forbids. */
const crowd: Trap = ({ url }) => {
  if (url.pathname === '/robots.txt') return text('User-agent: *\nDisallow: /item/\n')
  if (url.pathname !== '/') return undefined
  return page('the crowd', { links: Array.from({ length: 10_000 }, (_, n) => `/item/${n + 1}`) })
}

/** Addresses without an end that all have one text: one says that it is none, the other does not. */
const same: Trap = ({ url }) => {
  if (url.pathname === '/') {
    const links = (folder: string, count: number) =>
      Array.from({ length: count }, (_, n) => `/${folder}/${n + 1}`)
    return page('two folders', { links: [...links('gone', 12), ...links('welcome', 26)] })
  }
  if (url.pathname.startsWith('/gone/')) {
    return page('the door', { title: 'Sorry, this page was not found' })
  }
  return url.pathname.startsWith('/welcome/') ? page('our welcome', {}) : undefined
}

// Redirects -------------------------------------------------------------------

const redirects: Trap = ({ url }) => {
  const step = /^\/chain\/(\d+)$/.exec(url.pathname)?.[1]
  if (step !== undefined) {
    return Number(step) < 12 ? redirect(`/chain/${Number(step) + 1}`) : page('the end', {})
  }
  switch (url.pathname) {
    case '/':
      return page('the redirects', {
        links: [
          '/loop/a',
          '/chain/0',
          '/short',
          '/away',
          '/metadata',
          '/secret',
          '/bad',
          '/refresh',
          '/based',
        ],
      })
    case '/loop/a':
      return redirect('/loop/b')
    case '/loop/b':
      return redirect('/loop/a')
    case '/short':
      return redirect('/target')
    case '/away':
      return redirect(at('outside', '/from-redirect'))
    case '/metadata':
      return redirect('http://169.254.169.254/latest/meta-data/')
    case '/secret':
      return redirect(at('secrets', '/latest/meta-data/'))
    case '/bad':
      return redirect('http://[bad')
    case '/refresh':
      return page('what has moved', {
        head: '<meta http-equiv="refresh" content="3; url=/refreshed">',
      })
    case '/based':
      return page('what stands elsewhere', {
        head: `<base href="${at('outside', '/')}">`,
        links: ['from-base', at('redirects', '/at-home')],
      })
    case '/refreshed':
    case '/target':
    case '/at-home':
      return page(`the page ${url.pathname}`, {})
    default:
      return undefined
  }
}

/** In nobody's scope: whatever is asked here was not allowed. Holds one robots.txt for another host. */
const outside: Trap = ({ url }) =>
  url.pathname === '/rules-of-another.txt'
    ? text('User-agent: *\nDisallow: /private/\n')
    : page(`outside ${url.pathname}`, {})

// Sitemaps and feeds ------------------------------------------------------------

const sitemaps: Trap = ({ url }) => {
  const here = (path: string) => at('sitemaps', path)
  switch (url.pathname) {
    case '/robots.txt':
      return text(`User-agent: *\nAllow: /\nSitemap: ${here('/index.xml')}\n`)
    // Names itself, and another that names it.
    case '/index.xml':
      return index(['/index.xml', '/second.xml', '/pages.xml.gz', '/bomb.xml.gz'].map(here))
    case '/second.xml':
      return index(['/index.xml', '/second.xml'].map(here))
    case '/pages.xml.gz':
      return {
        type: 'application/gzip',
        body: gzipSync(urlset([here('/hidden'), 'http://[bad', at('outside', '/from-sitemap')])),
      }
    case '/bomb.xml.gz':
      return { type: 'application/gzip', body: bomb('<urlset><url><loc>') }
    case '/bomb':
      return { type: 'text/html', headers: { 'content-encoding': 'gzip' }, body: bomb('<p>') }
    case '/':
    case '/hidden':
      return page(`the page ${url.pathname}`, {})
    default:
      return undefined
  }
}

/** What it begins with, and 256 MiB of spaces, in a quarter of a megabyte. */
function bomb(beginning: string): Uint8Array {
  return Buffer.concat([
    gzipSync(beginning),
    ...new Array<Buffer>(256).fill(gzipSync(Buffer.alloc(MiB, ' '))),
  ])
}

/** A sitemap of 55,000 addresses and as many kilobytes: more than may be, of both. */
const big: Trap = ({ url }) => {
  if (url.pathname === '/sitemap.xml') return { type: 'application/xml', body: bigSitemap() }
  return /^\/$|^\/entry\/\d+$/.test(url.pathname) ? page(`entry ${url.pathname}`, {}) : undefined
}

function* bigSitemap(): Generator<string> {
  yield '<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
  const padding = `<!-- ${'x'.repeat(900)} -->`
  for (let piece = 0; piece < 550; piece++) {
    yield Array.from(
      { length: 100 },
      (_, n) => `<url>${padding}<loc>${at('big', `/entry/${100 * piece + n}`)}</loc></url>\n`,
    ).join('')
  }
  yield '</urlset>'
}

const feed: Trap = ({ url }) => {
  if (url.pathname !== '/feed.xml') {
    return isPage(url) ? page(`the article ${url.pathname}`, {}) : undefined
  }
  const entries = ['one', 'two'].map(
    (name) =>
      `<item><title>Article ${name}</title><link>${at('feed', `/${name}`)}</link><description>About article ${name}.</description></item>`,
  )
  return {
    type: 'application/rss+xml',
    body: `<?xml version="1.0"?><rss version="2.0"><channel><title>News</title><link>${at('feed', '/')}</link>${entries.join('')}</channel></rss>`,
  }
}

const index = (addresses: readonly string[]): Answer => ({
  type: 'application/xml',
  body: `<?xml version="1.0"?><sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">${addresses
    .map((address) => `<sitemap><loc>${address}</loc></sitemap>`)
    .join('')}</sitemapindex>`,
})

const urlset = (addresses: readonly string[]) =>
  `<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">${addresses
    .map((address) => `<url><loc>${address}</loc></url>`)
    .join('')}</urlset>`

// robots.txt --------------------------------------------------------------------

/** A host of two pages and a folder that is private by its robots.txt, which is no usual one. */
const withRobots =
  (robots: (ask: Ask) => Answer): Trap =>
  (ask) =>
    ask.url.pathname === '/robots.txt'
      ? robots(ask)
      : isPage(ask.url)
        ? page(`the page ${ask.url.pathname}`, {})
        : undefined

const rules = 'User-agent: *\nDisallow: /private/\n'

const largeRobots = withRobots(() => ({
  type: 'text/plain',
  // The rule in the first 500 KiB counts, the one behind them does not.
  body: (function* () {
    yield rules
    for (let n = 0; n < 5; n++) yield `# ${'x'.repeat(1022)}\n`.repeat(1024)
    yield 'Disallow: /\n'
  })(),
}))

const binaryRobots = withRobots(() => ({
  type: 'application/octet-stream',
  // Every byte there is, line ends and U+0000 included.
  body: Buffer.from(Array.from({ length: 65_536 }, (_, n) => (n * 167 + (n >> 8)) & 255)),
}))

const lineRobots = withRobots(() => text(`${rules}Disallow: /${'x'.repeat(MiB)}`))
const silentRobots = withRobots(() => ({ body: 'never' }))
const forbiddenRobots = withRobots(() => ({ status: 403, type: 'text/plain', body: 'No.' }))
const movedRobots = withRobots(() => redirect(at('outside', '/rules-of-another.txt')))
const sickRobots = withRobots(({ isChanged }) =>
  isChanged ? text(rules) : { status: 503, type: 'text/plain', body: 'Not now.' },
)

// Busy hosts ----------------------------------------------------------------------

const tooMany: Answer = {
  status: 429,
  type: 'text/plain',
  headers: { 'retry-after': '3600' },
  body: 'Too many requests.',
}
const busy: Trap = ({ url }) => (isPage(url) ? tooMany : undefined)
const closed: Trap = () => tooMany
const tired: Trap = ({ url }) =>
  isPage(url) ? { status: 503, type: 'text/plain', body: 'Not now.' } : undefined

/** Not what is asked for beside pages. */
const isPage = ({ pathname }: URL) => !/\.(txt|xml|json)$/.test(pathname)

// Bytes ---------------------------------------------------------------------------

const russian = 'Урожай ячменя в этом году был хорош, и мельник заплатил за него сполна. '.repeat(8)
const html = (body: string) => `<!doctype html><title>Поле</title><h1>Поле</h1><p>${body}</p>`

const bytes: Trap = ({ url }) => {
  const labelled = (charset: string, body: Uint8Array): Answer => ({
    type: `text/html; charset=${charset}`,
    body,
  })
  const bom = Buffer.from([0xef, 0xbb, 0xbf])
  switch (url.pathname) {
    case '/':
      return page('odd bytes', {
        links: [
          ...['/as-1251', '/as-sjis', '/with-mark', '/no-such-label', '/cut'],
          ...['/image', '/picture.png', '/film'],
        ],
      })
    case '/as-1251':
      return labelled('windows-1251', Buffer.from(html(russian)))
    case '/as-sjis':
      return labelled('shift_jis', Buffer.from(html(russian)))
    case '/with-mark':
      return labelled('x-klingon', Buffer.concat([bom, Buffer.from(html(russian))]))
    case '/no-such-label':
      return labelled('x-klingon', Buffer.from(html(russian)))
    case '/cut':
      // Latin-1 under the name of UTF-8, and a character cut in half at the end.
      return labelled('utf-8', Buffer.concat([latin1Page, Buffer.from([0xe2, 0x82])]))
    case '/image':
      return { type: 'text/html', body: png }
    case '/picture.png':
      return { type: 'image/png', body: png }
    case '/film':
      return { type: 'video/mp4', body: film() }
    default:
      return undefined
  }
}

const latin1Page = Buffer.from(
  `<!doctype html><title>M\u00fcller</title><p>${'Der M\u00fcller f\u00fcllt S\u00e4cke mit Gr\u00fctze f\u00fcr die B\u00e4cker. '.repeat(9)}</p>`,
  'latin1',
)
const png = Buffer.concat([
  Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
  Buffer.from(Array.from({ length: 4_096 }, (_, n) => (n * n * 31 + n) & 255)),
])

/** As much as nobody waits for. */
function* film(): Generator<Uint8Array> {
  for (let n = 0; n < 256; n++) yield Buffer.alloc(MiB, n)
}

/** Links as real pages have them. */
const links: Trap = ({ url }) => {
  if (url.pathname !== '/') {
    return isPage(url) ? page(`the page ${url.pathname}${url.search}`, {}) : undefined
  }
  return page('odd links', {
    links: [
      'javascript:void(0)',
      'mailto:somebody@example.org',
      'tel:+15550100',
      'http://[bad',
      'http://',
      'https://%zz/',
      `http://user:pw@${hostOf('links')}/login`,
      'http://127.0.0.1/admin',
      'http://localhost/',
      'ftp://ftp.hostile.test/file',
      '  /with spaces  ',
      `/${'long/'.repeat(1_800)}`,
      '/caf\u00e9?q=a b',
      '\\backslash',
      '//',
      '?',
      '#top',
      '/good',
    ],
  })
}

// Wishes --------------------------------------------------------------------------

const wishes: Trap = ({ url }) => {
  switch (url.pathname) {
    case '/':
      return page('the wishes', {
        links: ['/noindex', '/nofollow', '/meta-nofollow', '/said-to-us'],
      })
    case '/noindex':
      return { ...page('the unlisted', {}), headers: { 'x-robots-tag': 'noindex' } }
    case '/nofollow':
      return {
        ...page('the end of the road', { links: ['/behind-header'] }),
        headers: { 'x-robots-tag': 'nofollow' },
      }
    case '/meta-nofollow':
      return page('another end of the road', {
        head: '<meta name="robots" content="nofollow">',
        links: ['/behind-meta'],
      })
    case '/said-to-us':
      return { ...page('the private word', {}), headers: { 'x-robots-tag': 'gleaner: noindex' } }
    default:
      return isPage(url) ? page(`the page ${url.pathname}`, {}) : undefined
  }
}

/** A folder whose mining is reserved; the first page names something of it once it has changed. */
const reserved: Trap = ({ url, isChanged }) => {
  if (url.pathname === '/.well-known/tdmrep.json') {
    return {
      type: 'application/json',
      body: JSON.stringify([{ location: '/reserved/*', 'tdm-reservation': 1 }]),
    }
  }
  if (!isPage(url)) return undefined
  if (url.pathname !== '/') return page(`the page ${url.pathname}`, {})
  return page(isChanged ? 'the grown front page' : 'the front page', {
    links: isChanged ? ['/reserved/new', '/free'] : [],
  })
}

const traps: Readonly<Record<string, Trap>> = {
  calendar,
  deeper,
  session,
  orders,
  crowd,
  same,
  redirects,
  outside,
  sitemaps,
  big,
  feed,
  'large-robots': largeRobots,
  'binary-robots': binaryRobots,
  'line-robots': lineRobots,
  'silent-robots': silentRobots,
  'forbidden-robots': forbiddenRobots,
  'moved-robots': movedRobots,
  'sick-robots': sickRobots,
  busy,
  closed,
  tired,
  bytes,
  links,
  wishes,
  reserved,
}

/** What hosts answer that have nothing of their own there. */
function usual({ url }: Ask): Answer {
  return url.pathname === '/robots.txt'
    ? text(rules)
    : { status: 404, type: 'text/html', body: '<h1>Not found</h1>' }
}

const text = (body: string): Answer => ({ type: 'text/plain; charset=utf-8', body })

const redirect = (location: string): Answer => ({ status: 302, headers: { location } })

/** A page with text of its own, and links. */
function page(
  subject: string,
  parts: { title?: string; head?: string; links?: readonly string[] },
): Answer {
  const paragraphs = Array.from(
    { length: 4 },
    (_, n) => `<p>In part ${n + 1} the keeper writes about ${subject} and what was seen there.
Whoever reads of ${subject} in part ${n + 1} finds it as it was on the day of the visit.</p>`,
  )
  const items = (parts.links ?? []).map((href) => `<li><a href="${href}">${href.slice(0, 40)}</a>`)
  return {
    type: 'text/html; charset=utf-8',
    body: `<!doctype html><html lang="en"><head><title>${parts.title ?? `On ${subject}`}</title>${parts.head ?? ''}</head>
<body><article><h1>On ${subject}</h1>${paragraphs.join('\n')}</article><ul>${items.join('\n')}</ul></body></html>`,
  }
}

/** Serves every trap under its host name, on one port of loopback. */
export async function startHostileSite(): Promise<HostileSite> {
  const requests: SeenRequest[] = []
  const changed = new Set<string>()
  const numbers = new Map<string, number>()
  const server = createServer((request, response) => {
    const host = request.headers.host ?? ''
    const name = host.replace(/\.hostile\.test$/, '')
    const number = (numbers.get(name) ?? 0) + 1
    numbers.set(name, number)
    const url = new URL(request.url ?? '/', `http://${host}`)
    const ask = { url, number, isChanged: changed.has(name) }
    const answer = traps[name]?.(ask) ?? usual(ask)
    const seen: SeenRequest = {
      host: name,
      path: request.url ?? '',
      from: request.socket.remoteAddress ?? '',
      askedMs: performance.now(),
      status: answer.status ?? 200,
      sentBytes: 0,
      isWhole: null,
      endedMs: Number.POSITIVE_INFINITY,
    }
    requests.push(seen)
    response.on('close', () => {
      seen.isWhole = response.writableFinished
      seen.endedMs = performance.now()
    })
    void send(response, answer, seen)
  })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen(0, '127.0.0.1', done)
  })
  const here = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    hostMap: {
      ...Object.fromEntries(Object.keys(traps).map((name) => [hostOf(name), here])),
      // A public name for the address where clouds keep their secrets.
      [hostOf('secrets')]: '169.254.169.254:80',
    },
    requests,
    changed,
    close: () =>
      new Promise((done) => {
        server.closeAllConnections()
        server.close(() => done())
      }),
  }
}

async function send(response: ServerResponse, answer: Answer, seen: SeenRequest): Promise<void> {
  const { status = 200, type, headers, body = '' } = answer
  if (body === 'never') return
  response.writeHead(status, { ...(type && { 'content-type': type }), ...headers })
  const pieces = typeof body === 'string' || body instanceof Uint8Array ? [body] : body
  async function* counted() {
    for (const piece of pieces) {
      seen.sentBytes += piece.length
      yield piece
    }
  }
  // Whoever goes away early has had enough: that is what some tests are about.
  await pipeline(Readable.from(counted(), { objectMode: true, highWaterMark: 1 }), response).catch(
    () => undefined,
  )
}
