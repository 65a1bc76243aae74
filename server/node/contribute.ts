import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { joinLinkSentence, parseJoinLink } from '../../lib/consent/join-link.ts'
import { refusalSentence } from '../../lib/consent/manifest.ts'
import { askCampaigns, askNetwork } from '../../lib/runner/join.ts'
import { createNodeHop } from './hop.ts'
import { JoinRefused, runNode } from './run-node.ts'

/** `gleaner node`: contributes until Ctrl-C, telling now and then what it does. */
export async function contribute(options: {
  joinLink: string
  campaigns: readonly string[]
  folder: string
  log: Logger
  write: (text: string) => void
}): Promise<void> {
  if (options.campaigns.length === 0) {
    options.write(await campaignsOffered(options.joinLink))
    return
  }
  const client = 'Gleaner/0.1.0 (node)'
  const hop = createNodeHop({ userAgent: client })
  const node = await runNode({
    joinLink: options.joinLink,
    folder: options.folder,
    campaigns: options.campaigns,
    act: `gleaner node --campaign ${options.campaigns.join(' ')}`,
    hop: hop.hop,
    scope: { loopbackAllowed: false },
    client,
    log: (event) => options.log.debug(event, 'runner'),
  })
  options.write(
    `Contributing to ${node.joined.network.name} as node ${node.nodeId.slice(0, 12)}: ${node.campaigns.map((one) => one.campaign.title).join(', ')}. Stop with Ctrl-C.\n`,
  )
  const stopping = new AbortController()
  process.once('SIGINT', () => stopping.abort())
  process.once('SIGTERM', () => stopping.abort())
  let said = ''
  while (!stopping.signal.aborted) {
    const line = `${JSON.stringify(node.state())}, ${node.journal().length} fetches in the journal\n`
    if (line !== said) options.write(line)
    said = line
    // Cut short by Ctrl-C.
    await sleep(5000, undefined, { signal: stopping.signal }).catch(() => undefined)
  }
  await node.stop()
  await hop.close()
}

/** What a network offers, for the person who has not chosen yet. Joins nothing. */
async function campaignsOffered(joinLink: string): Promise<string> {
  const link = parseJoinLink(joinLink)
  if (!link.ok) throw new JoinRefused(link.reason, joinLinkSentence[link.reason])
  const asked = await askNetwork(link, fetch)
  if (!asked.ok) throw new JoinRefused(asked.reason, refusalSentence[asked.reason])
  const offered = await askCampaigns(asked.joined, fetch, Date.now())
  if (!offered.ok) throw new JoinRefused(offered.reason, refusalSentence[offered.reason])
  if (offered.campaigns.length === 0) return `${asked.joined.network.name} has no campaign now.\n`
  const lines = offered.campaigns.flatMap((opened) => {
    if (!opened.ok) return []
    const { campaign } = opened
    const sites = campaign.sites.map(
      (site) =>
        `${site.scheme}://${site.host} (${site.pathPrefixes.join(', ')}), at most ${site.requestsPerSecond} requests a second`,
    )
    const { wide } = campaign
    if (wide) {
      sites.push(
        `${wide.size} domains by ${wide.scheme}: ${wide.category}, each with all names below it, at most ${wide.requestsPerSecond} requests a second for each host; list ${asked.joined.origin}/v1/lists/${wide.root}`,
      )
    }
    return [
      `${campaign.id}: ${campaign.title}
  why    ${campaign.purpose}
  use    ${campaign.use}, kept ${campaign.retentionDays} days
  sites  ${sites.join('\n         ')}
`,
    ]
  })
  return `${asked.joined.network.name} gathers for these campaigns. Sites will see this machine's address.
Agree to one by running this again with --campaign ID:

${lines.join('\n')}`
}
