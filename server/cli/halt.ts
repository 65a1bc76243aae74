import type { Command } from '@commander-js/extra-typings'
import { readConfig } from '../config.ts'
import { OperatorProblem } from '../operator.ts'
import type { StoredCampaign } from '../store/campaigns.ts'
import { endHalt, haltInForce, moveCampaign, putHalt } from '../store/halt.ts'
import type { Queryable } from '../store/queryable.ts'
import { json, onWorkspace, print, withConfig } from './command.ts'

/** Shown by `gleaner start`, in metrics, and to whoever asks again; long enough for a sentence. */
const longestReason = 500

/** `gleaner halt` and `gleaner resume`: everything at once. */
export function addHaltCommands(program: Command) {
  withConfig(program.command('halt'))
    .description('stop all fetching within five seconds, until "gleaner resume"')
    .option('--reason <text>', 'why, for whoever looks later')
    .addOption(json())
    .action(async (flags) => {
      const { reason = null } = flags
      if (reason !== null && (reason.trim() === '' || reason.length > longestReason)) {
        throw new OperatorProblem(
          `--reason has ${reason.length} characters. Give 1 to ${longestReason}, or leave it out.`,
        )
      }
      await onWorkspace(readConfig(flags, process.env), async ({ database }) => {
        const changed = await database.transaction((tx) => putHalt(tx, reason))
        const halt = await haltInForce(database.pool)
        print(
          flags.json,
          { halted: true, changed, at: halt?.at, reason: halt?.reason ?? null },
          changed
            ? `Everything is halted: within five seconds no node starts a fetch, and running ones are aborted.
This stays so when the server is started again. What was gathered is safe and is still checked.
Go on with: gleaner resume
`
            : `Everything is halted already${halt ? `, ${haltWords(halt)}` : ''}. Go on with: gleaner resume\n`,
        )
      })
    })

  withConfig(program.command('resume'))
    .description('end a halt of everything')
    .addOption(json())
    .action(async (flags) => {
      await onWorkspace(readConfig(flags, process.env), async ({ database }) => {
        const changed = await database.transaction(endHalt)
        const paused = await pausedCampaigns(database.pool)
        print(
          flags.json,
          { halted: false, changed, paused },
          `${changed ? 'The halt is over: nodes ask for work again.' : 'Nothing is halted.'}
${paused.map((id) => `Campaign ${id} is still paused by itself; it goes on with: gleaner campaign resume ${id}\n`).join('')}`,
        )
      })
    })
}

/** `gleaner campaign pause|resume|stop` */
export function addCampaignStateCommands(campaign: Command) {
  const commands = [
    ['pause', 'paused', 'stop fetching for a campaign within five seconds, until it is resumed'],
    ['resume', 'running', 'let a paused campaign go on'],
    ['stop', 'stopped', 'end a campaign for good within five seconds; what it gathered stays'],
  ] as const
  for (const [name, to, description] of commands) {
    withConfig(campaign.command(name))
      .description(description)
      .argument('<id>', 'campaign')
      .addOption(json())
      .action(async (id, flags) => {
        await onWorkspace(readConfig(flags, process.env), async ({ database }) => {
          const found = await database.transaction((tx) => moveCampaign(tx, id, to))
          if (found === null) {
            throw new OperatorProblem(
              `There is no campaign ${id}. gleaner campaign list shows what there is.`,
            )
          }
          const { before, moved } = found
          if (!moved) {
            const refused = refusal(id, before, to)
            if (refused !== null) throw new OperatorProblem(refused)
          }
          const halted = to === 'running' ? await haltInForce(database.pool) : null
          print(
            flags.json,
            { id, state: moved ? to : before, changed: moved },
            `${moved ? movedWords(id, to) : `Campaign ${id} is ${before} already; nothing was changed.`}
${halted ? `But everything is halted, ${haltWords(halted)}; that ends with: gleaner resume\n` : ''}`,
          )
        })
      })
  }
}

/** Since when and why everything is halted. */
export function haltWords({ at, reason }: { at: Date; reason: string | null }): string {
  return `since ${at.toISOString().slice(0, 19).replace('T', ' ')} UTC${reason ? ` ("${reason}")` : ''}`
}

/** Ids of paused campaigns, oldest first. */
export async function pausedCampaigns(db: Queryable): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    `select id from campaign where state = 'paused' order by created_at, id`,
  )
  return rows.map(({ id }) => id)
}

/** Why there is no way from one state to the other; null when it is there already. */
function refusal(
  id: string,
  before: StoredCampaign['state'],
  to: 'running' | 'paused' | 'stopped',
): string | null {
  if (before === to) return null
  switch (before) {
    case 'stopped':
      return to === 'running'
        ? `Campaign ${id} was stopped, which is for good: contributors gave their consent to its end. To gather more, open a new one under another id: gleaner campaign create --help`
        : `Campaign ${id} is stopped for good; nothing is fetched for it.`
    case 'exhausted':
      return to === 'running'
        ? `Campaign ${id} has credited all points of its budget, so nothing is fetched for it any more. To gather more, open a new one under another id: gleaner campaign create --help`
        : `Campaign ${id} has credited all points of its budget; nothing is fetched for it any more, so there is nothing to pause.`
    case 'running':
    case 'paused':
      // Every way from these is open.
      return null
  }
}

function movedWords(id: string, to: 'running' | 'paused' | 'stopped'): string {
  switch (to) {
    case 'running':
      return `Campaign ${id} goes on: nodes ask for work again.`
    case 'paused':
      return `Campaign ${id} is paused: within five seconds no node starts a fetch for it, and running ones are aborted.
Consents and what was gathered stay. Go on with: gleaner campaign resume ${id}`
    case 'stopped':
      return `Campaign ${id} is stopped for good: within five seconds no node starts a fetch for it, and running ones are aborted.
What was gathered stays. Publish it with: gleaner release --campaign ${id}`
  }
}
