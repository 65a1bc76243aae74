import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { createNodeHop } from './hop.ts'
import { runNode } from './run-node.ts'

/** `gleaner node`: contributes until Ctrl-C, telling now and then what it does. */
export async function contribute(options: {
  joinLink: string
  campaigns: readonly string[]
  folder: string
  log: Logger
  write: (text: string) => void
}): Promise<void> {
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
