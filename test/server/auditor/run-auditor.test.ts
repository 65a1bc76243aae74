import type { ServerResponse } from 'node:http'
import { pipeline, Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import { beforeEach, describe, expect, test } from 'vitest'
import { openTestDatabase, type TestDatabase } from '../store/test-database.ts'
import { allEnded, ask, auditor, endAfter, hostId, openCampaign, site } from './lab.ts'
import { startNameServer } from './name-server.ts'

let database: TestDatabase
beforeEach(async () => {
  database = await openTestDatabase()
  endAfter(() => database.close())
})

const nowhere = '127.0.0.1:1'

describe('robots.txt', () => {
  /** Hosts a, b, c… in a row, each of which leads to the next; the last of them has the file. */
  async function chain(redirects: number) {
    const names = Array.from({ length: redirects + 1 }, (_, at) => `r${at}.example`)
    const port = await site(({ headers }, response) => {
      const at = names.indexOf(headers.host ?? '')
      if (at < redirects) {
        response.writeHead(301, { location: `http://${names[at + 1]}/robots.txt` }).end()
      } else response.end('User-agent: *\nDisallow: /private\nCrawl-delay: 3\n')
    })
    await openCampaign(database, ['r0.example'])
    const id = await hostId(database, 'http://r0.example')
    await ask(database, [{ kind: 'robots', hostId: id, target: 'http://r0.example/robots.txt' }])
    auditor(database, {
      hostMap: Object.fromEntries(names.map((name) => [name, `127.0.0.1:${port}`])),
    })
    await expect
      .poll(() => hostRow('robots_reason as reason'), { timeout: 15_000 })
      .toMatchObject({ reason: expect.any(String) })
    return hostRow(
      'robots_state as state, robots_text as text, robots_reason as reason, crawl_delay_ms',
    )
  }
  const hostRow = async (columns: string) =>
    (await database.pool.query(`select ${columns} from host order by id limit 1`)).rows[0]

  test('behind five redirects across hosts belongs to the first', async () => {
    expect(await chain(5)).toMatchObject({
      state: 'rules',
      text: 'User-agent: *\nDisallow: /private\nCrawl-delay: 3\n',
      reason: expect.stringContaining('http://r5.example/robots.txt'),
      crawl_delay_ms: 3_000,
    })
    const { rows } = await database.pool.query('select origin from host')
    expect(rows).toEqual([{ origin: 'http://r0.example' }])
  })

  test('behind six is unresolved, and forbids', async () => {
    expect(await chain(6)).toMatchObject({
      state: 'disallow-all',
      text: null,
      reason: expect.stringContaining('more than 5 redirects'),
    })
  })

  const big = `User-agent: *\nDisallow: /first\n${'# filler\n'.repeat(600_000)}Disallow: /last\n`
  const cases: [string, (response: ServerResponse) => void, object][] = [
    ['503', (r) => r.writeHead(503).end(), { state: 'disallow-all' }],
    ['403', (r) => r.writeHead(403).end(), { state: 'disallow-all' }],
    ['404', (r) => r.writeHead(404).end('x'), { state: 'allow-all' }],
    ['a broken line', (r) => r.socket?.destroy(), { state: 'disallow-all' }],
    [
      'a redirect inside',
      (r) => r.writeHead(301, { location: 'http://169.254.169.254/robots.txt' }).end(),
      { state: 'disallow-all', reason: expect.stringContaining('not public') },
    ],
    [
      '5 MB',
      (r) => r.end(big),
      {
        state: 'rules',
        text: big.slice(0, 512_000),
        reason: expect.stringContaining('first 512000 bytes'),
      },
    ],
    [
      'binary',
      (r) => r.end(Buffer.from([0, 1, 2, 0xff, 0xfe, 10, 0])),
      { state: 'rules', text: expect.not.stringContaining('\0') },
    ],
    [
      'one line of 1 MB',
      (r) => r.end(`User-agent: *\nDisallow: /${'x'.repeat(1_000_000)}`),
      { state: 'rules' },
    ],
  ]
  test.each(cases)('that is %s ends in a verdict', async (_, answer, expected) => {
    const port = await site((_, response) => answer(response))
    await openCampaign(database, ['a.example'])
    const id = await hostId(database, 'http://a.example')
    await ask(database, [{ kind: 'robots', hostId: id, target: 'http://a.example/robots.txt' }])
    auditor(database, { hostMap: { 'a.example': `127.0.0.1:${port}` } })
    await expect
      .poll(() => hostRow('robots_state as state, robots_text as text, robots_reason as reason'), {
        timeout: 10_000,
      })
      .toMatchObject({ reason: expect.any(String), ...expected })
  })
})

describe('sitemaps', () => {
  const urlset = (...paths: string[]) =>
    `<urlset>${paths.map((path) => `<url><loc>${path}</loc></url>`).join('')}</urlset>`
  const index = (...urls: string[]) =>
    `<sitemapindex>${urls.map((url) => `<sitemap><loc>${url}</loc></sitemap>`).join('')}</sitemapindex>`
  const at = (path: string) => `http://a.example${path}`

  async function crawl(
    files: Record<string, string | Buffer | ((response: ServerResponse) => void)>,
    options: { first?: string; timeout?: number; limits?: object; hosts?: string[] } = {},
  ) {
    const asked: string[] = []
    const port = await site(({ headers, url = '' }, response) => {
      const name = headers.host === 'a.example' ? url : `http://${headers.host}${url}`
      asked.push(name)
      const file = files[name]
      if (file === undefined) response.writeHead(404).end('<urlset>')
      else if (typeof file === 'function') file(response)
      else response.end(file)
    })
    const campaign = await openCampaign(database, ['a.example'], options.limits)
    const id = await hostId(database, 'http://a.example')
    const target = options.first ?? at('/sitemap.xml')
    await ask(database, [{ kind: 'sitemap', hostId: id, campaign, target }])
    const hosts = ['a.example', 'b.example', 'maps.a.example', 'cdn.example']
    auditor(database, {
      hostMap: Object.fromEntries(hosts.map((name) => [name, `127.0.0.1:${port}`])),
    })
    const ended = await allEnded(database, options.timeout)
    const { rows } = await database.pool.query<{ url: string; priority: number }>(
      `select url, priority from task where kind = 'page' and state <> 'closed' order by url`,
    )
    return { ended, asked, pages: rows.map(({ url }) => url), tasks: rows }
  }

  test('bring the pages that the campaign covers, the most important first', async () => {
    const { ended, tasks } = await crawl({
      '/sitemap.xml': `<urlset>
        <url><loc>${at('/late')}</loc><priority>0.1</priority></url>
        <url><loc>${at('/soon')}</loc><priority>1.0</priority></url>
        <url><loc>${at('/?b=1&amp;a=2')}</loc></url>
        <url><loc>http://b.example/other</loc></url>
        <url><loc>http://169.254.169.254/</loc></url>
        <url><loc>not an address</loc></url></urlset>`,
    })
    expect(ended[at('/sitemap.xml')]).toMatchObject({
      state: 'done',
      reason: expect.stringContaining('3 of them new'),
    })
    expect(tasks.map(({ url }) => url)).toEqual([at('/?b=1&a=2'), at('/late'), at('/soon')])
    const priority = (path: string) => tasks.find(({ url }) => url === at(path))?.priority ?? 0
    expect(priority('/soon')).toBeLessThan(priority('/late'))
  })

  test('of an index are read, packed in any way, and an index that names itself ends', async () => {
    const { ended, asked, pages } = await crawl({
      '/sitemap.xml': index(
        at('/sitemap.xml'),
        at('/1.xml.gz'),
        at('/2.xml.gz'),
        at('/3.xml'),
        at('/4.txt'),
        at('/feed'),
        at('/below.xml'),
        'http://maps.a.example/5.xml',
        'http://elsewhere.example/6.xml',
        'ftp://a.example/7.xml',
      ),
      '/1.xml.gz': gzipSync(urlset(at('/1'))),
      // Packed twice: by the file and by the line.
      '/2.xml.gz': (response) =>
        response
          .writeHead(200, { 'content-encoding': 'gzip' })
          .end(gzipSync(gzipSync(urlset(at('/2'))))),
      // Said to be packed, and not.
      '/3.xml': (response) =>
        response.writeHead(200, { 'content-encoding': 'gzip' }).end(urlset(at('/3'))),
      '/4.txt': `${at('/4')}\n`,
      '/feed': `<rss><channel><item><link>/5</link></item></channel></rss>`,
      '/below.xml': index(at('/sitemap.xml'), at('/below.xml'), at('/deep.xml')),
      '/deep.xml': index(at('/deeper.xml')),
      'http://maps.a.example/5.xml': urlset(at('/6')),
    })
    expect(pages).toEqual(['/1', '/2', '/3', '/4', '/5', '/6'].map(at))
    expect(asked.filter((path) => path === '/sitemap.xml')).toHaveLength(1)
    expect(asked).not.toContain('/deeper.xml')
    expect(ended[at('/deep.xml')]?.reason).toContain('not followed')
    expect(Object.keys(ended)).not.toContain('http://elsewhere.example/6.xml')
  })

  test('on a host of its own need its robots.txt', async () => {
    const files = {
      'http://cdn.example/robots.txt': 'User-agent: gleaner\nDisallow: /a\n',
      'http://cdn.example/a.xml': urlset(at('/1')),
      'http://cdn.example/b.xml': urlset(at('/2')),
    }
    const { ended, asked } = await crawl(files, { first: 'http://cdn.example/b.xml' })
    expect(ended['http://cdn.example/b.xml']?.reason).toContain('1 of them new')
    expect(asked).toEqual(['http://cdn.example/robots.txt', 'http://cdn.example/b.xml'])
  })

  test('that are not there, not ours or no sitemaps bring nothing, and say why', async () => {
    const { ended, pages } = await crawl({
      '/sitemap.xml': index(...['none', 'html', 'closed', 'broken'].map((name) => at(`/${name}`))),
      '/html': `<!doctype html><html><body><a href="/x">x</a></body></html>`,
      '/closed': (response) => response.writeHead(403).end(),
      '/broken': gzipSync(
        urlset(...Array.from({ length: 500 }, (_, n) => at(`/${n}${'x'.repeat(n)}`))),
      ).subarray(0, 900),
    })
    expect(ended[at('/none')]).toEqual({ state: 'done', reason: 'none there' })
    expect(ended[at('/html')]?.reason).toContain('no sitemap')
    expect(ended[at('/closed')]?.reason).toContain('403')
    expect(ended[at('/broken')]?.reason).toContain('damaged')
    expect(pages.length).toBeGreaterThan(0)
  })

  test('of a site that fails are asked for again, not at once', async () => {
    const port = await site((_, response) => response.writeHead(500).end())
    const campaign = await openCampaign(database, ['a.example'])
    await ask(database, [{ kind: 'sitemap', campaign, target: at('/sitemap.xml') }])
    auditor(database, { hostMap: { 'a.example': `127.0.0.1:${port}` } })
    const row = async () =>
      (
        await database.pool.query(
          'select state, attempts, reason, due_at > now() + $1::interval as later from auditor_task',
          ['10 seconds'],
        )
      ).rows[0]
    await expect
      .poll(row, { timeout: 5_000 })
      .toEqual({ state: 'due', attempts: 1, reason: 'status 500', later: true })
    // And everybody leaves the host alone for a while.
    await expect
      .poll(async () => (await database.pool.query('select holds from host')).rows)
      .toEqual([{ holds: 1 }])
  })

  test('of 50 MB are read to their bounds', async () => {
    const filler = `<!-- ${'x'.repeat(60_000)} -->`
    const { ended, pages } = await crawl(
      {
        '/sitemap.xml': (response) => {
          function* text() {
            yield '<urlset>'
            for (let n = 0; n < 1_000; n += 1) yield `<url><loc>${at(`/${n}`)}</loc>${filler}</url>`
            yield '</urlset>'
          }
          // Cut off when enough was read, which is what is tested.
          pipeline(Readable.from(text()), response, () => {})
        },
      },
      { timeout: 18_000 },
    )
    expect(ended[at('/sitemap.xml')]?.reason).toContain('only its first 50 MB are read')
    expect(pages.length).toBeGreaterThan(100)
  })
})

describe('files about use', () => {
  const wishes = async () =>
    (
      await database.pool.query<{ source: string; name: string; value: string }>(
        'select source, name, value from host_signal order by 1, 2, 3',
      )
    ).rows.map(({ source, name, value }) => `${source} ${name} ${value}`)

  test('become the host’s wishes, and go when the file goes', async () => {
    const files: Record<string, string> = {
      '/.well-known/tdmrep.json': '[{"location": "/a/*", "tdm-reservation": 1}]',
      '/ai.txt': 'User-Agent: *\nDisallow: /\n',
      '/.well-known/ai.txt': '# Hello\n',
    }
    const port = await site(({ url = '' }, response) => {
      const file = files[url]
      if (file === undefined) response.writeHead(404).end()
      else response.end(file)
    })
    await openCampaign(database, ['a.example'])
    const id = await hostId(database, 'http://a.example')
    const tasks = [...Object.keys(files), '/license.xml'].map((path) => ({
      kind: 'use-file' as const,
      hostId: id,
      target: `http://a.example${path}`,
    }))
    await ask(database, tasks)
    auditor(database, { hostMap: { 'a.example': `127.0.0.1:${port}` } })
    await allEnded(database)
    expect(await wishes()).toEqual([
      'ai-txt disallow /',
      'ai-txt presence ',
      'ai-txt presence  (/.well-known/ai.txt)',
      'rsl unreadable url=http://a.example/license.xml',
      'tdmrep 0000 /a/* 1',
    ])
    delete files['/ai.txt']
    delete files['/.well-known/tdmrep.json']
    await ask(database, tasks)
    const ended = await allEnded(database)
    expect(ended['http://a.example/ai.txt']?.reason).toBe('none there')
    expect(await wishes()).toEqual([
      'ai-txt presence  (/.well-known/ai.txt)',
      'rsl unreadable url=http://a.example/license.xml',
    ])
  })

  test('of which robots.txt names several say their own, until it names them no more', async () => {
    const licence = (uses: string) =>
      `<rsl xmlns="https://rslstandard.org/rsl"><content url="/"><license><permits type="usage">${uses}</permits></license></content></rsl>`
    const named = (paths: string[]) =>
      paths.map((path) => `License: http://a.example${path}\n`).join('')
    const asked: string[] = []
    let robots = named(['/1.xml', '/2.xml', '/1.xml', '/3.xml', '/4.xml', '/5.xml', '/6.xml'])
    const port = await site(({ url = '' }, response) => {
      asked.push(url)
      if (url === '/robots.txt') response.end(robots)
      else if (url === '/1.xml') response.end(licence('all'))
      else if (url === '/2.xml') response.end(licence('search'))
      else response.writeHead(404).end()
    })
    await openCampaign(database, ['a.example'])
    const id = await hostId(database, 'http://a.example')
    const task = { kind: 'robots', hostId: id, target: 'http://a.example/robots.txt' } as const
    await ask(database, [task])
    auditor(database, { hostMap: { 'a.example': `127.0.0.1:${port}` } })
    await allEnded(database)
    // One more is not read: naming it is a no already.
    expect(asked.filter((url) => /xml$/.test(url) && url !== '/sitemap.xml').sort()).toEqual(
      [1, 2, 3, 4, 5].map((n) => `/${n}.xml`),
    )
    const unreadable = (n: number) => `rsl unreadable url=http://a.example/${n}.xml`
    expect(await wishes()).toEqual([
      'rsl / permits=all url=http://a.example/1.xml',
      'rsl / permits=search url=http://a.example/2.xml',
      'rsl read url=http://a.example/1.xml',
      'rsl read url=http://a.example/2.xml',
      ...[3, 4, 5].map(unreadable),
    ])
    robots = named(['/2.xml'])
    await ask(database, [task])
    await allEnded(database)
    expect(await wishes()).toEqual([
      'rsl / permits=search url=http://a.example/2.xml',
      'rsl read url=http://a.example/2.xml',
    ])
  })

  test('that robots.txt forbids are not fetched', async () => {
    let requests = 0
    const port = await site((_, response) => {
      requests += 1
      response.end('[]')
    })
    await openCampaign(database, ['a.example'])
    await database.pool.query(
      `update host set robots_state = 'rules', robots_text = $1, robots_digest = '\\x00'`,
      ['User-agent: *\nDisallow: /.well-known/\n'],
    )
    const id = await hostId(database, 'http://a.example')
    await ask(database, [
      { kind: 'use-file', hostId: id, target: 'http://a.example/.well-known/tdmrep.json' },
    ])
    auditor(database, { hostMap: { 'a.example': `127.0.0.1:${port}` } })
    await allEnded(database)
    expect(requests).toBe(0)
  })
})

describe('an opt-out', () => {
  const id = Buffer.alloc(16, 7)
  const token = 'gleaner-token-1234567890'
  const file = 'https://a.example/.well-known/gleaner-opt-out.txt'

  async function look(
    kind: 'opt-out-file' | 'opt-out-dns',
    options: Parameters<typeof auditor>[1],
  ) {
    await database.pool.query(
      `insert into opt_out (id, scope, host, token) values ($1, 'host', 'a.example', $2)`,
      [id, token],
    )
    const target = kind === 'opt-out-file' ? file : '_gleaner.a.example'
    await ask(database, [{ kind, target, optOut: id }])
    auditor(database, options)
    const ended = await allEnded(database)
    const { rows } = await database.pool.query<{ state: string; reason: string }>(
      'select state, reason from opt_out',
    )
    expect(ended[target]?.reason).toBe(rows[0]?.reason)
    return { ...rows[0], task: ended[target]?.state }
  }
  async function servedBy(listener: Parameters<typeof site>[0]) {
    const port = await site(listener)
    return {
      hostMap: {
        'a.example:443': nowhere,
        'a.example:80': `127.0.0.1:${port}`,
        'b.example': `127.0.0.1:${port}`,
      },
    }
  }

  test('is proven by the file, over http where there is no https', async () => {
    const options = await servedBy(({ url }, response) =>
      response.end(url?.endsWith('.txt') ? `# we say no\r\n  ${token}\r\n` : ''),
    )
    expect(await look('opt-out-file', options)).toEqual({
      state: 'verified',
      task: 'done',
      reason: 'The token is in http://a.example/.well-known/gleaner-opt-out.txt.',
    })
  })

  test.each([
    ['is not there', 404, '', 'answered 404'],
    ['holds it inside of a line', 200, `x${token}`, 'on no line'],
    ['holds it too late', 200, `${'#\n'.repeat(3_000)}${token}`, 'first 4096 bytes'],
  ])('is not proven by a file that %s', async (_, status, body, why) => {
    const options = await servedBy((_, response) => response.writeHead(status).end(body))
    expect(await look('opt-out-file', options)).toEqual({
      state: 'waiting',
      task: 'failed',
      reason: expect.stringContaining(why),
    })
  })

  test('is not proven by a file on another host', async () => {
    const options = await servedBy(({ headers }, response) => {
      if (headers.host === 'b.example') response.end(token)
      else response.writeHead(302, { location: 'http://b.example/' }).end()
    })
    expect(await look('opt-out-file', options)).toMatchObject({
      state: 'waiting',
      reason: expect.stringContaining('redirects to b.example'),
    })
  })

  test('says so where nobody answers', async () => {
    expect(await look('opt-out-file', { hostMap: { 'a.example': nowhere } })).toMatchObject({
      state: 'waiting',
      reason: expect.stringContaining('No connection to a.example'),
    })
  })

  test.each([
    ['is proven', [`gleaner-opt-out=${token}`], 'verified', 'The token is in the TXT record'],
    [
      'is proven beside others',
      ['v=spf1 -all', `gleaner-opt-out=${token} `],
      'verified',
      'The token',
    ],
    ['is not proven by another’s', ['gleaner-opt-out=other'], 'waiting', 'None of the 1 TXT'],
    ['is not proven by a name without', [], 'waiting', 'has no TXT record'],
    ['is not proven by no name', null, 'waiting', 'has no TXT record'],
  ])('in the DNS %s', async (_, records, state, why) => {
    const server = await startNameServer((name, type) =>
      name === '_gleaner.a.example' && type === 'TXT' ? records : null,
    )
    endAfter(() => server.close())
    expect(await look('opt-out-dns', { nameServers: [server.address] })).toMatchObject({
      state,
      reason: expect.stringContaining(why),
    })
    expect(server.asked).toEqual(['TXT _gleaner.a.example'])
  })

  test('is looked for while all is halted', async () => {
    await database.pool.query('insert into halt default values')
    const options = await servedBy((_, response) => response.end(token))
    expect(await look('opt-out-file', options)).toMatchObject({ state: 'verified' })
  })
})

test('a site whose owner has opted out is not spoken to, whatever was asked for before', async () => {
  let requests = 0
  const port = await site((_, response) => {
    requests += 1
    response.end()
  })
  const campaign = await openCampaign(database, ['www.a.example'])
  const id = await hostId(database, 'http://www.a.example')
  await database.pool.query(
    `insert into opt_out (id, scope, host, token, state, verified_at)
     values ('\\x01', 'domain', 'a.example', 't', 'verified', now())`,
  )
  const at = (path: string) => `http://www.a.example${path}`
  await ask(database, [
    { kind: 'sitemap', campaign, hostId: id, target: at('/sitemap.xml') },
    { kind: 'use-file', hostId: id, target: at('/ai.txt') },
    { kind: 'robots', hostId: id, target: at('/robots.txt') },
  ])
  auditor(database, { hostMap: { 'www.a.example': `127.0.0.1:${port}` } })
  const ended = await allEnded(database)
  for (const { state, reason } of Object.values(ended)) {
    expect({ state, reason }).toEqual({ state: 'failed', reason: 'Its owner has opted out.' })
  }
  expect(requests).toBe(0)
})

test('halted, the auditor aborts what it fetches and gives it back', async () => {
  let isClosed = false
  const port = await site((_, response) => {
    response.write('<urlset>')
    response.once('close', () => {
      isClosed = true
    })
  })
  const campaign = await openCampaign(database, ['a.example'])
  await ask(database, [{ kind: 'sitemap', campaign, target: 'http://a.example/sitemap.xml' }])
  auditor(database, { hostMap: { 'a.example': `127.0.0.1:${port}` } })
  const state = async () =>
    (await database.pool.query('select state, attempts from auditor_task')).rows[0]
  await expect.poll(state, { timeout: 5_000 }).toEqual({ state: 'taken', attempts: 1 })
  await database.pool.query('insert into halt default values')
  await expect.poll(state, { timeout: 5_000 }).toEqual({ state: 'due', attempts: 0 })
  expect(isClosed).toBe(true)
})

test('a host that is at its bound is not spoken to until it is free', async () => {
  let requests = 0
  const port = await site((_, response) => {
    requests += 1
    response.end('<urlset/>')
  })
  const campaign = await openCampaign(database, ['a.example'])
  await database.pool.query('update host set in_flight = 1')
  await ask(database, [{ kind: 'sitemap', campaign, target: 'http://a.example/sitemap.xml' }])
  auditor(database, { hostMap: { 'a.example': `127.0.0.1:${port}` } })
  await expect
    .poll(async () => (await database.pool.query('select state from auditor_task')).rows)
    .toEqual([{ state: 'taken' }])
  expect(requests).toBe(0)
  await database.pool.query('update host set in_flight = 0')
  await allEnded(database)
  expect(requests).toBe(1)
})
