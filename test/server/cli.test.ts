import { spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import { verifyEnvelope } from '../../lib/crypto/dsse.ts'
import { importSeed, publicKeyBytes } from '../../lib/crypto/ed25519.ts'
import { envelope as envelopeSchema } from '../../lib/protocol/fields.ts'
import { payloadType } from '../../lib/protocol/payload-type.ts'
import { startEmbeddedPostgres } from '../../server/store/embedded-postgres.ts'
import { campaignOver } from '../lib/runner/operator.ts'

// Each command is a process of its own, a second or two of work; a busy machine takes several.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 90_000 })

const program = fileURLToPath(new URL('../../server/gleaner.mjs', import.meta.url))

interface Ended {
  status: number | null
  out: string
  err: string
}

/** A command under way. Its environment has nothing that would configure it. */
function begin(args: readonly string[]) {
  const kept = Object.entries(process.env).filter(
    ([name]) => name === 'GLEANER_POSTGRES' || !/^(GLEANER_|DATABASE_URL$)/.test(name),
  )
  const child = spawn(process.execPath, [program, ...args], {
    env: Object.fromEntries(kept),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [out, err] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text
  })
  const ended = new Promise<Ended>((resolve) =>
    child.once('close', (status) => resolve({ status, out, err })),
  )
  return {
    child,
    ended,
    /** Waits until this is printed. */
    async says(words: string) {
      const gone = ended.then(({ err: last }) => {
        throw new Error(`it ended first:\n${last}`)
      })
      const heard = (async () => {
        while (!out.includes(words)) await new Promise((resolve) => setTimeout(resolve, 50))
      })()
      await Promise.race([heard, gone])
      return out
    },
  }
}
const gleaner = (...args: string[]) => begin(args).ended

/** One sentence on standard error, no stack, and nothing on standard output. */
function expectRefusal(ended: Ended, status: number, words: RegExp) {
  expect(ended.err).toMatch(words)
  expect(ended.err).not.toMatch(/\n\s+at /)
  expect(ended).toMatchObject({ status, out: '' })
}

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gleaner-cli-'))
  // PostgreSQL may run as another user, who has to pass through.
  await chmod(folder, 0o711)
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('without a database', () => {
  test('an unknown command is a usage error, and says where help is', async () => {
    const ended = await gleaner('harvest')
    expectRefusal(ended, 2, /unknown command 'harvest'/)
    expect(ended.err).toContain('--help')
  })

  test('an unknown option is a usage error', async () => {
    expectRefusal(await gleaner('start', '--fast'), 2, /unknown option '--fast'/)
  })

  test.concurrent.each([
    [[], ['start', 'campaign', 'release', 'verify', 'ledger', 'keys', 'node', 'demo']],
    [['start'], ['--port', '--origin', '--trusted-proxies', 'GLEANER_PORT']],
    [['campaign'], ['create', 'sign', 'list']],
    [
      ['campaign', 'create'],
      ['--site', '--quorum', '--signed', '--json'],
    ],
    [
      ['campaign', 'sign'],
      ['--out', 'no database'],
    ],
    [['campaign', 'list'], ['--json']],
    [['release'], ['--campaign', '--out', '--json']],
    [['verify'], ['--key', '--json']],
    [['ledger'], ['show', 'seal']],
    [
      ['ledger', 'show'],
      ['--account', '--json'],
    ],
    [['keys'], ['--json']],
    [['node'], ['--server', '--campaign']],
    [['demo'], ['--site', '--keep', '--headed', '--json']],
  ] as [string[], string[]][])('%j --help explains itself', async (command, words) => {
    const { status, out, err } = await gleaner(...command, '--help')
    expect({ status, err }).toEqual({ status: 0, err: '' })
    expect(out).toContain(`Usage: ${['gleaner', ...command].join(' ')}`)
    for (const word of words) expect(out.replace(/\s+/g, ' ')).toContain(word)
  })

  test('a wrong port is refused by its name', async () => {
    expectRefusal(await gleaner('start', '--port', 'http'), 2, /--port is "http".* 0 .*65535/)
  })

  test('a database that does not answer has a status of its own', async () => {
    expectRefusal(
      await gleaner(
        'start',
        ...['--database-url', 'postgres://127.0.0.1:1/x', '--data', join(folder, 'away')],
      ),
      6,
      /database does not answer.*DATABASE_URL/,
    )
  })

  test('a campaign is signed without server and database, by the key of the data folder', async () => {
    const data = join(folder, 'offline')
    const manifest = join(folder, 'manifest.json')
    await writeFile(manifest, JSON.stringify(campaignOver('barley.example')))
    const printed = await gleaner('campaign', 'sign', manifest, '--data', data)
    expect(printed).toMatchObject({ status: 0, err: '' })
    const signed = envelopeSchema.parse(JSON.parse(printed.out))
    const seed = Buffer.from(
      await readFile(join(data, 'keys', 'campaign.key'), 'utf8'),
      'base64url',
    )
    const key = await publicKeyBytes((await importSeed(seed, { extractable: false })).publicKey)
    expect(signed.signatures[0]?.keyid).toBe(toBase64Url(key))
    expect(await verifyEnvelope(signed, payloadType.campaign, key)).toMatchObject({ ok: true })

    const out = join(folder, 'signed.json')
    const written = await gleaner('campaign', 'sign', manifest, '--data', data, '--out', out)
    expect(written).toMatchObject({ status: 0, out: '' })
    expect(JSON.parse(await readFile(out, 'utf8'))).toEqual(signed)
  })

  test('a manifest that is not there, or wrong, is named, and makes no key', async () => {
    const data = join(folder, 'no-key')
    const sign = (file: string) => gleaner('campaign', 'sign', file, '--data', data)
    expectRefusal(await sign(join(folder, 'none.json')), 1, /none\.json cannot be read/)
    const broken = join(folder, 'broken.json')
    await writeFile(broken, '{"version":')
    expectRefusal(await sign(broken), 1, /manifest is not JSON/)
    await writeFile(broken, JSON.stringify(campaignOver('barley.example', { quorum: 1 })))
    expectRefusal(await sign(broken), 1, /manifest's quorum is wrong/)
    await expect(readFile(join(data, 'keys', 'campaign.key'))).rejects.toThrow('ENOENT')
  })

  test('what a campaign still needs is named', async () => {
    expectRefusal(
      await gleaner('campaign', 'create', '--id', 'x', '--data', join(folder, 'unused')),
      1,
      /needs --title, --purpose, --site/,
    )
  })

  test('a manifest is printed to be signed elsewhere', async () => {
    const { status, out } = await gleaner(
      ...[
        'campaign',
        'create',
        '--print',
        '--id',
        'tea',
        '--title',
        'Tea',
        '--purpose',
        'To know.',
      ],
      ...['--site', 'https://barley.example/tea/', '--rate', '0.5', '--pages', '7'],
    )
    expect(status).toBe(0)
    expect(JSON.parse(out)).toMatchObject({
      id: 'tea',
      sites: [
        {
          host: 'barley.example',
          scheme: 'https',
          pathPrefixes: ['/tea/'],
          requestsPerSecond: 0.5,
        },
      ],
      seeds: ['https://barley.example/tea/'],
      limits: { pages: 7 },
    })
  })

  test('a release that is not there, or is a file, is named', async () => {
    const key = 'barley.example/log+00000000+AAAA'
    expectRefusal(
      await gleaner('verify', join(folder, 'no-release'), '--key', key),
      1,
      /no-release cannot be read.*Name a release/,
    )
    expectRefusal(await gleaner('verify', folder), 2, /--key/)
  })

  test('a folder that is no release fails step by step, as JSON too', async () => {
    const empty = join(folder, 'empty')
    await mkdir(empty)
    const key = 'barley.example/log+00000000+AAAA'
    const text = await gleaner('verify', empty, '--key', key)
    expect(text.status).toBe(1)
    expect(text.out).toMatch(/FAIL +1\. /)
    const { status, out } = await gleaner('verify', empty, '--key', key, '--json')
    expect(status).toBe(1)
    expect(JSON.parse(out)).toMatchObject({ ok: false, steps: { length: 9 } })
  })

  test('what is no join link is refused', async () => {
    expectRefusal(
      await gleaner('node', '--server', 'http://x', '--data', join(folder, 'node')),
      1,
      /not a join link/,
    )
  })
})

describe('with a data folder', () => {
  let data: string
  let server: ReturnType<typeof begin>
  const json = async (...args: string[]) => {
    const ended = await gleaner(...args, '--data', data, '--json')
    expect(ended).toMatchObject({ status: 0, err: '' })
    expect(ended.out.trimEnd().split('\n')).toHaveLength(1)
    return JSON.parse(ended.out) as unknown
  }

  beforeAll(async () => {
    data = join(folder, 'data')
    server = begin(['start', '--data', data, '--port', '0', '--name', 'Barley'])
    await server.says('Stop with Ctrl-C')
  })
  afterAll(async () => {
    server?.child.kill('SIGTERM')
    await server?.ended
  })

  test('the start says what listens, the join link, the extension and what comes next', async () => {
    const said = await server.says('Stop with Ctrl-C')
    expect(said).toMatch(/listens on http:\/\/127\.0\.0\.1:\d+/)
    expect(said).toMatch(/http:\/\/127\.0\.0\.1:\d+\/join#[A-Za-z0-9_-]{43}/)
    expect(said).toContain('npm run build')
    expect(said).toContain('gleaner campaign create')
    const [origin] = /http:\/\/127\.0\.0\.1:\d+/.exec(said) ?? []
    expect((await fetch(`${origin}/v1/network`)).status).toBe(200)
  })

  test('a second server on the same data folder is refused, and the first goes on', async () => {
    expectRefusal(
      await gleaner('start', '--data', data, '--port', '0'),
      4,
      /in use by process \d+\. Stop it first/,
    )
    expect(server.child.exitCode).toBeNull()
  })

  test('other commands work beside the server, and their JSON parses', async () => {
    expect(
      await json(
        ...['campaign', 'create', '--id', 'tea', '--title', 'Tea', '--purpose', 'To know.'],
        ...['--site', 'https://barley.example/'],
      ),
    ).toMatchObject({ id: 'tea', digest: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/) })
    expect(await json('campaign', 'list')).toMatchObject({
      campaigns: [{ id: 'tea', title: 'Tea', state: 'running', records: 0 }],
    })
    expect(await json('ledger', 'show')).toMatchObject({
      balanced: true,
      transfers: [{ amount: 1_000_000, purpose: 'fund' }],
    })
    expect(await json('keys')).toMatchObject({
      keys: ['campaign', 'lease', 'receipt', 'log'].map((name) => ({ name })),
      verifierKey: expect.stringContaining('+'),
    })
  })

  test('the same campaign twice, and a release of none, are refused', async () => {
    await expect
      .poll(async () => (await gleaner('campaign', 'list', '--data', data)).out)
      .toContain('tea')
    expectRefusal(
      await gleaner(
        ...['campaign', 'create', '--id', 'tea', '--title', 'Tea', '--purpose', 'To know.'],
        ...['--site', 'https://barley.example/', '--data', data],
      ),
      1,
      /give it another id/,
    )
    expectRefusal(
      await gleaner('release', '--campaign', 'coffee', '--data', data),
      1,
      /no campaign coffee.*campaign list/,
    )
  })

  test('an empty release is made and verifies', async () => {
    const made = (await json('release', '--campaign', 'tea', '--name', 'first')) as {
      folder: string
      verifierKey: string
    }
    expect(made).toMatchObject({ name: 'first', rows: 0, duplicates: 0 })
    const ended = await gleaner('verify', made.folder, '--key', made.verifierKey, '--json')
    expect(JSON.parse(ended.out)).toMatchObject({ ok: true })
    expect(ended.status).toBe(0)
  })

  test('what contributors are to trust cannot be changed by another log origin', async () => {
    server.child.kill('SIGTERM')
    expect(await server.ended).toMatchObject({ status: 0 })
    expectRefusal(
      await gleaner('start', '--data', data, '--port', '0', '--log-origin', 'other.example/log'),
      1,
      /Start it with --log-origin/,
    )
  })

  test('a taken port has a status of its own, and the database is stopped again', async () => {
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
    const { port } = other.address() as { port: number }
    const ended = await gleaner('start', '--data', data, '--port', String(port))
    expectRefusal(ended, 3, new RegExp(`Port ${port} on 127\\.0\\.0\\.1 is taken.*--port`))
    other.close()
  })

  test('an address that is not this machine’s is refused by its option', async () => {
    // TEST-NET-3, RFC 5737: nobody has it.
    const ended = await gleaner('start', '--data', data, '--port', '0', '--host', '203.0.113.77')
    expectRefusal(ended, 2, /cannot listen .* 203\.0\.113\.77.*--host/)
  })

  test('it starts again with what it had, and ends on SIGTERM with status 0', async () => {
    const again = begin(['start', '--data', data, '--port', '0'])
    expect(await again.says('Stop with Ctrl-C')).toContain('1 campaign here')
    again.child.kill('SIGTERM')
    expect(await again.ended).toMatchObject({ status: 0, err: '' })
  })

  test('a database that newer code has migrated is left alone', async () => {
    const postgres = await startEmbeddedPostgres({
      dataFolder: join(data, 'postgres'),
      log: pino({ level: 'silent' }),
      binaries: process.env.GLEANER_POSTGRES,
    })
    const client = new pg.Client({ ...postgres.connection })
    await client.connect()
    await client.query(
      `insert into schema_migration (number, name, digest) values (999, '999-later.sql', '')`,
    )
    await client.end()
    await postgres.stop()
    const later = /database is at migration 999.*Start the newer version/
    expectRefusal(await gleaner('start', '--data', data, '--port', '0'), 5, later)
    expectRefusal(await gleaner('keys', '--data', data), 5, later)
  })
})
