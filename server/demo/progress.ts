import type { Queryable } from '../store/queryable.ts'

/** How far a crawl is, counted in the database. */
export interface CrawlCounts {
  pages: number
  closed: number
  exactPages: number
  sentencePages: number
  duplicatePages: number
  divergentPages: number
  pagesRefusedByRobots: number
  unpublishedPages: number
  observations: number
  payloadsUploaded: number
  /** Nothing is left to do: every task is closed and no lease is out. */
  done: boolean
  /** Nothing is left for the auditor either, who may find more. */
  isAuditorAtRest: boolean
}

export async function crawlCounts(db: Queryable): Promise<CrawlCounts> {
  const { rows } = await db.query<
    Record<Exclude<keyof CrawlCounts, 'done' | 'isAuditorAtRest'>, number> & {
      open: number
      live: number
      errands: number
    }
  >(
    `select
       count(*) filter (where kind = 'page') as pages,
       count(*) filter (where kind = 'page' and state = 'closed') as closed,
       count(*) filter (where state <> 'closed') as open,
       count(*) filter (where verdict = 'divergent') as "divergentPages",
       count(*) filter (where reason like 'robots%' and kind = 'page') as "pagesRefusedByRobots",
       count(*) filter (where verdict = 'unpublished') as "unpublishedPages",
       (select count(*) from record where row_json::jsonb->>'grade' = 'exact') as "exactPages",
       (select count(*) from record where row_json::jsonb->>'grade' = 'sentences') as "sentencePages",
       (select count(*) from record where duplicate_of is not null) as "duplicatePages",
       (select count(*) from observation) as observations,
       (select count(*) from payload) as "payloadsUploaded",
       (select count(*) from lease where state = 'live') as live,
       (select count(*) from auditor_task where state in ('due', 'taken')) as errands
     from task`,
  )
  const [row] = rows
  if (!row) throw new Error('a count without a row')
  const { open, live, errands, ...counts } = row
  const done = counts.pages > 0 && open === 0 && live === 0
  return { ...counts, done, isAuditorAtRest: errands === 0 }
}
