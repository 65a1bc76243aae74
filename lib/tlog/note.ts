import { fromBase64, toBase64 } from '../crypto/base64.ts'
import { concatBytes, sha256 } from '../crypto/digest.ts'
import {
  isUsablePublicKey,
  publicKeyBytes,
  type SigningKey,
  type SigningKeyPair,
  sign,
  verify,
} from '../crypto/ed25519.ts'
import { fromHex, toHex } from '../crypto/hex.ts'

// Signed notes as in C2SP signed-note v1.0.0, with Ed25519 (type 0x01) as the only signature type.

/** A key whose signatures count. Name and ID together identify it; the ID is only a short hint. */
export type NoteVerifier = {
  name: string
  /** Unsigned 32-bit integer. */
  keyId: number
  /** Raw 32-byte Ed25519 key. */
  publicKey: Uint8Array
}

export type NoteSigner = { name: string; keyId: number; privateKey: SigningKey }

/** One signature line, not yet believed. */
export type NoteSignature = {
  name: string
  keyId: number
  /** What follows the key ID: 64 bytes for Ed25519, other lengths for other types. */
  signature: Uint8Array
}

/** A note taken apart. Nothing in it may be used before a signature was verified. */
export type UnverifiedNote = { text: string; signatures: NoteSignature[] }

export type NoteVerdict =
  | {
      ok: true
      /** The signed text, ending in a newline. */
      text: string
      /** The known keys that signed it, each once, in the order of their first signature. */
      signedBy: NoteVerifier[]
    }
  | { ok: false; reason: 'malformed' | 'too-large' | 'unknown-signers' | 'bad-signature' }

/** A note is read whole into memory: a hundred of the largest (post-quantum) signatures fit. */
export const maxNoteBytes = 1_000_000

/** The specification asks for 16 at least; the Go implementation stops at 100. */
export const maxNoteSignatures = 100

/**
 * Opens a note for the given keys. Every signature by a known key must be good and there must be at
 * least one; signatures by unknown keys are ignored.
 *
 * Reasons: `too-large` (more than 1,000,000 bytes or 100 signatures); `malformed`;
 * `unknown-signers` when no line is by a known key; `bad-signature` when one by a known key fails.
 *
 * @throws Error when two verifiers share name and key ID: nobody could tell whose signature it is
 */
export async function openNote(
  note: Uint8Array | string,
  verifiers: readonly NoteVerifier[],
): Promise<NoteVerdict> {
  const known = new Map(verifiers.map((verifier) => [identity(verifier), verifier]))
  if (known.size !== verifiers.length) throw new Error('note: two verifiers with one name and ID')

  const parsed = parseNote(note)
  if (!parsed.ok) return parsed
  const message = new TextEncoder().encode(parsed.note.text)
  const signedBy = new Set<NoteVerifier>()
  for (const line of parsed.note.signatures) {
    const verifier = known.get(identity(line))
    if (verifier === undefined) continue
    if (!(await verify(verifier.publicKey, line.signature, message))) {
      return { ok: false, reason: 'bad-signature' }
    }
    signedBy.add(verifier)
  }
  if (signedBy.size === 0) return { ok: false, reason: 'unknown-signers' }
  return { ok: true, text: parsed.note.text, signedBy: [...signedBy] }
}

/**
 * Splits a note into text and signature lines by the format's rules, verifying nothing. For tools
 * that handle signature types this file does not know, such as cosignatures.
 */
export function parseNote(
  note: Uint8Array | string,
): { ok: true; note: UnverifiedNote } | { ok: false; reason: 'malformed' | 'too-large' } {
  // A string is measured in UTF-16 units: the bound is against waste, a few bytes do not matter.
  if (note.length > maxNoteBytes) return { ok: false, reason: 'too-large' }
  const whole = typeof note === 'string' ? note : decodeUtf8(note)
  if (whole === undefined || !isNoteText(whole)) return { ok: false, reason: 'malformed' }

  // The text keeps its final newline; the empty line after it separates and belongs to neither.
  const separator = whole.lastIndexOf('\n\n')
  if (separator < 0) return { ok: false, reason: 'malformed' }
  const text = whole.slice(0, separator + 1)
  const lines = whole.slice(separator + 2, -1).split('\n')
  if (lines.length > maxNoteSignatures) return { ok: false, reason: 'too-large' }
  const signatures: NoteSignature[] = []
  for (const line of lines) {
    const signature = parseSignatureLine(line)
    if (signature === undefined) return { ok: false, reason: 'malformed' }
    signatures.push(signature)
  }
  return { ok: true, note: { text, signatures } }
}

/**
 * Signs a text, one line per signer in the order given.
 *
 * @throws Error when the text does not end in a newline or holds what a note must not (control
 *   characters, lone surrogates), when there is no signer or too many, or a name is not allowed
 */
export async function signNote(text: string, signers: readonly NoteSigner[]): Promise<string> {
  if (!isNoteText(text)) throw new Error('note: text must be plain lines ending in a newline')
  if (signers.length === 0 || signers.length > maxNoteSignatures) {
    throw new Error(`note: ${signers.length} signers`)
  }
  const message = new TextEncoder().encode(text)
  const lines = await Promise.all(
    signers.map(async ({ name, keyId, privateKey }) => {
      if (!isKeyName(name)) throw new Error(`note: key name ${JSON.stringify(name)}`)
      const signature = await sign(privateKey, message)
      return `${linePrefix}${name} ${toBase64(concatBytes(keyIdBytes(keyId), signature))}\n`
    }),
  )
  return `${text}\n${lines.join('')}`
}

/** Signs notes as `name` with an Ed25519 key. */
export async function noteSigner(name: string, pair: SigningKeyPair): Promise<NoteSigner> {
  const { keyId } = noteVerifier(name, await publicKeyBytes(pair.publicKey))
  return { name, keyId, privateKey: pair.privateKey }
}

/**
 * Verifies notes signed as `name` with this raw 32-byte Ed25519 key.
 *
 * @throws Error when the name is empty or holds a space or plus, or the key cannot be used
 */
export function noteVerifier(name: string, publicKey: Uint8Array): NoteVerifier {
  if (!isKeyName(name)) throw new Error(`note: key name ${JSON.stringify(name)}`)
  if (!isUsablePublicKey(publicKey)) throw new Error(`note: public key of ${name} is not usable`)
  const typed = concatBytes(ed25519Type, publicKey)
  const digest = sha256(concatBytes(new TextEncoder().encode(`${name}\n`), typed))
  return { name, keyId: readKeyId(digest), publicKey }
}

/** The verifier key text: `name+hexKeyId+base64(0x01 || public key)`. */
export function formatVerifierKey(verifier: NoteVerifier): string {
  const { name, keyId, publicKey } = verifier
  return `${name}+${toHex(keyIdBytes(keyId))}+${toBase64(concatBytes(ed25519Type, publicKey))}`
}

/**
 * Reads a verifier key. Undefined when it is malformed, of another type than Ed25519, or its ID is
 * not the one its name and key give.
 */
export function parseVerifierKey(text: string): NoteVerifier | undefined {
  // Base 64 may hold a plus, the other two parts cannot.
  const parts = /^([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text)
  if (parts === null) return undefined
  const [, name = '', hexKeyId = '', base64] = parts
  const typed = decodeBase64(base64)
  if (typed === undefined || typed[0] !== ed25519Type[0]) return undefined
  const publicKey = typed.slice(1)
  if (!isKeyName(name) || !isUsablePublicKey(publicKey)) return undefined
  const verifier = noteVerifier(name, publicKey)
  return verifier.keyId === readKeyId(fromHex(hexKeyId)) ? verifier : undefined
}

const linePrefix = '\u2014 ' // em dash, space
const ed25519Type = Uint8Array.of(0x01)

function identity({ name, keyId }: { name: string; keyId: number }): string {
  return `${name}+${keyId}`
}

function keyIdBytes(keyId: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, keyId)
  return bytes
}

function readKeyId(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0)
}

function parseSignatureLine(line: string): NoteSignature | undefined {
  if (!line.startsWith(linePrefix)) return undefined
  const [name = '', base64, ...rest] = line.slice(linePrefix.length).split(' ')
  if (!isKeyName(name) || rest.length > 0) return undefined
  const bytes = decodeBase64(base64)
  if (bytes === undefined || bytes.length <= 4) return undefined
  return { name, keyId: readKeyId(bytes), signature: bytes.slice(4) }
}

function isKeyName(name: string): boolean {
  return name !== '' && !/[\p{White_Space}+]/u.test(name) && !forbidden.test(name)
}

/** Whole lines without a forbidden character. */
function isNoteText(text: string): boolean {
  return text.endsWith('\n') && !forbidden.test(text)
}

/** ASCII control characters except newline, and halves of surrogate pairs, which no UTF-8 has. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what the format forbids
const forbidden = /[\u0000-\u0009\u000b-\u001f]|\p{Cs}/u

function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (error) {
    if (error instanceof TypeError) return undefined
    throw error
  }
}

function decodeBase64(text: string | undefined): Uint8Array | undefined {
  if (text === undefined) return undefined
  try {
    return fromBase64(text)
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
