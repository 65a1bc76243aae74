import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { toBase64 } from '../../../lib/crypto/base64.ts'
import { concatBytes } from '../../../lib/crypto/digest.ts'
import { generateKeyPair, publicKeyBytes } from '../../../lib/crypto/ed25519.ts'
import {
  formatVerifierKey,
  maxNoteBytes,
  maxNoteSignatures,
  type NoteSigner,
  type NoteVerifier,
  noteSigner,
  noteVerifier,
  openNote,
  parseNote,
  parseVerifierKey,
  signNote,
} from '../../../lib/tlog/note.ts'
import vectors from '../../vectors/signed-notes.json'

const utf8 = new TextEncoder()
const text = 'If you think cryptography is the answer,\nyou do not know the question.\n'

type Key = { signer: NoteSigner; verifier: NoteVerifier }
let alice: Key
let bob: Key
let note: string

beforeAll(async () => {
  alice = await key('alice.example/log')
  bob = await key('bob.example')
  note = await signNote(text, [alice.signer])
})

describe('published notes', () => {
  test.each(vectors.cases)('$name opens', async (vector) => {
    const verifiers = vector.verifierKeys.map(known)
    const opened = await openNote(utf8.encode(vector.note), verifiers)
    expect(opened.ok && opened.signedBy.map(({ name }) => name)).toEqual(vector.signedBy)
    expect(opened.ok && `${opened.text}\n`).toBe(
      vector.note.slice(0, vector.note.lastIndexOf('\n\n') + 2),
    )
  })

  test.each(vectors.cases)('$name opens no more with a changed letter', async (vector) => {
    const changed = vector.note.replace('e', 'f')
    expect(await openNote(changed, vector.verifierKeys.map(known))).toEqual({
      ok: false,
      reason: 'bad-signature',
    })
  })

  test.each(vectors.unverifiable)('$name is well-formed, but by nobody known', async (vector) => {
    expect(parseNote(vector.note).ok).toBe(true)
    expect(await openNote(vector.note, [alice.verifier])).toEqual({
      ok: false,
      reason: 'unknown-signers',
    })
  })

  test.each(vectors.cases.flatMap(({ verifierKeys }) => verifierKeys))(
    'the verifier key %s reads and writes the same',
    (verifierKey) => {
      expect(formatVerifierKey(known(verifierKey))).toBe(verifierKey)
    },
  )
})

describe('a signed note', () => {
  test('opens, from text and from bytes, with who signed it', async () => {
    const expected = { ok: true, text, signedBy: [alice.verifier] }
    expect(await openNote(note, [bob.verifier, alice.verifier])).toEqual(expected)
    expect(await openNote(utf8.encode(note), [alice.verifier])).toEqual(expected)
  })

  test('names each known signer once, in order of signing', async () => {
    const signed = await signNote(text, [bob.signer, alice.signer, bob.signer])
    expect(await openNote(signed, [alice.verifier, bob.verifier])).toEqual({
      ok: true,
      text,
      signedBy: [bob.verifier, alice.verifier],
    })
  })

  test('may hold blank lines and what looks like a signature', async () => {
    for (const tricky of [
      '\n',
      '\n\n',
      `${note}`,
      'a\n\n\n',
      '\ufeffbyte order mark\n',
      'żółw 🐢\n',
    ]) {
      const signed = await signNote(tricky, [alice.signer])
      expect(await openNote(utf8.encode(signed), [alice.verifier])).toMatchObject({
        ok: true,
        text: tricky,
      })
    }
  })

  test('opens for any text the format allows', async () => {
    const line = fc.string({ unit: 'grapheme' }).filter((s) => ![...s].some((c) => c < ' '))
    await fc.assert(
      fc.asyncProperty(fc.array(line, { minLength: 1, maxLength: 6 }), async (lines) => {
        const content = lines.map((s) => `${s}\n`).join('')
        const signed = await signNote(content, [alice.signer])
        expect(await openNote(signed, [alice.verifier])).toMatchObject({ ok: true, text: content })
      }),
    )
  })

  test('holds up to 100 signatures', async () => {
    const filler = lineOf('stranger.example', new Uint8Array(68))
    const most = note + filler.repeat(maxNoteSignatures - 1)
    expect((await openNote(most, [alice.verifier])).ok).toBe(true)
    expect(await openNote(most + filler, [alice.verifier])).toEqual({
      ok: false,
      reason: 'too-large',
    })
  })

  test('holds signatures of unknown types and lengths', async () => {
    const signed = note + lineOf('postquantum.example', new Uint8Array(2424))
    expect((await openNote(signed, [alice.verifier])).ok).toBe(true)
  })

  test('of more than the size limit is refused unread', async () => {
    const huge = `${'a'.repeat(maxNoteBytes)}\n${note}`
    for (const input of [huge, utf8.encode(huge)]) {
      expect(await openNote(input, [alice.verifier])).toEqual({ ok: false, reason: 'too-large' })
    }
  })
})

describe('signatures', () => {
  test('by a known name with another key ID do not count', async () => {
    const impostor = await key(alice.verifier.name)
    const signed = await signNote(text, [impostor.signer])
    expect(await openNote(signed, [alice.verifier])).toEqual({
      ok: false,
      reason: 'unknown-signers',
    })
  })

  test('by another name with a known key ID do not count', async () => {
    const renamed = note.replace('alice.example/log', 'malice.example')
    expect(await openNote(renamed, [alice.verifier])).toEqual({
      ok: false,
      reason: 'unknown-signers',
    })
  })

  test('that are bad by a known key spoil the note, whatever else is good', async () => {
    const forged = { ...bob.signer, privateKey: alice.signer.privateKey }
    for (const signers of [
      [alice.signer, forged],
      [forged, alice.signer],
      [bob.signer, forged],
    ]) {
      const signed = await signNote(text, signers)
      expect(await openNote(signed, [alice.verifier, bob.verifier])).toEqual({
        ok: false,
        reason: 'bad-signature',
      })
    }
  })

  test('of the wrong length by a known key spoil the note', async () => {
    const id = alice.verifier.keyId
    const bytes = concatBytes(new Uint8Array(4), new Uint8Array(63))
    new DataView(bytes.buffer).setUint32(0, id)
    const signed = `${text}\n${lineOf(alice.verifier.name, bytes)}`
    expect(await openNote(signed, [alice.verifier])).toEqual({
      ok: false,
      reason: 'bad-signature',
    })
  })

  test('open nothing when no verifier is given', async () => {
    expect(await openNote(note, [])).toEqual({ ok: false, reason: 'unknown-signers' })
  })

  test('cannot be told apart by two verifiers of one name and ID, which is an error', async () => {
    await expect(openNote(note, [alice.verifier, { ...alice.verifier }])).rejects.toThrow()
  })
})

describe('a note is malformed', () => {
  const line = (changed: string) => () => `${text}\n${changed}\n`
  const good = () => note.trimEnd().split('\n').at(-1) ?? ''
  test.each<[string, () => string | Uint8Array]>([
    ['when empty', () => ''],
    ['without a signature', () => text],
    ['with an empty list of signatures', () => `${text}\n`],
    ['without the blank line', () => note.replace('\n\n', '\n')],
    ['without the last newline', () => note.slice(0, -1)],
    ['with a blank line at the end', () => `${note}\n`],
    ['with a carriage return', () => note.replace('\n', '\r\n')],
    ['with a tab', () => note.replace(' ', '\t')],
    ['with a zero byte', () => note.replace(' ', '\0')],
    ['with half a surrogate pair', () => note.replace('y', '\ud800')],
    ['with bytes that are not UTF-8', () => concatBytes(Uint8Array.of(0xff), utf8.encode(note))],
    ['with an overlong encoding', () => concatBytes(Uint8Array.of(0xc0, 0x80), utf8.encode(note))],
    ['with a hyphen for the dash', () => line(good().replace('\u2014', '-'))()],
    ['with two spaces', () => line(good().replace(' ', '  '))()],
    ['with a third field', () => line(`${good()} x`)()],
    ['with a trailing space', () => line(`${good()} `)()],
    ['with no name', line('\u2014  AAAAAAAA')],
    ['with a plus in a name', line('\u2014 a+b AAAAAAAA')],
    ['with a no-break space in a name', line('\u2014 a\u00a0b AAAAAAAA')],
    ['with an ideographic space in a name', line('\u2014 a\u3000b AAAAAAAA')],
    ['with a next-line character in a name', line('\u2014 a\u0085b AAAAAAAA')],
    ['with no signature bytes', line('\u2014 a AAAAAA==')],
    ['with less than a key ID', line('\u2014 a AAAA')],
    ['with broken Base 64', line('\u2014 a AAAAAAA')],
    ['with URL-safe Base 64', line('\u2014 a AAAAAA__')],
    ['with trailing bits', line('\u2014 a AAAAAAB=')],
    ['with something else among the signatures', () => note.replace(/$/, 'hello\n')],
  ])('%s', async (_, make) => {
    expect(await openNote(make(), [alice.verifier])).toEqual({ ok: false, reason: 'malformed' })
  })

  test('never by throwing, whatever the bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array(), async (bytes) => {
        expect((await openNote(bytes, [alice.verifier])).ok).toBe(false)
      }),
    )
  })
})

describe('signing refuses', () => {
  test.each(['', 'no newline at the end', 'a\rb\n', 'a\0\n', '\udc00\n'])(
    'the text %j',
    async (bad) => {
      await expect(signNote(bad, [alice.signer])).rejects.toThrow()
    },
  )

  test('to sign with nobody, or with more than a note may hold', async () => {
    await expect(signNote(text, [])).rejects.toThrow()
    await expect(signNote(text, Array(101).fill(alice.signer))).rejects.toThrow()
  })

  test.each(['', 'a b', 'a+b', 'a\nb', 'a\0b', 'a\u2003b'])('the name %j', async (name) => {
    await expect(key(name)).rejects.toThrow()
    await expect(signNote(text, [{ ...alice.signer, name }])).rejects.toThrow()
  })
})

describe('a verifier key is refused', () => {
  const [name, id, base64] = [
    'example.com/foo',
    '530d903a',
    'AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k',
  ]
  test.each([
    ['with another name', `example.com/bar+${id}+${base64}`],
    ['with another ID', `${name}+530d903b+${base64}`],
    ['with a capital ID', `${name}+530D903A+${base64}`],
    ['with a short ID', `${name}+30d903a+${base64}`],
    ['without a name', `+${id}+${base64}`],
    ['with a space in its name', `example .com+${id}+${base64}`],
    ['without an ID', `${name}+${base64}`],
    ['without a key', `${name}+${id}+`],
    ['with a newline', `${name}+${id}+${base64}\n`],
    ['with a key that is too short', `${name}+${id}+AQID`],
    ['with broken Base 64', `${name}+${id}+${base64}=`],
    ['of another type', `${name}+${id}+B${base64.slice(1)}`],
  ])('%s', (_, verifierKey) => {
    expect(parseVerifierKey(verifierKey)).toBeUndefined()
  })

  test('with a key of small order', () => {
    const identity = Uint8Array.of(1, ...new Uint8Array(31))
    expect(() => noteVerifier(name, identity)).toThrow()
    expect(
      parseVerifierKey(`${name}+${id}+${toBase64(concatBytes(Uint8Array.of(1), identity))}`),
    ).toBeUndefined()
  })
})

test('the key ID depends on the name', async () => {
  const pair = await generateKeyPair({ extractable: false })
  const [one, two] = await Promise.all([noteSigner('one', pair), noteSigner('two', pair)])
  expect(one.keyId).not.toBe(two.keyId)
})

async function key(name: string): Promise<Key> {
  const pair = await generateKeyPair({ extractable: false })
  const verifier = noteVerifier(name, await publicKeyBytes(pair.publicKey))
  return { signer: await noteSigner(name, pair), verifier }
}

function known(verifierKey: string): NoteVerifier {
  const verifier = parseVerifierKey(verifierKey)
  if (verifier === undefined) throw new Error(`not a verifier key: ${verifierKey}`)
  return verifier
}

function lineOf(name: string, bytes: Uint8Array): string {
  return `\u2014 ${name} ${toBase64(bytes)}\n`
}
