import { setTimeout as sleep } from 'node:timers/promises'
import {
  freeHostSlot,
  type HostSlot,
  holdHostSlot,
  keepHostSlot,
  slotMs,
} from '../store/auditor-tasks.ts'
import type { Database } from '../store/database.ts'

/** The auditor's turn to speak to one host; nobody else begins there until it ends. */
export interface Turn {
  origin: string
  /** Aborted when the turn was lost: the fetch must end at once. */
  lost: AbortSignal
  /** A request begins now. */
  begin(): void
  answered(status: number, retryAfter: string | undefined): void
  /** Until the next request at the host's pace. */
  restMs(): number
  /** May be called twice. */
  end(): Promise<void>
}

/** @throws HostBusy when the turn would come too late to wait for */
export type TakeTurn = (url: URL, signal: AbortSignal) => Promise<Turn>

/** The host is not to be spoken to now; nothing was sent. */
export class HostBusy extends Error {
  override name = 'HostBusy'
  readonly origin: string
  /** In the table of hosts, if it is there. */
  readonly hostId: number | null
  readonly waitMs: number

  constructor(origin: string, hostId: number | null, waitMs: number) {
    super(`${origin} is not to be spoken to for ${Math.ceil(waitMs / 1000)} s.`)
    this.origin = origin
    this.hostId = hostId
    this.waitMs = waitMs
  }
}

/** Longer than this a place among the eight is not kept for a host; nodes ask as often meanwhile. */
const mostWaitMs = 5_000
const askAgainMs = 50
/** Five chances to keep a slot before it ends by itself. */
const keepEveryMs = slotMs / 5
/** A slot that was not kept for so long may be somebody else's by the time that is noticed. */
const sureMs = slotMs - keepEveryMs
/** Between requests to a host that no campaign speaks to: nobody has said another pace. */
const unlistedPaceMs = 1_000

/**
 * Turns on hosts. A host in the table is held through its row, as leases do; others have a clock in
 * this process, for no node ever speaks to them.
 */
export function createHostTurns(database: Database): TakeTurn {
  const unlisted = new Map<string, { isTaken: boolean; nextMs: number }>()

  function takeUnlisted(origin: string): Turn | { waitMs: number } {
    const nowMs = performance.now()
    const clock = unlisted.get(origin)
    if (clock?.isTaken) return { waitMs: unlistedPaceMs }
    if (clock && clock.nextMs > nowMs) return { waitMs: clock.nextMs - nowMs }
    // Clocks that have run out say nothing any more.
    for (const [name, other] of unlisted) {
      if (!other.isTaken && other.nextMs <= nowMs) unlisted.delete(name)
    }
    const taken = { isTaken: true, nextMs: nowMs }
    unlisted.set(origin, taken)
    let beganMs = nowMs
    return {
      origin,
      lost: new AbortController().signal,
      begin: () => {
        beganMs = performance.now()
      },
      answered: () => {},
      restMs: () => Math.max(0, unlistedPaceMs - (performance.now() - beganMs)),
      end: async () => {
        taken.isTaken = false
        taken.nextMs = beganMs + unlistedPaceMs
      },
    }
  }

  return async ({ origin }, signal) => {
    const lateMs = performance.now() + mostWaitMs
    for (;;) {
      const askedMs = performance.now()
      const answer = await holdHostSlot(database.pool, origin)
      if (answer.kind === 'held') return heldTurn(database, origin, answer.slot, askedMs)
      const turn = answer.kind === 'unlisted' ? takeUnlisted(origin) : answer
      if (!('waitMs' in turn)) return turn
      const hostId = answer.kind === 'busy' ? answer.hostId : null
      if (performance.now() + turn.waitMs > lateMs) {
        // Back half a second before its time: nodes are there as well.
        throw new HostBusy(origin, hostId, Math.max(turn.waitMs - 500, 1_000))
      }
      await sleep(Math.max(turn.waitMs, askAgainMs), undefined, { signal })
    }
  }
}

function heldTurn(database: Database, origin: string, held: HostSlot, askedMs: number): Turn {
  let slot = held
  let beganMs = askedMs
  let status: number | null = null
  let retryAfter: string | undefined
  let keptMs = askedMs
  let keeping: Promise<void> | null = null
  let ended: Promise<void> | null = null
  const lost = new AbortController()

  async function keep() {
    const nowMs = performance.now()
    try {
      const kept = await keepHostSlot(database.pool, slot)
      if (kept) {
        slot = kept
        keptMs = nowMs
      } else lost.abort()
    } catch {
      // The database is away; `sureMs` ends the turn if it stays so.
    }
  }
  const timer = setInterval(() => {
    if (performance.now() - keptMs > sureMs) lost.abort()
    keeping ??= keep().finally(() => {
      keeping = null
    })
  }, keepEveryMs)

  return {
    origin,
    lost: lost.signal,
    begin: () => {
      beganMs = performance.now()
    },
    answered: (code, after) => {
      status = code
      retryAfter = after
    },
    restMs: () => Math.max(0, slot.paceMs - (performance.now() - beganMs)),
    end: () => {
      ended ??= (async () => {
        clearInterval(timer)
        await keeping
        const last = { agoMs: performance.now() - beganMs, status, retryAfter }
        // A slot that cannot be freed ends by itself.
        await database.transaction((tx) => freeHostSlot(tx, slot, last)).catch(() => undefined)
      })()
      return ended
    },
  }
}
