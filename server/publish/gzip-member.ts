import { gunzipSync, gzipSync } from 'node:zlib'

/**
 * One gzip member (RFC 1952). No time, and "unknown" for the operating system, so that equal bytes
 * stay equal whatever machine wrote them; only another zlib may pack them differently.
 */
export function gzipMember(bytes: Uint8Array): Buffer {
  const member = gzipSync(bytes)
  member[9] = 255 // RFC 1952 §2.3.1: OS, 255 = unknown
  return member
}

/** Unpacks one or more members. Undefined when they are damaged or hold more than `maxBytes`. */
export function gunzipBounded(bytes: Uint8Array, maxBytes: number): Buffer | undefined {
  try {
    return gunzipSync(bytes, { maxOutputLength: maxBytes })
  } catch {
    // zlib's reasons (bad header, bad sum, too long) all mean the same here: not what we wrote.
    return undefined
  }
}
