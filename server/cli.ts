import { readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Command, Option } from '@commander-js/extra-typings'
import { pino } from 'pino'
import { envelope as envelopeSchema } from '../lib/protocol/fields.ts'
import { ServerUnreachable } from '../lib/runner/server-connection.ts'
import { ConfigProblem, readConfig, type ServerConfig } from './config.ts'
import { PortTaken, startServer } from './main.ts'
import { JoinRefused } from './node/run-node.ts'
import {
  checkLedger,
  checkpointSigner,
  OperatorProblem,
  openCampaign,
  parseManifest,
  publishRelease,
  signCampaign,
} from './operator.ts'
import { sealEpoch } from './pipeline.ts'
import { printReport } from './publish/print-report.ts'
import { verifyRelease } from './publish/verify-release.ts'
import { campaigns, networkOf } from './store/campaigns.ts'
import { DataFolderInUse, DataFolderUnusable } from './store/embedded-postgres.ts'
import { balances, latestEpoch, transfers } from './store/ledger.ts'
import { DatabaseNewerThanCode, MigrationChanged } from './store/migrate.ts'
import { keyNames, loadOperatorKeys, logSigner } from './store/operator-keys.ts'
import { PostgresBinariesMissing } from './store/postgres-binaries.ts'
import { type OpenWorkspace, openWorkspace } from './workspace.ts'

/** Exit statuses, one for each kind of trouble that a script may want to tell apart. */
const exitStatus = {
  failed: 1,
  usage: 2,
  portTaken: 3,
  dataFolderInUse: 4,
  databaseNewer: 5,
  databaseUnavailable: 6,
} as const

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

function withConfig<
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

const json = () => new Option('--json', 'print one JSON object instead of text')

withConfig(program.command('start'))
  .description('run the task server')
  .option('--host <address>', 'address to listen on (GLEANER_HOST, 127.0.0.1)')
  .option('--port <number>', 'port to listen on (GLEANER_PORT, 8437)')
  .option('--origin <url>', 'where contributors reach this server (GLEANER_ORIGIN)')
  .option('--name <text>', 'name of the network, at its first start (GLEANER_NAME)')
  .option('--operator <text>', 'who runs it, at its first start (GLEANER_OPERATOR)')
  .option('--contact <text>', 'how to reach them, at its first start (GLEANER_CONTACT)')
  .option('--log-origin <name>', 'name of the public log, at its first start (GLEANER_LOG_ORIGIN)')
  .option(
    '--trusted-proxies <number>',
    'reverse proxies in front of this server (GLEANER_TRUSTED_PROXIES, 0)',
  )
  .action(async (flags) => {
    const config = readConfig(flags, process.env)
    const log = pino({ level: config.logLevel }, pino.destination({ fd: 2, sync: false }))
    const server = await startServer(config, log, { scopeRules })
    const running = await campaigns(server.workspace.database.pool)
    process.stdout.write(startText(config, server, running.length))
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
  server: { origin: string; joinLink: string; verifierKey: string },
  campaignCount: number,
): string {
  const next =
    campaignCount === 0
      ? `Next: describe what to gather and open it to contributors:

  npx gleaner campaign create --id my-first --title "My first campaign" \\
    --purpose "Why these pages, in plain words" --site https://example.org/`
      : `${campaignCount} campaign${campaignCount === 1 ? '' : 's'} here: npx gleaner campaign list`
  return `Gleaner listens on http://${config.host}:${new URL(server.origin).port || config.port}
  data        ${config.dataFolder}
  database    ${config.databaseUrl === null ? 'embedded PostgreSQL' : 'external PostgreSQL'}
  log key     ${server.verifierKey}

Join link, for contributors:
  ${server.joinLink}

The extension: npm run build, then in Chrome or Edge open chrome://extensions, switch on
Developer mode, choose "Load unpacked" and pick .output/chrome-mv3. In Firefox open
about:debugging, "This Firefox", "Load Temporary Add-on", and pick .output/firefox-mv2/manifest.json.
Without a browser: npx gleaner node --server JOINLINK --campaign ID

${next}

Stop with Ctrl-C; everything is kept.
`
}

const campaign = program.command('campaign').description('create, sign and list campaigns')

withConfig(campaign.command('create'))
  .description(
    'open a campaign: from flags, from a manifest, or from one that was signed elsewhere',
  )
  .option('--manifest <file>', 'a manifest (JSON) to sign and open')
  .option('--signed <file>', 'an envelope made by "gleaner campaign sign"')
  .option('--id <id>', 'short name: lower-case letters, digits, hyphens')
  .option('--title <text>', 'title, shown to contributors')
  .option('--purpose <text>', 'why, in plain words, shown to contributors')
  .option('--site <url...>', 'a site, such as https://example.org/docs/ (repeatable)')
  .option('--use <kind>', 'research, search, ai-training or archive', 'research')
  .option('--rate <number>', 'requests a second for each site, of the whole network', '1')
  .option('--in-flight <number>', 'requests at once for each site', '1')
  .option('--pages <number>', 'most pages to gather', '10000')
  .option('--quorum <number>', 'independent observers a page needs', '2')
  .option('--budget <points>', 'points that may be credited', '1000000')
  .option('--days <number>', 'how long it is open', '90')
  .option('--print', 'only print the unsigned manifest; sign it where the campaign key is')
  .addOption(json())
  .action(async (flags) => {
    const config = readConfig(flags, process.env)
    const manifest = flags.signed
      ? null
      : parseManifest(
          flags.manifest
            ? await readGiven(flags.manifest)
            : JSON.stringify(manifestFromFlags(flags, config)),
        )
    if (flags.print) {
      process.stdout.write(`${JSON.stringify(manifest, null, 2)}\n`)
      return
    }
    await onWorkspace(config, async (workspace) => {
      const envelope =
        manifest === null
          ? parseEnvelope(await readGiven(flags.signed ?? ''))
          : await signCampaign(manifest, workspace.keys.campaign)
      const opened = await openCampaign(workspace, envelope)
      print(
        flags.json,
        { id: opened.manifest.id, digest: opened.digest },
        `Campaign ${opened.manifest.id} is open. Manifest digest ${opened.digest}\n`,
      )
    })
  })

withConfig(campaign.command('sign'))
  .description('sign a manifest with the campaign key; needs no server and no database')
  .argument('<file>', 'manifest (JSON)')
  .option('--out <file>', 'where to write the envelope; standard output without it')
  .action(async (file, flags) => {
    const config = readConfig(flags, process.env)
    const manifest = parseManifest(await readGiven(file))
    const keys = await loadOperatorKeys(config.dataFolder)
    const envelope = await signCampaign(manifest, keys.campaign)
    const text = `${JSON.stringify(envelope, null, 2)}\n`
    if (flags.out) await writeFile(flags.out, text)
    else process.stdout.write(text)
  })

withConfig(campaign.command('list'))
  .description('list campaigns and how far they are')
  .addOption(json())
  .action(async (flags) => {
    await onWorkspace(readConfig(flags, process.env), async (workspace) => {
      const { rows } = await workspace.database.pool.query<{
        id: string
        title: string
        state: string
        digest: Buffer
        pages: number
        closed: number
        records: number
      }>(
        `select c.id, c.manifest->>'title' as title, c.state, c.digest,
                (select count(*) from task t where t.campaign = c.digest and t.kind = 'page') as pages,
                (select count(*) from task t where t.campaign = c.digest and t.kind = 'page' and t.state = 'closed') as closed,
                (select count(*) from record r where r.campaign = c.digest) as records
         from campaign c order by c.created_at, c.id`,
      )
      print(
        flags.json,
        { campaigns: rows.map((row) => ({ ...row, digest: row.digest.toString('base64url') })) },
        rows.length === 0
          ? 'No campaign yet. Make one with: gleaner campaign create --help\n'
          : rows
              .map(
                (row) =>
                  `${row.id}  ${row.state}  ${row.closed}/${row.pages} pages done, ${row.records} records  "${row.title}"\n`,
              )
              .join(''),
      )
    })
  })

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

function manifestFromFlags(
  flags: {
    id?: string | undefined
    title?: string | undefined
    purpose?: string | undefined
    site?: string[] | undefined
    use: string
    rate: string
    inFlight: string
    pages: string
    quorum: string
    budget: string
    days: string
  },
  config: ServerConfig,
) {
  const missing = (['id', 'title', 'purpose', 'site'] as const).filter(
    (name) => !flags[name]?.length,
  )
  if (missing.length > 0) {
    throw new OperatorProblem(
      `A campaign needs ${missing.map((name) => `--${name}`).join(', ')}. Or give a whole --manifest FILE.`,
    )
  }
  const sites = (flags.site ?? []).map((given) => {
    if (!URL.canParse(given)) {
      throw new OperatorProblem(
        `--site is "${given}", which is not a URL such as https://example.org/`,
      )
    }
    const url = new URL(given)
    return {
      host: url.hostname,
      scheme: url.protocol.replace(':', ''),
      pathPrefixes: [url.pathname],
      requestsPerSecond: Number(flags.rate),
      requestsInFlight: Number(flags.inFlight),
    }
  })
  const now = Date.now()
  return {
    version: 1,
    id: flags.id,
    title: flags.title,
    purpose: flags.purpose,
    operator: { name: config.operatorName, contact: config.operatorContact },
    use: flags.use,
    sites,
    canaryHosts: [],
    seeds: flags.site,
    limits: { pageBytes: 2 * 1024 * 1024, pageMs: 30_000, pages: Number(flags.pages), depth: 20 },
    retentionDays: 365,
    quorum: Number(flags.quorum),
    points: {
      perPage: 10,
      perDuplicate: 1,
      perPayload: 2,
      budget: Number(flags.budget),
      funding: 'subsidy',
    },
    validFrom: new Date(now - 60_000).toISOString(),
    validUntil: new Date(now + Number(flags.days) * 86_400_000).toISOString(),
  }
}

async function readGiven(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw new OperatorProblem(`${file} cannot be read: ${(error as Error).message}`)
  }
}

function parseEnvelope(text: string) {
  try {
    return envelopeSchema.parse(JSON.parse(text))
  } catch {
    throw new OperatorProblem(
      'The signed file is not an envelope. Make it with: gleaner campaign sign MANIFEST --out FILE',
    )
  }
}

async function onWorkspace(
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

function print(asJson: true | undefined, object: unknown, text: string) {
  process.stdout.write(asJson ? `${JSON.stringify(object)}\n` : text)
}

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
