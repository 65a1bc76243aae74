import { readdir, readFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { FetchHop } from '../../../lib/runner/ports.ts'
import { articleLike, type IsArticle, isRunningText, type NoiseLevel, withNoise } from './noise.ts'
import { seededRandom } from './random.ts'

/** A page as it is on disk, before any noise. */
export interface SourcePage {
  name: string
  html: string
  isArticle: IsArticle
}

/** Sites in memory: no fetch waits for anything. */
export interface BenchSites {
  hosts: readonly string[]
  seeds: readonly string[]
  hop: FetchHop
  /** By URL: gzip -6 of one fetch of the page, made apart from those that nodes get. */
  gzipBytes: ReadonlyMap<string, number>
  /** By URL; 0 where there is none. */
  noiseLevel: ReadonlyMap<string, NoiseLevel | 0>
}

/** Every .html below a folder, in the order of their names. */
export async function htmlFolder(folder: string, limit: number): Promise<SourcePage[]> {
  const names = (await readdir(folder, { recursive: true }))
    .filter((name) => name.endsWith('.html'))
    .sort()
    .slice(0, limit)
  return Promise.all(
    names.map(async (name) => ({
      name,
      html: await readFile(join(folder, name), 'utf8'),
      isArticle: isRunningText,
    })),
  )
}

/** Every .html.gz in a folder. Article texts are in ground-truth.json beside it, or guessed. */
export async function corpusFolder(
  folder: string,
  limit: number,
): Promise<{ pages: SourcePage[]; marked: number }> {
  const truth = await articleTexts(join(dirname(resolve(folder)), 'ground-truth.json'))
  const names = (await readdir(folder)).filter((name) => name.endsWith('.html.gz')).sort()
  const pages = await Promise.all(
    names.slice(0, limit).map(async (name) => {
      const html = gunzipSync(await readFile(join(folder, name))).toString('utf8')
      const body = truth.get(basename(name, '.html.gz'))
      return { name, html, isArticle: body === undefined ? isRunningText : articleLike(body) }
    }),
  )
  return { pages, marked: pages.filter(({ isArticle }) => isArticle !== isRunningText).length }
}

async function articleTexts(file: string): Promise<Map<string, string>> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{}'
    throw error
  })
  const truth = JSON.parse(text) as Record<string, { articleBody: string }>
  return new Map(Object.entries(truth).map(([id, { articleBody }]) => [id, articleBody]))
}

/**
 * Serves pages under several hosts. With noise, a third of the pages each has H1, H2 and H3, and
 * every fetch is a page of its own, drawn from the seed, the page and the number of the fetch.
 *
 * @param fetchesAhead fetches of each page that are made before the clock starts
 */
export function benchSites(
  pages: readonly SourcePage[],
  options: { name: string; hosts: number; noise: boolean; seed: string; fetchesAhead: number },
): BenchSites {
  const hosts = Array.from({ length: options.hosts }, (_, i) => `${options.name}-${i}.gleaner.test`)
  const urls = new Map<string, { page: SourcePage; level: NoiseLevel | 0 }>()
  for (const [i, page] of pages.entries()) {
    const path = encodeURI(page.name.replaceAll('\\', '/').replace(/\.gz$/, ''))
    const level = options.noise ? (((i % 3) + 1) as NoiseLevel) : 0
    urls.set(`http://${hosts[i % hosts.length]}/${path}`, { page, level })
  }
  const body = (url: string, fetchNumber: number): Uint8Array => {
    const known = urls.get(url)
    if (known === undefined) throw new Error(`${url} is no page of this bench`)
    const { page, level } = known
    if (level === 0) return Buffer.from(page.html)
    const random = seededRandom(options.seed, url, fetchNumber)
    return Buffer.from(withNoise(page.html, level, random, page.isArticle))
  }
  const gzipBytes = new Map<string, number>()
  const ahead = new Map<string, Uint8Array[]>()
  for (const url of urls.keys()) {
    gzipBytes.set(url, gzipSync(body(url, 0), { level: 6 }).length)
    ahead.set(
      url,
      Array.from({ length: options.fetchesAhead }, (_, i) => body(url, i + 1)),
    )
  }
  const fetched = new Map<string, number>()
  const robots = Buffer.from('User-agent: *\nDisallow: /private/\n')

  const hop: FetchHop = async ({ url }) => {
    if (url.endsWith('/robots.txt')) return response('text/plain; charset=utf-8', robots, 0)
    if (!urls.has(url)) return response('text/html; charset=utf-8', Buffer.from('Gone'), 0, 404)
    const number = (fetched.get(url) ?? 0) + 1
    fetched.set(url, number)
    const payload = ahead.get(url)?.[number - 1] ?? body(url, number)
    return response('text/html; charset=utf-8', payload, gzipBytes.get(url) ?? 0)
  }
  return {
    hosts,
    seeds: [...urls.keys()],
    hop,
    gzipBytes,
    noiseLevel: new Map([...urls].map(([url, { level }]) => [url, level])),
  }
}

function response(type: string, payload: Uint8Array, wireBytes: number, status = 200) {
  async function* body() {
    yield payload
  }
  return {
    kind: 'response' as const,
    status,
    headers: new Map([['content-type', type]]),
    body: body(),
    wireBytes: () => wireBytes,
  }
}
