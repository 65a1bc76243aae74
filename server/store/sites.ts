import type { Campaign } from '../../lib/protocol/campaign.ts'
import type { SiteReport } from '../../lib/protocol/opt-out.ts'
import type { Queryable } from './queryable.ts'

type Origin = SiteReport['origins'][number]

/** What is known of a host under both schemes, at their default ports. Nothing of any contributor. */
export async function originsOf(db: Queryable, host: string): Promise<Origin[]> {
  const { rows } = await db.query<{
    origin: string
    robots_state: Origin['robots']['state']
    robots_reason: string | null
    robots_at: Date | null
    robots_digest: Buffer | null
    pace_ms: number
    hold_until: Date | null
    hold_reason: string | null
  }>(
    `select origin, robots_state, robots_reason, robots_at, robots_digest, pace_ms,
            case when hold_until > now() then hold_until end as hold_until,
            case when hold_until > now() then hold_reason end as hold_reason
     from host where origin = any($1::text[]) order by origin desc`,
    [[`https://${host}`, `http://${host}`]],
  )
  return rows.map((row) => ({
    origin: row.origin,
    robots: {
      state: row.robots_state,
      reason: row.robots_reason,
      fetchedAt: row.robots_at?.toISOString() ?? null,
      digest: row.robots_digest?.toString('base64url') ?? null,
    },
    paceMs: row.pace_ms,
    holdUntil: row.hold_until?.toISOString() ?? null,
    holdReason: row.hold_reason,
  }))
}

/** As many as the protocol's report holds. */
const mostCampaigns = 50

/** Campaigns that have addresses of a host, or name it as a site; the newest first. */
export async function campaignsOf(
  db: Queryable,
  host: string,
): Promise<SiteReport['campaigns'][number][]> {
  const { rows } = await db.query<{
    id: string
    title: string
    use: Campaign['use']
    state: SiteReport['campaigns'][number]['state']
    pages: number
  }>(
    `with known as (
       select q.campaign, sum(q.pages)::int8 as pages from queue q
       where q.host_id in (select id from host where origin = any($1::text[])) group by q.campaign)
     select c.id, c.manifest->>'title' as title, c.manifest->>'use' as use, c.state,
            coalesce(k.pages, 0) as pages
     from campaign c left join known k on k.campaign = c.digest
     where k.campaign is not null
       or c.manifest->'sites' @> jsonb_build_array(jsonb_build_object('host', $2::text))
     order by c.created_at desc, c.id limit $3`,
    [[`https://${host}`, `http://${host}`], host, mostCampaigns],
  )
  return rows
}

/** What a site's owner reads of a running campaign. */
export interface PublicCampaign {
  id: string
  title: string
  purpose: string
  use: Campaign['use']
  operator: Campaign['operator']
  sites: Pick<
    Campaign['sites'][number],
    'host' | 'pathPrefixes' | 'requestsPerSecond' | 'requestsInFlight'
  >[]
  wide: Pick<
    NonNullable<Campaign['wide']>,
    'size' | 'category' | 'requestsPerSecond' | 'requestsInFlight'
  > | null
  paused: boolean
}

/** Running and paused campaigns, the newest first, as many as a page can show. */
export async function publicCampaigns(db: Queryable): Promise<PublicCampaign[]> {
  const { rows } = await db.query<{ manifest: Campaign; state: string }>(
    `select manifest, state from campaign where state in ('running', 'paused')
     order by created_at desc, id limit $1`,
    [mostCampaigns],
  )
  return rows.map(({ manifest, state }) => ({
    id: manifest.id,
    title: manifest.title,
    purpose: manifest.purpose,
    use: manifest.use,
    operator: manifest.operator,
    sites: manifest.sites,
    wide: manifest.wide ?? null,
    paused: state === 'paused',
  }))
}
