import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { generateKeyPair, publicKeyBytes } from '../../../lib/crypto/ed25519.ts'
import {
  type Checkpoint,
  formatCheckpoint,
  openCheckpoint,
  parseCheckpoint,
  signCheckpoint,
} from '../../../lib/tlog/checkpoint.ts'
import {
  type NoteSigner,
  type NoteVerifier,
  noteSigner,
  noteVerifier,
  parseNote,
  parseVerifierKey,
  signNote,
} from '../../../lib/tlog/note.ts'
import vectors from '../../vectors/signed-notes.json'

const origin = 'gleaner.example/log'
const root = 'CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I='
const checkpoint: Checkpoint = { origin, size: 42, rootHash: sha256('root'), extensions: [] }

let signer: NoteSigner
let verifier: NoteVerifier

beforeAll(async () => {
  const pair = await generateKeyPair({ extractable: false })
  signer = await noteSigner(origin, pair)
  verifier = noteVerifier(origin, await publicKeyBytes(pair.publicKey))
})

describe('published checkpoints', () => {
  test("the specification's example reads and writes the same", () => {
    const example = vectors.unverifiable.find(({ name }) => name === 'behind the sofa')
    const parsed = parseNote(example?.note ?? '')
    const text = parsed.ok ? parsed.note.text : ''
    const read = parseCheckpoint(text)
    expect(read).toMatchObject({ origin: 'example.com/behind-the-sofa', size: 20852163 })
    expect(read && formatCheckpoint(read)).toBe(text)
  })

  test.each([
    [1, 15067302],
    [2, 65209736],
  ])('the Go checksum database opens at its size (case %i)', async (at, size) => {
    const vector = vectors.cases[at]
    const keys = (vector?.verifierKeys ?? []).flatMap((text) => parseVerifierKey(text) ?? [])
    const opened = await openCheckpoint(vector?.note ?? '', 'go.sum database tree', keys)
    expect(opened).toMatchObject({ ok: true, checkpoint: { size } })
  })
})

describe('a checkpoint', () => {
  test('is three lines', () => {
    expect(formatCheckpoint({ ...checkpoint, rootHash: new Uint8Array(32) })).toBe(
      `${origin}\n42\n${'A'.repeat(43)}=\n`,
    )
  })

  test('opens as it was signed', async () => {
    const note = await signCheckpoint(checkpoint, [signer])
    expect(await openCheckpoint(note, origin, [verifier])).toEqual({
      ok: true,
      checkpoint,
      signedBy: [verifier],
    })
  })

  test('of any size and with any extensions reads as it was written', () => {
    const line = fc.stringMatching(/^[!-~]{1,20}$/)
    fc.assert(
      fc.property(line, fc.maxSafeNat(), fc.array(line), (name, size, extensions) => {
        const written = { origin: name, size, rootHash: sha256(name), extensions }
        expect(parseCheckpoint(formatCheckpoint(written))).toEqual(written)
      }),
    )
  })

  test('by a stranger does not open', async () => {
    const pair = await generateKeyPair({ extractable: false })
    const note = await signCheckpoint(checkpoint, [await noteSigner(origin, pair)])
    expect(await openCheckpoint(note, origin, [verifier])).toEqual({
      ok: false,
      reason: 'unknown-signers',
    })
  })

  test('of another log does not open, though the key is right', async () => {
    const note = await signCheckpoint({ ...checkpoint, origin: 'other.example' }, [signer])
    expect(await openCheckpoint(note, origin, [verifier])).toEqual({
      ok: false,
      reason: 'another-log',
    })
  })

  test('is not just any signed note', async () => {
    const note = await signNote('hello\n', [signer])
    expect(await openCheckpoint(note, origin, [verifier])).toEqual({
      ok: false,
      reason: 'not-a-checkpoint',
    })
  })
})

describe('a text is no checkpoint', () => {
  test.each([
    ['when empty', ''],
    ['without its last newline', `${origin}\n1\n${root}`],
    ['without an origin', `\n1\n${root}\n`],
    ['without a root', `${origin}\n1\n`],
    ['with an empty root', `${origin}\n1\n\n`],
    ['with an empty extension', `${origin}\n1\n${root}\n\n`],
    ['with an empty extension before another', `${origin}\n1\n${root}\n\nx\n`],
    ['with a leading zero', `${origin}\n01\n${root}\n`],
    ['with two zeros', `${origin}\n00\n${root}\n`],
    ['with a sign', `${origin}\n+1\n${root}\n`],
    ['with a negative size', `${origin}\n-1\n${root}\n`],
    ['with a hexadecimal size', `${origin}\n0x1\n${root}\n`],
    ['with an exponent', `${origin}\n1e3\n${root}\n`],
    ['with a space', `${origin}\n1 \n${root}\n`],
    ['with digits that are not ASCII', `${origin}\n\u0661\n${root}\n`],
    ['with a size beyond 2^53 - 1', `${origin}\n9007199254740992\n${root}\n`],
    ['with an unpadded root', `${origin}\n1\n${root.slice(0, -1)}\n`],
    ['with a short root', `${origin}\n1\nAAAA\n`],
    ['with a long root', `${origin}\n1\n${'A'.repeat(44)}\n`],
    ['with trailing bits in its root', `${origin}\n1\n${root.slice(0, -2)}J=\n`],
    ['with a URL-safe root', `${origin}\n1\n${root.replace('/', '_')}\n`],
  ])('%s', (_, text) => {
    expect(parseCheckpoint(text)).toBeUndefined()
  })
})

describe('writing refuses', () => {
  test.each<[string, Partial<Checkpoint>]>([
    ['an empty origin', { origin: '' }],
    ['an origin of two lines', { origin: 'a\n1' }],
    ['a negative size', { size: -1 }],
    ['a fractional size', { size: 1.5 }],
    ['a size beyond 2^53 - 1', { size: 2 ** 53 }],
    ['a short root hash', { rootHash: new Uint8Array(31) }],
    ['an empty extension', { extensions: [''] }],
    ['an extension of two lines', { extensions: ['a\nb'] }],
  ])('%s', (_, change) => {
    expect(() => formatCheckpoint({ ...checkpoint, ...change })).toThrow()
  })
})
