import { hostFileSignals, isOfLicence, type UseFile } from '../../lib/capture/use-files.ts'
import { type AuditorTask, hostSignalsOf } from '../store/auditor-tasks.ts'
import { putHostSignals } from '../store/frontier.ts'
import type { Queryable } from '../store/queryable.ts'
import type { AuditorTools, Outcome } from './errand.ts'
import { type AuditorFetch, wholeBody } from './fetch-as-auditor.ts'

/** Real ones have some kilobytes; what is cut of a list of rules is not there to be obeyed. */
const maxBytes = 64 * 1_024
const maxMs = 20_000
const maxRedirects = 5

/** Null: there is no such file. */
type File = { body: string | null } | { retry: string } | { forbidden: string }

/** A file beside a host's pages that says how they may be used: its wishes become the host's. */
export async function useFileErrand(
  task: AuditorTask,
  tools: AuditorTools,
  signal: AbortSignal,
): Promise<Outcome> {
  const { hostId, target } = task
  if (hostId === null) return { kind: 'failed', reason: 'It is not said for which host.' }
  const { pathname } = new URL(target)
  const source =
    pathname === '/.well-known/tdmrep.json'
      ? 'tdmrep'
      : /\/ai\.txt$/.test(pathname)
        ? 'ai-txt'
        : 'rsl'
  const file = await readFile(target, tools, signal)
  if ('retry' in file) return { kind: 'retry', reason: file.retry }
  // What is known from before stays. A licence that may not be read is one that cannot be kept to.
  if ('forbidden' in file && source !== 'rsl') return { kind: 'failed', reason: file.forbidden }
  const body = 'body' in file ? file.body : null
  const asked = fileOf(source, target, body)
  const signals = asked === null ? [] : hostFileSignals(asked)
  return {
    kind: 'done',
    reason: body === null ? 'none there' : `${signals.length} wishes about use`,
    apply: (tx) => putWishes(tx, hostId, source, target, signals),
  }
}

/** Two places share the name ai.txt, and what either says holds: this one's wishes bear its mark. */
const wellKnownMark = ' (/.well-known/ai.txt)'

async function putWishes(
  tx: Queryable,
  hostId: number,
  source: UseFile['kind'],
  target: string,
  signals: readonly { name: string; value: string }[],
) {
  if (source === 'tdmrep') return putHostSignals(tx, hostId, source, signals)
  if (source === 'rsl') {
    // robots.txt may name several, and each says its own.
    const others = (await hostSignalsOf(tx, hostId, source)).filter(
      (signal) => !isOfLicence(signal, target),
    )
    return putHostSignals(tx, hostId, source, [...others, ...signals])
  }
  const isWellKnown = new URL(target).pathname === '/.well-known/ai.txt'
  const before = await hostSignalsOf(tx, hostId, source)
  await putHostSignals(tx, hostId, source, [
    ...before.filter(({ value }) => value.endsWith(wellKnownMark) !== isWellKnown),
    ...signals.map(({ name, value }) => ({
      name,
      value: isWellKnown ? `${value}${wellKnownMark}` : value,
    })),
  ])
}

function fileOf(source: UseFile['kind'], url: string, body: string | null): UseFile | null {
  // A licence that is named and cannot be had is a wish by itself; other files are just not there.
  if (source === 'rsl') return { kind: 'rsl', url, body }
  return body === null ? null : { kind: source, body }
}

async function readFile(url: string, tools: AuditorTools, signal: AbortSignal): Promise<File> {
  const permit = (hop: URL) => tools.permit(hop, signal)
  const fetched: AuditorFetch<File> = await tools.fetch(
    url,
    { maxBytes, maxMs, maxRedirects, signal, permit },
    async (answer): Promise<File> => {
      if (answer.status >= 500 || answer.status === 429) {
        return { retry: `status ${answer.status}` }
      }
      if (answer.status < 200 || answer.status > 299) return { body: null }
      return { body: new TextDecoder().decode(await wholeBody(answer.body)) }
    },
  )
  if (fetched.kind === 'answered') return fetched.value
  switch (fetched.reason) {
    case 'not-public':
    case 'not-web':
    case 'redirect-limit':
      return { body: null }
    case 'not-permitted':
      return { forbidden: fetched.sentence }
    default:
      return { retry: fetched.sentence }
  }
}
