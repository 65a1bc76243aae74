import { fromBase64, toBase64 } from '../crypto/base64.ts'
import { digestBytes } from '../crypto/digest.ts'
import { type NoteSigner, type NoteVerdict, type NoteVerifier, openNote, signNote } from './note.ts'

/** What a log commits to at one size (C2SP tlog-checkpoint v1.0.0). */
export type Checkpoint = {
  /** Names the log; by custom also the name of its key. */
  origin: string
  /** Leaves in the tree, up to 2^53 - 1. */
  size: number
  /** 32 bytes. */
  rootHash: Uint8Array
  /** Opaque further lines. Gleaner writes none: monitors cannot audit them. */
  extensions: readonly string[]
}

export type CheckpointVerdict =
  | { ok: true; checkpoint: Checkpoint; signedBy: NoteVerifier[] }
  | {
      ok: false
      reason: Extract<NoteVerdict, { ok: false }>['reason'] | 'not-a-checkpoint' | 'another-log'
    }

/**
 * Signs a checkpoint as a note.
 *
 * Before it returns nothing binds the log; once the result leaves the process the log must never
 * sign anything inconsistent with it, so store first.
 *
 * @throws Error when the checkpoint cannot be written as one
 */
export async function signCheckpoint(
  checkpoint: Checkpoint,
  signers: readonly NoteSigner[],
): Promise<string> {
  return signNote(formatCheckpoint(checkpoint), signers)
}

/**
 * Opens a signed checkpoint of the log called `origin`.
 *
 * @param logKeys keys of the log itself. Any one of them suffices, so a witness's key here would let
 *   the witness speak for the log.
 */
export async function openCheckpoint(
  note: Uint8Array | string,
  origin: string,
  logKeys: readonly NoteVerifier[],
): Promise<CheckpointVerdict> {
  const opened = await openNote(note, logKeys)
  if (!opened.ok) return opened
  const checkpoint = parseCheckpoint(opened.text)
  if (checkpoint === undefined) return { ok: false, reason: 'not-a-checkpoint' }
  if (checkpoint.origin !== origin) return { ok: false, reason: 'another-log' }
  return { ok: true, checkpoint, signedBy: opened.signedBy }
}

/**
 * The note text of a checkpoint: origin, size and root hash, a line each.
 *
 * @throws Error when a line would be empty or broken, or size or root hash are not what they say
 */
export function formatCheckpoint(checkpoint: Checkpoint): string {
  const { origin, size, rootHash, extensions } = checkpoint
  const text = [origin, size, toBase64(rootHash), ...extensions].map((line) => `${line}\n`).join('')
  if (parseCheckpoint(text)?.extensions.length !== extensions.length) {
    throw new Error(`checkpoint: cannot be written: ${JSON.stringify(text)}`)
  }
  return text
}

/** Reads a note text as a checkpoint. Undefined when it is not exactly one. */
export function parseCheckpoint(text: string): Checkpoint | undefined {
  if (!text.endsWith('\n')) return undefined
  const lines = text.slice(0, -1).split('\n')
  if (lines.includes('')) return undefined
  const [origin, decimal = '', base64 = '', ...extensions] = lines
  if (origin === undefined || !/^(0|[1-9][0-9]*)$/.test(decimal)) return undefined
  const size = Number(decimal)
  if (!Number.isSafeInteger(size) || !hashPattern.test(base64)) return undefined
  return { origin, size, rootHash: fromBase64(base64), extensions }
}

/** Base 64 of exactly 32 bytes, the two spare bits zero. */
const hashPattern = new RegExp(
  `^[A-Za-z0-9+/]{${Math.floor((digestBytes * 4) / 3)}}[AEIMQUYcgkosw048]=$`,
)
