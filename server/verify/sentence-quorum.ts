import {
  agreement,
  blockNumbers,
  commonSentences,
  contentBlocks,
} from '../../lib/capture/agreement.ts'
import type { SentenceList } from '../../lib/capture/sentence-list.ts'
import type { ListedSentence } from '../../lib/capture/sentences.ts'

/**
 * Bands of agreement `a`: at or above `high` two observers settle it; below
 * `low` they saw different pages. Measured on real pages with the harsh noise
 * H1-H3 of the research notes: `main` where the extractor has chosen the main
 * text, `estimate` where it is guessed from the lists alone.
 */
export const bands = {
  main: { high: 0.9, low: 0.5 },
  estimate: { high: 0.85, low: 0.4 },
} as const

export interface Listed {
  lease: string
  list: SentenceList
}

export type SentenceAgreement =
  | {
      kind: 'agree'
      /** As many leases as the quorum: those that agree best. */
      members: string[]
      band: 'high' | 'middle'
      /** Some sentence of main text is in one list only, inside a block that is otherwise agreed. */
      contested: boolean
      /** Leases whose list is below `low` against every member. */
      outliers: string[]
    }
  | { kind: 'differ' }

/** Which observers agree, judged by their lists alone, before anybody has sent a payload. */
export function agreeOnSentences(listed: readonly Listed[], quorum: number): SentenceAgreement {
  const main = listed.map((one) => contentBlocks(one.list.sentences))
  const pairs = new Map<string, { a: number; contested: boolean }>()
  for (let i = 0; i < listed.length; i += 1) {
    for (let j = i + 1; j < listed.length; j += 1) {
      const { a, contestedA, contestedB } = agreement(
        listed[i]?.list.sentences ?? [],
        listed[j]?.list.sentences ?? [],
        main[i] ?? [],
        main[j] ?? [],
      )
      pairs.set(`${i},${j}`, { a, contested: contestedA.length + contestedB.length > 0 })
    }
  }
  const pair = (i: number, j: number) => pairs.get(i < j ? `${i},${j}` : `${j},${i}`)
  const judged = subsets(listed.length, quorum).map((members) => {
    const within = members.flatMap((i, n) => members.slice(n + 1).map((j) => pair(i, j)))
    const a = Math.min(...within.map((one) => one?.a ?? 0))
    return {
      members,
      a,
      contested: within.some((one) => one?.contested),
      band: bandOf(a),
    }
  })
  const rank = { high: 2, middle: 1, low: 0 }
  const [best] = judged.sort(
    (x, y) => rank[y.band] - rank[x.band] || Number(x.contested) - Number(y.contested) || y.a - x.a,
  )
  if (!best || best.band === 'low') return { kind: 'differ' }
  const outliers = listed.flatMap(({ lease }, i) =>
    best.members.every((j) => i !== j && (pair(i, j)?.a ?? 0) < bands.estimate.low) ? [lease] : [],
  )
  return {
    kind: 'agree',
    members: best.members.map((i) => listed[i]?.lease ?? ''),
    band: best.band,
    contested: best.contested,
    outliers,
  }
}

export interface MainAgreement {
  /** Smallest pairwise `a` over the extractor's main text. */
  agreement: number
  /** For each member the places of the agreed main text in its own list. */
  selected: { lease: string; indexes: number[] }[]
}

/**
 * The sentences of the payload's main text that every member has, in common
 * order. A block that stays contested is withheld whole, and so is one that
 * members break into blocks differently: each member must rebuild the same text.
 *
 * @param main for each sentence of the first member, whether it is main text
 */
export function agreeOnMain(main: readonly boolean[], members: readonly Listed[]): MainAgreement {
  const [holder, ...others] = members
  if (!holder) throw new Error('nobody to agree')
  const lists = members.map((one) => one.list.sentences)
  const blocks = lists.map(blockNumbers)
  const places = commonSentences(lists)
  const kept = (places[0] ?? []).flatMap((place, k) => (main[place] ? [k] : []))

  let smallest = 1
  const withheld = members.map(() => new Set<number>())
  for (const [n, other] of others.entries()) {
    const list = other.list.sentences
    const otherMain = mainOf(
      list,
      blocks[n + 1] ?? [],
      kept.map((k) => places[n + 1]?.[k] ?? 0),
    )
    const { a, contestedA, contestedB } = agreement(holder.list.sentences, list, main, otherMain)
    smallest = Math.min(smallest, a)
    for (const i of contestedA) withheld[0]?.add(blocks[0]?.[i] ?? -1)
    for (const i of contestedB) withheld[n + 1]?.add(blocks[n + 1]?.[i] ?? -1)
  }

  let selected = kept
  // Each round withholds at least one more block of the holder, so it ends.
  for (;;) {
    const bad = new Set<number>(withheld[0])
    for (const k of selected) {
      const isWithheld = members.some((_, n) =>
        withheld[n]?.has(blocks[n]?.[places[n]?.[k] ?? -1] ?? -1),
      )
      if (isWithheld) bad.add(blocks[0]?.[places[0]?.[k] ?? -1] ?? -1)
    }
    for (let s = 1; s < selected.length; s += 1) {
      const [before, at] = [selected[s - 1] ?? 0, selected[s] ?? 0]
      const joins = members.map((_, n) =>
        breaks(lists[n] ?? [], places[n]?.[before] ?? 0, places[n]?.[at] ?? 0),
      )
      if (joins.some((join) => join !== joins[0])) {
        bad.add(blocks[0]?.[places[0]?.[at] ?? -1] ?? -1)
      }
    }
    const left = selected.filter((k) => !bad.has(blocks[0]?.[places[0]?.[k] ?? -1] ?? -1))
    if (left.length === selected.length) break
    selected = left
  }
  return {
    agreement: smallest,
    selected: members.map(({ lease }, n) => ({
      lease,
      indexes: selected.map((k) => places[n]?.[k] ?? 0),
    })),
  }
}

/** The rule of row text: a line feed when any sentence after `before` up to `at` starts a block. */
function breaks(list: readonly ListedSentence[], before: number, at: number): boolean {
  for (let i = before + 1; i <= at; i += 1) if (list[i]?.startsBlock) return true
  return false
}

/** Main text of an observer without a payload: blocks with agreed main text, and content between the first and the last. */
function mainOf(
  list: readonly ListedSentence[],
  blocks: readonly number[],
  agreed: readonly number[],
): boolean[] {
  const agreedBlocks = new Set(agreed.map((i) => blocks[i]))
  const first = agreed[0] ?? list.length
  const last = agreed.at(-1) ?? -1
  const content = contentBlocks(list)
  return list.map(
    (_, i) => agreedBlocks.has(blocks[i]) || (content[i] === true && i > first && i < last),
  )
}

function bandOf(a: number): 'high' | 'middle' | 'low' {
  if (a >= bands.estimate.high) return 'high'
  return a >= bands.estimate.low ? 'middle' : 'low'
}

/** All choices of `size` out of 0..n-1. At most ten: two or three out of five. */
function subsets(n: number, size: number): number[][] {
  const choose = (from: number, left: number): number[][] =>
    left === 0
      ? [[]]
      : Array.from({ length: Math.max(0, n - from - left + 1) }, (_, k) => from + k).flatMap((i) =>
          choose(i + 1, left - 1).map((rest) => [i, ...rest]),
        )
  return choose(0, size)
}
