import { useCallback, useEffect, useState } from 'preact/hooks'
import type { Overview } from '../browser/messages.ts'
import type { Background } from './background.ts'

// Often enough to feel live; the answer comes from the device alone.
const EVERY_MS = 1_000

/** The newest overview, null until the first; `show` replaces it by the answer to an act. */
export function useOverview(background: Background): {
  overview: Overview | null
  problem: string | null
  show: (overview: Overview) => void
} {
  const [overview, show] = useState<Overview | null>(null)
  const [problem, setProblem] = useState<string | null>(null)

  const look = useCallback(async () => {
    try {
      show(await background.ask('overview', null))
      setProblem(null)
    } catch (error) {
      setProblem(errorSentence(error))
    }
  }, [background])

  useEffect(() => {
    const lookIfSeen = () => {
      if (!document.hidden) void look()
    }
    // The first look is for hidden pages too: a tab opened behind another must not stay blank.
    void look()
    const timer = setInterval(lookIfSeen, EVERY_MS)
    document.addEventListener('visibilitychange', lookIfSeen)
    return () => {
      clearInterval(timer)
      document.removeEventListener('visibilitychange', lookIfSeen)
    }
  }, [look])

  return { overview, problem, show }
}

/** An error in words that a person can act on or pass on. */
export function errorSentence(error: unknown): string {
  const told = error instanceof Error ? error.message : String(error)
  return `Something went wrong: ${told} Try again; if it stays, reload the extension.`
}
