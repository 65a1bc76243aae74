import { join, resolve } from 'node:path'
import { Command } from '@commander-js/extra-typings'
import { pino } from 'pino'
import { ServerUnreachable } from '../lib/runner/server-connection.ts'
import { addAuditorCommand } from './cli/auditor.ts'
import { addCampaignCommands } from './cli/campaign.ts'
import { exitStatus, json, onWorkspace, print, withConfig } from './cli/command.ts'
import { addFrontierCommands } from './cli/frontier.ts'
import { addHaltCommands, haltWords, pausedCampaigns } from './cli/halt.ts'
import { addOptOutCommands } from './cli/opt-out.ts'
import { addRobotsCommand } from './cli/robots.ts'
import { ConfigProblem, readConfig, type ServerConfig } from './config.ts'
import { PortTaken, startServer } from './main.ts'
import { JoinRefused } from './node/run-node.ts'
import { checkLedger, checkpointSigner, OperatorProblem, publishRelease } from './operator.ts'
import { sealEpoch } from './pipeline.ts'
import { printReport } from './publish/print-report.ts'
import { verifyRelease } from './publish/verify-release.ts'
import { campaigns, networkOf } from './store/campaigns.ts'
import { DataFolderInUse, DataFolderUnusable } from './store/embedded-postgres.ts'
import { haltInForce } from './store/halt.ts'
import { balances, latestEpoch, transfers } from './store/ledger.ts'
import { DatabaseNewerThanCode, MigrationChanged } from './store/migrate.ts'
import { keyNames, logSigner } from './store/operator-keys.ts'
import { PostgresBinariesMissing } from './store/postgres-binaries.ts'

/** Sites must be public names on default ports; only the demo's server says otherwise, and only for itself. */
const scopeRules = { loopbackAllowed: false }

const program = new Command('gleaner')
  .description(
    'Gathers public web pages under consent into datasets in which every row can be checked.',
  )
  .version('0.1.0')
  .showHelpAfterError('(gleaner COMMAND --help says more)')
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(text) })

withConfig(program.command('start'))
  .description('run the task server')
  .option('--host <address>', 'address to listen on (GLEANER_HOST, 127.0.0.1)')
  .option('--port <number>', 'port to listen on (GLEANER_PORT, 8437)')
  .option(
    '--metrics <host:port>',
    'where /metrics and /healthz are answered, or "off" (GLEANER_METRICS, 127.0.0.1 and the next port)',
  )
  .option('--origin <url>', 'where contributors reach this server (GLEANER_ORIGIN)')
  .option('--name <text>', 'name of the network, at its first start (GLEANER_NAME)')
  .option('--operator <text>', 'who runs it, at its first start (GLEANER_OPERATOR)')
  .option('--contact <text>', 'how to reach them, at its first start (GLEANER_CONTACT)')
  .option('--log-origin <name>', 'name of the public log, at its first start (GLEANER_LOG_ORIGIN)')
  .option(
    '--trusted-proxies <number>',
    'reverse proxies in front of this server (GLEANER_TRUSTED_PROXIES, 0)',
  )
  .option('--no-auditor', 'start no auditor process; one runs elsewhere: gleaner auditor')
  .action(async (flags) => {
    const config = readConfig(flags, process.env)
    const log = pino({ level: config.logLevel }, pino.destination({ fd: 2, sync: false }))
    const server = await startServer(config, log, {
      scopeRules,
      ...(flags.auditor ? { auditor: { scopeRules } } : {}),
    })
    const running = await campaigns(server.workspace.database.pool)
    const { pool } = server.workspace.database
    const halted = { everything: await haltInForce(pool), paused: await pausedCampaigns(pool) }
    process.stdout.write(startText(config, server, running.length, halted))
    const signal = new Promise<null>((resolve) => {
      process.once('SIGINT', () => resolve(null))
      process.once('SIGTERM', () => resolve(null))
    })
    const failure = await Promise.race([signal, server.failed])
    await server.stop()
    if (failure) throw failure
  })

function startText(
  config: ServerConfig,
  server: { origin: string; joinLink: string; verifierKey: string; metricsOrigin: string | null },
  campaignCount: number,
  halted: { everything: { at: Date; reason: string | null } | null; paused: readonly string[] },
): string {
  const standing = [
    halted.everything &&
      `HALTED ${haltWords(halted.everything)}: nothing is fetched. Go on with: npx gleaner resume`,
    ...halted.paused.map(
      (id) => `Campaign ${id} is PAUSED. Go on with: npx gleaner campaign resume ${id}`,
    ),
  ].filter((line) => line !== null)
  const next =
    campaignCount === 0
      ? `Next: describe what to gather and open it to contributors:

  npx gleaner campaign create --id my-first --title "My first campaign" \\
    --purpose "Why these pages, in plain words" --site https://example.org/`
      : `${campaignCount} campaign${campaignCount === 1 ? '' : 's'} here: npx gleaner campaign list`
  return `Gleaner listens on http://${config.host}:${new URL(server.origin).port || config.port}
  data        ${config.dataFolder}
  database    ${config.databaseUrl === null ? 'embedded PostgreSQL' : 'external PostgreSQL'}
  metrics     ${server.metricsOrigin === null ? 'off' : `${server.metricsOrigin}/metrics and /healthz`}
  log key     ${server.verifierKey}

Join link, for contributors:
  ${server.joinLink}

The extension: npm run build, then in Chrome or Edge open chrome://extensions, switch on
Developer mode, choose "Load unpacked" and pick .output/chrome-mv3. In Firefox open
about:debugging, "This Firefox", "Load Temporary Add-on", and pick .output/firefox-mv2/manifest.json.
Without a browser: npx gleaner node --server JOINLINK --campaign ID

${[...standing, next].join('\n')}

Stop with Ctrl-C; everything is kept.
`
}

addAuditorCommand(program)
addCampaignCommands(program)
addHaltCommands(program)
addFrontierCommands(program, { scopeRules })
addOptOutCommands(program)
addRobotsCommand(program)

withConfig(program.command('release'))
  .description('publish what a campaign has gathered as an immutable, verifiable folder')
  .requiredOption('--campaign <id>', 'campaign')
  .option('--name <name>', 'name of the release; campaign and time without it')
  .option('--out <folder>', 'folder to make; below the data folder without it')
  .addOption(json())
  .action(async (flags) => {
    const config = readConfig(flags, process.env)
    const nowMs = Date.now()
    const name =
      flags.name ??
      `${flags.campaign}-${new Date(nowMs).toISOString().slice(0, 19).replace(/\D/g, '')}`
    await onWorkspace(config, async (workspace) => {
      const published = await publishRelease(workspace, {
        campaignId: flags.campaign,
        name,
        folder: resolve(flags.out ?? join(config.dataFolder, 'releases', name)),
        nowMs,
      })
      print(
        flags.json,
        published,
        `Release ${published.name}: ${published.rows} rows, ${published.duplicates} of them duplicates
  ${published.folder}
Anyone can check it, offline:
  npx gleaner verify ${published.folder} --key ${published.verifierKey}
`,
      )
    })
  })

program
  .command('verify')
  .description('check a release offline: every file, every row, every signature')
  .argument('<folder>', 'the release')
  .requiredOption(
    '--key <verifier key>',
    'the log’s verifier key, from the operator, never from the folder',
  )
  .addOption(json())
  .action(async (folder, flags) => {
    const report = await verifyRelease(resolve(folder), flags.key).catch((error: Error) => {
      if (!('syscall' in error)) throw error
      throw new OperatorProblem(
        `${folder} cannot be read: ${error.message}. Name a release’s folder.`,
      )
    })
    print(flags.json, report, printReport(report))
    if (!report.ok) process.exitCode = exitStatus.failed
  })

const ledger = program.command('ledger').description('look at the ledger')

withConfig(ledger.command('show'))
  .description('balances, the last transfers, and whether everything balances')
  .option('--account <id>', 'only transfers of this account')
  .option('--limit <number>', 'transfers to show', '20')
  .addOption(json())
  .action(async (flags) => {
    await onWorkspace(readConfig(flags, process.env), async ({ database }) => {
      const check = await checkLedger(database)
      const accounts = await balances(database.pool)
      const some = await transfers(database.pool, {
        ...(flags.account ? { account: flags.account } : {}),
        limit: Number(flags.limit) || 20,
      })
      const epoch = await latestEpoch(database.pool)
      print(
        flags.json,
        {
          ...check,
          accounts,
          epoch,
          transfers: some.map((one) => ({ ...one, id: one.id.toString('base64url') })),
        },
        `${check.balanced ? `Balanced: ${check.debits} points debited, ${check.credits} credited.` : `NOT BALANCED at ${check.account}: stored ${check.stored}, recomputed ${check.recomputed}.`}
${epoch ? `Last sealed epoch: ${epoch.number}, ${epoch.day}.` : 'No epoch is sealed yet.'}

${accounts.map((one) => `${one.id.padEnd(52)} pending ${one.creditsPending - one.debitsPending}, posted ${one.creditsPosted - one.debitsPosted}`).join('\n')}

${some.map((one) => `${one.id.toString('base64url').slice(0, 12)}  ${one.state.padEnd(7)} ${String(one.amount).padStart(8)}  ${one.purpose.padEnd(8)} ${one.debitAccount.slice(0, 24)} → ${one.creditAccount.slice(0, 24)}`).join('\n')}
`,
      )
      if (!check.balanced) process.exitCode = exitStatus.failed
    })
  })

withConfig(ledger.command('seal'))
  .description('seal the epoch now instead of at the end of the day')
  .action(async (flags) => {
    await onWorkspace(readConfig(flags, process.env), async (workspace) => {
      const number = await sealEpoch(
        { database: workspace.database, signCheckpoint: checkpointSigner(workspace) },
        Date.now(),
      )
      process.stdout.write(number === null ? 'Nothing to seal.\n' : `Epoch ${number} is sealed.\n`)
    })
  })

withConfig(program.command('keys'))
  .description('the operator’s keys: where they are and their public halves')
  .addOption(json())
  .action(async (flags) => {
    await onWorkspace(readConfig(flags, process.env), async (workspace) => {
      const { keys } = workspace
      const network = await networkOf(workspace.database.pool)
      const verifierKey = network?.logKey ?? logSigner(workspace.logOrigin, keys.log).verifierKey
      const shown = keyNames.map((name) => ({
        name,
        publicKey: keys[name].keyid,
        fingerprint: keys[name].fingerprint,
        file: keys[name].file,
      }))
      print(
        flags.json,
        { keys: shown, verifierKey },
        `${shown.map((one) => `${one.name.padEnd(9)} ${one.fingerprint}  ${one.file}`).join('\n')}
log verifier key, for gleaner verify: ${verifierKey}
Keep a copy of the campaign key on another machine. Whoever has it can open campaigns in your name.
`,
      )
    })
  })

withConfig(program.command('node'))
  .description('contribute without a browser: the same runner as the extension')
  .requiredOption('--server <join link>', 'the network’s join link, with its fingerprint')
  .option('--campaign <id...>', 'campaign to consent to; without it, the campaigns are listed')
  .action(async (flags) => {
    const config = readConfig(flags, process.env)
    const log = pino({ level: config.logLevel }, pino.destination({ fd: 2, sync: false }))
    const { contribute } = await import('./node/contribute.ts')
    await contribute({
      joinLink: flags.server,
      campaigns: flags.campaign ?? [],
      folder: join(config.dataFolder, 'node'),
      log,
      write: (text) => process.stdout.write(text),
    })
  })

program
  .command('demo')
  .description(
    'the whole way on this machine: real browsers, a real site, a cheat, a verified release',
  )
  .option('--site <folder>', 'a folder of HTML to serve as the site; npm’s manual without it')
  .option('--json', 'print the summary as one JSON object on the last line')
  .option('--keep', 'leave everything running at the end, until Ctrl-C')
  .option('--headed', 'show the browsers')
  .action(async (flags) => {
    const { runDemo } = await import('./demo/demo.ts')
    process.exitCode = (await runDemo(flags)) ? 0 : exitStatus.failed
  })

/** The sentence and exit status for an error, or null when it is a fault of ours. */
function known(error: unknown): { status: number; text: string } | null {
  if (!(error instanceof Error)) return null
  const text = error.message
  if (error instanceof ConfigProblem) return { status: exitStatus.usage, text }
  if (error instanceof PortTaken) return { status: exitStatus.portTaken, text }
  if (error instanceof DataFolderInUse) return { status: exitStatus.dataFolderInUse, text }
  if (error instanceof DatabaseNewerThanCode || error instanceof MigrationChanged) {
    return { status: exitStatus.databaseNewer, text }
  }
  if (error instanceof PostgresBinariesMissing || error instanceof DataFolderUnusable) {
    return { status: exitStatus.databaseUnavailable, text }
  }
  if (
    error instanceof OperatorProblem ||
    error instanceof JoinRefused ||
    error instanceof ServerUnreachable
  ) {
    return { status: exitStatus.failed, text }
  }
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === '28P01' || code === '3D000') {
    return {
      status: exitStatus.databaseUnavailable,
      text: `The database does not answer: ${text}. Check DATABASE_URL and that PostgreSQL runs.`,
    }
  }
  return null
}

try {
  await program.parseAsync()
} catch (error) {
  const { code, exitCode } = error as { code?: string; exitCode?: number }
  if (code?.startsWith('commander.')) process.exitCode = exitCode === 0 ? 0 : exitStatus.usage
  else {
    const told = known(error)
    if (told) process.stderr.write(`gleaner: ${told.text}\n`)
    else console.error(error)
    process.exitCode = told?.status ?? exitStatus.failed
  }
}
