import type { Command } from '@commander-js/extra-typings'
import { pino } from 'pino'
import { ourName } from '../../lib/capture/robots.ts'
import { runAuditor } from '../auditor/run-auditor.ts'
import { readConfig } from '../config.ts'
import { networkOf } from '../store/campaigns.ts'
import { onWorkspace, withConfig } from './command.ts'

/** `gleaner auditor` */
export function addAuditorCommand(program: Command) {
  withConfig(program.command('auditor'))
    .description(
      'run one more auditor in the foreground: what lies outside contributors’ consent (start runs one by itself)',
    )
    .action(async (flags) => {
      const config = readConfig(flags, process.env)
      const log = pino({ level: config.logLevel }, pino.destination({ fd: 2, sync: false }))
      await onWorkspace(config, async ({ database }) => {
        const network = await networkOf(database.pool)
        const auditor = runAuditor(
          database,
          {
            agent: ourName,
            contact: network?.operator.contact ?? config.operatorContact,
            scopeRules: { loopbackAllowed: false },
          },
          log,
        )
        process.stdout.write('The auditor works. Stop with Ctrl-C; what it was at is given back.\n')
        await new Promise<void>((resolve) => {
          process.once('SIGINT', () => resolve())
          process.once('SIGTERM', () => resolve())
        })
        await auditor.stop()
      })
    })
}
