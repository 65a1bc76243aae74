import { useRules } from '../../lib/capture/use-policy.ts'
import { type Dimension, dimensions, type Preference } from '../../lib/capture/use-signals.ts'
import type { Network } from '../../lib/protocol/network.ts'
import type { Release, Row } from '../../lib/protocol/release.ts'
import type { ReleasedCampaign } from './build-release.ts'
import { columns } from './columns.ts'
import { proves, provesNot } from './proof.ts'

export type CardFacts = {
  release: Release
  network: Network
  campaigns: readonly ReleasedCampaign[]
  /** ISO 639 codes, sorted. */
  languages: readonly string[]
  /** Rows of grade `exact`. */
  exact: number
  uses: UseCounts
}

/** How many rows say y, n or nothing of each kind of use, and how many are from before that was asked. */
export type UseCounts = Record<Dimension, Record<Preference, number>> & { unstated: number }

export function noUses(): UseCounts {
  const none = () => ({ y: 0, n: 0, unknown: 0 })
  return { train: none(), search: none(), aiInput: none(), tdm: none(), unstated: 0 }
}

/** Adds a row to `counts`. */
export function countUse(counts: UseCounts, { use }: Pick<Row, 'use'>): void {
  if (use === undefined) counts.unstated += 1
  else for (const one of dimensions) counts[one][use[one]] += 1
}

/** The README.md of a release: a Hugging Face dataset card for people. */
export function releaseCard(facts: CardFacts): string {
  const { release, network, campaigns } = facts
  return `${frontMatter(facts)}
# ${inline(release.name)}

${release.rows} web pages gathered by volunteers under consent and published as far as independent observers agree on them, by ${inline(network.operator.name)} (${inline(network.operator.contact)}), network “${inline(network.name)}”, on ${release.createdAt.slice(0, 10)}. ${facts.exact} rows are of grade \`exact\` (every observer got the same bytes), ${release.rows - facts.exact} of grade \`sentences\` (the observers agree on these sentences); ${release.duplicates} repeat the text of an earlier row and have none of their own.

## Campaigns

What contributors agreed to. The signed manifests are in \`campaigns/\`.

${campaigns.map(({ manifest }) => campaignLines(manifest)).join('\n')}

## Files

| Path | What |
| --- | --- |
| \`data/train-00000-of-00001.parquet\` | the rows, columns below |
| \`warc/*.warc.gz\`, \`warc/index.cdxj\` | WARC 1.1: texts as \`conversion\` records, payloads of exact rows as \`response\` records with rebuilt headers, repetitions as \`revisit\` records |
| \`attestations.jsonl.gz\` | for each row what the log commits to, and the signatures of its observers |
| \`network.json\`, \`campaigns/\` | signed documents of the operator |
| \`log/\` | leaf hashes of the operator's public log up to a signed checkpoint |
| \`SHA256SUMS\`, \`release.json\` | digest of every file outside \`log/\`; counts |

## Verify it

The network's verifier key must come from the operator or from someone you trust, never from this folder.

\`\`\`sh
gleaner verify . --key 'NAME+HEX+BASE64'
\`\`\`

Without Gleaner, \`sha256sum -c SHA256SUMS\` finds a damaged download, and any row can be checked against the digest that its observers signed:

\`\`\`sh
duckdb -c "select url, grade, text_sha256 = sha256(text) as intact
           from 'data/train-00000-of-00001.parquet' where not duplicate"
\`\`\`

Over the web, one page costs one range request. Take \`warc_filename\`, \`warc_record_offset\` and \`warc_record_length\` from its row:

\`\`\`sh
curl -s -r OFFSET-LAST https://HOST/PATH/WARC_FILENAME | gunzip
\`\`\`

where LAST is offset + length − 1. The specification, enough to write a verifier of your own, is section 11 of \`lib/protocol/README.md\` in Gleaner's source.

## What a proof proves

${proves.map((line) => `- ${line}`).join('\n')}

It does **not** prove:

${provesNot.map((line) => `- ${line}`).join('\n')}

## Columns

| Column | Type | Meaning |
| --- | --- | --- |
${columns.map(({ name, type, meaning }) => `| \`${name}\` | ${type} | ${meaning} |`).join('\n')}

## Text

The text is the main content as far as the observers agree, sentence by sentence. A sentence that only one of them saw is not in it; \`gaps\` counts what was left out inside published blocks. E-mail addresses, network addresses and telephone numbers are replaced by \`[email]\`, \`[address]\` and \`[phone]\`. Exact rows also keep the payload as it was received, which is not scrubbed.

## What the sites say on use

\`use_signals\` holds what each site said on the row's \`date\`, as it was said: in response headers, in the page, in robots.txt and in files beside it. The columns \`use_…\` say what these come to together, over all observers: one no is a no, and where nobody says anything it is \`unknown\`, which is not a yes. Filter by them before you use the rows for anything; sites may have changed their minds since.

| Column | y | n | unknown |
| --- | --- | --- | --- |
${dimensions.map((one) => useLine(one, facts.uses[one])).join('\n')}
${unstatedLine(facts.uses.unstated)}
A page is in no release when it says:

${useRules
  .filter(({ forbids }) => forbids.length > 0)
  .map(ruleLine)
  .join('\n')}

## Licence

The collection (selection, arrangement, attestations) is under the [Open Data Commons Attribution License](https://opendatacommons.org/licenses/by/1-0/). The pages in it keep the rights of their authors: nothing here grants them. The operator at ${inline(network.operator.contact)} removes pages on request.
`
}

function frontMatter({ release, languages }: CardFacts): string {
  return `---
pretty_name: ${JSON.stringify(release.name)}
license: odc-by
${languages.length === 0 ? '' : `language:\n${languages.map((code) => `- "${code}"\n`).join('')}`}task_categories:
- text-generation
size_categories:
- ${sizeCategory(release.rows)}
tags:
- gleaner
- web
- verifiable
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
`
}

function useLine(dimension: Dimension, { y, n, unknown }: UseCounts[Dimension]): string {
  const column = dimension === 'aiInput' ? 'use_ai_input' : `use_${dimension}`
  return `| \`${column}\` | ${y} | ${n} | ${unknown} |`
}

function unstatedLine(rows: number): string {
  if (rows === 0) return ''
  return `
Not counted above are ${rows} of the rows, accepted before this was recorded: their \`use_signals\` may not be all that their sites said, so their columns say \`n\` where one of these says no, and else \`unknown\`. The list below was not applied to them.
`
}

function ruleLine({ term, forbids, meaning, source }: (typeof useRules)[number]): string {
  const said = dimensions.some((one) => one === term) ? `${term} n` : term
  const whom = forbids.length === 4 ? 'any campaign' : `campaigns for ${forbids.join(' or ')}`
  return `- **${said}** (${source}): ${meaning}. Kept out of ${whom}.`
}

function campaignLines(manifest: ReleasedCampaign['manifest']): string {
  const { id, title, purpose, use, sites, wide, retentionDays, quorum } = manifest
  const places = sites.flatMap(({ scheme, host, pathPrefixes }) =>
    pathPrefixes.map((prefix) => `\`${scheme}://${host}${inline(prefix)}\``),
  )
  if (wide) {
    places.push(
      `${wide.size} domains (${inline(wide.category)}) with all names below them, by ${wide.scheme}, of the list with RFC 6962 root \`${wide.root}\``,
    )
  }
  return `- **${inline(title)}** (\`campaigns/${id}.json\`): ${inline(purpose)} Use: ${use}. Sites: ${places.join(', ')}. Kept ${retentionDays} days. Quorum ${quorum}.`
}

/** Hugging Face's names for ranges of rows. */
function sizeCategory(rows: number): string {
  if (rows < 1_000) return 'n<1K'
  if (rows < 10_000) return '1K<n<10K'
  if (rows < 100_000) return '10K<n<100K'
  return rows < 1_000_000 ? '100K<n<1M' : '1M<n<10M'
}

/** An operator's words within a line: no line break, nothing that Markdown or HTML would act on. */
function inline(text: string): string {
  return text
    .replace(/\s+/gu, ' ')
    .trim()
    .replace(/[\\`*_[\]<>|]/g, '\\$&')
}
