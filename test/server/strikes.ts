import { writeSync } from 'node:fs'
import pg from 'pg'

/** A place in the server's work where its process is killed. */
export interface Strike {
  step: Step
  when: 'blob put, row not' | 'before commit' | 'after commit'
}

/**
 * The commit points of the straight line, each known by a statement that only its transaction has,
 * and a value of it where the words alone do not tell.
 */
export const steps = {
  'database migrated': ['insert into schema_migration'],
  'network founded': ['insert into network_document'],
  'campaign opened': ['insert into campaign '],
  'session opened': ['insert into session'],
  'consent recorded': ['insert into consent'],
  'addresses taken in': ['insert into url_shape'],
  'robots.txt asked for': ["r.host_id, 'robots', r.url"],
  'pages admitted': ["update task set state = 'open' where id = any"],
  'leases granted': ['insert into lease '],
  'leases expired': ['update lease set state = $2', 'expired'],
  'observations recorded': ['insert into observation'],
  'follow-ups asked': ['insert into follow_up'],
  'sentences stored': ['insert into sentence_list'],
  'payload stored': ['insert into payload'],
  'payload analysed': ['insert into analysis'],
  'attestations stored': ['insert into attestation'],
  'robots.txt settled': ['update host set robots_state = $2'],
  'page settled and credited': ['insert into record'],
  'rows logged': ['update record set leaf_index'],
  'epoch sealed': ['insert into epoch'],
  'release logged': ['insert into release'],
} as const satisfies Record<string, readonly [statement: string, value?: string]>
export type Step = keyof typeof steps

/** Before and after every commit, and twice between a blob and its row. */
export function allStrikes(): Strike[] {
  const names = Object.keys(steps) as Step[]
  return [
    { step: 'payload stored', when: 'blob put, row not' },
    { step: 'page settled and credited', when: 'blob put, row not' },
    ...names.map((step): Strike => ({ step, when: 'before commit' })),
    ...names.map((step): Strike => ({ step, when: 'after commit' })),
  ]
}

/**
 * Kills this process at the first of the strikes that its work comes to, after writing a line that
 * names it. Watches what database connections are told, so that the server needs no hooks for it.
 */
export function armStrikes(strikes: readonly Strike[]): void {
  const query = pg.Client.prototype.query
  /** Strikes that the running transaction of a connection has earned. */
  const earned = new WeakMap<pg.Client, Strike[]>()
  function striking(this: pg.Client, ...given: unknown[]): unknown {
    const [text, values] = given
    if (typeof text !== 'string') return Reflect.apply(query, this, given)
    if (text.startsWith('begin')) earned.set(this, [])
    const inTransaction = earned.get(this) ?? []
    for (const strike of strikes) {
      if (!names(strike.step, text, values)) continue
      if (strike.when === 'blob put, row not') die(strike)
      inTransaction.push(strike)
    }
    if (text !== 'commit') return Reflect.apply(query, this, given)
    earned.delete(this)
    const before = inTransaction.find(({ when }) => when === 'before commit')
    if (before) die(before)
    const after = inTransaction.find(({ when }) => when === 'after commit')
    const committed = Reflect.apply(query, this, given) as Promise<unknown>
    return after ? committed.then(() => die(after)) : committed
  }
  pg.Client.prototype.query = striking as typeof query
}

function names(step: Step, text: string, values: unknown): boolean {
  const [statement, value] = steps[step]
  if (!text.includes(statement)) return false
  return value === undefined || (Array.isArray(values) && values.includes(value))
}

function die(strike: Strike): never {
  // Synchronous, so that the line is out before the process is gone.
  writeSync(1, `${JSON.stringify({ struck: strike })}\n`)
  process.kill(process.pid, 'SIGKILL')
  throw new Error('SIGKILL left something alive')
}
