import { execFile, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  cp,
  mkdir,
  mkdtemp,
  readFile,
  rm,
  symlink,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import { type Envelope, signEnvelope } from '../../lib/crypto/dsse.ts'
import { publicKeyBytes } from '../../lib/crypto/ed25519.ts'
import { campaign } from '../../lib/protocol/campaign.ts'
import type { Attestation } from '../../lib/protocol/follow-up.ts'
import { logEntry } from '../../lib/protocol/log-entry.ts'
import { payloadType } from '../../lib/protocol/payload-type.ts'
import type { Row } from '../../lib/protocol/release.ts'
import { signCheckpoint } from '../../lib/tlog/checkpoint.ts'
import { rootHash } from '../../lib/tlog/merkle.ts'
import { formatVerifierKey, noteSigner, noteVerifier } from '../../lib/tlog/note.ts'
import { sealRelease } from '../../server/publish/seal-release.ts'
import { type VerifyReport, verifyRelease } from '../../server/publish/verify-release.ts'
import {
  editBlock,
  editGzip,
  editRecord,
  editRow,
  find,
  forgeries,
  lineAt,
  rework,
  textRecord,
} from '../server/publish/forged-release.ts'
import {
  keyOf,
  makeSample,
  publishSample,
  resealSample,
  rewriteSums,
  type Sample,
  sampleLog,
  samplePages,
  signAttestation,
} from '../server/publish/sample-release.ts'

import campaignVectors from '../vectors/messages/campaign.json' with { type: 'json' }
import useSignals from '../vectors/use-signals.json' with { type: 'json' }

const program = fileURLToPath(new URL('verify_release.py', import.meta.url))
const origin = 'log.sample.example'
const parquet = 'data/train-00000-of-00001.parquet'
const warc = 'warc/part-00000.warc.gz'
const attestations = 'attestations.jsonl.gz'

const missing = whatIsMissing()
if (missing !== null) console.warn(`The verifier in Python is not tested here: ${missing}`)

let root: string
let good: string
let sample: Sample
let copies = 0

beforeAll(async () => {
  if (missing !== null) return
  root = await mkdtemp(join(tmpdir(), 'gleaner-verifier-'))
  good = join(root, 'good')
  sample = await makeSample()
  await publishSample(sample, good)
})
afterAll(async () => {
  if (missing === null) await rm(root, { recursive: true })
})

type Tamper = (folder: string) => Promise<void>
type Case = [what: string, steps: number[], tamper: Tamper]

/** Somebody who passes the release on and does not hold the log's key. */
const byStranger: Case[] = [
  ['one bit of the Parquet file is flipped', [5], (folder) => flip(folder, parquet, 500)],
  [
    'a text in the WARC is edited and SHA256SUMS made to fit',
    [4, 7],
    async (folder) => {
      await rework(folder, ({ records }) => editBlock(records, 'One costs 3.50', 'One costs 2.50'))
      await rewriteSums(folder)
    },
  ],
  [
    'a row is dropped and SHA256SUMS made to fit',
    [4, 7, 8],
    async (folder) => {
      await rework(folder, ({ lines }) => lines.splice(7, 1))
      await rewriteSums(folder)
    },
  ],
  [
    'the attestations of two rows are swapped',
    [4, 7],
    async (folder) => {
      await rework(folder, ({ lines }) => {
        const [first, second] = [lineAt(lines, 0), lineAt(lines, 5)]
        lines[0] = { ...first, attestations: second.attestations }
        lines[5] = { ...second, attestations: first.attestations }
      })
      await rewriteSums(folder)
    },
  ],
  [
    'the gaps of a row are made fewer',
    [4, 7],
    async (folder) => {
      await rework(folder, ({ lines }) => editRow(lines, 1, { gaps: 0 }))
      await rewriteSums(folder)
    },
  ],
  ['a tile is cut short', [2], (folder) => truncate(join(folder, 'log/tile/0/000'), 8160)],
  [
    'the leaf hash of a row is changed',
    [2],
    (folder) => flip(folder, 'log/tile/0/001.p/56', 32 * (303 - 256)),
  ],
  [
    'the log has a tile too many',
    [2],
    (folder) => writeFile(join(folder, 'log/tile/0/002'), Buffer.alloc(32)),
  ],
  [
    'the size in the checkpoint is another',
    [1],
    (folder) => editText(folder, 'log/checkpoint', '\n312\n', '\n311\n'),
  ],
  [
    'the size in the checkpoint is beyond all bounds',
    [1],
    (folder) => editText(folder, 'log/checkpoint', '\n312\n', '\n9007199254740991\n'),
  ],
  [
    'an entry in clear is edited',
    [3, 4],
    (folder) => editText(folder, 'log/entries.jsonl', '\\"rows\\":8', '\\"rows\\":9'),
  ],
  [
    'the entries in clear are in another order',
    [3],
    async (folder) => {
      const [network, campaign, release] = (await readText(folder, 'log/entries.jsonl')).split('\n')
      await writeFile(
        join(folder, 'log/entries.jsonl'),
        `${[network, release, campaign].join('\n')}\n`,
      )
    },
  ],
  [
    'the entries in clear do not end in a line feed',
    [3, 4],
    async (folder) => {
      const text = await readText(folder, 'log/entries.jsonl')
      await writeFile(join(folder, 'log/entries.jsonl'), text.trimEnd())
    },
  ],
  [
    'the campaign is replaced by one that a stranger signed',
    [4, 6],
    async (folder) => {
      const path = join(folder, 'campaigns/sample-docs.json')
      const envelope = JSON.parse(await readFile(path, 'utf8')) as Envelope
      const manifest = Buffer.from(envelope.payload, 'base64').toString().replace('few', 'all')
      await writeFile(path, JSON.stringify(await signManifest('stranger', manifest)))
      await rewriteSums(folder)
    },
  ],
  ['a file is added', [5], (folder) => writeFile(join(folder, 'more.txt'), 'more')],
  [
    'a file is replaced by a link to the same bytes',
    [5],
    async (folder) => {
      await unlink(join(folder, 'README.md'))
      await symlink(join(good, 'README.md'), join(folder, 'README.md'))
    },
  ],
  [
    'SHA256SUMS leads out of the folder',
    [4, 5],
    async (folder) => {
      const sums = await readText(folder, 'SHA256SUMS')
      const digest = createHash('sha256').update(await readFile(join(good, 'README.md')))
      const line = `${digest.digest('hex')}  ../good/README.md\n`
      await writeFile(join(folder, 'SHA256SUMS'), line + sums)
    },
  ],
]

/** An operator who holds the log's key, and signs a log over files that are not what they say. */
const byOperator: Case[] = [
  [
    'the payload of an exact row is changed, its digests in the WARC too',
    [7],
    (folder) =>
      rework(folder, ({ records }) =>
        editBlock(records, '<h1>Welcome</h1><p>', '<h1>Go away!</h1><p>'),
      ),
  ],
  [
    'a duplicate points to nowhere',
    [7],
    (folder) =>
      rework(folder, ({ lines }) => {
        const line = lineAt(lines, 4)
        line.warc = { ...line.warc, offset: 2 ** 53 - 1 }
      }),
  ],
  [
    'a duplicate points to the text of another page',
    [7],
    (folder) =>
      rework(folder, ({ lines }) => {
        lineAt(lines, 4).warc = lineAt(lines, 0).warc
      }),
  ],
  [
    'a duplicate comes before its first',
    [8],
    (folder) => rework(folder, ({ lines }) => lines.push(...lines.splice(1, 1))),
  ],
  [
    'a row points out of the folder',
    [7],
    (folder) =>
      rework(folder, ({ lines }) => {
        const line = lineAt(lines, 6)
        line.warc = { ...line.warc, file: `warc/../../good/${warc}` }
      }),
  ],
  [
    'the length of a record is beyond all bounds',
    [7],
    (folder) =>
      rework(folder, ({ lines }) => {
        const line = lineAt(lines, 6)
        line.warc = { ...line.warc, length: 2 ** 53 - 1 }
      }),
  ],
  [
    'one leaf stands for two rows',
    [7, 8],
    (folder) => rework(folder, ({ lines }) => lines.push(lineAt(lines, 0))),
  ],
  [
    'the last row does not end in a line feed',
    [7, 8],
    (folder) => editGzip(folder, (text) => text.trimEnd()),
  ],
  [
    'the rows are a gzip bomb without a line',
    [7, 8],
    (folder) => writeFile(join(folder, attestations), gzipSync(Buffer.alloc(64 << 20))),
  ],
  [
    'the WARC has a text that no row stands for',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        records.push({ at: -1, bytes: textRecord('said nobody') })
      }),
  ],
  [
    'a note on a rebuilt head says something else',
    [7],
    (folder) => rework(folder, ({ records }) => editBlock(records, 'note: body', 'Note: body')),
  ],
  [
    'a revisit has a body',
    [7],
    (folder) =>
      rework(folder, ({ records }) =>
        editRecord(records, 'WARC-Truncated', (block) => `${block}said nobody`),
      ),
  ],
  [
    'a record holds more than it says',
    [7],
    (folder) =>
      rework(folder, ({ records }) => {
        find(records, 'WARC-Type: conversion').bytes += 'said nobody'
      }),
  ],
  [
    'the index has a line of no row',
    [7],
    (folder) =>
      rework(folder, (parts) => {
        const line = parts.index[0] as string
        parts.index.unshift(line.replace('/ 20261120', '/ 20261119'))
      }),
  ],
  [
    'the index leaves a row out',
    [7],
    (folder) => rework(folder, (parts) => parts.index.splice(1, 1)),
  ],
  [
    'the index is in another order',
    [7],
    (folder) => rework(folder, (parts) => parts.index.reverse()),
  ],
  [
    'release.json names no campaign of the rows',
    [6, 7],
    (folder) => editRelease(folder, { campaigns: [toBase64Url(sha256('another'))] }),
  ],
  ['release.json counts other duplicates', [8], (folder) => editRelease(folder, { duplicates: 2 })],
  [
    'release.json has a member that is not known',
    [4],
    (folder) => editRelease(folder, { license: 'none' }),
  ],
  [
    'there is a second manifest',
    [6],
    async (folder) => {
      const envelope = sample.campaigns[0] as Envelope
      const manifest = Buffer.from(envelope.payload, 'base64').toString()
      const other = await signManifest('campaign', manifest.replace('sample-docs', 'more'))
      await writeFile(join(folder, 'campaigns/more.json'), JSON.stringify(other))
    },
  ],
  [
    'a manifest is in a file that no id can name',
    [5, 6],
    (folder) => cp(join(folder, 'campaigns/sample-docs.json'), join(folder, 'campaigns/A.json')),
  ],
  [
    'a file has a name that is not plain',
    [5],
    (folder) => writeFile(join(folder, 'ünïcode.txt'), 'more'),
  ],
  [
    'there is a second Parquet file',
    [5],
    (folder) => cp(join(folder, parquet), join(folder, 'data/train-00001-of-00002.parquet')),
  ],
]

/** An operator who also makes the rows, before the log commits to them. */
const byFacts: [what: string, steps: number[], facts: () => Promise<Sample>][] = [
  [
    'a one-use key is used for two rows',
    [7],
    () => withAttestations(1, (row) => signFor(row, ['row 0 observer 0', 'b', 'c'])),
  ],
  [
    'a one-use key signs a row twice',
    [7],
    () => withAttestations(6, (row) => signFor(row, ['twice', 'twice'])),
  ],
  [
    'a row admits fewer gaps than a signer counted',
    [7],
    () => withAttestations(0, (row) => signFor(row, ['a', 'b'], { gaps: 1 })),
  ],
  [
    'a signer saw another payload',
    [7],
    () => withAttestations(0, (row) => signFor(row, ['a', 'b'], { payload: row.text })),
  ],
  [
    'a signer saw it on another day',
    [7],
    () => withAttestations(0, (row) => signFor(row, ['a', 'b'], { day: '2026-11-19' })),
  ],
  [
    'a one-use key is one under which everybody can sign',
    [7],
    () =>
      withAttestations(0, async (row) => {
        const [first, second] = await signFor(row, ['a', 'b'])
        if (first === undefined || second === undefined) throw new Error('no attestations')
        // The neutral point: S = 0 and R = the key fit every message.
        const neutral = Buffer.concat([Buffer.of(1), Buffer.alloc(31)])
        const sig = Buffer.concat([neutral, Buffer.alloc(32)]).toString('base64')
        return [first, { ...second, signatures: [{ keyid: toBase64Url(neutral), sig }] }]
      }),
  ],
  [
    'the campaign asks for a higher quorum',
    [7],
    () => makeSample(undefined, { manifest: { quorum: 3 } }),
  ],
  [
    'an exact row admits that observers do not agree',
    [7],
    () =>
      makeSample(
        samplePages.map((page) => ({ ...page, row: { ...page.row, agreementPermille: 900 } })),
      ),
  ],
]

describe.skipIf(missing !== null)('a verifier written from the specification alone', () => {
  test('accepts what the builder builds, as the project does', async () => {
    const { ok, notes } = await both(good)
    expect(ok).toBe(true)
    expect(notes.join()).toContain('cannot read Parquet')
  })

  test.each(byStranger)('refuses what the project refuses: %s', async (_, steps, tamper) => {
    const folder = await copy()
    await tamper(folder)
    expect((await both(folder)).steps).toEqual(steps)
  })

  test.each(byOperator)('refuses what the project refuses: %s', async (_, steps, tamper) => {
    const folder = await copy()
    await tamper(folder)
    await resealSample(sample, folder)
    expect((await both(folder)).steps).toEqual(steps)
  })

  test.each(forgeries)('refuses what the specification refuses: %s', async (_, steps, forge) => {
    const folder = await copy()
    await forge(folder)
    await resealSample(sample, folder)
    expect((await both(folder)).steps).toEqual(steps)
  })

  test.each(byFacts)('refuses what the project refuses: %s', async (_, steps, facts) => {
    const folder = join(root, `facts-${copies++}`)
    await publishSample(await facts(), folder)
    expect((await both(folder)).steps).toEqual(steps)
  })

  test.each<[what: string, uses: Partial<Row['use']>, signals: Row['signals']]>([
    ['states a yes that its signals do not give', { search: 'y' }, []],
    [
      'leaves a no of its signals out',
      {},
      [{ source: 'robots', name: 'content-signal', value: 'search=yes, ai-train=no' }],
    ],
    [
      'takes a yes that not all observers saw',
      { train: 'y' },
      [
        { source: 'header', name: 'content-usage', value: 'train-ai=y' },
        { source: 'meta', name: 'observers-differ', value: '' },
      ],
    ],
    [
      'lifts a reservation by a lower stage',
      { tdm: 'y' },
      [
        { source: 'tdmrep', name: 'tdm-reservation', value: '0' },
        { source: 'header', name: 'tdm-reservation', value: '1' },
      ],
    ],
  ])('refuses what the project refuses: a row %s', async (_, uses, signals) => {
    const use = { aiInput: 'unknown', search: 'unknown', tdm: 'unknown', train: 'unknown' } as const
    // The builder writes no such row: the log of one with it is put around a release without.
    const changes = { signals, use: { ...use, ...uses } }
    const facts = await makeSample(
      samplePages.map((page, at) =>
        at === 6 ? { ...page, row: { ...page.row, ...changes } } : page,
      ),
    )
    await expect(publishSample(facts, join(root, 'unbuilt'))).rejects.toThrow('less restrictive')
    const folder = await copy()
    await rework(folder, ({ lines }) => editRow(lines, 6, changes))
    await resealSample(facts, folder)
    const { steps, failures } = await both(folder)
    expect(steps).toEqual([7])
    expect(failures.map(({ what }) => what)).toEqual([
      'row 7: its use is less restrictive than its signals',
    ])
  })

  test('accepts a row that is more restrictive than its signals', async () => {
    const use = { aiInput: 'n', search: 'n', tdm: 'n', train: 'unknown' } as const
    const signals = [
      { source: 'header', name: 'content-usage', value: 'search=y, train-ai=y' } as const,
    ]
    const folder = join(root, `facts-${copies++}`)
    const pages = samplePages.map((page) => ({ ...page, row: { ...page.row, signals, use } }))
    await publishSample(await makeSample(pages), folder)
    expect((await both(folder)).ok).toBe(true)
  })

  test('accepts rows of before signals were parsed among rows that state their use', async () => {
    const signals = [{ source: 'meta', name: 'robots', value: 'noai' } as const]
    const pages = samplePages.map((page, at) =>
      at % 2 === 0 ? { ...page, row: { ...page.row, signals, use: undefined } } : page,
    )
    const facts = await makeSample(pages)
    const stating = facts.rows.filter(({ rowJson }) => rowJson.includes('"use":'))
    expect(stating).toHaveLength(4)
    const folder = join(root, `facts-${copies++}`)
    await publishSample(facts, folder)
    expect((await both(folder)).ok).toBe(true)
  })

  test.each(campaignVectors.valid.map((manifest) => campaign.parse(manifest)))(
    'accepts rows of every campaign that is well-formed: vector %#',
    async (manifest) => {
      const folder = join(root, `facts-${copies++}`)
      // The sample's rows have a quorum of two.
      const facts = await makeSample(undefined, { manifest: { ...manifest, quorum: 2 } })
      await publishSample(facts, folder)
      expect((await both(folder)).ok).toBe(true)
    },
  )

  test('accepts a log in which sites opted out, in clear', async () => {
    const folder = await copy()
    const optOut = { type: 'opt-out', scope: 'prefix', target: 'a.example/b', day: '2026-11-22' }
    const log = await sampleLog(sample, [logEntry.parse(optOut), await releaseEntry(folder)])
    await rm(join(folder, 'log'), { recursive: true })
    await sealRelease({ folder, ...log })
    expect(await readText(folder, 'log/entries.jsonl')).toContain('opt-out')
    expect((await both(folder)).ok).toBe(true)
  })

  test('knows the messages of a release by the vectors of the project', () => {
    const program = `
import json, sys
sys.path.insert(0, sys.argv[1])
import verify_release as v
shapes = {
    'attestation': v.is_attestation, 'attested-row': v.is_line, 'campaign': v.is_campaign,
    'envelope': v.is_envelope, 'network': v.is_network, 'release': v.is_release, 'row': v.is_row,
    'log-entry': lambda value: v.LOG_ENTRIES[value['type']](value),
}
def fits(shape, value):
    try:
        return bool(shape(value))
    except (ValueError, KeyError, TypeError):
        return False
wrong = []
for name, shape in shapes.items():
    vectors = json.load(open(f'{sys.argv[2]}/{name}.json'))
    wrong += [[name, value] for value in vectors['valid'] if not fits(shape, value)]
    wrong += [[name, one['why']] for one in vectors['invalid'] if fits(shape, one['value'])]
print(json.dumps(wrong))`
    const paths = ['.', '../vectors/messages'].map((path) =>
      fileURLToPath(new URL(path, import.meta.url)),
    )
    const { stdout, stderr } = spawnSync('python3', ['-B', '-c', program, ...paths])
    expect(stderr.toString()).toBe('')
    expect(JSON.parse(stdout.toString())).toEqual([])
  })

  test('reads use signals as the project does', () => {
    const program = `
import json, sys
sys.path.insert(0, sys.argv[1])
import verify_release
names = ('source', 'name', 'value')
print(json.dumps([
    verify_release.use_of([dict(zip(names, signal)) for signal in case['signals']])
    for case in json.load(open(sys.argv[2]))['cases']
]))`
    const paths = ['.', '../vectors/use-signals.json'].map((path) =>
      fileURLToPath(new URL(path, import.meta.url)),
    )
    const { stdout, stderr } = spawnSync('python3', ['-B', '-c', program, ...paths])
    expect(stderr.toString()).toBe('')
    const silent = { aiInput: 'unknown', search: 'unknown', tdm: 'unknown', train: 'unknown' }
    const expected = useSignals.cases.map(({ use }) => ({ ...silent, ...use }))
    expect(JSON.parse(stdout.toString())).toEqual(expected)
  })

  test('refuses a release of another log', async () => {
    const key = await publicKeyBytes((await keyOf('another log')).publicKey)
    const other = formatVerifierKey(noteVerifier(origin, key))
    expect((await verifyRelease(good, other)).failures[0]?.step).toBe(1)
    expect((await pythonOn(good, other)).steps).toEqual([1, 3])
  })

  test('refuses a log that holds the release twice', async () => {
    const folder = await copy()
    await relog(folder, (entry) => [entry, entry])
    expect((await both(folder)).steps).toEqual([4])
  })

  test('accepts a checkpoint that others signed too, with lines that it does not know', async () => {
    const folder = await copy()
    const { leafHashes } = await sampleLog(sample, [await releaseEntry(folder)])
    const witness = await noteSigner('witness.sample.example', await keyOf('witness'))
    const checkpoint = await signCheckpoint(
      { origin, size: leafHashes.length, rootHash: rootHash(leafHashes), extensions: ['more'] },
      [witness, await noteSigner(origin, sample.logKey)],
    )
    await writeFile(join(folder, 'log/checkpoint'), checkpoint)
    expect((await both(folder)).ok).toBe(true)
  })

  test('accepts a file of a later version that SHA256SUMS lists', async () => {
    const folder = await copy()
    await mkdir(join(folder, 'more'))
    await writeFile(join(folder, 'more/plain.txt'), 'more')
    await resealSample(sample, folder)
    expect((await both(folder)).ok).toBe(true)
  })

  test('lists at most a hundred failures, in plain characters', async () => {
    const folder = await copy()
    await writeFile(join(folder, '\u001b[31mred'), '')
    for (let file = 0; file < 120; file++) await writeFile(join(folder, `more-${file}`), '')
    const { status, stdout } = await run([folder, '--key', sample.verifyKey])
    expect(status).toBe(1)
    expect(stdout.match(/^step 5: /gm)).toHaveLength(100)
    expect(stdout).not.toContain('\u001b')
  })

  test('says how it is to be called', async () => {
    expect((await run([good])).status).toBe(2)
    expect((await run([good, '--key', origin])).status).toBe(2)
    expect((await run([join(root, 'nowhere'), '--key', sample.verifyKey])).status).toBe(2)
  })
})

/** What the verifier in Python says, when both say the same. */
async function both(folder: string, key = sample.verifyKey) {
  const said = await pythonOn(folder, key)
  const project = await verifyRelease(folder, key)
  const steps = stepsOf(project)
  const difference = JSON.stringify({ python: said.failures, project: project.failures }, null, 1)
  expect(said.steps, difference).toEqual(steps)
  expect(said.ok, difference).toBe(project.ok)
  return said
}

async function pythonOn(folder: string, key = sample.verifyKey) {
  const { status, stdout, stderr } = await run([folder, '--key', key, '--json'])
  expect(stderr).toBe('')
  const said = JSON.parse(stdout) as {
    ok: boolean
    failures: { step: number; what: string }[]
    notes: string[]
  }
  expect(said.ok).toBe(status === 0)
  expect(said.ok).toBe(said.failures.length === 0)
  return { ...said, steps: [...new Set(said.failures.map(({ step }) => step))] }
}

/** Steps that fail by the project's verifier, but for the one that reads Parquet. */
function stepsOf({ failures }: VerifyReport): number[] {
  return [...new Set(failures.map(({ step }) => step))].filter((step) => step !== 9)
}

function run(parameters: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    execFile('python3', ['-B', program, ...parameters], (error, stdout, stderr) => {
      const status = error === null ? 0 : error.code
      if (typeof status === 'number') resolve({ status, stdout, stderr })
      else reject(error)
    })
  })
}

function whatIsMissing(): string | null {
  const python = spawnSync('python3', ['-c', 'import sys; sys.exit(sys.version_info < (3, 9))'])
  if (python.status !== 0) return 'there is no python3 of version 3.9 or later'
  const openssl = spawnSync('openssl', ['version'], { encoding: 'utf8' })
  const version = /^OpenSSL (\d+)/.exec(openssl.stdout ?? '')
  if (Number(version?.[1] ?? 0) < 3) return 'there is no openssl of version 3 or later'
  return null
}

async function copy(): Promise<string> {
  const folder = join(root, `copy-${copies++}`)
  await cp(good, folder, { recursive: true })
  return folder
}

async function flip(folder: string, path: string, at: number): Promise<void> {
  const bytes = await readFile(join(folder, path))
  bytes[at] = (bytes[at] as number) ^ 1
  await writeFile(join(folder, path), bytes)
}

function readText(folder: string, path: string): Promise<string> {
  return readFile(join(folder, path), 'utf8')
}

async function editText(folder: string, path: string, from: string, to: string): Promise<void> {
  const text = await readText(folder, path)
  expect(text).toContain(from)
  await writeFile(join(folder, path), text.replace(from, to))
}

async function editRelease(folder: string, changes: Record<string, unknown>): Promise<void> {
  const release = JSON.parse(await readText(folder, 'release.json')) as object
  await writeFile(join(folder, 'release.json'), JSON.stringify({ ...release, ...changes }))
}

async function releaseEntry(folder: string) {
  const sums = toBase64Url(sha256(await readFile(join(folder, 'SHA256SUMS'))))
  return { type: 'release', name: sample.name, sums, rows: sample.rows.length } as const
}

type ReleaseEntry = Awaited<ReturnType<typeof releaseEntry>>

async function relog(
  folder: string,
  entries: (entry: ReleaseEntry) => ReleaseEntry[],
): Promise<void> {
  await rm(join(folder, 'log'), { recursive: true })
  await sealRelease({
    folder,
    ...(await sampleLog(sample, entries(await releaseEntry(folder)))),
  })
}

async function withAttestations(
  at: number,
  sign: (row: Row) => Promise<Envelope[]>,
): Promise<Sample> {
  const facts = await makeSample()
  const row = facts.rows[at]
  if (row === undefined) throw new Error(`no row ${at}`)
  row.attestations = await sign(JSON.parse(row.rowJson) as Row)
  return facts
}

function signFor(row: Row, keys: string[], changes: Partial<Attestation> = {}) {
  const { campaign, day, gaps, payload, text, url } = row
  const statement: Attestation = {
    campaign,
    day,
    gaps,
    ...(payload === null ? {} : { payload }),
    text,
    transform: 'gleaner-text/1',
    url,
    ...changes,
  }
  return Promise.all(keys.map((key) => signAttestation(statement, key)))
}

async function signManifest(name: string, manifest: string): Promise<Envelope> {
  const pair = await keyOf(name)
  const keyid = toBase64Url(await publicKeyBytes(pair.publicKey))
  return signEnvelope(payloadType.campaign, Buffer.from(manifest), [
    { keyid, privateKey: pair.privateKey },
  ])
}
