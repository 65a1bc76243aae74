import { createPublicKey, verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { beforeAll, describe, expect, test } from 'vitest'
import { decodeSentenceList } from '../../../lib/capture/sentence-list.ts'
import { fromBase64Url, toBase64Url } from '../../../lib/crypto/base64.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { preAuthEncoding } from '../../../lib/crypto/dsse.ts'
import { importSeed, type SigningKeyPair } from '../../../lib/crypto/ed25519.ts'
import { fromHex, toHex } from '../../../lib/crypto/hex.ts'
import { canonicalJson } from '../../../lib/protocol/canonical-json.ts'
import { attestation, type FollowUp } from '../../../lib/protocol/follow-up.ts'
import type { Lease } from '../../../lib/protocol/lease.ts'
import { answerFollowUp } from '../../../lib/runner/answer.ts'

const read = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../vectors/${name}.json`, import.meta.url), 'utf8'))
const observed = read('observation-signature')
const attested = read('attestation-signature')

const payload = new TextEncoder().encode(observed.payloadUtf8)
const nowMs = Date.parse('2026-11-22T12:00:00Z')
const url = 'https://www.barley.example/docs/malt'
const lease: Lease = {
  version: 1,
  id: 'AAECAwQFBgcICQoLDA0ODw',
  campaign: toBase64Url(sha256('campaign')),
  kind: 'page',
  url: 'https://www.barley.example/docs/old-malt',
  nonce: observed.nonce,
  validForMs: 60_000,
  maxBytes: 1_000_000,
  maxMs: 30_000,
  maxRedirects: 5,
}
const body = {
  bytes: payload.length,
  digest: toBase64Url(sha256(payload)),
  type: 'text/html',
  charset: 'utf-8',
  url,
}
const common = { id: 'ICEiIyQlJicoKSorLC0uLw', lease: lease.id, validForMs: 60_000 }
const attest: FollowUp = {
  ...common,
  kind: 'attest',
  url,
  day: '2026-11-22',
  indexes: [1, 3, 4],
  exact: true,
}

let key: SigningKeyPair
beforeAll(async () => {
  key = await importSeed(fromHex(attested.seedHex), { extractable: false })
})

const answer = (followUp: FollowUp, given: typeof payload | undefined = payload) =>
  answerFollowUp(followUp, { campaign: lease.campaign, lease, body, oneUseKey: key }, given, nowMs)

describe('an attestation', () => {
  test.each([0, 1])('of golden case %i is the golden statement and signature', async (at) => {
    const golden = attested.cases[at]
    const { indexes, exact } = golden
    const given = await answer({ ...attest, indexes, exact })
    if (given.kind !== 'attestation') throw new Error(given.kind)
    expect(canonicalJson(given.statement)).toBe(golden.statement)
    expect(given.sig).toBe(golden.sig)
    expect(given.gaps).toBe(JSON.parse(golden.statement).gaps)
    expect(attestation.parse(given.statement)).toEqual(given.statement)
    expect(given.statement.text).toBe(toBase64Url(sha256(golden.rowText)))
  })

  test.each([0, 1])('of golden case %i verifies with OpenSSL', (at) => {
    const golden = attested.cases[at]
    const bytes = new TextEncoder().encode(golden.statement)
    expect(toHex(preAuthEncoding(attested.payloadType, bytes))).toBe(golden.paeHex)
    const jwk = { kty: 'OKP', crv: 'Ed25519', x: attested.key }
    const publicKey = createPublicKey({ key: jwk, format: 'jwk' })
    expect(verify(null, fromHex(golden.paeHex), publicKey, fromBase64Url(golden.sig))).toBe(true)
  })

  test('names the leased or the observed address', async () => {
    expect((await answer({ ...attest, url: lease.url })).kind).toBe('attestation')
  })

  test.each(['2026-11-21', '2026-11-23'])('is given for %s, a day off', async (day) => {
    expect((await answer({ ...attest, day })).kind).toBe('attestation')
  })

  test('counts every own sentence left out inside the attested blocks', async () => {
    const whole = await answer({ ...attest, indexes: [0, 1, 2, 3, 4, 5] })
    const one = await answer({ ...attest, indexes: [2] })
    expect(whole).toMatchObject({ gaps: 0 })
    expect(one).toMatchObject({ gaps: 2 })
  })

  test.each<[string, Partial<typeof attest>, string]>([
    ['another address', { url: 'https://www.barley.example/docs/hops' }, 'wrong-url'],
    ['two days ago', { day: '2026-11-20' }, 'wrong-day'],
    ['two days ahead', { day: '2026-11-24' }, 'wrong-day'],
    ['a day that is none', { day: '2026-13-41' }, 'wrong-day'],
    ['indexes that go back', { indexes: [3, 1] }, 'indexes-out-of-order'],
    ['an index twice', { indexes: [1, 1] }, 'indexes-out-of-order'],
    ['an index beyond the list', { indexes: [0, 6] }, 'index-out-of-range'],
  ])('is refused for %s', async (_, changes, reason) => {
    expect(await answer({ ...attest, ...changes } as FollowUp)).toEqual({ kind: 'refused', reason })
  })
})

describe('an attestation of bytes alone', () => {
  const pdf = new TextEncoder().encode('%PDF-1.7')
  const pdfBody = { ...body, type: 'application/pdf', digest: toBase64Url(sha256(pdf)) }
  const ask = (changes: Partial<typeof attest>, of = { body: pdfBody, payload: pdf }) =>
    answerFollowUp(
      { ...attest, indexes: [], ...changes } as FollowUp,
      { campaign: lease.campaign, lease, body: of.body, oneUseKey: key },
      of.payload,
      nowMs,
    )

  test('names the payload and the empty text', async () => {
    const given = await ask({})
    if (given.kind !== 'attestation') throw new Error(given.kind)
    expect(given.statement).toMatchObject({
      gaps: 0,
      payload: pdfBody.digest,
      text: toBase64Url(sha256('')),
    })
    expect(attestation.parse(given.statement)).toEqual(given.statement)
  })

  test('is refused without the payload, and of a page that has sentences', async () => {
    const refused = { kind: 'refused', reason: 'index-out-of-range' }
    expect(await ask({ exact: false })).toEqual(refused)
    expect(await ask({}, { body, payload })).toEqual(refused)
    expect(await ask({ indexes: [0] })).toEqual(refused)
  })
})

test('sentences are the list that was observed', async () => {
  const given = await answer({ ...common, kind: 'sentences' })
  if (given.kind !== 'upload') throw new Error(given.kind)
  const list = new Uint8Array(gunzipSync(given.gzipBody))
  expect(toBase64Url(sha256(list))).toBe(JSON.parse(observed.statement).sentences.digest)
  expect(decodeSentenceList(list).ok).toBe(true)
})

test('a payload is the one that was observed', async () => {
  const given = await answer({ ...common, kind: 'payload' })
  if (given.kind !== 'upload') throw new Error(given.kind)
  expect(new Uint8Array(gunzipSync(given.gzipBody))).toEqual(payload)
})

test.each(['sentences', 'payload', 'attest'] as const)(
  '%s of a body that is gone: body-gone',
  async (kind) => {
    const followUp = kind === 'attest' ? attest : { ...common, kind }
    const task = { campaign: lease.campaign, lease, body, oneUseKey: key }
    const refused = { kind: 'refused', reason: 'body-gone' }
    expect(await answerFollowUp(followUp, task, undefined, nowMs)).toEqual(refused)
    const { body: _, ...without } = task
    expect(await answerFollowUp(followUp, without, payload, nowMs)).toEqual(refused)
  },
)
