import { expect, test } from 'vitest'
import {
  createAuditorFetch,
  type FetchAsAuditor,
} from '../../../server/auditor/fetch-as-auditor.ts'
import type { TakeTurn } from '../../../server/auditor/host-turns.ts'
import { readRobots } from '../../../server/auditor/read-robots.ts'
import { crawlerHeaders } from '../../../server/auditor/run-auditor.ts'
import { site } from './lab.ts'

const freeTurn: TakeTurn = async ({ origin }) => ({
  origin,
  lost: new AbortController().signal,
  begin: () => {},
  answered: () => {},
  restMs: () => 0,
  end: async () => {},
})
const fetch = createAuditorFetch({
  ...crawlerHeaders('x'),
  takeTurn: freeTurn,
  loopbackAllowed: true,
})
/** The same with less patience than forty seconds. */
const impatient: FetchAsAuditor = (url, limits, read) => fetch(url, { ...limits, maxMs: 300 }, read)

test.each(['its status', 'its end'])(
  'a robots.txt that never comes to %s forbids',
  async (what) => {
    const port = await site((_, response) => {
      if (what === 'its end') response.write('User-agent: *\nAllow: /\n')
    })
    const { signal } = new AbortController()
    expect(await readRobots(impatient, `http://localhost:${port}/robots.txt`, signal)).toEqual({
      robots: { state: 'disallow-all', reason: 'The answer took too long.' },
      wasAborted: false,
    })
  },
)

test('an auditor that is stopped says nothing about the site', async () => {
  const stop = new AbortController()
  const port = await site(() => stop.abort())
  const seen = await readRobots(fetch, `http://localhost:${port}/robots.txt`, stop.signal)
  expect(seen.wasAborted).toBe(true)
})
