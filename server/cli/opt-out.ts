import { type Command, Option } from '@commander-js/extra-typings'
import { fromBase64Url } from '../../lib/crypto/base64.ts'
import { randomId } from '../../lib/protocol/fields.ts'
import { readConfig } from '../config.ts'
import { targetText } from '../frontier/opt-out.ts'
import { OperatorProblem } from '../operator.ts'
import { latestOptOuts, looksFor, optOutById, type StoredOptOut } from '../store/opt-outs.ts'
import { json, onWorkspace, print, withConfig } from './command.ts'

const states = ['waiting', 'verified', 'failed', 'withdrawn'] as const

/** `gleaner opt-out …` */
export function addOptOutCommands(program: Command) {
  const optOut = program.command('opt-out').description('see which sites asked to be left alone')

  withConfig(optOut.command('list'))
    .description('requests of sites’ owners, the newest first')
    .addOption(new Option('--state <state>', 'only those in this state').choices(states))
    .option('--limit <number>', 'at most so many', '100')
    .addOption(json())
    .action(async (flags) => {
      const limit = Number(flags.limit)
      if (!Number.isInteger(limit) || limit < 1 || limit > 100_000) {
        throw new OperatorProblem(`--limit is "${flags.limit}"; give a number from 1 to 100000.`)
      }
      await onWorkspace(readConfig(flags, process.env), async ({ database }) => {
        const found = await latestOptOuts(database.pool, { state: flags.state, limit })
        print(
          flags.json,
          { optOuts: found.map(shown) },
          found.length === 0
            ? 'No opt-out. Sites’ owners ask at /opt-out of this server.\n'
            : found.map((one) => `${line(one)}\n`).join(''),
        )
      })
    })

  withConfig(optOut.command('show'))
    .description('one request: its proof and what it stopped')
    .argument('<id>', 'as in the list, and in the address of its page')
    .addOption(json())
    .action(async (id, flags) => {
      const read = randomId.safeParse(id)
      if (!read.success) {
        throw new OperatorProblem(
          `"${id}" is no id of an opt-out; they have 22 characters. See: gleaner opt-out list`,
        )
      }
      await onWorkspace(readConfig(flags, process.env), async ({ database }) => {
        const found = await optOutById(database.pool, fromBase64Url(read.data))
        if (!found) throw new OperatorProblem(`No opt-out ${id}. See: gleaner opt-out list`)
        const looks = await looksFor(database.pool, found)
        print(
          flags.json,
          { ...shown(found), looks },
          `${line(found)}
  asked     ${found.requestedAt.toISOString()}
  proof     ${found.verifiedAt?.toISOString() ?? 'none yet'}${found.reason === null ? '' : `, ${found.reason}`}
  stopped   ${found.tasks} tasks, ${found.leases} leases, ${found.records} records${found.state === 'verified' && found.leafIndex === null ? ', so far' : ''}
  log       ${found.leafIndex === null ? 'not yet' : `leaf ${found.leafIndex}`}
${looks.map((look) => `  ${look.kind.padEnd(8)}  ${look.at}: ${look.found ?? 'not looked at yet'}\n`).join('')}`,
        )
      })
    })
}

function line(one: StoredOptOut): string {
  return `${one.id.toString('base64url')}  ${one.state.padEnd(9)}  ${one.scope.padEnd(6)}  ${targetText(one)}`
}

function shown({ id, host, path, ...rest }: StoredOptOut) {
  return { id: id.toString('base64url'), target: targetText({ host, path }), ...rest }
}
