import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import type { PageAnalysis } from './facts.ts'

/** Hostile HTML is killed by then (threat table: 2 s); a slow machine under load gets some more. */
const killAfterMs = 5000

export interface AnalysisJob {
  payload: Uint8Array
  type: string
  charset: string | null
  url: string
}

/** Worker threads that read payloads. A page that takes too long costs its thread, not the server. */
export function createAnalyser(threads: number) {
  const pool = new Piscina<AnalysisJob, PageAnalysis>({
    filename: fileURLToPath(new URL('./analyse-worker.mjs', import.meta.url)),
    minThreads: 1,
    maxThreads: threads,
    idleTimeout: 60_000,
    resourceLimits: { maxOldGenerationSizeMb: 512 },
  })
  return {
    async analyse(job: AnalysisJob): Promise<PageAnalysis> {
      const abort = new AbortController()
      const timer = setTimeout(() => abort.abort(), killAfterMs)
      try {
        return await pool.run(job, { signal: abort.signal })
      } catch (error) {
        if (abort.signal.aborted) return { ok: false, reason: `not read within ${killAfterMs} ms` }
        if (/terminated due to reaching memory limit/.test(String(error))) {
          return { ok: false, reason: 'needs too much memory to read' }
        }
        throw error
      } finally {
        clearTimeout(timer)
      }
    },
    close: () => pool.destroy(),
  }
}
export type Analyser = ReturnType<typeof createAnalyser>
