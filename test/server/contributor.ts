import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunnerEvent } from '../../lib/runner/ports.ts'
import { ServerUnreachable } from '../../lib/runner/server-connection.ts'
import { createNodeHop } from '../../server/node/hop.ts'
import { type NodeOptions, type RunningNode, runNode } from '../../server/node/run-node.ts'
import { siteHost } from './small-site.ts'

/** A node with the way it fetches. */
export interface Contributor extends RunningNode {
  /** Problems that it met, oldest first. */
  problems: readonly Extract<RunnerEvent, { kind: 'problem' }>[]
}

/**
 * Starts a node at a loopback address of its own, which is then its network block. Tries again
 * while the server is away.
 */
export async function startContributor(
  options: {
    joinLink: string
    /** Folder for the folders of nodes. */
    folder: string
    address: string
    sitePort: number
  } & Partial<Pick<NodeOptions, 'hop'>>,
): Promise<Contributor> {
  const { address } = options
  const honest = createNodeHop({
    userAgent: 'gleaner-test',
    localAddress: address,
    hostMap: { [siteHost]: `127.0.0.1:${options.sitePort}` },
    loopbackAllowed: true,
  })
  const problems: Contributor['problems'][number][] = []
  for (;;) {
    try {
      const node = await runNode({
        joinLink: options.joinLink,
        folder: join(options.folder, address),
        campaigns: 'all',
        act: 'test',
        hop: options.hop ?? honest.hop,
        scope: { loopbackAllowed: true },
        client: 'gleaner-test',
        localAddress: address,
        log: (event) => {
          if (event.kind === 'problem') problems.push(event)
        },
      })
      return {
        ...node,
        problems,
        async stop() {
          await node.stop()
          await honest.close()
        },
      }
    } catch (error) {
      if (!(error instanceof ServerUnreachable)) throw error
      await sleep(200)
    }
  }
}
