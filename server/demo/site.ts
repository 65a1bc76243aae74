import { createHash } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, extname, join, relative, resolve, sep } from 'node:path'
import { gzipSync } from 'node:zlib'

/** A folder of HTML, served so that it behaves like a live site. */
export interface DemoSite {
  port: number
  /** Path prefix that robots.txt disallows. */
  disallowed: string
  /** Path prefix whose pages stay the same for everyone. */
  static: string
  pages: number
  /** Requests by the address that made them. */
  visitors: ReadonlyMap<string, number>
  /** What was asked for of the disallowed folder: stays empty when robots.txt is obeyed. */
  trespasses: readonly string[]
  close(): Promise<void>
}

export class SiteFolderProblem extends Error {
  override name = 'SiteFolderProblem'
}

/** More pages than this would not finish within the demo's two minutes. */
const mostPages = 400

const promotions = [
  'Spring sale: two registries for the price of one.',
  'Register now for the package managers’ conference.',
  'New here? Take the guided tour through the manual.',
  'Our newsletter has tips for people who publish packages.',
  'Download the printable edition of this manual today.',
]

/**
 * Serves every .html file below `folder` on loopback: an index of all pages, a
 * robots.txt that disallows one folder, one page under two URLs, one page that
 * is personal to each visitor; and on every page but those of one static
 * folder the visitor's address, a request number and a changing promotion.
 */
export async function startSite(folder: string): Promise<DemoSite> {
  const files = await htmlFiles(folder)
  const paths = [...files.keys()].sort()
  const special = specialFolders(paths, files)
  const twin = paths.find(
    (path) => !path.startsWith(special.static) && !path.startsWith(special.disallowed),
  )
  const visitors = new Map<string, number>()
  const trespasses: string[] = []
  let requests = 0

  const server = createServer((request, response) => {
    const visitor = (request.socket.remoteAddress ?? '').replace(/^::ffff:/, '')
    visitors.set(visitor, (visitors.get(visitor) ?? 0) + 1)
    requests += 1
    const number = requests
    const { pathname } = new URL(request.url ?? '/', 'http://site')
    if (pathname.startsWith(special.disallowed)) trespasses.push(pathname)
    const send = (status: number, type: string, body: string | Buffer) => {
      const gzipped = /\bgzip\b/.test(String(request.headers['accept-encoding']))
        ? gzipSync(body)
        : null
      response.writeHead(status, {
        'content-type': type,
        'cache-control': 'no-store',
        ...(gzipped ? { 'content-encoding': 'gzip' } : {}),
      })
      response.end(gzipped ?? body)
    }
    const page = async (): Promise<string | null> => {
      if (pathname === '/') return indexPage(paths, twin)
      if (pathname === '/account.html') return accountPage(visitor)
      const file = files.get(pathname === '/latest.html' && twin ? twin : pathname)
      return file === undefined ? null : readFile(file, 'utf8')
    }
    if (pathname === '/robots.txt') {
      send(200, 'text/plain; charset=utf-8', `User-agent: *\nDisallow: ${special.disallowed}\n`)
      return
    }
    page().then(
      (html) => {
        if (html === null) return send(404, 'text/html; charset=utf-8', '<h1>Not found</h1>')
        const isStatic = pathname.startsWith(special.static)
        send(200, 'text/html; charset=utf-8', isStatic ? html : enlivened(html, visitor, number))
      },
      (error: unknown) => send(500, 'text/plain', String(error)),
    )
  })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen(0, '127.0.0.1', done)
  })
  return {
    port: (server.address() as AddressInfo).port,
    disallowed: special.disallowed,
    static: special.static,
    pages: paths.length,
    visitors,
    trespasses,
    close: () =>
      new Promise((done) => {
        server.closeAllConnections()
        server.close(() => done())
      }),
  }
}

async function htmlFiles(folder: string): Promise<Map<string, string>> {
  const root = resolve(folder)
  const found = await stat(root).catch(() => null)
  if (!found?.isDirectory()) {
    throw new SiteFolderProblem(
      `${root} is not a folder. Name a folder of HTML pages with --site FOLDER, for example that of Debian's git-doc: /usr/share/doc/git-doc`,
    )
  }
  const names = await readdir(root, { recursive: true })
  const pages = names
    .filter((name) => extname(name) === '.html')
    .sort()
    .slice(0, mostPages)
  if (pages.length < 10) {
    throw new SiteFolderProblem(
      `${root} holds ${pages.length} HTML pages; the demo needs at least 10. Name another folder with --site FOLDER.`,
    )
  }
  return new Map(
    pages.map((name) => [
      `/${relative(root, join(root, name)).split(sep).map(encodeURIComponent).join('/')}`,
      join(root, name),
    ]),
  )
}

/**
 * One folder that robots.txt disallows and one that stays static: the two
 * smallest top-level folders where there are three or more, else two that are
 * made up of a few pages.
 */
function specialFolders(paths: readonly string[], files: Map<string, string>) {
  const sizes = new Map<string, number>()
  for (const path of paths) {
    const top = `${dirname(path).split('/').slice(0, 2).join('/')}/`
    if (top.length > 2) sizes.set(top, (sizes.get(top) ?? 0) + 1)
  }
  const bySize = [...sizes]
    .sort((a, b) => a[1] - b[1] || (a[0] < b[0] ? -1 : 1))
    .map(([top]) => top)
  const [first, second] = bySize
  if (first && second && bySize.length >= 3) return { static: first, disallowed: second }
  const some = paths.slice(0, 12)
  for (const [i, path] of some.entries()) {
    const file = files.get(path)
    const moved = `${i % 2 === 0 ? '/static/' : '/drafts/'}${path.split('/').at(-1)}`
    if (file === undefined) continue
    files.delete(path)
    files.set(moved, file)
  }
  ;(paths as string[]).splice(0, paths.length, ...[...files.keys()].sort())
  return { static: '/static/', disallowed: '/drafts/' }
}

function indexPage(paths: readonly string[], twin: string | undefined): string {
  const link = (path: string) =>
    `<li><a href="${path}">${decodeURIComponent(path.slice(1))}</a></li>`
  const extra = ['/account.html', ...(twin ? ['/latest.html'] : [])]
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>All pages</title></head><body>
<h1>All pages of this manual</h1>
<p>This list names every page that this site has, so that readers and crawlers find each of them from here.</p>
<ul>${[...extra, ...paths].map(link).join('\n')}</ul>
</body></html>`
}

/** Nothing on it is the same for two visitors. */
function accountPage(visitor: string): string {
  const word = (n: number) =>
    createHash('sha256').update(`${visitor} ${n}`).digest('hex').slice(0, 8)
  const sentence = (n: number) =>
    `Your order ${word(n)} of ${word(n + 1)} was sent to locker ${word(n + 2)} and signed with ${word(n + 3)} by courier ${word(n + 4)}.`
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Your account</title></head><body>
<h1>Account of ${word(0)}</h1>
${[10, 20, 30, 40, 50, 60].map((n) => `<p>${sentence(n)} ${sentence(n + 100)}</p>`).join('\n')}
</body></html>`
}

function enlivened(html: string, visitor: string, number: number): string {
  const promotion = promotions[number % promotions.length]
  const lively = `<div class="visitor">You are reading this from ${visitor}. It is request number ${number}.</div>
<p class="promotion">${promotion}</p>`
  return html.includes('<body>') ? html.replace('<body>', `<body>${lively}`) : `${lively}${html}`
}
