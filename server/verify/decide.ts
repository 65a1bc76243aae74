import { robotsStatusVerdict } from '../../lib/capture/robots.ts'
import { decodeSentenceList, type SentenceList } from '../../lib/capture/sentence-list.ts'
import { type UseVerdict, usePolicy } from '../../lib/capture/use-policy.ts'
import { parseSignal, useOf } from '../../lib/capture/use-signals.ts'
import { toBase64Url } from '../../lib/crypto/base64.ts'
import { sha256 } from '../../lib/crypto/digest.ts'
import type { FetchedObservation } from '../../lib/protocol/observation.ts'
import type { Signal } from '../../lib/protocol/release.ts'
import type { Observer, PageAnalysis, TaskFacts } from './facts.ts'
import { type Selection, selectBytes, selectText } from './selection.ts'
import { agreeOnMain, agreeOnSentences, bands } from './sentence-quorum.ts'

/** More than five opinions have never settled what five did not (text-pipeline §3). */
export const maxObservers = 5
/** Then a quorum must say it: a single liar could postpone a page for ever. As many as politeness.ts retries. */
const maxPostponements = 5
/** Fewer than three that differ are a difference, not a divergence. */
const minDivergent = 3

export type Ask =
  | { lease: string; kind: 'sentences' }
  | { lease: string; kind: 'payload' }
  | {
      lease: string
      kind: 'attest'
      indexes: number[]
      exact: boolean
      text: string
      url: string
      payload: string | null
    }

/** What is published of a page on which the quorum agrees. */
export interface AgreedPage {
  url: string
  status: number
  type: string
  grade: 'exact' | 'sentences'
  agreementPermille: number
  gaps: number
  text: string
  textDigest: string
  title: string | null
  language: string | null
  signals: Signal[]
  /** Links that every observer of the quorum saw. */
  links: string[]
  /** Leases whose attestations are published. */
  attesters: string[]
  payloadLease: string
  payloadDigest: string | null
}

export type Settlement =
  | { verdict: 'valid'; page: AgreedPage; valid: string[] }
  | {
      verdict: 'robots'
      robots:
        | { state: 'rules'; text: string; payloadDigest: string }
        | { state: 'allow-all' | 'disallow-all'; reason: string }
      valid: string[]
    }
  | { verdict: 'redirect'; target: string; valid: string[] }
  /** A page without text of its own, or with a wish against its use, may still link others. */
  | { verdict: 'unpublished'; reason: string; valid: string[]; links?: string[] }
  /** The site asked to be left alone: another visit, later. */
  | { verdict: 'postponed'; reason: string; valid: string[] }
  | { verdict: 'divergent'; reason: string; valid: string[] }

export type Decision =
  | { kind: 'wait' }
  /** One more opinion: back to the frontier. Links on which two agree need not wait for it. */
  | { kind: 'observer'; links: string[] }
  | { kind: 'ask'; asks: Ask[] }
  | { kind: 'settle'; settlement: Settlement; invalid: string[] }

type Fetched = Observer & { observation: FetchedObservation }

/**
 * What to do next about a task, from everything its observers have said.
 * Nothing is remembered between calls: the same facts give the same decision,
 * but for the observer whose payload is asked for, which is drawn by `random`.
 */
export function decide(facts: TaskFacts, random: () => number): Decision {
  const busy = facts.kind === 'page' ? facts.observers.filter(isSentAway) : []
  // One is enough: asking a second observer would be one more request than the site wants.
  if (busy.length > 0 && facts.failures < maxPostponements) {
    const [first] = busy
    return settle({
      verdict: 'postponed',
      reason: `status ${first?.observation.status}`,
      valid: busy.map((one) => one.lease),
    })
  }
  return decideAmong(facts, facts.observers, random)
}

/** RFC 6585 §4 and RFC 9110 §15.6.4: too many requests, or not now. */
function isSentAway(one: Observer): one is Fetched {
  return isFetched(one) && [429, 503].includes(one.observation.status)
}

/** The same with the votes of some of the observers only; all of them count as heard. */
function decideAmong(
  facts: TaskFacts,
  voters: readonly Observer[],
  random: () => number,
): Decision {
  const same = largest(voters.filter(isFetched), responseClass)
  const failures = largest(
    voters.filter((one) => one.observation.outcome === 'failed'),
    (one) => (one.observation.outcome === 'failed' ? one.observation.reason : ''),
  )
  if (same.length < facts.quorum) {
    if (failures.length >= facts.quorum) return settleFailed(facts, failures)
    return anotherObserver(facts, 'the responses differ')
  }
  if (facts.kind === 'robots') return decideRobots(facts, same, random)

  const [first] = same
  if (!first) throw new Error('a quorum of nobody')
  const { observation } = first
  const agreeing = same.map((one) => one.lease)
  if (observation.status !== 200) {
    return settle({
      verdict: 'unpublished',
      reason: `status ${observation.status}`,
      valid: agreeing,
    })
  }
  if (observation.url !== facts.url) {
    return settle({ verdict: 'redirect', target: observation.url, valid: agreeing })
  }
  const exact = largest(same, (one) => one.observation.payload.digest)
  return exact.length >= facts.quorum
    ? decideExact(facts, exact, random)
    : decideSentences(facts, voters, same, random)
}

/** Equal payloads: one is fetched from any of their observers, and says everything. */
function decideExact(facts: TaskFacts, exact: readonly Fetched[], random: () => number): Decision {
  const payload = onePayload(exact, random)
  if (payload.kind !== 'payload')
    return payload.kind === 'gone' ? anotherObserver(facts, 'no payload came') : payload
  const { holder, analysis } = payload
  // The bytes are the same, so whoever names another list or other metadata did not read them.
  const honest = exact.filter((one) => matches(one.observation, analysis))
  const invalid = exact.filter((one) => !honest.includes(one)).map((one) => one.lease)
  if (honest.length < facts.quorum) {
    return honest.length === 0
      ? settle(
          { verdict: 'unpublished', reason: 'sentences cannot be derived again', valid: [] },
          invalid,
        )
      : anotherObserver(facts, 'the observers describe one payload differently')
  }
  const indexes = analysis.main.flatMap((main, i) => (main ? [i] : []))
  const selection = selectText(analysis, indexes) ?? selectBytes(holder.observation.type)
  if (!selection) {
    return settle(
      {
        verdict: 'unpublished',
        reason: 'no text',
        valid: honest.map((one) => one.lease),
        links: followable(allSignals(facts, { analysis, speaker: holder }), analysis.links),
      },
      invalid,
    )
  }
  // The bytes are good whoever sent them; what the row says of them is said by an honest observer.
  const speaker = honest.find((one) => one.lease === holder.lease) ?? honest[0]
  if (!speaker) throw new Error('a quorum of nobody')
  return attestAndSettle(facts, {
    grade: 'exact',
    members: inOrderOf(speaker, honest),
    indexesOf: () => indexes,
    selection,
    agreementPermille: 1000,
    speaker,
    payloadLease: holder.lease,
    analysis,
    links: analysis.links,
    invalid,
  })
}

/** Different payloads: what the lists have in common is what may be published. */
function decideSentences(
  facts: TaskFacts,
  voters: readonly Observer[],
  same: readonly Fetched[],
  random: () => number,
): Decision {
  const heard = withKnownLists(same)
  // Lists of one digest agree whole: a quorum of them needs no other, and theirs is in the payload.
  const alike = largest(heard.filter(maySign), listDigest).slice(0, facts.quorum)
  if (alike.length < facts.quorum) {
    const asks = listsToAsk(heard)
    if (asks.length > 0) return { kind: 'ask', asks }
    if (heard.some((one) => one.sentences === 'asked')) return { kind: 'wait' }
  } else if (!alike.some(isListed)) {
    return decideUnlisted(facts, voters, alike, random)
  }
  const listed = heard.filter(isListed)
  if (listed.length < facts.quorum) return anotherObserver(facts, 'no sentences came')

  // Whoever did not sign will not be asked again: its list is heard, another is the member.
  const able = listed.filter(maySign)
  const agreed = agreeOnSentences(
    able.map((one) => ({ lease: one.lease, list: one.sentences })),
    facts.quorum,
  )
  if (agreed.kind === 'differ') return anotherObserver(facts, 'no two observers agree')
  const members = able.filter((one) => agreed.members.includes(one.lease))
  // A third opinion settles what two leave open; with three, what stays contested is withheld.
  // A failed fetch is no opinion, unless there is nobody left to give one.
  const isThird = listed.length > facts.quorum || isHeardOut(facts)
  if (!isThird && (agreed.band !== 'high' || agreed.contested)) {
    return anotherObserver(facts, 'a sentence is contested')
  }

  const payload = onePayload(members, random)
  if (payload.kind === 'gone') {
    // These agree best, and always would: the others decide without them.
    return decideAmong(facts, without(voters, members), random)
  }
  if (payload.kind !== 'payload') return payload
  const { holder, analysis } = payload
  if (!matches(holder.observation, analysis)) {
    // This observer's statement does not follow from its own payload: decide without it.
    return decideWithoutLiar(facts, voters, holder, random)
  }
  const ordered = inOrderOf(holder, members)
  const main = agreeOnMain(
    analysis.main,
    ordered.map((one) => ({ lease: one.lease, list: one.sentences })),
  )
  // Two settle a high agreement; a third opinion also a middle one.
  if (main.agreement < (isThird ? bands.main.low : bands.main.high)) {
    return anotherObserver(facts, 'the main texts differ', commonLinks(analysis, ordered))
  }
  const indexesOf = (lease: string) =>
    main.selected.find((one) => one.lease === lease)?.indexes ?? []
  const selection = selectText(analysis, indexesOf(holder.lease))
  if (!selection) {
    return settle({
      verdict: 'unpublished',
      reason: 'no agreed text',
      valid: members.map((one) => one.lease),
      links: followable(
        allSignals(facts, { analysis, speaker: holder }),
        commonLinks(analysis, ordered),
      ),
    })
  }
  return attestAndSettle(facts, {
    grade: 'sentences',
    members: ordered,
    indexesOf,
    selection,
    agreementPermille: Math.floor(main.agreement * 1000),
    speaker: holder,
    payloadLease: holder.lease,
    analysis,
    links: commonLinks(analysis, ordered),
    invalid: agreed.outliers,
  })
}

/** A quorum names one list that nobody has sent: the payload of one of them tells it. */
function decideUnlisted(
  facts: TaskFacts,
  voters: readonly Observer[],
  alike: readonly Fetched[],
  random: () => number,
): Decision {
  const payload = onePayload(alike, random)
  if (payload.kind === 'gone') return decideAmong(facts, without(voters, alike), random)
  if (payload.kind !== 'payload') return payload
  // It is here and tells another list: its observer's statement does not follow from it.
  return decideWithoutLiar(facts, voters, payload.holder, random)
}

function decideWithoutLiar(
  facts: TaskFacts,
  voters: readonly Observer[],
  liar: Fetched,
  random: () => number,
): Decision {
  const decision = decideAmong(facts, without(voters, [liar]), random)
  return decision.kind === 'settle'
    ? { ...decision, invalid: [...decision.invalid, liar.lease] }
    : decision
}

/** One observer for each list that nobody has sent or is asked for. */
function listsToAsk(heard: readonly Fetched[]): Ask[] {
  const under = new Set(heard.filter((one) => one.sentences === 'asked').map(listDigest))
  return heard.flatMap((one): Ask[] => {
    if (one.sentences !== 'unasked' || under.has(listDigest(one))) return []
    under.add(listDigest(one))
    return [{ lease: one.lease, kind: 'sentences' }]
  })
}

/** Equal digests name equal lists: what one has sent, or the reader found in its payload, stands for all. */
function withKnownLists(observers: readonly Fetched[]): Fetched[] {
  const known = new Map<string, SentenceList>()
  for (const one of observers) {
    if (isListed(one)) known.set(listDigest(one), one.sentences)
    const { payload } = one
    if (typeof payload !== 'object' || !payload.ok || known.has(payload.listDigest)) continue
    const decoded = decodeSentenceList(payload.list)
    if (!decoded.ok) throw new Error(`our own sentence list does not decode: ${decoded.reason}`)
    known.set(payload.listDigest, decoded.list)
  }
  return observers.map((one) => ({
    ...one,
    sentences: known.get(listDigest(one)) ?? one.sentences,
  }))
}

function listDigest({ observation }: Fetched): string {
  return observation.sentences.digest
}

function isListed(one: Fetched): one is Fetched & { sentences: SentenceList } {
  return typeof one.sentences === 'object'
}

function maySign(one: Observer): boolean {
  return ![...one.attestationsAsked.values()].includes('gone')
}

interface Agreed {
  grade: AgreedPage['grade']
  /** The speaker first. */
  members: readonly Fetched[]
  indexesOf: (lease: string) => number[]
  selection: Selection
  agreementPermille: number
  /** The member whose statement the row follows where members differ: the payload's holder, if it is one. */
  speaker: Fetched
  payloadLease: string
  analysis: Analysed
  links: string[]
  invalid: string[]
}

/** Asks as many observers as the quorum to sign the text; others stand in for those who are gone. */
function attestAndSettle(facts: TaskFacts, agreed: Agreed): Decision {
  const unread = otherMarkup(facts, agreed)
  const asks = unread.filter((one) => one.payload === 'unasked')
  if (asks.length > 0) {
    return { kind: 'ask', asks: asks.map(({ lease }) => ({ lease, kind: 'payload' })) }
  }
  if (unread.some((one) => one.payload === 'asked')) return { kind: 'wait' }
  const signals = allSignals(facts, agreed)
  const verdict = verdictOn(facts, signals)
  if (verdict.kind === 'forbidden') {
    const valid = agreed.members.map((one) => one.lease)
    const links = followable(signals, agreed.links)
    return settle({ verdict: 'unpublished', reason: verdict.reason, valid, links }, agreed.invalid)
  }

  const { text, textDigest } = agreed.selection
  const able = agreed.members.filter((one) => one.attestationsAsked.get(textDigest) !== 'gone')
  const attesters = able.slice(0, facts.quorum)
  if (attesters.length < facts.quorum) return anotherObserver(facts, 'an attestation is missing')
  const payloadDigest = agreed.grade === 'exact' ? agreed.speaker.observation.payload.digest : null
  const missing = attesters.filter((one) => !one.attestations.has(textDigest))
  const unasked = missing.filter((one) => !one.attestationsAsked.has(textDigest))
  if (unasked.length > 0) {
    return {
      kind: 'ask',
      asks: unasked.map((one) => ({
        lease: one.lease,
        kind: 'attest',
        indexes: agreed.indexesOf(one.lease),
        exact: agreed.grade === 'exact',
        text: textDigest,
        url: facts.url,
        payload: payloadDigest,
      })),
    }
  }
  if (missing.length > 0) return { kind: 'wait' }

  const { analysis, speaker } = agreed
  const twoSay = (which: 'title' | 'language') =>
    agreed.members.filter((one) => one.observation[which] === speaker.observation[which]).length >=
    2
  return settle(
    {
      verdict: 'valid',
      valid: agreed.members.map((one) => one.lease),
      page: {
        url: facts.url,
        status: speaker.observation.status,
        type: speaker.observation.type,
        grade: agreed.grade,
        agreementPermille: agreed.agreementPermille,
        gaps: Math.max(...attesters.map((one) => one.attestations.get(textDigest)?.gaps ?? 0)),
        text,
        textDigest,
        title: twoSay('title') ? analysis.title : null,
        language: twoSay('language') ? analysis.language : null,
        signals: signals.slice(0, maxSignals),
        // Of the header; what markup says is heeded where links are read.
        links: followable(signals, agreed.links),
        attesters: attesters.map((one) => one.lease),
        payloadLease: agreed.payloadLease,
        payloadDigest,
      },
    },
    agreed.invalid,
  )
}

function decideRobots(facts: TaskFacts, same: readonly Fetched[], random: () => number): Decision {
  const [first] = same
  if (!first) throw new Error('a quorum of nobody')
  const verdict = robotsStatusVerdict(first.observation.status)
  const agreeing = same.map((one) => one.lease)
  if (verdict !== 'parse') {
    const reason = `status ${first.observation.status}`
    return settle({ verdict: 'robots', robots: { state: verdict, reason }, valid: agreeing })
  }
  const exact = largest(same, (one) => one.observation.payload.digest)
  if (exact.length < facts.quorum) return anotherObserver(facts, 'robots.txt differs')
  const payload = onePayload(exact, random)
  if (payload.kind !== 'payload') {
    return payload.kind === 'gone' ? anotherObserver(facts, 'no payload came') : payload
  }
  const { text } = payload.analysis
  return settle({
    verdict: 'robots',
    // Served as a page instead of plain text: no rules to read, so nothing is allowed.
    robots:
      text === null
        ? { state: 'disallow-all', reason: `type ${first.observation.type || 'not said'}` }
        : { state: 'rules', text, payloadDigest: payload.holder.observation.payload.digest },
    valid: exact.map((one) => one.lease),
  })
}

function settleFailed(facts: TaskFacts, failures: readonly Observer[]): Decision {
  const valid = failures.map((one) => one.lease)
  const [first] = failures
  const reason = first?.observation.outcome === 'failed' ? first.observation.reason : 'failed'
  // RFC 9309 §2.3.1.4: unreachable is complete disallow.
  if (facts.kind === 'robots') {
    return settle({ verdict: 'robots', robots: { state: 'disallow-all', reason }, valid })
  }
  return settle({ verdict: 'unpublished', reason, valid })
}

/**
 * One more opinion, if there is anybody to give it. When five have been heard,
 * or at least three and nobody else is there, what is still open stays open
 * for good: divergent, and a robots.txt that cannot be resolved forbids.
 */
function anotherObserver(facts: TaskFacts, reason: string, links: string[] = []): Decision {
  if (facts.live > 0) return { kind: 'wait' }
  if (!isHeardOut(facts)) return { kind: 'observer', links }
  return settle(
    facts.kind === 'robots'
      ? { verdict: 'robots', robots: { state: 'disallow-all', reason }, valid: [] }
      : { verdict: 'divergent', reason, valid: [] },
  )
}

function isHeardOut({ observers, live, available }: TaskFacts): boolean {
  const heard = observers.length
  return live === 0 && (heard >= maxObservers || (heard >= minDivergent && available === 0))
}

function without(voters: readonly Observer[], left: readonly Observer[]): Observer[] {
  return voters.filter((one) => !left.some(({ lease }) => lease === one.lease))
}

function settle(settlement: Settlement, invalid: readonly string[] = []): Decision {
  return { kind: 'settle', settlement, invalid: [...new Set(invalid)] }
}

type Analysed = Extract<PageAnalysis, { ok: true }>
type Payload<T> =
  | { kind: 'payload'; holder: T; analysis: Analysed }
  | { kind: 'gone' }
  | Extract<Decision, { kind: 'ask' | 'wait' }>

/** The payload of a random one of these observers; of the next one if it does not come. */
function onePayload<T extends Fetched>(observers: readonly T[], random: () => number): Payload<T> {
  for (const holder of observers) {
    const { payload } = holder
    if (typeof payload === 'object' && payload.ok)
      return { kind: 'payload', holder, analysis: payload }
  }
  if (observers.some((one) => one.payload === 'asked')) return { kind: 'wait' }
  const left = observers.filter((one) => one.payload === 'unasked')
  const drawn = left[Math.floor(random() * left.length)]
  return drawn ? { kind: 'ask', asks: [{ lease: drawn.lease, kind: 'payload' }] } : { kind: 'gone' }
}

/** Whether an observation follows from the payload that its observer holds. */
function matches(seen: FetchedObservation, analysis: Analysed): boolean {
  return (
    seen.sentences.digest === analysis.listDigest &&
    seen.sentences.count === analysis.count &&
    seen.title === analysis.digests.title &&
    seen.canonical === analysis.digests.canonical &&
    seen.language === analysis.digests.language &&
    seen.signals === analysis.digests.signals &&
    seen.links === analysis.digests.links
  )
}

/** Use signals of a row (release.ts). */
const maxSignals = 100

/** Headers that say something on use. */
const useHeaders = [
  'content-signal',
  'content-usage',
  'link',
  'tdm-policy',
  'tdm-reservation',
  'x-robots-tag',
] as const

/**
 * Use signals of the host and of every observer of the same response: a noindex on the error page
 * that one of them got says nothing of this page. Of too many, those that say no come first. That
 * observers did not see the same is a signal too: a yes, or a reservation lifted, holds only if all
 * saw it.
 */
function allSignals(
  facts: TaskFacts,
  { analysis, speaker }: Pick<Agreed, 'analysis' | 'speaker'>,
): Signal[] {
  const fetched = facts.observers
    .filter(isFetched)
    .filter((one) => responseClass(one) === responseClass(speaker))
  const signals = new Map<string, Signal>()
  const add = (signal: Signal) => signals.set(JSON.stringify(signal), signal)
  const seen = new Set<string>()
  for (const { observation } of fetched) {
    const headers = useHeaders.flatMap((name): Signal[] => {
      const value = observation.headers[name]
      return value === undefined ? [] : [{ source: 'header', name, value }]
    })
    for (const signal of headers) add(signal)
    seen.add(JSON.stringify([headers, observation.signals]))
  }
  for (const signal of analysis.signals) add(signal)
  for (const { observation, payload } of fetched) {
    if (typeof payload !== 'object' || !payload.ok || !matches(observation, payload)) continue
    for (const signal of payload.signals) add(signal)
  }
  if (seen.size > 1) add({ source: 'meta', name: 'observers-differ', value: '' })
  for (const signal of facts.hostSignals) add(signal)
  const all = [...signals.values()]
  if (all.length <= maxSignals) return all
  const weight = (signal: Signal) => {
    const { said, doubtful } = parseSignal(signal)
    return doubtful || Object.keys(said).length > 0 ? 0 : 1
  }
  return all.sort((a, b) => weight(a) - weight(b))
}

function verdictOn(facts: TaskFacts, signals: readonly Signal[]): UseVerdict {
  return usePolicy(
    facts.use,
    signals.map((signal) => parseSignal(signal)),
  )
}

/**
 * Observers of the same response who saw other signals inside it, one for each set of them: their
 * payloads tell which. Who names other signals for the same bytes is wrong, and asked nothing.
 */
function otherMarkup(facts: TaskFacts, { speaker, invalid }: Agreed): Fetched[] {
  const fetched = facts.observers.filter(isFetched)
  const read = new Set([speaker.observation.signals])
  for (const { observation, payload } of fetched) {
    if (typeof payload === 'object') read.add(observation.signals)
  }
  const found = new Map<string, Fetched>()
  for (const one of fetched) {
    const { observation, lease, payload } = one
    if (payload === 'gone' || invalid.includes(lease) || read.has(observation.signals)) continue
    if (observation.payload.digest === speaker.observation.payload.digest) continue
    if (responseClass(one) !== responseClass(speaker)) continue
    const known = found.get(observation.signals)
    if (known === undefined || payload === 'asked') found.set(observation.signals, one)
  }
  return [...found.values()]
}

function followable(signals: readonly Signal[], links: string[]): string[] {
  return useOf(signals).nofollow ? [] : links
}

/** Links of the payload that every other member's list has too. */
function commonLinks(analysis: Analysed, members: readonly Fetched[]): string[] {
  const others = members
    .slice(1)
    .map((one) =>
      typeof one.sentences === 'object'
        ? new Set(one.sentences.links.map(toBase64Url))
        : new Set<string>(),
    )
  return analysis.links.filter((url) => {
    const digest = toBase64Url(sha256(url).slice(0, 16))
    return others.every((links) => links.has(digest))
  })
}

function isFetched(one: Observer): one is Fetched {
  return one.observation.outcome === 'fetched'
}

/** Status, final URL and type: compared before anything else. */
function responseClass({ observation }: Fetched): string {
  return JSON.stringify([observation.status, observation.url, observation.type])
}

/** The largest group with one key; of equals, the one that was heard first. */
function largest<T>(items: readonly T[], key: (item: T) => string): T[] {
  const groups = new Map<string, T[]>()
  for (const item of items) {
    const group = groups.get(key(item))
    if (group) group.push(item)
    else groups.set(key(item), [item])
  }
  return [...groups.values()].reduce(
    (best, group) => (group.length > best.length ? group : best),
    [],
  )
}

function inOrderOf<T extends { lease: string }>(first: T, members: readonly T[]): T[] {
  return [first, ...members.filter((one) => one.lease !== first.lease)]
}
