/** Values that RFC 8785 serialises the same way as `JSON.stringify`, but for the order of members. */
export type CanonicalValue =
  | string
  | number
  | boolean
  | null
  | readonly CanonicalValue[]
  | { readonly [member: string]: CanonicalValue | undefined }

/**
 * Canonical JSON (RFC 8785): members sorted by UTF-16 code units, no white
 * space. Members that are undefined are left out, as `JSON.stringify` does.
 * Throws on a number that is not a safe integer: no canonical message has one.
 */
export function canonicalJson(value: CanonicalValue): string {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new Error(`canonical JSON here has integers only, not ${value}`)
  }
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  if (Array.isArray(value)) {
    return `[${value.map((item: CanonicalValue) => canonicalJson(item)).join(',')}]`
  }
  const members = Object.entries(value as { readonly [member: string]: CanonicalValue | undefined })
    .filter((member): member is [string, CanonicalValue] => member[1] !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`)
  return `{${members.join(',')}}`
}
