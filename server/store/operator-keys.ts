import { mkdir, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fromBase64Url, toBase64Url } from '../../lib/crypto/base64.ts'
import {
  fingerprint,
  importSeed,
  publicKeyBytes,
  type SigningKey,
} from '../../lib/crypto/ed25519.ts'
import { formatVerifierKey, type NoteSigner, noteVerifier } from '../../lib/tlog/note.ts'

export interface OperatorKey {
  privateKey: SigningKey
  publicKey: Uint8Array
  /** The public key as base64url: `keyid` of its envelopes. */
  keyid: string
  fingerprint: string
  file: string
}

export const keyNames = ['campaign', 'lease', 'receipt', 'log'] as const
export type KeyName = (typeof keyNames)[number]
export type OperatorKeys = Record<KeyName, OperatorKey>

/** Reads the four keys of a data folder, making those that are missing. Files hold the seed as base64url, mode 0600. */
export async function loadOperatorKeys(dataFolder: string): Promise<OperatorKeys> {
  const folder = join(dataFolder, 'keys')
  // In two steps: the mode is for the keys alone, and PostgreSQL's user passes through the data folder.
  await mkdir(dataFolder, { recursive: true })
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const loaded = await Promise.all(
    keyNames.map(async (name) => [name, await loadKey(join(folder, `${name}.key`))] as const),
  )
  return Object.fromEntries(loaded) as OperatorKeys
}

async function loadKey(file: string): Promise<OperatorKey> {
  let seed: Uint8Array
  try {
    seed = fromBase64Url((await readFile(file, 'utf8')).trim())
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new Error(`The key file ${file} cannot be read. Restore it from your backup.`, {
        cause: error,
      })
    }
    seed = crypto.getRandomValues(new Uint8Array(32))
    // `wx`: two processes that start at once must not overwrite each other's key.
    const handle = await open(file, 'wx', 0o600)
    await handle.writeFile(`${toBase64Url(seed)}\n`)
    await handle.sync()
    await handle.close()
  }
  const pair = await importSeed(seed, { extractable: false })
  const publicKey = await publicKeyBytes(pair.publicKey)
  return {
    privateKey: pair.privateKey,
    publicKey,
    keyid: toBase64Url(publicKey),
    fingerprint: fingerprint(publicKey),
    file,
  }
}

/** The log's note signer and verifier key under its origin. */
export function logSigner(
  origin: string,
  key: OperatorKey,
): { signer: NoteSigner; verifierKey: string } {
  const verifier = noteVerifier(origin, key.publicKey)
  return {
    signer: { name: origin, keyId: verifier.keyId, privateKey: key.privateKey },
    verifierKey: formatVerifierKey(verifier),
  }
}
