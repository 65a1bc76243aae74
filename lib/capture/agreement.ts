import { longestCommonSubsequence, type Pair } from './common-subsequence.ts'
import type { ListedSentence } from './sentences.ts'

/** How far two observers saw the same page. */
export interface Agreement {
  /**
   * 0 to 1: of the characters in main blocks, the share that is agreed; the smaller of both
   * directions. Where neither side has main text, of all characters; 1 when both lists are empty.
   */
  a: number
  /** Agreed sentences: places in the first and in the second list, ascending in both. */
  pairs: Pair[]
  /** Main sentences that only the first has, inside blocks with at least one agreed sentence. */
  contestedA: number[]
  /** The same of the second. */
  contestedB: number[]
}

/**
 * Compares two observers' lists. A sentence is agreed when it is in the longest common subsequence
 * of both by digest and path: same text, same kind of place, same order.
 *
 * @param isMainA for each sentence of the first list, whether it is main text (`contentBlocks`, or
 *   the extractor's choice where the payload is at hand); the same for the second
 */
export function agreement(
  listA: readonly ListedSentence[],
  listB: readonly ListedSentence[],
  isMainA: readonly boolean[],
  isMainB: readonly boolean[],
): Agreement {
  const pairs = longestCommonSubsequence(listA.map(sentenceKey), listB.map(sentenceKey))
  const agreedA = new Set(pairs.map(([i]) => i))
  const agreedB = new Set(pairs.map(([, j]) => j))
  const anyMain = isMainA.includes(true) || isMainB.includes(true)
  const share = (
    list: readonly ListedSentence[],
    isMain: readonly boolean[],
    agreed: Set<number>,
  ) => agreedShare(list, (i) => !anyMain || isMain[i] === true, agreed) ?? (anyMain ? 0 : 1)
  return {
    a: Math.min(share(listA, isMainA, agreedA), share(listB, isMainB, agreedB)),
    pairs,
    contestedA: contestedSentences(listA, isMainA, agreedA),
    contestedB: contestedSentences(listB, isMainB, agreedB),
  }
}

/** Null when nothing is counted. */
function agreedShare(
  list: readonly ListedSentence[],
  counts: (i: number) => boolean,
  agreed: ReadonlySet<number>,
): number | null {
  let all = 0
  let common = 0
  for (const [i, { length }] of list.entries()) {
    if (!counts(i)) continue
    all += length
    if (agreed.has(i)) common += length
  }
  return all === 0 ? null : common / all
}

/**
 * Main sentences of a list that nobody else has, though others have a part of their block: an
 * added "not", a swapped price, or an advertisement in the running text.
 */
export function contestedSentences(
  list: readonly ListedSentence[],
  isMain: readonly boolean[],
  agreed: ReadonlySet<number>,
): number[] {
  const blocks = blockNumbers(list)
  const agreedBlocks = new Set([...agreed].map((i) => blocks[i]))
  return [...list.keys()].filter(
    (i) => isMain[i] === true && !agreed.has(i) && agreedBlocks.has(blocks[i]),
  )
}

/**
 * The sentences that all lists have in common order, as places in each list. Longest common
 * subsequences taken one list after another: in every list, but with three or more lists perhaps not
 * the longest such choice. With one list, all of it.
 */
export function commonSentences(lists: readonly (readonly ListedSentence[])[]): number[][] {
  const [first, ...others] = lists
  if (!first) return []
  let common = first.map((_, i) => [i])
  let keys = first.map(sentenceKey)
  for (const other of others) {
    const pairs = longestCommonSubsequence(keys, other.map(sentenceKey))
    common = pairs.map(([i, j]) => [...(common[i] ?? []), j])
    keys = pairs.map(([i]) => keys[i] ?? '')
  }
  return lists.map((_, k) => common.map((places) => places[k] ?? 0))
}

/** Equal for sentences that may agree: digest and path, one character for two bytes. */
export function sentenceKey({ digest, path }: ListedSentence): string {
  // A loop takes a fifth of the time of spreading the bytes, and every comparison begins with it.
  let key = ''
  for (let i = 0; i < digest.length; i += 2) key += twoBytes(digest, i)
  for (let i = 0; i < path.length; i += 2) key += twoBytes(path, i)
  return key
}

function twoBytes(bytes: Uint8Array, at: number): string {
  return String.fromCharCode(((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0))
}

/** For each sentence the number of its block, from 0. */
export function blockNumbers(list: readonly ListedSentence[]): number[] {
  let block = -1
  return list.map(({ startsBlock }) => {
    if (startsBlock || block < 0) block++
    return block
  })
}

/** UTF-16 code units of a block of running text. Menus, bylines and buttons are shorter. */
const LONG_BLOCK = 80

/** Running text comes in company: so many code units of it within so many blocks on either side. */
const DENSE_TEXT = 300
const NEAR_BLOCKS = 4

/** Blocks between two of main text that still belong to it: subheadings, short paragraphs, items. */
const BRIDGED_BLOCKS = 3

interface Block {
  length: number
  linked: boolean
  caption: boolean
  path: string
}

/**
 * Which sentences are probably main text, judged from a list alone: the estimate that the vote uses
 * where no payload is at hand. Main are long blocks of running text in the company of others; blocks
 * of the same path as most of these; and what stands in short gaps between them. Blocks that are
 * mostly links never are.
 */
export function contentBlocks(list: readonly ListedSentence[]): boolean[] {
  const numbers = blockNumbers(list)
  const blocks = blocksOf(list, numbers)
  const isLong = blocks.map(
    ({ length, linked, caption }) => length >= LONG_BLOCK && !linked && !caption,
  )
  const isDense = isLong.map((long, at) => long && textNear(blocks, isLong, at) >= DENSE_TEXT)
  const isMain = isDense.includes(true) ? isDense : isLong

  const path = commonestPath(blocks, isMain)
  for (const [at, block] of blocks.entries()) {
    if (block.path === path && !block.linked) isMain[at] = true
  }
  let last = -Infinity
  for (const [at, main] of [...isMain].entries()) {
    if (!main) continue
    if (at - last <= BRIDGED_BLOCKS + 1) {
      for (let between = last + 1; between < at; between++) {
        isMain[between] = blocks[between]?.linked === false
      }
    }
    last = at
  }
  return numbers.map((number) => isMain[number] === true)
}

function blocksOf(list: readonly ListedSentence[], numbers: readonly number[]): Block[] {
  const blocks: Block[] = []
  for (const [i, sentence] of list.entries()) {
    const number = numbers[i] ?? 0
    const block = blocks[number]
    if (block) block.length += sentence.length
    else {
      const { length, linked, role, path } = sentence
      blocks.push({
        length,
        linked,
        caption: role === 'caption',
        path: String.fromCharCode(...path),
      })
    }
  }
  return blocks
}

function textNear(blocks: readonly Block[], isLong: readonly boolean[], at: number): number {
  let characters = 0
  for (let near = at - NEAR_BLOCKS; near <= at + NEAR_BLOCKS; near++) {
    if (isLong[near]) characters += blocks[near]?.length ?? 0
  }
  return characters
}

/** The path that holds most of the main text; of equals the first. */
function commonestPath(blocks: readonly Block[], isMain: readonly boolean[]): string | null {
  const characters = new Map<string, number>()
  let commonest: string | null = null
  for (const [at, { path, length }] of blocks.entries()) {
    if (isMain[at]) characters.set(path, (characters.get(path) ?? 0) + length)
  }
  for (const [path, count] of characters) {
    if (commonest === null || count > (characters.get(commonest) ?? 0)) commonest = path
  }
  return commonest
}
