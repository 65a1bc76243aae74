import type { ScopeRules } from '../../lib/consent/scope.ts'
import type { Database } from '../store/database.ts'
import type { Queryable } from '../store/queryable.ts'
import type { FetchAsAuditor } from './fetch-as-auditor.ts'
import type { Names } from './names.ts'

/** What the auditor's errands are run with. */
export interface AuditorTools {
  database: Database
  fetch: FetchAsAuditor
  names: Names
  /** Name by which robots.txt addresses us. */
  agent: string
  scopeRules: ScopeRules
  now: () => number
  /** Whether the site lets the auditor fetch this: null, or why not. */
  permit: (url: URL, signal: AbortSignal) => Promise<string | null>
}

/** What an errand came to. The reason is for people: the operator, or the owner who opts out. */
export type Outcome =
  /** `apply` is run in the transaction that ends the task. */
  | { kind: 'done' | 'failed'; reason: string; apply?: (tx: Queryable) => Promise<unknown> }
  /** The world failed; it may do better later. */
  | { kind: 'retry'; reason: string }
