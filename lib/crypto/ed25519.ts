import { fromBase64Url, toBase64Url } from './base64.ts'
import { concatBytes, sha256 } from './digest.ts'
import { fromHex, toHex } from './hex.ts'

/**
 * The platform's CryptoKey. Taken from the function that uses it, because the type has a different
 * name in a browser and in Node.
 */
export type SigningKey = Parameters<typeof crypto.subtle.sign>[1]

/** Both halves of an Ed25519 key, as the platform holds them. */
export type SigningKeyPair = { privateKey: SigningKey; publicKey: SigningKey }

export const publicKeyLength = 32
export const signatureLength = 64
export const seedLength = 32

/**
 * Makes a new Ed25519 key. The public half is always exportable; the private half only when
 * `extractable` says so.
 */
export async function generateKeyPair(options: { extractable: boolean }): Promise<SigningKeyPair> {
  const pair = await crypto.subtle.generateKey(algorithm, options.extractable, ['sign', 'verify'])
  return pair as SigningKeyPair
}

/**
 * Signs as RFC 8032 §5.1.6: deterministic, 64 bytes.
 *
 * @throws DOMException (InvalidAccessError) when the key is not an Ed25519 private key
 */
export async function sign(
  privateKey: SigningKey,
  message: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.sign(algorithm, privateKey, ownCopy(message)))
}

/**
 * Whether `signature` is `publicKey`'s signature of `message` (RFC 8032 §5.1.7). Never throws for
 * malformed input: a key of the wrong length, a key that is no point of the curve or one of small
 * order, and a signature of the wrong length all answer false.
 *
 * @param publicKey the raw 32 bytes of RFC 8032 §5.1.5
 */
export async function verify(
  publicKey: Uint8Array,
  signature: Uint8Array,
  message: Uint8Array,
): Promise<boolean> {
  if (signature.length !== signatureLength || !isUsablePublicKey(publicKey)) return false
  try {
    const key = await importPublicKey(publicKey)
    return await crypto.subtle.verify(algorithm, key, ownCopy(signature), ownCopy(message))
  } catch (error) {
    // Platforms disagree on whether 32 bytes that are no point fail at import or at verify.
    if (error instanceof DOMException) return false
    throw error
  }
}

/** The raw 32 bytes of a public key (RFC 8032 §5.1.5). */
export async function publicKeyBytes(publicKey: SigningKey): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.exportKey('raw', publicKey))
}

/**
 * Makes the key pair of a 32-byte seed, the private key of RFC 8032 §5.1.5.
 *
 * @throws RangeError when the seed is not 32 bytes
 */
export async function importSeed(
  seed: Uint8Array,
  options: { extractable: boolean },
): Promise<SigningKeyPair> {
  if (seed.length !== seedLength) throw new RangeError(`ed25519: seed of ${seed.length} bytes`)
  const wrapped = concatBytes(pkcs8Prefix, seed)
  const importPrivate = (extractable: boolean) =>
    crypto.subtle.importKey('pkcs8', wrapped, algorithm, extractable, ['sign'])
  // WebCrypto derives a public key only on the way out of an extractable private key.
  const { x } = await crypto.subtle.exportKey('jwk', await importPrivate(true))
  if (x === undefined) throw new Error('ed25519: the platform exported no public key')
  return {
    privateKey: await importPrivate(options.extractable),
    publicKey: await importPublicKey(fromBase64Url(x)),
  }
}

/**
 * The 32-byte seed of an extractable private key. Whoever holds it is the key.
 *
 * @throws DOMException (InvalidAccessError) when the key is not extractable
 */
export async function seedOf(privateKey: SigningKey): Promise<Uint8Array<ArrayBuffer>> {
  const { d } = await crypto.subtle.exportKey('jwk', privateKey)
  if (d === undefined) throw new Error('ed25519: not a private key')
  return fromBase64Url(d)
}

/** Names a public key: unpadded URL-safe Base 64 of SHA-256 of its 32 bytes, 43 characters. */
export function fingerprint(publicKey: Uint8Array): string {
  return toBase64Url(sha256(publicKey))
}

/**
 * Whether these bytes can serve as a public key: 32 of them, and not a point of small order.
 *
 * Under a small-order key one fixed signature fits every message or one in eight. Its owner could
 * deny any of their signatures, and anybody could forge one. OpenSSL and BoringSSL let it pass.
 */
export function isUsablePublicKey(publicKey: Uint8Array): boolean {
  if (publicKey.length !== publicKeyLength) return false
  const yOnly = Uint8Array.from(publicKey)
  yOnly[31] = (yOnly[31] as number) & 0x7f // the highest bit is the sign of x
  return !smallOrderY.includes(toHex(yOnly))
}

const algorithm = 'Ed25519'

// RFC 8410 §7: PrivateKeyInfo, version 0, id-Ed25519, then an octet string in an octet string.
const pkcs8Prefix = fromHex('302e020100300506032b657004220420')

// The y of the eight points whose order divides 8, little endian, and the spellings of 0 and 1
// that exceed the field (p = 2^255 - 19). Checked against the curve equation in the tests.
const ff30 = 'ff'.repeat(30)
const smallOrderY = [
  '00'.repeat(32), // 0, order 4
  `01${'00'.repeat(31)}`, // 1, order 1
  `ec${ff30}7f`, // -1, order 2
  `ed${ff30}7f`, // p, stands for 0
  `ee${ff30}7f`, // p + 1, stands for 1
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05', // order 8
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a', // order 8
]

function importPublicKey(publicKey: Uint8Array): Promise<SigningKey> {
  return crypto.subtle.importKey('raw', ownCopy(publicKey), algorithm, true, ['verify'])
}

/** WebCrypto's types take no view on shared memory; a copy is never one. */
function ownCopy(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes)
}
