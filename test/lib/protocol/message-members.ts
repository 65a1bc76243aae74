import type * as z from 'zod/mini'

/** A schema seen from outside: what zod keeps under `_zod.def`, as far as messages use it. */
interface Definition {
  type: string
  shape?: Record<string, z.ZodMiniType>
  options?: readonly z.ZodMiniType[]
  element?: z.ZodMiniType
  innerType?: z.ZodMiniType
  values?: readonly unknown[]
  entries?: Record<string, string>
  keyType?: z.ZodMiniType
}
const definitionOf = (schema: z.ZodMiniType) => schema._zod.def as unknown as Definition

/** Whether a schema is a message or a part of one: an object, or a choice between objects. */
export function isMessage(value: unknown): value is z.ZodMiniType {
  if (typeof value !== 'object' || value === null || !('_zod' in value)) return false
  const { type, options } = definitionOf(value as z.ZodMiniType)
  return type === 'object' || (type === 'union' && options?.every(isMessage) === true)
}

/**
 * The members of a message, as lib/protocol/README.md §13 writes them: `name?` when it may be left
 * out, `name or null`, `name="value"` when it has only one, `name:a/b` when it has these, `name[…]`
 * for a list, `name{…}` for an object, and where there is a choice `(…) or (…)`. Another message is
 * called by its name.
 */
export function members(schema: z.ZodMiniType, names: ReadonlyMap<z.ZodMiniType, string>): string {
  const { shape, options } = definitionOf(schema)
  if (options) return options.map((option) => `(${members(option, names)})`).join(' or ')
  return Object.entries(shape ?? {})
    .map(([name, of]) => `${name}${suffix(of, names)}`)
    .join(', ')
}

function suffix(schema: z.ZodMiniType, names: ReadonlyMap<z.ZodMiniType, string>): string {
  const { type, shape, element, innerType, options, values, entries, keyType } =
    definitionOf(schema)
  const named = names.get(schema)
  if (named !== undefined) return `{${named}}`
  if (type === 'optional' && innerType) return `?${suffix(innerType, names)}`
  if (type === 'nullable' && innerType) return `${suffix(innerType, names)} or null`
  if (options?.every((option) => definitionOf(option).entries)) {
    return `:${options.map((option) => suffix(option, names).slice(1)).join('/')}`
  }
  if (entries) return `:${Object.values(entries).join('/')}`
  if (type === 'record' && keyType) return `{${suffix(keyType, names).slice(1)}}`
  if (type === 'literal') return `=${values?.map((value) => JSON.stringify(value)).join(' or ')}`
  if (type === 'array' && element) {
    const of = suffix(element, names)
    return `[${of.startsWith('{') ? of.slice(1, -1) : of}]`
  }
  if (shape || options?.every(isMessage)) return `{${members(schema, names)}}`
  return ''
}
