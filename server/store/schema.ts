import type { Generated } from 'kysely'

/** The tables, as Kysely sees them. */
export interface Schema {
  schema_migration: SchemaMigration
}

/** One applied file of `migrations/`. Written by `migrate.ts`, which also makes the table. */
export interface SchemaMigration {
  number: number
  name: string
  digest: Uint8Array
  applied_at: Generated<Date>
}
