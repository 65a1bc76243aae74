import { parseRobots } from '../../lib/capture/robots.ts'
import { decodeSentenceList, type SentenceList } from '../../lib/capture/sentence-list.ts'
import type { HostSignal } from '../../lib/capture/use-files.ts'
import { type SiteUse, siteStatementsAt, siteUse } from '../../lib/capture/use-site.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import { observation } from '../../lib/protocol/observation.ts'
import type { Observer, PageAnalysis, Standing, TaskFacts } from '../verify/facts.ts'
import type { BlobRef } from './blob-store.ts'
import type { Queryable } from './queryable.ts'

/** A task under decision and what the rest of the pipeline needs of it. */
export interface TaskUnderDecision {
  taskId: number
  hostId: number
  campaign: Buffer
  manifest: Campaign
  url: string
  urlDigest: Buffer
  depth: number
  /** Addresses of one shape, one after another, that led here. */
  chain: number
  /** UTC day of the first observation: what attestations and the row say. */
  day: string
  facts: TaskFacts
}

/**
 * Takes up to `limit` tasks about which something new is known, locks them for
 * this transaction, and gathers every fact about them. A fact that arrives
 * meanwhile waits for the lock and marks the task again.
 */
export async function takeTasksWithNews(
  tx: Queryable,
  limit: number,
): Promise<TaskUnderDecision[]> {
  const { rows: tasks } = await tx.query<{
    id: number
    host_id: number
    campaign: Buffer
    kind: 'page' | 'robots'
    url: string
    url_digest: Buffer
    depth: number
    chain: number
    wanted: number
    failures: number
    manifest: Campaign
  }>(
    `with taken as (
       select id from task where news order by id limit $1 for no key update skip locked
     )
     update task t set news = false from taken, campaign c
     where t.id = taken.id and c.digest = t.campaign
     returning t.id, t.host_id, t.campaign, t.kind, t.url, t.url_digest, t.depth, t.chain, t.wanted, c.manifest,
               coalesce((select p.failures from page p where p.campaign = t.campaign
                         and p.url_digest = t.url_digest), 0) as failures`,
    [limit],
  )
  if (tasks.length === 0) return []
  // The order of locks (leases.ts): what robots.txt says is written to one host after another.
  tasks.sort((a, b) => a.host_id - b.host_id)
  const ids = tasks.map((task) => task.id)
  const observers = await observersOf(tx, ids)
  const days = await firstDays(tx, ids)
  const live = await liveLeases(tx, ids)
  const available = await availableObservers(tx, ids)
  const hosts = await useOfHosts(tx, [...new Set(tasks.map((task) => task.host_id))])
  const hostSignals = (task: { host_id: number; url: string }) => {
    const host = hosts.get(task.host_id)
    return host ? siteStatementsAt(task.url, host).map(({ signal }) => signal) : []
  }
  return tasks.map((task) => ({
    taskId: task.id,
    hostId: task.host_id,
    campaign: task.campaign,
    manifest: task.manifest,
    url: task.url,
    urlDigest: task.url_digest,
    depth: task.depth,
    chain: task.chain,
    day: days.get(task.id) ?? '',
    facts: {
      kind: task.kind,
      url: task.url,
      use: task.manifest.use,
      hostSignals: task.kind === 'page' ? hostSignals(task) : [],
      quorum: task.manifest.quorum,
      failures: task.failures,
      observers: observers.get(task.id) ?? [],
      live: live.get(task.id) ?? 0,
      available: available.get(task.id) ?? 0,
    },
  }))
}

/** What hosts say on use, of those that say anything: robots.txt as it is in force, and files beside it. */
async function useOfHosts(tx: Queryable, hosts: readonly number[]): Promise<Map<number, SiteUse>> {
  // Few robots.txt speak of use, and one may be large: the others stay in the database.
  const { rows } = await tx.query<{
    id: number
    robots_text: string | null
    signals: HostSignal[] | null
  }>(
    `select id, robots_text, signals from (
       select h.id,
              case when h.robots_text ~* '(content-usage|content-signal|license)' then h.robots_text end
                as robots_text,
              (select jsonb_agg(jsonb_build_object('source', s.source, 'name', s.name, 'value', s.value))
                 from host_signal s where s.host_id = h.id
                 and s.source in ('tdmrep', 'rsl', 'ai-txt')) as signals
       from host h where h.id = any($1::bigint[])) as said
     where robots_text is not null or signals is not null`,
    [hosts],
  )
  return new Map(
    rows.map(({ id, robots_text: text, signals }) => [
      id,
      siteUse(text === null ? null : parseRobots(text), signals ?? []),
    ]),
  )
}

async function observersOf(
  tx: Queryable,
  ids: readonly number[],
): Promise<Map<number, Observer[]>> {
  const { rows } = await tx.query<{
    lease_id: Buffer
    task_id: number
    account_id: Buffer
    statement: string
    list: Buffer | null
    has_payload: boolean
    analysis: PageAnalysis | null
    analysis_list: Buffer | null
    asks: { kind: string; state: string; text: string | null }[] | null
    attested: { text: string; gaps: number }[] | null
  }>(
    // The account by a look of its own: joined, the planner may read all leases.
    `select o.lease_id, o.task_id, (select l.account_id from lease l where l.id = o.lease_id) as account_id, o.statement, s.list, p.lease_id is not null as has_payload,
            a.analysis, a.list as analysis_list,
            (select jsonb_agg(jsonb_build_object('kind', f.kind, 'state', f.state, 'text', f.request->>'text'))
               from follow_up f where f.lease_id = o.lease_id) as asks,
            (select jsonb_agg(jsonb_build_object('text', encode(t.text_digest, 'hex'), 'gaps', t.gaps))
               from attestation t where t.lease_id = o.lease_id) as attested
     from observation o
     left join sentence_list s on s.lease_id = o.lease_id
     left join payload p on p.lease_id = o.lease_id
     left join analysis a on a.lease_id = o.lease_id
     where o.task_id = any($1::bigint[]) order by o.received_at, o.lease_id`,
    [ids],
  )
  const byTask = new Map<number, Observer[]>()
  for (const row of rows) {
    const asks = row.asks ?? []
    const standing = (kind: string): Standing => {
      const asked = asks.filter((ask) => ask.kind === kind)
      if (asked.length === 0) return 'unasked'
      return asked.some((ask) => ask.state === 'asked') ? 'asked' : 'gone'
    }
    const attestationsAsked = new Map<string, 'asked' | 'gone'>()
    for (const ask of asks) {
      if (ask.kind !== 'attest' || ask.text === null) continue
      attestationsAsked.set(
        ask.text,
        ask.state === 'asked' || ask.state === 'answered' ? 'asked' : 'gone',
      )
    }
    const observer: Observer = {
      lease: row.lease_id.toString('base64url'),
      accountId: row.account_id.toString('base64url'),
      observation: observation.parse(JSON.parse(row.statement)),
      sentences: row.list ? storedList(row.list) : standing('sentences'),
      payload:
        row.analysis && row.analysis_list
          ? withList(row.analysis, row.analysis_list)
          : row.has_payload
            ? 'asked'
            : standing('payload'),
      attestations: new Map(
        (row.attested ?? []).map(({ text, gaps }) => [
          Buffer.from(text, 'hex').toString('base64url'),
          { gaps },
        ]),
      ),
      attestationsAsked,
    }
    byTask.set(row.task_id, [...(byTask.get(row.task_id) ?? []), observer])
  }
  return byTask
}

async function firstDays(tx: Queryable, ids: readonly number[]): Promise<Map<number, string>> {
  const { rows } = await tx.query<{ task_id: number; day: string }>(
    `select task_id, to_char(min(received_at) at time zone 'UTC', 'YYYY-MM-DD') as day
     from observation where task_id = any($1::bigint[]) group by task_id`,
    [ids],
  )
  return new Map(rows.map((row) => [row.task_id, row.day]))
}

async function liveLeases(tx: Queryable, ids: readonly number[]): Promise<Map<number, number>> {
  const { rows } = await tx.query<{ task_id: number; live: number }>(
    `select task_id, count(*) as live from lease
     -- As in endLeases: by task, not by all that is live.
     where task_id = any($1::bigint[]) and state || '' = 'live' group by task_id`,
    [ids],
  )
  return new Map(rows.map((row) => [row.task_id, row.live]))
}

/**
 * How many more contributors could be asked: seen in the last two minutes,
 * consenting, and sharing neither account nor any block with whoever has a
 * lease of the task. Counted by block: two nodes behind one are one.
 */
async function availableObservers(
  tx: Queryable,
  ids: readonly number[],
): Promise<Map<number, number>> {
  const { rows } = await tx.query<{ task_id: number; available: number }>(
    `${candidatesOf}
     select c.task_id, count(distinct b.block) as available
     from candidate c join node_block b on b.node_id = c.node_id group by c.task_id`,
    [ids],
  )
  return new Map(rows.map((row) => [row.task_id, row.available]))
}

/** One is wanted: a few are rung, in case some have no time, and not all, who would come for nothing. */
const rungForOne = 3

/** Some of those who could be asked about each task, drawn at random, for their doorbells. Bytes are hex. */
export async function drawObservers(tx: Queryable, taskIds: readonly number[]): Promise<string[]> {
  const { rows } = await tx.query<{ node: string }>(
    `${candidatesOf}
     select distinct encode(node_id, 'hex') as node
     from (select node_id, row_number() over (partition by task_id order by random()) as place
           from candidate) as drawn
     where place <= $2`,
    [taskIds, rungForOne],
  )
  return rows.map((row) => row.node)
}

/**
 * Nodes that could observe the tasks in $1: of those who were there last, five hundred a campaign.
 * Five at most have seen a task, so that some of them have not; all that are there, for each of
 * dozens of tasks, would be a million pairs.
 */
const candidatesOf = `with present as materialized (
       select n.id, n.account_id, w.campaign
       from (select distinct campaign from task where id = any($1::bigint[])) as w
       cross join lateral (
         select n.id, n.account_id from node n
         where n.seen_at > now() - interval '2 minutes'
           and exists (select 1 from consent c
                       where c.node_id = n.id and c.campaign = w.campaign and c.act = 'given')
         order by n.seen_at desc limit 500
       ) as n
     ), used as materialized (
       select distinct l.task_id, l.account_id, b.block
       from lease l join node_block b on b.node_id = l.node_id
       where l.task_id = any($1::bigint[]) and l.state <> 'expired'
     ), kin as materialized (
       select u.task_id, p.id as node_id from used u join present p on p.account_id = u.account_id
       union
       select u.task_id, p.id from present p
       join node_block mine on mine.node_id = p.id join used u on u.block = mine.block
     ), candidate as (
       select t.id as task_id, p.id as node_id
       from task t join present p on p.campaign = t.campaign
       where t.id = any($1::bigint[])
         and (t.id, p.id) not in (select task_id, node_id from kin)
     )`

function storedList(list: Buffer): SentenceList {
  const decoded = decodeSentenceList(list)
  // It was decoded strictly before it was stored.
  if (!decoded.ok) throw new Error(`a stored sentence list does not decode: ${decoded.reason}`)
  return decoded.list
}

function withList(analysis: PageAnalysis, list: Buffer): PageAnalysis {
  return analysis.ok ? { ...analysis, list } : analysis
}

/** Payloads that no worker has read yet. */
export async function payloadsToRead(
  db: Queryable,
  limit: number,
): Promise<
  {
    leaseId: Buffer
    taskId: number
    blob: BlobRef
    type: string
    charset: string | null
    url: string
  }[]
> {
  const { rows } = await db.query<{
    lease_id: Buffer
    task_id: number
    blob: BlobRef
    statement: string
  }>(
    `select p.lease_id, o.task_id, p.blob, o.statement
     from payload p join observation o on o.lease_id = p.lease_id
     join task t on t.id = o.task_id and t.state <> 'closed'
     where not exists (select 1 from analysis a where a.lease_id = p.lease_id)
     order by p.lease_id limit $1`,
    [limit],
  )
  return rows.flatMap((row) => {
    const seen = observation.parse(JSON.parse(row.statement))
    if (seen.outcome !== 'fetched') return []
    return [
      {
        leaseId: row.lease_id,
        taskId: row.task_id,
        blob: row.blob,
        type: seen.type,
        charset: seen.charset,
        url: seen.url,
      },
    ]
  })
}

export async function putAnalysis(
  tx: Queryable,
  read: { leaseId: Uint8Array; analysis: PageAnalysis },
) {
  const { list, ...rest } = read.analysis.ok
    ? read.analysis
    : { ...read.analysis, list: new Uint8Array() }
  await tx.query(
    'insert into analysis (lease_id, analysis, list) values ($1, $2, $3) on conflict do nothing',
    [read.leaseId, JSON.stringify(rest, (_, value) => storable(value)), list],
  )
}

/**
 * PostgreSQL's jsonb has neither U+0000 nor half a surrogate pair; a page may, where it was cut.
 * UTF-8 has no half pairs either: what is digested is the same before and after.
 */
function storable(value: unknown): unknown {
  return typeof value === 'string' ? value.replace(/[\0\ud800-\udfff]/gu, '\ufffd') : value
}
