import { createPublicKey, verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { fromBase64Url, toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { preAuthEncoding } from '../../../lib/crypto/dsse.ts'
import { generateKeyPair, importSeed } from '../../../lib/crypto/ed25519.ts'
import { fromHex, toHex } from '../../../lib/crypto/hex.ts'
import { observation, signedStatement } from '../../../lib/protocol/observation.ts'
import type { FetchedPage } from '../../../lib/runner/fetch-page.ts'
import { freshness, observeFailure, observePage } from '../../../lib/runner/observe.ts'

const vector = JSON.parse(
  readFileSync(new URL('../../vectors/observation-signature.json', import.meta.url), 'utf8'),
)
const lease = { id: 'AAECAwQFBgcICQoLDA0ODw', nonce: vector.nonce as string }
const payload = new TextEncoder().encode(vector.payloadUtf8)
const page: FetchedPage = {
  kind: 'fetched',
  url: 'https://www.barley.example/docs/malt',
  hops: [301],
  status: 200,
  type: 'text/html',
  headers: new Map([
    ['content-type', 'text/html; charset="UTF-8"'],
    ['etag', '"m1"'],
    ['x-robots-tag', 'noai'],
    ['set-cookie', 'a=b'],
  ]),
  payload,
  firstByteMs: 120,
  totalMs: 340,
  wireBytes: 199,
  statedWireBytes: 199,
}

test('a page under a known key gives the golden statement and signature', async () => {
  const key = await importSeed(fromHex(vector.seedHex), { extractable: false })
  const { statement, body } = await observePage(lease, page, key)
  expect(statement).toEqual({ statement: vector.statement, key: vector.key, sig: vector.sig })
  expect(body).toEqual({
    bytes: payload.length,
    digest: toBase64Url(sha256(payload)),
    type: 'text/html',
    charset: 'utf-8',
    url: page.url,
  })
})

test('OpenSSL agrees with the golden signature over the golden encoding', () => {
  const bytes = new TextEncoder().encode(vector.statement)
  expect(toHex(preAuthEncoding(vector.payloadType, bytes))).toBe(vector.paeHex)
  const key = createPublicKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: vector.key },
    format: 'jwk',
  })
  const signature = fromBase64Url(vector.sig)
  expect(verify(null, fromHex(vector.paeHex), key, signature)).toBe(true)
  expect(verify(null, fromHex(`${vector.paeHex}00`), key, signature)).toBe(false)
})

test('freshness binds nonce and payload', () => {
  const stated = observation.parse(JSON.parse(vector.statement))
  if (stated.outcome !== 'fetched') throw new Error(stated.outcome)
  expect(stated.freshness).toBe(toBase64Url(freshness(vector.nonce, payload)))
  expect(freshness('AAAAAAAAAAAAAAAAAAAAAA', payload)).not.toEqual(freshness(vector.nonce, payload))
})

test('a statement never exceeds its bound, and use signals outlast other headers', async () => {
  const key = await generateKeyPair({ extractable: false })
  const long = '"'.repeat(300)
  const url = `https://www.barley.example/${'a'.repeat(2000)}`
  const headers = new Map(
    [
      'content-language',
      'content-signal',
      'content-usage',
      'etag',
      'last-modified',
      'link',
      'retry-after',
      'tdm-policy',
      'tdm-reservation',
      'x-robots-tag',
    ].map((name) => [name, long]),
  )
  const { statement } = await observePage(lease, { ...page, url, headers }, key)
  const parsed = observation.parse(JSON.parse(signedStatement.parse(statement).statement))
  if (parsed.outcome !== 'fetched') throw new Error(parsed.outcome)
  expect(Object.keys(parsed.headers)).toContain('x-robots-tag')
  expect(Object.keys(parsed.headers)).not.toContain('etag')
  for (const value of Object.values(parsed.headers)) expect(value?.length).toBeLessThanOrEqual(256)
})

test.each([
  ['<https://barley.example/license.xml>; rel="license"', true],
  ['</l>; rel=license; type="application/rsl+xml"', true],
  ['</l>; type="text/html"; REL = "copyright license"', true],
  ['</l>; rel=license-ish', false],
  ['</license>; rel=preload', false],
  ['</l>; title="rel=license"', false],
])('of a Link header %j is a licence: %s', async (link, expected) => {
  const key = await generateKeyPair({ extractable: false })
  const headers = new Map([['link', `</a,b.css>; rel=preload, ${link}, </next>; rel=next`]])
  const { statement } = await observePage(lease, { ...page, headers }, key)
  expect(JSON.parse(statement.statement).headers).toEqual(expected ? { link } : {})
})

test.each([
  ['text/html', null],
  ['text/html; charset=utf-8', 'utf-8'],
  ["text/html;CHARSET='Windows-1252'", 'windows-1252'],
  ['text/html; charset="', null],
  [`text/html; charset=${'u'.repeat(41)}`, null],
  ['text/html; x=charset=utf-8', null],
])('the charset of %s is %s', async (contentType, charset) => {
  const key = await generateKeyPair({ extractable: false })
  const headers = new Map([['content-type', contentType]])
  const { statement } = await observePage(lease, { ...page, headers }, key)
  expect(JSON.parse(statement.statement).charset).toBe(charset)
})

test('a failure says why, and nothing else', async () => {
  const key = await generateKeyPair({ extractable: false })
  const failed = { reason: 'timeout', totalMs: 30_000, wireBytes: 17 } as const
  const { statement } = await observeFailure(lease, failed, key)
  expect(observation.parse(JSON.parse(statement))).toEqual({
    version: 1,
    outcome: 'failed',
    lease: lease.id,
    ...failed,
  })
})

test('eight statements in a batch take at most 600 bytes each on the wire', async () => {
  const observations = []
  for (let i = 0; i < 8; i++) {
    const key = await generateKeyPair({ extractable: false })
    const random = () => toBase64Url(crypto.getRandomValues(new Uint8Array(16)))
    const html = `<title>Page ${i}</title><p>Text ${random()} of page ${i}.</p>`
    const other = {
      ...page,
      url: `https://www.barley.example/docs/chapter-${i}/${random().slice(0, 6)}`,
      payload: new TextEncoder().encode(html),
      totalMs: 300 + i * 17,
    }
    const { statement } = await observePage({ id: random(), nonce: random() }, other, key)
    observations.push(statement)
  }
  const bytes = gzipSync(JSON.stringify({ observations })).length
  expect(bytes / 8).toBeLessThanOrEqual(600)
})
