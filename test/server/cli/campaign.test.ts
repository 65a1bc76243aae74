import { execFile } from 'node:child_process'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { domainLeaf } from '../../../lib/consent/domain-list.ts'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { type Campaign, campaign } from '../../../lib/protocol/campaign.ts'
import { rootHash } from '../../../lib/tlog/merkle.ts'
import { readConfig } from '../../../server/config.ts'
import { type RunningServer, startServer } from '../../../server/main.ts'
import { openCampaign, signCampaign } from '../../../server/operator.ts'
import { campaignOver } from '../../lib/runner/operator.ts'

// Each command is a process of its own, a second or two of work; a busy machine takes several.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 90_000 })

const program = fileURLToPath(new URL('../../../server/gleaner.mjs', import.meta.url))

function gleaner(...args: string[]): Promise<{ status: number; out: string; err: string }> {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => name === 'GLEANER_POSTGRES' || !/^(GLEANER_|DATABASE_URL$)/.test(name),
    ),
  )
  return new Promise((resolve) => {
    execFile(process.execPath, [program, ...args], { env }, (error, out, err) =>
      resolve({ status: error ? Number(error.code) : 0, out, err }),
    )
  })
}

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gleaner-wide-'))
  // PostgreSQL may run as another user, who has to pass through.
  await chmod(folder, 0o711)
})
afterAll(() => rm(folder, { recursive: true, force: true }))

async function fileOf(name: string, text: string): Promise<string> {
  const file = join(folder, name)
  await writeFile(file, text)
  return file
}
const rootOf = (...domains: string[]) => toBase64Url(rootHash(domains.map(domainLeaf)))
const wideFlags = (id: string, list: string, ...seeds: string[]) => [
  ...['campaign', 'create', '--id', id, '--title', 'Grain', '--purpose', 'To know.'],
  ...['--category', 'about grain', '--list', list, '--seed', ...seeds],
]

const siteFlags = [
  ...['campaign', 'create', '--id', 'grain', '--title', 'Grain', '--purpose', 'To know.'],
  ...['--site', 'https://rye.example/docs/', '--print'],
]

describe('a campaign from flags', () => {
  test('says kinds of content, depth, pages of one host, and where to begin', async () => {
    const { status, out, err } = await gleaner(
      ...siteFlags,
      ...['--types', 'html, pdf,html', '--depth', '3', '--pages-per-host', '50', '--pages', '70'],
      ...['--seed', 'https://rye.example/docs/a', 'https://rye.example/docs/b'],
    )
    expect({ status, err }).toEqual({ status: 0, err: '' })
    expect(campaign.parse(JSON.parse(out))).toMatchObject({
      types: ['html', 'pdf'],
      limits: { depth: 3, pagesPerHost: 50, pages: 70 },
      seeds: ['https://rye.example/docs/a', 'https://rye.example/docs/b'],
    })
  })

  test('leaves to the manifest’s defaults what is not given', async () => {
    const { out } = await gleaner(...siteFlags)
    const manifest = campaign.parse(JSON.parse(out))
    expect(manifest.types).toBeUndefined()
    expect(manifest.limits).toEqual({
      pageBytes: 2_097_152,
      pageMs: 30_000,
      pages: 10_000,
      depth: 20,
    })
    expect(manifest.seeds).toEqual(['https://rye.example/docs/'])
  })

  test.each([
    ['--types', 'html,video', 2, /--types.*"video" is no kind of content.*html,text,feed,json,pdf/],
    ['--depth', '1001', 2, /--depth.*whole number from 0 to 1000/],
    ['--pages-per-host', '0', 2, /--pages-per-host.*whole number from 1 to 1000000000/],
    ['--pages', 'many', 2, /--pages .*whole number from 1 to 1000000000/],
    ['--rate', '0', 2, /--rate.*above 0 and not above 100/],
    ['--quorum', '1', 2, /--quorum.*whole number from 2 to 5/],
    ['--seed', 'rye.example/docs', 1, /--seed is "rye\.example\/docs", which is not a URL/],
  ])('with %s %j is refused with what to give instead', async (flag, given, status, words) => {
    const refused = await gleaner(...siteFlags, `${flag}=${given}`)
    expect(refused).toMatchObject({ status, out: '' })
    expect(refused.err).toMatch(words)
    expect(refused.err).not.toMatch(/\n\s+at /)
  })
})

describe('a list of domains', () => {
  test('fills the manifest of a wide campaign, in the order of its bytes', async () => {
    const list = await fileOf('some.txt', '# grain\nrye.example\nbarley.example\nrye.example\n')
    const { status, out, err } = await gleaner(
      ...wideFlags('grain', list, 'https://www.rye.example/a', 'https://barley.example/'),
      ...['--rate', '0.5', '--print'],
    )
    expect({ status, err }).toEqual({ status: 0, err: '' })
    expect(campaign.parse(JSON.parse(out))).toMatchObject({
      sites: [],
      wide: {
        root: rootOf('barley.example', 'rye.example'),
        size: 2,
        category: 'about grain',
        scheme: 'https',
        requestsPerSecond: 0.5,
        requestsInFlight: 1,
      },
      seeds: ['https://www.rye.example/a', 'https://barley.example/'],
    })
  })

  test('with wrong lines is refused, and each of them is named', async () => {
    const list = await fileOf('wrong.txt', 'rye.example\nhttps://oat.example/\n\nco.uk\n10.0.0.1\n')
    const { status, out, err } = await gleaner(
      ...wideFlags('grain', list, 'https://rye.example/'),
      '--print',
    )
    expect({ status, out }).toEqual({ status: 1, out: '' })
    expect(err).toContain('wrong.txt is no list of domains')
    expect(err).toMatch(/line 2: "https:\/\/oat\.example\/" is not written as in a URL/)
    expect(err).toMatch(/line 4: "co\.uk" is a public suffix/)
    expect(err).toMatch(/line 5: "10\.0\.0\.1" is an address/)
    expect(err).not.toMatch(/line [13]|\n\s+at /)
  })

  test.each<[string, (list: string) => string[], RegExp]>([
    [
      'with a seed that is not on it',
      (list) => wideFlags('grain', list, 'https://evilrye.example/'),
      /seed https:\/\/evilrye\.example\/ is neither on the list/,
    ],
    [
      'with a seed of another scheme',
      (list) => wideFlags('grain', list, 'http://rye.example/'),
      /seed http:\/\/rye\.example\/ is neither on the list \(by https\)/,
    ],
    [
      'without what it is about, or where to begin',
      (list) => ['campaign', 'create', '--id', 'grain', '--list', list],
      /needs --title, --purpose, --category, --seed/,
    ],
    [
      'that is not there',
      (list) => wideFlags('grain', `${list}.none`, 'https://rye.example/'),
      /list\.txt\.none cannot be read/,
    ],
    [
      'of which only the category is given',
      () => [
        ...['campaign', 'create', '--id', 'grain', '--title', 'Grain', '--purpose', 'To know.'],
        ...['--site', 'https://rye.example/', '--category', 'about grain'],
      ],
      /Give it with --list FILE/,
    ],
  ])('%s is refused', async (_, flags, words) => {
    const list = await fileOf('list.txt', 'rye.example\n')
    const { status, out, err } = await gleaner(...flags(list), '--print')
    expect({ status, out }).toEqual({ status: 1, out: '' })
    expect(err).toMatch(words)
  })
})

describe('a wide campaign', () => {
  let server: RunningServer
  let data: string

  beforeAll(async () => {
    data = join(folder, 'data')
    server = await startServer(
      readConfig({ data, port: '0' }, { GLEANER_POSTGRES: process.env.GLEANER_POSTGRES }),
      pino({ level: 'silent' }),
      { scopeRules: { loopbackAllowed: false } },
    )
  })
  afterAll(() => server?.stop())

  const wideManifest = (id: string, root: string, size: number): Campaign =>
    campaignOver('unused.example', {
      id,
      sites: [],
      seeds: ['https://rye.example/'],
      wide: {
        root,
        size,
        category: 'about grain',
        scheme: 'https',
        requestsPerSecond: 1,
        requestsInFlight: 1,
      },
    })

  test('is opened with its list, which anybody can then read and check', async () => {
    const domains = ['a-b.example', 'a.example', 'rye.example']
    const list = await fileOf('open.txt', domains.toReversed().join('\n'))
    const opened = await gleaner(
      ...wideFlags('grain', list, 'https://rye.example/'),
      ...['--data', data, '--json'],
    )
    expect(opened).toMatchObject({ status: 0, err: '' })
    const origin = new URL(server.joinLink).origin
    const answer = await fetch(`${origin}/v1/lists/${rootOf(...domains)}`)
    expect(answer.status).toBe(200)
    expect(answer.headers.get('content-type')).toBe('text/plain; charset=utf-8')
    expect(answer.headers.get('cache-control')).toContain('immutable')
    const text = await answer.text()
    expect(text).toBe('a-b.example\na.example\nrye.example\n')
    // What the manifest that people agree to says.
    const offered = await (await fetch(`${origin}/v1/campaigns`)).json()
    const [{ manifest }] = (offered as { campaigns: { manifest: { payload: string } }[] })
      .campaigns as [{ manifest: { payload: string } }]
    const { wide } = campaign.parse(JSON.parse(Buffer.from(manifest.payload, 'base64').toString()))
    expect(wide).toMatchObject({ root: rootOf(...text.trimEnd().split('\n')), size: 3 })

    expect((await fetch(`${origin}/v1/lists/${rootOf('other.example')}`)).status).toBe(404)
    expect((await fetch(`${origin}/v1/lists/x`)).status).toBe(400)
  })

  test('whose list is not stored, or has another size, is not opened', async () => {
    const open = async (manifest: Campaign) =>
      openCampaign(server.workspace, await signCampaign(manifest, server.workspace.keys.campaign))
    await expect(open(wideManifest('none', rootOf('rye.example'), 1))).rejects.toThrow(
      /is not stored here.*--list FILE/,
    )
    const stored = rootOf('a-b.example', 'a.example', 'rye.example')
    await expect(open(wideManifest('size', stored, 4))).rejects.toThrow(/says 4 domains.* has 3\./)
    const { rows } = await server.workspace.database.pool.query(
      `select id from campaign where id in ('none', 'size')`,
    )
    expect(rows).toEqual([])
  })

  test('that was signed elsewhere is opened with its list beside it, and with no other', async () => {
    const root = rootOf('oat.example', 'rye.example')
    const manifest = await fileOf('wide.json', JSON.stringify(wideManifest('signed', root, 2)))
    const signed = join(folder, 'wide.signed.json')
    const sign = await gleaner('campaign', 'sign', manifest, '--data', data, '--out', signed)
    expect(sign).toMatchObject({ status: 0, err: '' })
    expect(await readFile(signed, 'utf8')).toContain('payload')

    const other = await fileOf('other.txt', 'rye.example\nwheat.example\n')
    const open = (list: string) =>
      gleaner('campaign', 'create', '--signed', signed, '--list', list, '--data', data)
    const refused = await open(other)
    expect(refused).toMatchObject({ status: 1, out: '' })
    expect(refused.err).toContain(root)
    expect(refused.err).toContain(rootOf('rye.example', 'wheat.example'))

    const opened = await open(await fileOf('right.txt', 'rye.example\noat.example\n'))
    expect(opened).toMatchObject({ status: 0, err: '' })
    expect(opened.out).toContain('Campaign signed is open')
  })
})
