import {
  appendFile,
  cp,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { DuckDBInstance } from '@duckdb/node-api'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { type Envelope, signEnvelope } from '../../../lib/crypto/dsse.ts'
import { publicKeyBytes } from '../../../lib/crypto/ed25519.ts'
import { canonicalJson } from '../../../lib/protocol/canonical-json.ts'
import type { Attestation } from '../../../lib/protocol/follow-up.ts'
import { payloadType } from '../../../lib/protocol/payload-type.ts'
import type { AttestedRow, Row } from '../../../lib/protocol/release.ts'
import { signCheckpoint } from '../../../lib/tlog/checkpoint.ts'
import { rootHash } from '../../../lib/tlog/merkle.ts'
import { formatVerifierKey, noteSigner, noteVerifier } from '../../../lib/tlog/note.ts'
import { gzipMember } from '../../../server/publish/gzip-member.ts'
import { printReport } from '../../../server/publish/print-report.ts'
import { sealRelease } from '../../../server/publish/seal-release.ts'
import { verifyRelease } from '../../../server/publish/verify-release.ts'
import { conversionRecord } from '../../../server/publish/warc.ts'
import { encodeRecord } from '../../../server/publish/warc-record.ts'
import { forgeries } from './forged-release.ts'
import {
  keyOf,
  makeSample,
  publishSample,
  resealSample,
  rewriteSums,
  type Sample,
  sampleLog,
  signAttestation,
} from './sample-release.ts'

const parquet = 'data/train-00000-of-00001.parquet'
const warc = 'warc/part-00000.warc.gz'
const attestations = 'attestations.jsonl.gz'

let root: string
let sample: Sample
let good: string
let copies = 0

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'gleaner-verify-'))
  sample = await makeSample()
  good = join(root, 'good')
  await publishSample(sample, good)
})
afterAll(() => rm(root, { recursive: true }))

type Tamper = (folder: string) => Promise<void>

/** What somebody can do who passes a release on: everything but sign as the log. */
const byStranger: [string, number[], Tamper][] = [
  ['one bit of the Parquet file is flipped', [5, 9], (folder) => flip(folder, parquet, 500)],
  [
    'a text in the WARC is edited and SHA256SUMS made to fit',
    [4, 7],
    async (folder) => {
      await editRecord(folder, 1, (record) => record.replace('One costs 3.50', 'One costs 2.50'))
      await rewriteSums(folder)
    },
  ],
  [
    'the payload of an exact row is changed and SHA256SUMS made to fit',
    [4, 7],
    async (folder) => {
      await editRecord(folder, 0, (record) => record.replace('few pages', 'ten pages'))
      await rewriteSums(folder)
    },
  ],
  [
    'a row is dropped and SHA256SUMS made to fit',
    [4, 7, 8, 9],
    async (folder) => {
      await editLines(folder, (lines) => lines.slice(0, -1))
      await rewriteSums(folder)
    },
  ],
  [
    'the attestations of two rows are swapped',
    [4, 7, 9],
    async (folder) => {
      await editLines(folder, ([first, second, ...rest]) => [
        { ...first, attestations: second.attestations },
        { ...second, attestations: first.attestations },
        ...rest,
      ])
      await rewriteSums(folder)
    },
  ],
  [
    'the gaps of a row are made fewer',
    [4, 7, 9],
    async (folder) => {
      await editRow(folder, 1, (row) => ({ ...row, gaps: 0 }))
      await rewriteSums(folder)
    },
  ],
  [
    'a row is made to look untouched by writing it in another order',
    [4, 7, 8],
    async (folder) => {
      await editLines(folder, ([first, ...rest]) => [
        { ...first, row: JSON.stringify({ url: '', ...JSON.parse(first.row) }) },
        ...rest,
      ])
      await rewriteSums(folder)
    },
  ],
  [
    'a tile is cut short',
    [2],
    async (folder) => truncate(join(folder, 'log/tile/0/000'), 256 * 32 - 1),
  ],
  ['one bit of a leaf hash is flipped', [2], (folder) => flip(folder, 'log/tile/0/000', 99)],
  [
    'a tile is left out',
    [2],
    async (folder) => rm(join(folder, 'log/tile/0/001.p'), { recursive: true }),
  ],
  [
    'the log has a tile of another size beside',
    [2],
    async (folder) => writeFile(join(folder, 'log/tile/0/002'), Buffer.alloc(32)),
  ],
  [
    'an entry in clear is edited',
    [3, 4],
    (folder) => editText(folder, 'log/entries.jsonl', '\\"rows\\":8', '\\"rows\\":9'),
  ],
  [
    'the campaign in clear is left out',
    [6],
    async (folder) => {
      const [network, , ...rest] = (await readText(folder, 'log/entries.jsonl')).split('\n')
      await writeFile(join(folder, 'log/entries.jsonl'), [network, ...rest].join('\n'))
    },
  ],
  [
    'the campaign is replaced by one under another key',
    [4, 6],
    async (folder) => {
      const path = join(folder, 'campaigns/sample-docs.json')
      const envelope = JSON.parse(await readFile(path, 'utf8')) as Envelope
      const changed = Buffer.from(envelope.payload, 'base64').toString().replace('few', 'all')
      await writeFile(path, JSON.stringify(await signAs('stranger', 'campaign', changed)))
      await rewriteSums(folder)
    },
  ],
  [
    'the network is replaced',
    [3, 4],
    async (folder) => {
      const other = await makeSample([], { network: { name: 'Another' } })
      await writeFile(join(folder, 'network.json'), JSON.stringify(other.network))
      await rewriteSums(folder)
    },
  ],
  ['a file is added', [5], async (folder) => writeFile(join(folder, 'data/more.parquet'), 'more')],
  ['a file is missing', [5], async (folder) => unlink(join(folder, 'README.md'))],
  [
    'a file is replaced by a link to the same bytes',
    [5],
    async (folder) => {
      await unlink(join(folder, 'README.md'))
      await symlink(join(good, 'README.md'), join(folder, 'README.md'))
    },
  ],
  [
    'release.json is of another name',
    [4, 7, 9],
    async (folder) => {
      await editText(folder, 'release.json', 'sample 2026', 'sample 2025')
      await rewriteSums(folder)
    },
  ],
  [
    'SHA256SUMS lists a path out of the folder',
    [4, 5],
    async (folder) => {
      const sums = await readText(folder, 'SHA256SUMS')
      await writeFile(join(folder, 'SHA256SUMS'), `${'0'.repeat(64)}  ../../etc/passwd\n${sums}`)
    },
  ],
  [
    'a row points out of the folder',
    [4, 7, 9],
    async (folder) => {
      const outside = { file: 'warc/../../good/warc/part-00000.warc.gz', offset: 0, length: 100 }
      await editLines(folder, ([first, ...rest]) => [{ ...first, warc: outside }, ...rest])
      await rewriteSums(folder)
    },
  ],
]

/** What an operator can do who signs a log over a release that is not what it says. */
const byOperator: [string, number[], Tamper][] = [
  [
    'the Parquet file has another text',
    [9],
    (folder) => rewriteParquet(folder, `select * replace (replace(text, '3.50', '2.50') as text)`),
  ],
  [
    'the Parquet file has a text for a duplicate',
    [9],
    (folder) => rewriteParquet(folder, `select * replace (coalesce(text, 'more') as text)`),
  ],
  [
    'the Parquet file says fewer gaps',
    [9],
    (folder) => rewriteParquet(folder, 'select * replace (0::bigint as gaps)'),
  ],
  [
    'the Parquet file has one more column',
    [9],
    (folder) => rewriteParquet(folder, `select *, 'said nobody' as summary`),
  ],
  [
    'the Parquet file has its rows in another order',
    [9],
    (folder) => rewriteParquet(folder, 'select *', 'order by leaf_index desc'),
  ],
  ['the Parquet file is none', [9], (folder) => writeFile(join(folder, parquet), 'PAR1PAR1')],
  [
    'a second Parquet file is listed',
    [5],
    (folder) => cp(join(folder, parquet), join(folder, 'data/train-00001-of-00002.parquet')),
  ],
  [
    'a WARC file has a record that no row stands for',
    [7],
    async (folder) => {
      const subject = { url: 'https://docs.sample.example/x', day: '2026-11-20', commitment: 'x' }
      const record = conversionRecord(subject, Buffer.from('said nobody'), undefined)
      await appendFile(join(folder, warc), encodeRecord(record))
    },
  ],
  [
    'a WARC file has bytes that are no record',
    [7],
    (folder) => appendFile(join(folder, warc), Buffer.alloc(100)),
  ],
  [
    'the index is not sorted',
    [7],
    async (folder) => {
      const lines = (await readText(folder, 'warc/index.cdxj')).trimEnd().split('\n').reverse()
      await writeFile(join(folder, 'warc/index.cdxj'), `${lines.join('\n')}\n`)
    },
  ],
  [
    'the index leaves an exact row out',
    [7],
    async (folder) => {
      const lines = (await readText(folder, 'warc/index.cdxj')).split('\n').slice(1)
      await writeFile(join(folder, 'warc/index.cdxj'), lines.join('\n'))
    },
  ],
  [
    'a duplicate comes before its first',
    [8, 9],
    (folder) => editLines(folder, ([first, ...rest]) => [...rest, first]),
  ],
  [
    'one leaf of the log stands for two rows',
    [7, 8, 9],
    async (folder) => {
      await editLines(folder, (lines) => [...lines, lines[0]])
    },
  ],
  [
    'the number of duplicates is another',
    [8],
    (folder) => editText(folder, 'release.json', '"duplicates": 3', '"duplicates": 2'),
  ],
  [
    'an attestation carries two signatures',
    [7, 9],
    (folder) =>
      editLines(folder, ([first, ...rest]) => {
        const [one, two] = first.attestations
        if (one === undefined || two === undefined) throw new Error('no attestations')
        const both = { ...one, signatures: [...one.signatures, ...two.signatures] }
        return [{ ...first, attestations: [both] }, ...rest]
      }),
  ],
  [
    'the rows are a gzip bomb without a line',
    [7, 8, 9],
    (folder) => writeFile(join(folder, attestations), gzipSync(Buffer.alloc(64 * 1024 * 1024))),
  ],
  [
    'the rows are cut off in the middle',
    [7, 8, 9],
    async (folder) => truncate(join(folder, attestations), 300),
  ],
]

/** Cheats of an operator who also makes the rows that the log commits to. */
const byFacts: [string, number[], () => Promise<Sample>][] = [
  [
    'one key signs two rows',
    [7],
    () => withAttestations(1, (row, at) => (at === 0 ? signFor(row, 'row 0 observer 0') : null)),
  ],
  [
    'one key signs a row twice',
    [7],
    () => withAttestations(6, (row) => signFor(row, 'twice', { gaps: 0 })),
  ],
  [
    'the row admits fewer gaps than a signer counted',
    [7],
    () => withAttestations(0, (row, at) => signFor(row, `gaps ${at}`, { gaps: 1 })),
  ],
  [
    'a signer said another text',
    [7],
    () =>
      withAttestations(0, (row, at) =>
        signFor(row, `text ${at}`, { text: toBase64Url(sha256('other')) }),
      ),
  ],
  [
    'a signer said another address',
    [7],
    () =>
      withAttestations(0, (row, at) =>
        signFor(row, `url ${at}`, { url: 'https://docs.sample.example/other' }),
      ),
  ],
  [
    'a signer said a payload for a row that is not exact',
    [7],
    () => withAttestations(6, (row, at) => signFor(row, `payload ${at}`, { payload: row.text })),
  ],
  [
    'the campaign promises a higher quorum',
    [7],
    () => makeSample(undefined, { manifest: { quorum: 3 } }),
  ],
  [
    'a row has fewer attestations than its quorum',
    [7],
    async () => {
      const facts = await makeSample()
      const rows = facts.rows.map((row) => ({ ...row, attestations: row.attestations.slice(0, 1) }))
      return { ...facts, rows }
    },
  ],
  [
    'the network names another log key',
    [3],
    async () => {
      const key = await publicKeyBytes((await keyOf('other log')).publicKey)
      return makeSample(undefined, {
        network: { logKey: formatVerifierKey(noteVerifier('log.sample.example', key)) },
      })
    },
  ],
]

describe('a release that somebody passed on', () => {
  test.each(byStranger)('is refused when %s', async (_, steps, tamper) => {
    const folder = await copy()
    await tamper(folder)
    expect(await failedSteps(folder)).toEqual(steps)
  })

  test('is refused under another key', async () => {
    const key = await publicKeyBytes((await keyOf('another log')).publicKey)
    const report = await verifyRelease(
      good,
      formatVerifierKey(noteVerifier('log.sample.example', key)),
    )
    expect(report.failures[0]).toMatchObject({ step: 1, where: 'log/checkpoint' })
    expect(report.steps[1]?.state).toBe('not-checked')
    expect(report.ok).toBe(false)
    expect(printReport(report)).toContain('NOT VERIFIED')
  })

  test('is refused under something that is no key', async () => {
    const report = await verifyRelease(good, 'log.sample.example')
    expect(report.failures[0]).toMatchObject({ step: 1, where: 'the key given' })
  })

  test('is refused with a checkpoint of an earlier size, though the log signed it', async () => {
    const folder = await copy()
    const hashes = (await sampleLog(sample, [])).leafHashes
    const checkpoint = await signCheckpoint(
      {
        origin: 'log.sample.example',
        size: hashes.length - 1,
        rootHash: rootHash(hashes.slice(0, -1)),
        extensions: [],
      },
      [await noteSigner('log.sample.example', sample.logKey)],
    )
    await writeFile(join(folder, 'log/checkpoint'), checkpoint)
    expect(await failedSteps(folder)).toContain(2)
  })

  test('is refused, and read to the end, whichever file is missing', async () => {
    for (const path of await filesOf(good)) {
      const folder = await copy()
      await unlink(join(folder, path))
      expect(await failedSteps(folder), path).not.toEqual([])
    }
  }, 60_000)

  test('is refused whichever bit of whichever file is flipped', async () => {
    const files = await filesOf(good)
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...files),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        fc.integer({ min: 0, max: 7 }),
        async (path, place, bit) => {
          const folder = await copy()
          const bytes = await readFile(join(folder, path))
          const at = Math.floor(place * bytes.length)
          bytes[at] = (bytes[at] as number) ^ (1 << bit)
          await writeFile(join(folder, path), bytes)
          expect(await failedSteps(folder), `${path} byte ${at}`).not.toEqual([])
          await rm(folder, { recursive: true })
        },
      ),
      { numRuns: 60, endOnFailure: true },
    )
  }, 120_000)

  test('is refused, and nothing outside read, when a whole folder is a link', async () => {
    const folder = await copy()
    await rename(join(folder, 'warc'), join(root, 'elsewhere'))
    await symlink(join(root, 'elsewhere'), join(folder, 'warc'))
    expect(await failedSteps(folder)).toContain(5)
  })
})

describe('a release that its operator signed', () => {
  test.each(byOperator)('is refused when %s', async (_, steps, tamper) => {
    const folder = await copy()
    await tamper(folder)
    await resealSample(sample, folder)
    expect(await failedSteps(folder)).toEqual(steps)
  })

  test.each(forgeries)('is refused when %s', async (_, steps, forge) => {
    const folder = await copy()
    await forge(folder)
    await resealSample(sample, folder)
    expect((await failedSteps(folder)).filter((step) => step !== 9)).toEqual(steps)
  })

  test.each(byFacts)('is refused when %s', async (_, steps, facts) => {
    const folder = join(root, `facts-${copies++}`)
    await publishSample(await facts(), folder)
    expect(await failedSteps(folder)).toEqual(steps)
  })

  test('is refused when the log holds it twice', async () => {
    const folder = await copy()
    const sums = toBase64Url(sha256(await readFile(join(folder, 'SHA256SUMS'))))
    const entry = { type: 'release', name: sample.name, sums, rows: 8 } as const
    await rm(join(folder, 'log'), { recursive: true })
    await sealRelease({ folder, ...(await sampleLog(sample, [entry, entry])) })
    expect(await failedSteps(folder)).toEqual([4])
  })
})

test('failures are bounded, told in plain words, and safe to print', async () => {
  const folder = await copy()
  await editLines(folder, (lines) =>
    Array.from({ length: 300 }, (_, at) => lines[at % lines.length] as AttestedRow),
  )
  await writeFile(join(folder, 'data/\u001b[31mred'), '')
  const report = await verifyRelease(folder, sample.verifyKey)
  expect(report.failuresFound).toBeGreaterThan(300)
  expect(report.failures.length).toBeLessThanOrEqual(110)
  expect(new Set(report.failures.map(({ step }) => step))).toEqual(new Set([5, 7, 8, 9]))
  expect(printReport(report)).not.toContain('\u001b')
  expect(JSON.parse(JSON.stringify(report))).toEqual(report)
})

test('a folder that is not there is an error, an empty one a failure', async () => {
  await expect(verifyRelease(join(root, 'nowhere'), sample.verifyKey)).rejects.toThrow('ENOENT')
  const empty = await mkdtemp(join(root, 'empty-'))
  const report = await verifyRelease(empty, sample.verifyKey)
  expect(report.ok).toBe(false)
})

async function failedSteps(folder: string): Promise<number[]> {
  const report = await verifyRelease(folder, sample.verifyKey)
  expect(report.ok).toBe(report.failures.length === 0)
  expect(report.failures.filter(({ what }) => what.startsWith('could not be checked'))).toEqual([])
  return [...new Set(report.failures.map(({ step }) => step))]
}

async function copy(): Promise<string> {
  const folder = join(root, `copy-${copies++}`)
  await cp(good, folder, { recursive: true })
  return folder
}

async function filesOf(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort()
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

type Lines = [AttestedRow, AttestedRow, ...AttestedRow[]]

async function editLines(
  folder: string,
  edit: (lines: Lines) => readonly AttestedRow[],
): Promise<void> {
  const text = gunzipSync(await readFile(join(folder, attestations))).toString()
  const lines = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as AttestedRow) as Lines
  const edited = edit(lines).map((line) => `${JSON.stringify(line)}\n`)
  await writeFile(join(folder, attestations), gzipMember(Buffer.from(edited.join(''))))
}

async function editRow(folder: string, at: number, edit: (row: Row) => Row): Promise<void> {
  await editLines(folder, (lines) =>
    lines.map((line, index) =>
      index === at ? { ...line, row: canonicalJson(edit(JSON.parse(line.row) as Row)) } : line,
    ),
  )
}

/** Edits the record of the sample's row `at`: a response for exact rows, else its text. */
async function editRecord(
  folder: string,
  at: number,
  edit: (record: string) => string,
): Promise<void> {
  const bytes = await readFile(join(folder, warc))
  const members = membersOf(bytes)
  // warcinfo; row 0: response, metadata, conversion; row 1: conversion.
  const index = at === 0 ? 1 : 4
  const before = gunzipSync(members[index] as Buffer).toString()
  const after = edit(before)
  expect(after).not.toBe(before)
  members[index] = gzipMember(Buffer.from(after))
  await writeFile(join(folder, warc), Buffer.concat(members))
}

/** Splits at the header that `gzipMember` writes. */
function membersOf(bytes: Buffer): Buffer[] {
  const header = gzipMember(Buffer.alloc(0)).subarray(0, 10)
  const members: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const next = bytes.indexOf(header, at + 1)
    const end = next < 0 ? bytes.length : next
    members.push(bytes.subarray(at, end))
    at = end
  }
  return members
}

async function rewriteParquet(folder: string, select: string, order = ''): Promise<void> {
  const file = join(folder, parquet)
  const instance = await DuckDBInstance.create(':memory:', { threads: '1' })
  const connection = await instance.connect()
  await connection.run(
    `copy (${select} from '${file}' ${order}) to '${file}.new' (format parquet, compression zstd)`,
  )
  connection.closeSync()
  instance.closeSync()
  await rename(`${file}.new`, file)
}

async function withAttestations(
  at: number,
  replace: (row: Row, observer: number) => Promise<Envelope> | null,
): Promise<Sample> {
  const facts = await makeSample()
  const rows = await Promise.all(
    facts.rows.map(async (released, index) => {
      if (index !== at) return released
      const row = JSON.parse(released.rowJson) as Row
      const attestations = await Promise.all(
        released.attestations.map((envelope, observer) => replace(row, observer) ?? envelope),
      )
      return { ...released, attestations }
    }),
  )
  return { ...facts, rows }
}

function signFor(row: Row, key: string, changes: Partial<Attestation> = {}): Promise<Envelope> {
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
  return signAttestation(statement, key)
}

async function signAs(name: string, type: 'campaign', payload: string): Promise<Envelope> {
  const pair = await keyOf(name)
  const keyid = toBase64Url(await publicKeyBytes(pair.publicKey))
  return signEnvelope(payloadType[type], Buffer.from(payload), [
    { keyid, privateKey: pair.privateKey },
  ])
}
