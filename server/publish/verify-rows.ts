import { lessRestrictive, useOf } from '../../lib/capture/use-signals.ts'
import { fromBase64Url, toBase64Url } from '../../lib/crypto/base64.ts'
import { equalBytes } from '../../lib/crypto/digest.ts'
import { toHex } from '../../lib/crypto/hex.ts'
import type { Campaign } from '../../lib/protocol/campaign.ts'
import { canonicalJson } from '../../lib/protocol/canonical-json.ts'
import type { EnvelopeMessage } from '../../lib/protocol/fields.ts'
import { attestation } from '../../lib/protocol/follow-up.ts'
import { payloadType } from '../../lib/protocol/payload-type.ts'
import type { Release, Row } from '../../lib/protocol/release.ts'
import { leafHash } from '../../lib/tlog/merkle.ts'
import {
  type AttestedLine,
  attestationsPath,
  maxAttestedLineBytes,
  parseAttestedLine,
} from './attested-line.ts'
import { maxRows } from './build-release.ts'
import type { Findings } from './findings.ts'
import { LinesError, readLines } from './json-lines.ts'
import { decodeUtf8, parseJson } from './parse-json.ts'
import { verifyReleaseEnvelope } from './release-envelope.ts'
import type { ReleaseFolder } from './release-folder.ts'
import type { Leaves } from './verify-log.ts'
import { type NamedRecords, textComplaint } from './verify-warc.ts'

/** Rows checked at once: enough to keep the signature threads busy. */
const rowsAtOnce = 64

/** What the steps before established. Undefined where they failed; their failure is reported. */
export type RowContext = {
  folder: ReleaseFolder
  leaves: Leaves | undefined
  release: Release | undefined
  campaigns: ReadonlyMap<string, Campaign>
  named: NamedRecords
}

export type RowCounts = { rows: number; duplicates: number; exact: number; attestations: number }

/** Step 7, the rows, and step 8. */
export async function verifyRows(
  context: RowContext,
  findings: Findings,
  onProgress: (done: number, total: number | undefined) => void,
): Promise<RowCounts> {
  const counts: RowCounts = { rows: 0, duplicates: 0, exact: 0, attestations: 0 }
  if (context.folder.bytesOf(attestationsPath) === undefined) {
    findings.add(7, attestationsPath, 'is missing')
    return counts
  }
  const seen: Seen = { leaves: new Set(), keys: new Set(), texts: new Set(), places: new Set() }
  let waiting: Promise<Complaint[]>[] = []
  const settle = async () => {
    for (const complaints of await Promise.all(waiting)) {
      for (const { step, where, what, compared } of complaints) {
        findings.add(step, where, what, compared)
      }
    }
    waiting = []
    onProgress(counts.rows, context.release?.rows)
  }
  try {
    const source = await context.folder.stream(attestationsPath)
    const options = { gzip: true, maxLineBytes: maxAttestedLineBytes }
    for await (const text of readLines(source, options)) {
      counts.rows += 1
      if (counts.rows > maxRows) {
        findings.add(8, attestationsPath, `has more than ${maxRows} lines`)
        break
      }
      const where = `${attestationsPath} line ${counts.rows}`
      const line = parseAttestedLine(text)
      if (line === undefined) {
        findings.add(7, where, 'is not a row in canonical JSON with its attestations')
        continue
      }
      if (line.row.duplicate) counts.duplicates += 1
      if (line.row.grade === 'exact') counts.exact += 1
      counts.attestations += line.attested.attestations.length
      const complain = complaintsAbout(`${where} (${line.row.url})`)
      checkAgainstEarlier(line, seen, complain)
      checkPage(line, context, complain)
      waiting.push(checkAlone(line, context, complain))
      if (waiting.length >= rowsAtOnce) await settle()
    }
  } catch (error) {
    if (!(error instanceof LinesError)) throw error
    findings.add(7, `${attestationsPath} after line ${counts.rows}`, error.message)
  }
  await settle()
  compareCounts(counts, context.release, findings)
  return counts
}

type Compared = { expected?: string | number; found?: string | number }
type Complaint = { step: number; where: string; what: string; compared: Compared }
type Complain = {
  (step: number, what: string, compared?: Compared): void
  readonly list: Complaint[]
}

/** What earlier lines used up or established. */
type Seen = {
  leaves: Set<number>
  keys: Set<string>
  texts: Set<string>
  /** Where the rows with a text of their own have it. */
  places: Set<string>
}

function complaintsAbout(where: string): Complain {
  const list: Complaint[] = []
  const complain = (step: number, what: string, compared: Compared = {}) => {
    list.push({ step, where, what, compared })
  }
  return Object.assign(complain, { list })
}

function checkAgainstEarlier(
  { attested, row }: AttestedLine,
  seen: Seen,
  complain: Complain,
): void {
  const { file, offset, length } = attested.warc
  if (seen.leaves.has(attested.leafIndex)) {
    complain(7, `leaf ${attested.leafIndex} of the log stands for an earlier row already`)
  }
  seen.leaves.add(attested.leafIndex)
  for (const { signatures } of attested.attestations) {
    for (const { keyid } of signatures) {
      if (seen.keys.has(keyid)) {
        complain(7, 'a one-use key signed more than once', { found: keyid })
      }
      seen.keys.add(keyid)
    }
  }
  const place = JSON.stringify([row.text, file, offset, length])
  if (!row.duplicate) {
    seen.texts.add(row.text)
    seen.places.add(place)
  } else if (!seen.texts.has(row.text)) {
    complain(8, 'is a duplicate, but no earlier row has its text', { found: row.text })
  } else if (!seen.places.has(place)) {
    // A record of its own would have an address and a day that nobody signed.
    complain(7, 'is a duplicate, but points to another record than the earlier row')
  }
}

/** What the index of the WARC files must have for this row. */
function checkPage({ attested, row }: AttestedLine, context: RowContext, complain: Complain): void {
  context.named.addSpan(attested.warc)
  if (row.payload !== null) context.named.takeReference(row, labelOf(row.payload))
  if (!row.duplicate) context.named.takeReference(row, labelOf(row.text))
  if (row.payload !== null) {
    const digest = labelOf(row.payload)
    if (!context.named.takePage(row, digest)) {
      complain(7, 'the WARC index has no record of this page with this payload', {
        expected: digest,
      })
    } else if (!context.named.hasPayload(digest)) {
      complain(7, 'no response record of the release has this payload', { expected: digest })
    }
  } else if (row.duplicate && !context.named.takePage(row, labelOf(row.text))) {
    complain(7, 'the WARC index has no revisit record of this duplicate')
  }
}

/** What can be said of a row without the others. */
async function checkAlone(
  line: AttestedLine,
  context: RowContext,
  complain: Complain,
): Promise<Complaint[]> {
  const { attested, row } = line
  await checkLeaf(line, context.leaves, complain)
  checkRules(line, context, complain)
  for (const [at, envelope] of attested.attestations.entries()) {
    const complaint = await attestationComplaint(envelope, row)
    if (complaint !== undefined) complain(7, `attestation ${at + 1} ${complaint}`)
  }
  const page = row.duplicate ? undefined : { url: row.url, day: row.day }
  const complaint = await textComplaint(context.folder, attested.warc, { text: row.text, page })
  if (complaint !== undefined) complain(7, complaint)
  return complain.list
}

async function checkLeaf(
  { attested, commitment }: AttestedLine,
  leaves: Leaves | undefined,
  complain: Complain,
): Promise<void> {
  if (leaves === undefined) return
  const entry = canonicalJson({ type: 'row', commitment: toBase64Url(commitment) })
  const found = leafHash(Buffer.from(entry))
  const expected = await leaves.at(attested.leafIndex)
  if (expected !== undefined && equalBytes(expected, found)) return
  complain(7, `the log does not hold this row at ${attested.leafIndex}`, {
    expected: expected ? toHex(expected) : 'no such leaf',
    found: toHex(found),
  })
}

function checkRules(
  { attested, row }: AttestedLine,
  context: RowContext,
  complain: Complain,
): void {
  const { release } = context
  if (release !== undefined && !release.campaigns.includes(row.campaign)) {
    complain(7, 'is of a campaign that the release does not name', { found: row.campaign })
  }
  const asked = context.campaigns.get(row.campaign)?.quorum
  if (asked !== undefined && row.quorum < asked) {
    complain(7, 'has a lower quorum than its campaign promises', {
      expected: `${asked} or more`,
      found: row.quorum,
    })
  }
  if (attested.attestations.length < row.quorum) {
    complain(7, 'has fewer attestations than its quorum', {
      expected: `${row.quorum} or more`,
      found: attested.attestations.length,
    })
  }
  if ((row.grade === 'exact') !== (row.payload !== null)) {
    complain(7, 'an exact row has a payload, and no other has', { found: row.grade })
  }
  if (row.agreementPermille > 1000 || (row.grade === 'exact' && row.agreementPermille < 1000)) {
    complain(7, 'has an agreement that its grade cannot have', { found: row.agreementPermille })
  }
  const needed = useOf(row.signals)
  const wrong = row.use && lessRestrictive(row.use, needed)
  if (row.use !== undefined && wrong !== undefined) {
    complain(7, `states a use (${wrong}) less restrictive than its own signals`, {
      expected: needed[wrong],
      found: row.use[wrong],
    })
  }
}

async function attestationComplaint(
  envelope: EnvelopeMessage,
  row: Row,
): Promise<string | undefined> {
  const [signature] = envelope.signatures
  if (signature === undefined || envelope.signatures.length > 1) return 'has not one signature'
  const key = fromBase64Url(signature.keyid)
  const verdict = await verifyReleaseEnvelope(envelope, payloadType.attestation, key)
  if (!verdict.ok) return `is not signed by the key it names (${verdict.reason})`
  const text = decodeUtf8(verdict.payload)
  const statement = attestation.safeParse(parseJson(verdict.payload)).data
  if (statement === undefined || canonicalJson(statement) !== text) {
    return 'does not hold a statement in canonical JSON'
  }
  const wrong = (['campaign', 'day', 'text', 'url'] as const).find(
    (member) => statement[member] !== row[member],
  )
  if (wrong !== undefined) return `speaks of another ${wrong}`
  if (statement.gaps > row.gaps) {
    return `counts ${statement.gaps} gaps where the row admits ${row.gaps}`
  }
  return (statement.payload ?? null) === row.payload ? undefined : 'speaks of another payload'
}

function compareCounts(counts: RowCounts, release: Release | undefined, findings: Findings): void {
  if (release === undefined) return
  if (counts.rows !== release.rows) {
    findings.add(8, attestationsPath, 'has another number of lines than release.json says', {
      expected: release.rows,
      found: counts.rows,
    })
  }
  if (counts.duplicates !== release.duplicates) {
    findings.add(8, attestationsPath, 'has another number of duplicates than release.json says', {
      expected: release.duplicates,
      found: counts.duplicates,
    })
  }
}

function labelOf(digest: string): string {
  return `sha256:${toHex(fromBase64Url(digest))}`
}
