import { fromBase64 } from '../../lib/crypto/base64.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import type { EnvelopeMessage } from '../../lib/protocol/fields.ts'
import { type Network, network } from '../../lib/protocol/network.ts'
import type { Queryable } from './queryable.ts'

export interface StoredCampaign {
  digest: Buffer
  manifest: Campaign
  envelope: EnvelopeMessage
  state: 'running' | 'paused' | 'exhausted' | 'stopped'
  /** Addresses in the frontier. */
  pages: number
  leafIndex: number | null
}

export async function networkEnvelope(db: Queryable): Promise<EnvelopeMessage | null> {
  const { rows } = await db.query<{ envelope: EnvelopeMessage }>(
    'select envelope from network_document',
  )
  return rows[0]?.envelope ?? null
}

/** The network document that this database was founded with. */
export async function networkOf(db: Queryable): Promise<Network | null> {
  const envelope = await networkEnvelope(db)
  return (
    envelope && network.parse(JSON.parse(new TextDecoder().decode(fromBase64(envelope.payload))))
  )
}

/** False when there was one already: it is signed once, at first start. */
export async function putNetworkEnvelope(
  tx: Queryable,
  envelope: EnvelopeMessage,
): Promise<boolean> {
  const { rows } = await tx.query(
    'insert into network_document (envelope) values ($1) on conflict do nothing returning singleton',
    [JSON.stringify(envelope)],
  )
  return rows.length === 1
}

export async function campaigns(db: Queryable): Promise<StoredCampaign[]> {
  const { rows } = await db.query<{
    digest: Buffer
    manifest: Campaign
    envelope: EnvelopeMessage
    state: StoredCampaign['state']
    pages: number
    leaf_index: number | null
  }>(
    `select digest, manifest, envelope, state, pages, leaf_index from campaign
     order by created_at, id`,
  )
  return rows.map(({ leaf_index, ...row }) => ({ ...row, leafIndex: leaf_index }))
}

/** The campaign's seeds are in the frontier. */
export async function setSeeded(tx: Queryable, digest: Uint8Array) {
  await tx.query('update campaign set seeded_at = now() where digest = $1', [digest])
}

/** Running campaigns whose seeds are not in the frontier yet, locked. */
export async function campaignsWithoutPages(
  db: Queryable,
): Promise<{ digest: Buffer; manifest: Campaign }[]> {
  const { rows } = await db.query<{ digest: Buffer; manifest: Campaign }>(
    `select digest, manifest from campaign
     where state = 'running' and seeded_at is null order by created_at limit 10 for update skip locked`,
  )
  return rows
}

/** False when a campaign of this id exists. */
export async function addCampaign(
  tx: Queryable,
  added: { digest: Uint8Array; manifest: Campaign; envelope: EnvelopeMessage; leafIndex: number },
): Promise<boolean> {
  const { rows } = await tx.query(
    `insert into campaign (digest, id, envelope, manifest, leaf_index) values ($1, $2, $3, $4, $5)
     on conflict do nothing returning digest`,
    [
      added.digest,
      added.manifest.id,
      JSON.stringify(added.envelope),
      JSON.stringify(added.manifest),
      added.leafIndex,
    ],
  )
  if (rows.length === 0) return false
  for (const site of added.manifest.sites) {
    // Two campaigns on one site: the site sees one clock, the slower of the two.
    await tx.query(
      `insert into host (origin, interval_ms, max_in_flight) values ($1, $2, $3)
       on conflict (origin) do update
         set interval_ms = greatest(host.interval_ms, excluded.interval_ms),
             max_in_flight = least(host.max_in_flight, excluded.max_in_flight)`,
      [
        `${site.scheme}://${site.host}`,
        Math.ceil(1000 / site.requestsPerSecond),
        site.requestsInFlight,
      ],
    )
  }
  return true
}

/** What the pipeline finds about a running campaign. What the operator says is moveCampaign's, and stays. */
export async function setCampaignState(db: Queryable, digest: Uint8Array, state: 'exhausted') {
  await db.query(`update campaign set state = $2 where digest = $1 and state = 'running'`, [
    digest,
    state,
  ])
}
