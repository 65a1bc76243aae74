import { describe, expect, test } from 'vitest'
import { toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { teaPage } from './tea-page.ts'
import { converse, settlement, task, witness } from './witness.ts'

const document = '%PDF-1.7\n(Tea is an infusion.) Tj\n%%EOF\n'
const pdf = { seen: { type: 'application/pdf' } }

describe('a PDF', () => {
  test('on which two agree to the byte is published as bytes: attested without any text', () => {
    const { decision, asks } = converse([
      witness('ada', document, pdf),
      witness('bob', document, pdf),
    ])
    expect(asks.map(({ kind, lease }) => `${kind} ${lease}`)).toEqual([
      'payload ada',
      'attest ada',
      'attest bob',
    ])
    const payload = toBase64Url(sha256(document))
    expect(asks.at(-1)).toMatchObject({ indexes: [], exact: true, payload })
    expect(decision).toMatchObject({
      kind: 'settle',
      invalid: [],
      settlement: {
        verdict: 'valid',
        page: {
          type: 'application/pdf',
          grade: 'exact',
          text: '',
          textDigest: toBase64Url(sha256('')),
          payloadDigest: payload,
          gaps: 0,
          title: null,
          links: [],
        },
      },
    })
  })

  test('that is another for everybody is not published', () => {
    const three = ['ada', 'bob', 'cyd'].map((lease) => witness(lease, `${document}${lease}`, pdf))
    expect(settlement(three, { available: 0 })).toMatchObject({
      verdict: 'unpublished',
      reason: 'no agreed text',
    })
  })
})

test('a page without text is published neither way', () => {
  const two = ['ada', 'bob'].map((lease) => witness(lease, '<body><img src=tea.png></body>'))
  expect(settlement(two)).toMatchObject({ verdict: 'unpublished', reason: 'no text' })
})

test('what is JSON to the observers is attested line by line', () => {
  const json = '{\n "tea": "black",\n "minutes": 3\n}\n'
  const two = ['ada', 'bob'].map((lease) =>
    witness(lease, json, { seen: { type: 'application/json' } }),
  )
  expect(settlement(two)).toMatchObject({
    verdict: 'valid',
    page: { grade: 'exact', text: '{\n"tea": "black",\n"minutes": 3\n}' },
  })
})

test('of a feed that changed in between, what two have in common is published', () => {
  const feed = (built: string) =>
    `<rss><channel><title>Tea</title><lastBuildDate>${built}</lastBuildDate>
     <item><title>Black</title><link>/black</link><description>${teaPage()
       .replaceAll('&', '&amp;')
       .replaceAll('<', '&lt;')}</description></item></channel></rss>`
  const seen = { seen: { type: 'application/rss+xml' } }
  const witnesses = [witness('ada', feed('Sun'), seen), witness('bob', feed('Mon'), seen)]
  expect(task(witnesses).observers[0]?.observation).not.toEqual(
    task(witnesses).observers[1]?.observation,
  )
  expect(settlement(witnesses)).toMatchObject({
    verdict: 'valid',
    page: { grade: 'sentences', title: 'Tea', links: ['https://barley.example/black'] },
  })
})
