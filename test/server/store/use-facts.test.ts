import { expect, test } from 'vitest'
import { hostFileSignals } from '../../../lib/capture/use-files.ts'
import { sha256 } from '../../../lib/crypto/digest.ts'
import { addCampaign } from '../../../server/store/campaigns.ts'
import { takeTasksWithNews } from '../../../server/store/facts.ts'
import { addPages, putHostSignals } from '../../../server/store/frontier.ts'
import { campaignOver } from '../../lib/runner/operator.ts'
import { foundPage } from './found-page.ts'
import { openTestDatabase } from './test-database.ts'

const origin = 'http://barley.example'
const envelope = { payloadType: 'none', payload: '', signatures: [] }

test('a task is decided with what its host says on the use of its page, and why it was fetched', async () => {
  const { pool } = await openTestDatabase()
  const digest = sha256('campaign')
  const manifest = campaignOver('barley.example', { use: 'ai-training' })
  await addCampaign(pool, { digest, manifest, envelope, leafIndex: 1 })
  const paths = ['/open/a', '/kept/b', '/c']
  await addPages(
    pool,
    digest,
    2,
    paths.map((path) => foundPage(`${origin}${path}`, origin)),
  )
  const { rows } = await pool.query<{ id: number }>('select id from host where origin = $1', [
    origin,
  ])
  const host = rows[0]?.id ?? 0
  // Ten rules and more: their order is not that of the words that they are stored by.
  const rules = Array.from({ length: 12 }, (_, at) => ({
    location: at === 3 ? '/kept/' : at === 10 ? '/kept/b' : `/${at}/`,
    'tdm-reservation': at === 3 ? 1 : 0,
  }))
  const put = async (body: string) => {
    const signals = hostFileSignals({ kind: 'tdmrep', body })
    await putHostSignals(pool, host, 'tdmrep', signals)
  }
  await put('[{"location":"/","tdm-reservation":1}]')
  await put(JSON.stringify(rules))
  await putHostSignals(
    pool,
    host,
    'ai-txt',
    hostFileSignals({ kind: 'ai-txt', body: 'User-agent: *\nDisallow: /' }),
  )
  await pool.query('update host set robots_text = $2 where id = $1', [
    host,
    'User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /open/ train-ai=y',
  ])
  await pool.query('update task set news = true')

  const tasks = await takeTasksWithNews(pool, 10)
  const said = new Map(
    tasks.map(({ facts }) => [
      facts.url.slice(origin.length),
      facts.hostSignals.map(({ source, value }) => `${source} ${value}`).sort(),
    ]),
  )
  expect(Object.fromEntries(said)).toEqual({
    '/open/a': ['ai-txt ', 'ai-txt /', 'robots /open/ train-ai=y'],
    '/kept/b': ['ai-txt ', 'ai-txt /', 'robots train-ai=n', 'tdmrep 1'],
    '/c': ['ai-txt ', 'ai-txt /', 'robots train-ai=n'],
  })
  expect(new Set(tasks.map(({ facts }) => facts.use))).toEqual(new Set(['ai-training']))
})

test('a host that says nothing on use says nothing, whatever its robots.txt', async () => {
  const { pool } = await openTestDatabase()
  const digest = sha256('campaign')
  const manifest = campaignOver('barley.example')
  await addCampaign(pool, { digest, manifest, envelope, leafIndex: 1 })
  await addPages(pool, digest, 2, [foundPage(`${origin}/`, origin)])
  await pool.query(`update host set robots_text = 'User-agent: *' || chr(10) || 'Disallow: /x'`)
  await pool.query('update task set news = true')
  const [task] = await takeTasksWithNews(pool, 10)
  expect(task?.facts.hostSignals).toEqual([])
})
