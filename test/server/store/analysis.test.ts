import { expect, test } from 'vitest'
import { putAnalysis } from '../../../server/store/facts.ts'
import { analyse } from '../../../server/verify/analyse.ts'
import { openTestDatabase } from './test-database.ts'

test('whatever characters a page has, its analysis is stored, and reads as it was', async () => {
  const database = await openTestDatabase()
  // Only this one table is of interest.
  await database.pool.query('alter table analysis drop constraint analysis_lease_id_fkey')
  const as = { charset: 'utf-8', url: 'https://barley.example/' }
  const store = async (id: number, type: string, body: string) => {
    const analysis = analyse(new TextEncoder().encode(body), { ...as, type })
    if (!analysis.ok) throw new Error(analysis.reason)
    await putAnalysis(database.pool, { leaseId: Uint8Array.of(id), analysis })
    const { rows } = await database.pool.query<{ analysis: Partial<typeof analysis> }>(
      'select analysis from analysis where lease_id = $1',
      [Buffer.of(id)],
    )
    return { analysis, stored: rows[0]?.analysis }
  }

  // Cut in the middle of a pair: the title at 1,024 code units.
  const page = await store(
    1,
    'text/html',
    `<title>${'a'.repeat(1_023)}😀</title><p>JSON has "\\u0000".`,
  )
  expect(page.stored?.title).toBe(`${'a'.repeat(1_023)}\ufffd`)
  // What only looks like an escape is text, and attested as it is.
  expect(page.stored?.sentences).toEqual(['JSON has "\\u0000".'])
  expect(page.stored?.digests).toEqual(page.analysis.digests)

  const robots = await store(2, 'text/plain', 'User-agent: *\n\0\nDisallow: /')
  expect(robots.stored?.text).toBe('User-agent: *\n\ufffd\nDisallow: /')
})
