import { readFile } from 'node:fs/promises'
import { type Command, Option } from '@commander-js/extra-typings'
import { pino } from 'pino'
import type { ServerConfig } from '../config.ts'
import { OperatorProblem } from '../operator.ts'
import { type OpenWorkspace, openWorkspace } from '../workspace.ts'

/** Exit statuses, one for each kind of trouble that a script may want to tell apart. */
export const exitStatus = {
  failed: 1,
  usage: 2,
  portTaken: 3,
  dataFolderInUse: 4,
  databaseNewer: 5,
  databaseUnavailable: 6,
} as const

/** Adds the flags that say which network a command works on. */
export function withConfig<
  Args extends unknown[],
  Options extends Record<string, unknown>,
  Globals extends Record<string, unknown>,
>(command: Command<Args, Options, Globals>) {
  return command
    .option('--data <folder>', 'data folder (GLEANER_DATA)')
    .option('--database-url <url>', 'an external PostgreSQL (DATABASE_URL)')
    .option(
      '--postgres <folder>',
      'PostgreSQL programs for the embedded database, or "system" (GLEANER_POSTGRES)',
    )
    .option('--log-level <level>', 'fatal, error, warn, info, debug or trace (GLEANER_LOG_LEVEL)')
}

export const json = () => new Option('--json', 'print one JSON object instead of text')

/** Opens the network's workspace for one command, beside a running server if there is one. */
export async function onWorkspace(
  config: ServerConfig,
  work: (workspace: OpenWorkspace) => Promise<void>,
) {
  const workspace = await openWorkspace(config, pino({ level: 'warn' }, pino.destination(2)), {
    shared: true,
  })
  try {
    await work(workspace)
  } finally {
    await workspace.close()
  }
}

export function print(asJson: true | undefined, object: unknown, text: string) {
  process.stdout.write(asJson ? `${JSON.stringify(object)}\n` : text)
}

/** Reads a file that was named on the command line. */
export async function readGiven(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw new OperatorProblem(`${file} cannot be read: ${(error as Error).message}`)
  }
}
