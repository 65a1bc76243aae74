import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  buildRelease,
  ReleaseExists,
  type ReleaseRow,
} from '../../../server/publish/build-release.ts'
import { columns } from '../../../server/publish/columns.ts'
import { printReport } from '../../../server/publish/print-report.ts'
import { sealRelease } from '../../../server/publish/seal-release.ts'
import { verifyRelease } from '../../../server/publish/verify-release.ts'
import { conversionRecord, WarcWriter } from '../../../server/publish/warc.ts'
import { makeSample, publishSample, type Sample, sampleLog, samplePages } from './sample-release.ts'

let root: string
let sample: Sample
let folder: string

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'gleaner-release-'))
  sample = await makeSample()
  folder = join(root, 'release')
  await publishSample(sample, folder)
})
afterAll(() => rm(root, { recursive: true }))

test('a release that was built verifies', async () => {
  const steps: number[] = []
  const report = await verifyRelease(folder, sample.verifyKey, {
    onProgress: ({ step }) => steps.push(step),
  })
  expect(report.failures).toEqual([])
  expect(report.ok).toBe(true)
  expect(report.steps.every(({ state }) => state === 'passed')).toBe(true)
  expect(report.counted).toMatchObject({ rows: 8, duplicates: 3, exact: 5, attestations: 17 })
  expect(new Set(steps)).toEqual(new Set([1, 2, 3, 4, 5, 6, 7, 8, 9]))
  const printed = printReport(report)
  expect(printed).toContain('VERIFIED')
  expect(printed).toContain('does NOT prove')
})

test('the same facts give the same bytes', async () => {
  const again = join(root, 'again')
  await publishSample(await makeSample(), again)
  const files = await filesOf(folder)
  expect(await filesOf(again)).toEqual(files)
  for (const path of files) {
    expect(await readFile(join(again, path)), path).toEqual(await readFile(join(folder, path)))
  }
})

test('sha256sum checks SHA256SUMS', () => {
  const run = spawnSync('sha256sum', ['-c', '--strict', 'SHA256SUMS'], { cwd: folder })
  expect(run.status, String(run.stderr)).toBe(0)
})

test('a release that is there is not written again', async () => {
  const before = await filesOf(folder)
  await expect(publishSample(sample, folder)).rejects.toThrow(ReleaseExists)
  expect(await filesOf(folder)).toEqual(before)
})

test('what a crash left behind does not disturb the next attempt', async () => {
  const target = join(root, 'after-crash')
  await mkdir(join(`${target}.building`, 'data'), { recursive: true })
  await publishSample(sample, target)
  expect((await verifyRelease(target, sample.verifyKey)).ok).toBe(true)
  expect((await readdir(root)).filter((name) => name.startsWith('after-crash'))).toEqual([
    'after-crash',
  ])
})

test('a release that was never sealed is built anew, another folder never replaced', async () => {
  const target = join(root, 'unsealed')
  await publishSample(sample, target)
  await rm(join(target, 'log'), { recursive: true })
  await expect(publishSample({ ...sample, name: 'another' }, target)).rejects.toThrow(ReleaseExists)
  await publishSample(sample, target)
  expect((await verifyRelease(target, sample.verifyKey)).ok).toBe(true)
  const precious = join(root, 'precious')
  await mkdir(precious)
  await expect(publishSample(sample, precious)).rejects.toThrow(ReleaseExists)
})

test('WARC files are closed at their size and all found again', async () => {
  const target = join(root, 'shards')
  await mkdir(join(target, 'warc'), { recursive: true })
  const warc = new WarcWriter({
    folder: target,
    release: 'shards',
    createdAt: sample.createdAt,
    generator: 'gleaner-test/1',
    shardBytes: 600,
  })
  const files: string[] = []
  for (const text of ['one', 'two', 'three']) {
    const subject = { url: 'https://docs.sample.example/', day: '2026-11-20', commitment: text }
    files.push((await warc.write(conversionRecord(subject, Buffer.from(text), undefined))).file)
  }
  await warc.close()
  expect(files).toEqual([
    'warc/part-00000.warc.gz',
    'warc/part-00001.warc.gz',
    'warc/part-00002.warc.gz',
  ])
})

test('sealing again with the same checkpoint changes nothing, with another it fails', async () => {
  const checkpoint = await readFile(join(folder, 'log/checkpoint'), 'utf8')
  const log = await sampleLog(sample, [])
  await sealRelease({ ...log, folder, checkpoint })
  await expect(sealRelease({ ...log, folder })).rejects.toThrow('another checkpoint')
  expect((await verifyRelease(folder, sample.verifyKey)).ok).toBe(true)
})

test('leaf hashes that are not those of the checkpoint do not seal a release', async () => {
  const target = join(root, 'badly-sealed')
  const log = await sampleLog(sample, [])
  await mkdir(target)
  const short = { ...log, folder: target, leafHashes: log.leafHashes.slice(1) }
  await expect(sealRelease(short)).rejects.toThrow('seal')
  const entries = [{ leafIndex: 0, entry: '{}' }]
  await expect(sealRelease({ ...log, folder: target, entries })).rejects.toThrow('entry 0')
  expect(await readdir(target)).toEqual(['log.building'])
})

test.each<[string, (row: ReleaseRow) => Partial<ReleaseRow>, string]>([
  ['a text other than the committed one', () => ({ text: 'Another text.' }), 'text handed in'],
  ['a row without its text', () => ({ text: null }), 'no text'],
  ['a row not in canonical JSON', ({ rowJson }) => ({ rowJson: ` ${rowJson}` }), 'canonical'],
])('%s is not published', async (_, change, message) => {
  const [first, ...rest] = sample.rows
  if (first === undefined) throw new Error('no rows')
  const bad = { ...sample, rows: [{ ...first, ...change(first) }, ...rest] }
  await expect(publishSample(bad, join(root, 'refused'))).rejects.toThrow(message)
  expect(await readdir(root)).not.toContain('refused')
})

test('a duplicate before its first is not published', async () => {
  const bad = { ...sample, rows: sample.rows.slice(2) }
  await expect(publishSample(bad, join(root, 'no-first'))).rejects.toThrow('without a first')
})

test('a payload that is not the committed one is not published', async () => {
  const facts = { ...sample, folder: join(root, 'bad-payload'), generator: 'gleaner-test/1' }
  const readPayload = async () => Buffer.from('something else')
  await expect(buildRelease({ ...facts, readPayload })).rejects.toThrow('payload handed in')
})

test('DuckDB answers questions from the Parquet file', async () => {
  const connection = await (await DuckDBInstance.create(':memory:')).connect()
  const source = `'${join(folder, 'data/train-00000-of-00001.parquet')}'`
  const described = await connection.runAndReadAll(`describe select * from ${source}`)
  expect(described.getRows().map(([name]) => name)).toEqual(columns.map(({ name }) => name))
  const intact = await connection.runAndReadAll(
    `select count(*)::int from ${source} where not duplicate and text_sha256 = sha256(text)`,
  )
  expect(intact.getRows()).toEqual([[5]])
  const asked = await connection.runAndReadAll(
    `select url_surtkey, url_query, url_host_registered_domain, gaps::int, attestations,
       list_transform(use_signals, lambda signal: signal.name).list_sort()[1],
       use_train, use_search, use_ai_input, use_tdm
     from ${source} where url_path = '/prices'`,
  )
  expect(asked.getRowsJson()).toEqual([
    [
      'example,sample,docs)/prices?currency=eur&item=1',
      'item=1&currency=EUR',
      'sample.example',
      2,
      3,
      'content-usage',
      'n',
      'y',
      'unknown',
      'y',
    ],
  ])
  connection.closeSync()
})

test('an outside reader finds every record of the WARC by gzip members alone', async () => {
  const run = spawnSync('python3', ['-c', warcReader, join(folder, 'warc')], { encoding: 'utf8' })
  expect(run.stderr).toBe('')
  const read = JSON.parse(run.stdout) as { types: Record<string, number>; lines: number }
  expect(read.types).toEqual({ warcinfo: 1, response: 4, metadata: 4, conversion: 5, revisit: 2 })
  expect(read.lines).toBe(6)
})

test('rows of before use was recorded are published, claim no yes, and are counted apart', async () => {
  const old = new Set(['/', '/prices?item=1&currency=EUR'])
  const mixed = await makeSample(
    samplePages.map((page) =>
      old.has(page.path) ? { ...page, row: { ...page.row, use: undefined } } : page,
    ),
  )
  const target = join(root, 'mixed')
  await publishSample(mixed, target)
  expect((await verifyRelease(target, sample.verifyKey)).failures).toEqual([])
  const connection = await (await DuckDBInstance.create(':memory:')).connect()
  const asked = await connection.runAndReadAll(
    `select use_train, use_search, use_ai_input, use_tdm
     from '${join(target, 'data/train-00000-of-00001.parquet')}' limit 2`,
  )
  // The second says train-ai=n, search=y and reserves nothing.
  expect(asked.getRows()).toEqual([
    ['unknown', 'unknown', 'unknown', 'unknown'],
    ['n', 'unknown', 'unknown', 'unknown'],
  ])
  connection.closeSync()
  const card = await readFile(join(target, 'README.md'), 'utf8')
  expect(card).toContain('| `use_train` | 0 | 0 | 6 |')
  expect(card).toContain('Not counted above are 2 of the rows')
})

test('the card names every column and what is not proved', async () => {
  const card = await readFile(join(folder, 'README.md'), 'utf8')
  for (const { name } of columns) expect(card).toContain(`| \`${name}\` |`)
  expect(card).toMatch(/^---\npretty_name: "sample 2026-11-22"\nlicense: odc-by\nlanguage:\n- "el"/)
  expect(card).toContain('It does **not** prove')
  expect(card).toContain('| `use_train` | 0 | 1 | 7 |\n| `use_search` | 1 | 0 | 7 |')
  expect(card).toContain('| `use_tdm` | 1 | 0 | 7 |')
  expect(card).not.toContain('Not counted above')
  expect(card).toContain('- **noindex** (')
  expect(card).toContain('Kept out of campaigns for ai-training or research.')
  expect(samplePages).toHaveLength(8)
})

test('the specification names every column and its type', async () => {
  const readme = await readFile(new URL('../../../lib/protocol/README.md', import.meta.url), 'utf8')
  const rows = columns.map(({ name, type, lookup }) => `\`${name}\`${lookup ? ' †' : ''}|${type}|`)
  const cells = readme.replace(/ *\| */g, '|')
  expect(rows.filter((row) => !cells.includes(row))).toEqual([])
})

async function filesOf(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(path.length + 1))
    .sort()
}

/** Reads WARC 1.1 by its specification: members, heads, digests; and each line of the index. */
const warcReader = String.raw`
import collections, glob, hashlib, json, os, re, sys, zlib
folder = sys.argv[1]
types, at_offset, ids = collections.Counter(), {}, set()
for path in sorted(glob.glob(os.path.join(folder, '*.warc.gz'))):
    data, at = open(path, 'rb').read(), 0
    while at < len(data):
        member = zlib.decompressobj(31)
        record = member.decompress(data[at:])
        assert member.eof
        used = len(data) - at - len(member.unused_data)
        head, rest = record.split(b'\r\n\r\n', 1)
        version, *lines = head.decode().split('\r\n')
        assert version == 'WARC/1.1', version
        fields = dict(line.split(': ', 1) for line in lines)
        length = int(fields['Content-Length'])
        block = rest[:length]
        assert rest[length:] == b'\r\n\r\n'
        label = lambda body: 'sha256:' + hashlib.sha256(body).hexdigest()
        assert fields['WARC-Block-Digest'] == label(block)
        assert re.fullmatch(r'<urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}>', fields['WARC-Record-ID'])
        assert fields['WARC-Record-ID'] not in ids
        ids.add(fields['WARC-Record-ID'])
        assert re.fullmatch(r'\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?', fields['WARC-Date'])
        kind = fields['WARC-Type']
        types[kind] += 1
        if kind == 'response':
            http, body = block.split(b'\r\n\r\n', 1)
            assert http.startswith(b'HTTP/1.1 ')
            assert b'\r\ncontent-length: %d' % len(body) in http
            assert b'\r\ncontent-encoding:' not in http
            assert fields['WARC-Payload-Digest'] == label(body)
        if 'WARC-Refers-To' in fields:
            assert kind in ('metadata', 'conversion', 'revisit') and fields['WARC-Refers-To'] in ids
        at_offset['warc/' + os.path.basename(path), at, used] = fields
        at += used
index = open(os.path.join(folder, 'index.cdxj'), 'rb').read().splitlines()
assert index == sorted(index)
for line in index:
    key, stamp, fields = line.split(b' ', 2)
    fields = json.loads(fields)
    record = at_offset[fields['filename'], int(fields['offset']), int(fields['length'])]
    assert record['WARC-Target-URI'] == fields['url']
    assert record['WARC-Payload-Digest'] == fields['digest']
    assert stamp.decode() == record['WARC-Date'].replace('-', '') + '000000'
print(json.dumps({'types': types, 'lines': len(index)}))
`
