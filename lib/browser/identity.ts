import { fingerprint, generateKeyPair, importSeed, publicKeyBytes } from '../crypto/ed25519.ts'
import type { NodeIdentity } from '../runner/ports.ts'

/**
 * The secret behind all account keys of this person, encrypted under a key that cannot leave the
 * browser. A recovery phrase will write this seed down; nothing else ever opens it but `accountSeed`.
 */
export interface MasterSeed {
  key: CryptoKey
  iv: Uint8Array<ArrayBuffer>
  sealed: ArrayBuffer
}

/** Makes a new secret. */
export async function sealMasterSeed(): Promise<MasterSeed> {
  const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, false, [
    'encrypt',
    'decrypt',
  ])
  const iv = crypto.getRandomValues(new Uint8Array(12))
  const seed = crypto.getRandomValues(new Uint8Array(32))
  const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, seed)
  return { key, iv, sealed }
}

/**
 * Makes this installation's keys for one network: an account key that the seed determines, so that
 * one recovery phrase brings all accounts back, and a node key that never leaves this browser.
 * Accounts of different networks have nothing in common that their operators could compare.
 */
export async function createIdentity(seed: MasterSeed, network: string): Promise<NodeIdentity> {
  const accountKey = await importSeed(await accountSeed(seed, network), { extractable: false })
  const nodeKey = await generateKeyPair({ extractable: false })
  return {
    accountKey,
    nodeKey,
    accountId: fingerprint(await publicKeyBytes(accountKey.publicKey)),
    nodeId: fingerprint(await publicKeyBytes(nodeKey.publicKey)),
  }
}

/** HKDF (RFC 5869) of the master seed, bound to the network. */
async function accountSeed(
  { key, iv, sealed }: MasterSeed,
  network: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const opened = await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, key, sealed)
  const master = await crypto.subtle.importKey('raw', opened, 'HKDF', false, ['deriveBits'])
  const bits = await crypto.subtle.deriveBits(
    {
      name: 'HKDF',
      hash: 'SHA-256',
      salt: new Uint8Array(),
      info: new TextEncoder().encode(`gleaner account ${network}`),
    },
    master,
    256,
  )
  return new Uint8Array(bits)
}
