import { stat, writeFile } from 'node:fs/promises'
import { type Command, InvalidArgumentError } from '@commander-js/extra-typings'
import { ListedDomain } from '../../lib/consent/domain-list.ts'
import { covers } from '../../lib/consent/scope.ts'
import { fromBase64, toBase64Url } from '../../lib/crypto/base64.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import { type EnvelopeMessage, envelope as envelopeSchema } from '../../lib/protocol/fields.ts'
import { readConfig } from '../config.ts'
import { type DomainList, domainList, listableNames, readDomains } from '../frontier/domain-list.ts'
import { OperatorProblem, openCampaign, parseManifest, signCampaign } from '../operator.ts'
import { networkOf } from '../store/campaigns.ts'
import { addDomainList } from '../store/domain-list.ts'
import { haltInForce } from '../store/halt.ts'
import { loadOperatorKeys } from '../store/operator-keys.ts'
import { json, onWorkspace, print, readGiven, withConfig } from './command.ts'
import { addCampaignStateCommands, haltWords } from './halt.ts'

/** `gleaner campaign …` */
export function addCampaignCommands(program: Command) {
  const campaign = program
    .command('campaign')
    .description('create, sign, list, pause, resume and stop campaigns')

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
    .option('--seed <url...>', 'where to begin; the sites themselves if not given (repeatable)')
    .option(
      '--list <file>',
      'a wide campaign: a file of up to a million domains, one a line, each covered with all names below it, by https',
    )
    .option('--category <text>', 'what the listed domains have in common, shown to contributors')
    .option('--use <kind>', 'research, search, ai-training or archive', 'research')
    .option(
      '--rate <number>',
      'requests a second for each site or listed host, of the whole network',
      requestRate,
      1,
    )
    .option(
      '--in-flight <number>',
      'requests at once for each site or listed host',
      whole(1, 32),
      1,
    )
    .option(
      '--types <kinds>',
      `kinds of content to read, separated by commas, of ${kindsOfContent.join(', ')} (html,text,feed if not given)`,
      contentKinds,
    )
    .option('--pages <number>', 'most pages to gather', whole(1, mostPages), 10_000)
    .option(
      '--pages-per-host <number>',
      'most pages to gather of one host (as many as --pages if not given)',
      whole(1, mostPages),
    )
    .option('--depth <number>', 'most links between a seed and a page', whole(0, 1_000), 20)
    .option('--quorum <number>', 'independent observers a page needs', whole(2, 5), 2)
    .option(
      '--budget <points>',
      'points that may be credited',
      whole(0, Number.MAX_SAFE_INTEGER),
      1_000_000,
    )
    .option('--days <number>', 'how long it is open', whole(1, 36_500), 90)
    .option('--print', 'only print the unsigned manifest; sign it where the campaign key is')
    .addOption(json())
    .action(async (flags) => {
      const config = readConfig(flags, process.env)
      const list = flags.list === undefined ? null : await readList(flags.list)
      const signed = flags.signed ? parseEnvelope(await readGiven(flags.signed)) : null
      const given = signed
        ? payloadText(signed)
        : flags.manifest
          ? await readGiven(flags.manifest)
          : null
      const manifestBy = (operator: Campaign['operator']) => {
        const manifest = parseManifest(
          given ?? JSON.stringify(manifestFromFlags(flags, operator, list)),
        )
        if (list !== null) requireFitting(manifest, list)
        return manifest
      }
      const asConfigured = { name: config.operatorName, contact: config.operatorContact }
      // Wrong flags are told before anything is opened.
      const manifest = manifestBy(asConfigured)
      if (flags.print) {
        process.stdout.write(`${JSON.stringify(manifest, null, 2)}\n`)
        return
      }
      await onWorkspace(config, async (workspace) => {
        const { database, keys } = workspace
        // Who runs the network was said at its first start, and needs no repeating.
        const operator = (await networkOf(database.pool))?.operator ?? asConfigured
        const envelope = signed ?? (await signCampaign(manifestBy(operator), keys.campaign))
        // Before the campaign: a list that no campaign names harms nobody.
        if (list !== null) await database.transaction((tx) => addDomainList(tx, list))
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

  addCampaignStateCommands(campaign)

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
        const halt = await haltInForce(workspace.database.pool)
        const campaigns = rows.map((row) => ({ ...row, digest: row.digest.toString('base64url') }))
        const halted = halt ? `HALTED ${haltWords(halt)}. Go on with: gleaner resume\n` : ''
        print(
          flags.json,
          { campaigns, halt },
          rows.length === 0
            ? `${halted}No campaign yet. Make one with: gleaner campaign create --help\n`
            : halted +
                rows
                  .map(
                    (row) =>
                      `${row.id}  ${row.state}  ${row.closed}/${row.pages} pages done, ${row.records} records  "${row.title}"\n`,
                  )
                  .join(''),
        )
      })
    })
}

// What the manifest accepts (lib/protocol/campaign.ts), said before anything is opened.
const mostPages = 1_000_000_000
const kindsOfContent = ['html', 'text', 'feed', 'json', 'pdf']

function whole(least: number, most: number) {
  return (given: string): number => {
    const value = /^\d{1,16}$/.test(given) ? Number(given) : Number.NaN
    if (value >= least && value <= most) return value
    throw new InvalidArgumentError(`Give a whole number from ${least} to ${most}.`)
  }
}

function requestRate(given: string): number {
  const value = /^\d+(\.\d+)?$/.test(given) ? Number(given) : Number.NaN
  if (value > 0 && value <= 100) return value
  throw new InvalidArgumentError(
    'Give a number above 0 and not above 100, such as 0.5 for one request every two seconds.',
  )
}

function contentKinds(given: string): string[] {
  const kinds = given.split(',').map((kind) => kind.trim())
  const wrong = kinds.find((kind) => !kindsOfContent.includes(kind))
  if (wrong === undefined) return [...new Set(kinds)]
  throw new InvalidArgumentError(
    `"${wrong}" is no kind of content. Give some of ${kindsOfContent.join(',')}, separated by commas.`,
  )
}

function manifestFromFlags(
  flags: {
    id?: string | undefined
    title?: string | undefined
    purpose?: string | undefined
    site?: string[] | undefined
    seed?: string[] | undefined
    category?: string | undefined
    use: string
    rate: number
    inFlight: number
    types?: string[] | undefined
    pages: number
    pagesPerHost?: number | undefined
    depth: number
    quorum: number
    budget: number
    days: number
  },
  operator: Campaign['operator'],
  list: DomainList | null,
) {
  const needed =
    list === null
      ? (['id', 'title', 'purpose', 'site'] as const)
      : (['id', 'title', 'purpose', 'category', ...(flags.site ? [] : ['seed' as const])] as const)
  const missing = needed.filter((name) => !flags[name]?.length)
  if (missing.length > 0) {
    throw new OperatorProblem(
      `A campaign needs ${missing.map((name) => `--${name}`).join(', ')}. Or give a whole --manifest FILE.`,
    )
  }
  if (list === null && flags.category !== undefined) {
    throw new OperatorProblem('--category describes a list of domains. Give it with --list FILE.')
  }
  const pace = {
    requestsPerSecond: flags.rate,
    requestsInFlight: flags.inFlight,
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
      ...pace,
    }
  })
  const wrongSeed = flags.seed?.find(
    (given) => !/^https?:\/\//i.test(given) || !URL.canParse(given),
  )
  if (wrongSeed !== undefined) {
    throw new OperatorProblem(
      `--seed is "${wrongSeed}", which is not a URL such as https://example.org/start`,
    )
  }
  const strange = flags.seed?.find((given) => list === null && !isOnSite(given, sites))
  if (strange !== undefined) {
    throw new OperatorProblem(
      `--seed ${strange} is on none of the sites, so nobody would fetch it. Give its site with --site as well.`,
    )
  }
  const now = Date.now()
  return {
    version: 1,
    id: flags.id,
    title: flags.title,
    purpose: flags.purpose,
    operator,
    use: flags.use,
    sites,
    ...(list && {
      wide: {
        root: toBase64Url(list.root),
        size: list.domains.length,
        category: flags.category,
        scheme: 'https',
        ...pace,
      },
    }),
    ...(flags.types && { types: flags.types }),
    canaryHosts: [],
    seeds: flags.seed ?? flags.site,
    limits: {
      pageBytes: 2 * 1024 * 1024,
      pageMs: 30_000,
      pages: flags.pages,
      ...(flags.pagesPerHost !== undefined && { pagesPerHost: flags.pagesPerHost }),
      depth: flags.depth,
    },
    retentionDays: 365,
    quorum: flags.quorum,
    points: {
      perPage: 10,
      perDuplicate: 1,
      perPayload: 2,
      budget: flags.budget,
      funding: 'subsidy',
    },
    validFrom: new Date(now - 60_000).toISOString(),
    validUntil: new Date(now + flags.days * 86_400_000).toISOString(),
  }
}

/** A million of the longest names; a file beyond that is not a list of domains. */
const MOST_LIST_BYTES = 256 * 1024 * 1024

async function readList(file: string): Promise<DomainList> {
  const { size } = await stat(file).catch(() => ({ size: 0 }))
  if (size > MOST_LIST_BYTES) {
    throw new OperatorProblem(`${file} has ${size} bytes, too many for a list of domains.`)
  }
  const read = readDomains(await readGiven(file))
  if (!read.ok) {
    throw new OperatorProblem(`${file} is no list of domains:\n  ${read.problems.join('\n  ')}`)
  }
  return domainList(read.domains)
}

/** The list given beside a manifest is the one that the manifest names, and the seeds are on it. */
function requireFitting(manifest: Campaign, list: DomainList) {
  const { wide } = manifest
  if (wide === undefined) {
    throw new OperatorProblem('The manifest names no list of domains (wide), so leave out --list.')
  }
  const root = toBase64Url(list.root)
  if (wide.root !== root || wide.size !== list.domains.length) {
    throw new OperatorProblem(
      `The manifest names the list with root ${wide.root} (${wide.size} domains); the file given with --list has root ${root} (${list.domains.length} domains). Give the file that the manifest was made from.`,
    )
  }
  const names = new Set(list.domains)
  for (const seed of manifest.seeds) {
    const host = URL.canParse(seed) ? new URL(seed).hostname : ''
    const name = listableNames(host).find((one) => names.has(one))
    const listed = name === undefined ? null : ListedDomain.held(root, name)
    if (!covers(manifest, 'page', seed, { loopbackAllowed: false }, listed).ok) {
      throw new OperatorProblem(
        `The seed ${seed} is neither on the list (by ${wide.scheme}) nor within a named site, so nobody would fetch it.`,
      )
    }
  }
}

/** What an envelope holds, before anybody checked its signature. */
function payloadText({ payload }: EnvelopeMessage): string {
  try {
    return new TextDecoder().decode(fromBase64(payload))
  } catch {
    throw new OperatorProblem(
      'The payload of the signed file is not base64. Make it with: gleaner campaign sign MANIFEST --out FILE',
    )
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

function isOnSite(
  given: string,
  sites: readonly { host: string; scheme: string; pathPrefixes: readonly string[] }[],
): boolean {
  const { hostname, protocol, pathname } = new URL(given)
  return sites.some(
    ({ host, scheme, pathPrefixes }) =>
      host === hostname &&
      `${scheme}:` === protocol &&
      pathPrefixes.some((prefix) => pathname.startsWith(prefix)),
  )
}
