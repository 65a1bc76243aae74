import type { Command } from '@commander-js/extra-typings'
import { readConfig } from '../config.ts'
import { explain, explanationText } from '../explain.ts'
import { agent } from '../main.ts'
import { json, onWorkspace, print, withConfig } from './command.ts'

/** `gleaner frontier …` */
export function addFrontierCommands(
  program: Command,
  { scopeRules }: { scopeRules: { loopbackAllowed: boolean } },
) {
  const frontier = program.command('frontier').description('look at what is to be fetched, and why')
  withConfig(frontier.command('explain'))
    .description('why an address is fetched, waits, or is kept out')
    .argument('<url>', 'the address')
    .option('--campaign <id>', 'only in this campaign; all of them without it')
    .addOption(json())
    .action(async (url, flags) => {
      await onWorkspace(readConfig(flags, process.env), async ({ database }) => {
        const explained = await database.transaction((tx) =>
          explain(
            tx,
            { url, campaignId: flags.campaign },
            { scopeRules, agent, nowMs: Date.now() },
          ),
        )
        print(flags.json, explained, explanationText(explained))
      })
    })
}
