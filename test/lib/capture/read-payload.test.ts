import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { readPayload } from '../../../lib/capture/read-payload.ts'
import { encodeSentenceList } from '../../../lib/capture/sentence-list.ts'
import { shortDigest } from '../../../lib/capture/sentences.ts'

interface Golden {
  name: string
  type: string
  charset: string | null
  url: string
  bytes: 'utf-8' | 'latin1'
  body: string
  title: string | null
  language: string | null
  canonical: string | null
  sentences: string[]
  links: string[]
  nofollow: boolean
}
const { cases }: { cases: Golden[] } = JSON.parse(
  readFileSync(new URL('../../vectors/pages.json', import.meta.url), 'utf8'),
)

test.each(cases)('golden page: $name', (golden) => {
  const read = readPayload(Buffer.from(golden.body, golden.bytes), golden)
  if (!read.ok) throw new Error(read.reason)
  const { page } = read
  expect(page).toMatchObject({
    title: golden.title,
    language: golden.language,
    canonical: golden.canonical,
    links: golden.links.map((url) => ({ url, nofollow: golden.nofollow })),
  })
  expect(page.sentences.map((sentence) => sentence.text)).toEqual(golden.sentences)
  // Whether it is to be followed or not, a link is in the list that two observers compare.
  const links = golden.links.map((url) => shortDigest(url))
  expect(read.sentenceList).toEqual(encodeSentenceList(page.sentences, links))
})
