import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { verifyRelease } from '../../../server/publish/verify-release.ts'
import { makeSample, publishSample, type SamplePage, samplePages } from './sample-release.ts'

let root: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'gleaner-bytes-'))
})
afterAll(() => rm(root, { recursive: true }))

/** A page of which nobody read more than its bytes. */
const pdf = (path: string, version: string, more: Partial<SamplePage> = {}): SamplePage => ({
  path,
  text: '',
  payload: `%PDF-${version}\nstream\n%%EOF\n`,
  row: { type: 'application/pdf', title: null, language: null },
  ...more,
})

test('a release with PDFs verifies: their texts are empty, their bytes are there', async () => {
  const [first] = samplePages
  if (!first) throw new Error('no sample')
  const sample = await makeSample([
    pdf('/manual.pdf', '1.4'),
    first,
    // Another document: no duplicate, although its text is as empty.
    pdf('/other.pdf', '1.7'),
    pdf('/copy.pdf', '1.4', { duplicate: true }),
  ])
  const folder = join(root, 'release')
  await publishSample(sample, folder)
  const report = await verifyRelease(folder, sample.verifyKey)
  expect(report.failures).toEqual([])
  expect(report.counted).toMatchObject({ rows: 4, duplicates: 1, exact: 4 })
})
