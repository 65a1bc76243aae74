import { printable } from './findings.ts'
import type { VerifyReport } from './verify-release.ts'

/** A report for people: each step, every failure, and what a success does and does not mean. */
export function printReport(report: VerifyReport): string {
  const { release, log, counted } = report
  const lines = [
    `Release ${release === null ? 'without a readable description' : `“${printable(release.name)}” of ${release.createdAt}`}`,
    `  ${counted.rows} rows (${counted.exact} exact, ${counted.duplicates} duplicates), ${counted.attestations} attestations, ${counted.files} files`,
    log === null
      ? '  no checkpoint that the key given has signed'
      : `  log ${log.origin}, ${log.size} leaves, root ${log.root}`,
    '',
    ...report.steps.map(({ step, title, state }) => `${marks[state]} ${step}. ${title}`),
    '',
  ]
  if (report.ok) {
    lines.push('VERIFIED. This proves:')
    lines.push(...report.proves.map((line) => `  - ${line}`))
    lines.push('It does NOT prove:')
    lines.push(...report.provesNot.map((line) => `  - ${line}`))
  } else {
    lines.push(...report.failures.flatMap(failureLines))
    const hidden = report.failuresFound - report.failures.length
    if (hidden > 0) lines.push(`  … and ${hidden} more`)
    lines.push(
      '',
      'NOT VERIFIED. Do not rely on this folder. Fetch it again; if it fails again, tell whoever',
      'published it, and check that the key is the one they gave you.',
    )
  }
  return `${lines.join('\n')}\n`
}

const marks = { passed: '  ok  ', failed: ' FAIL ', 'not-checked': '  --  ' } as const

function failureLines({
  step,
  where,
  what,
  expected,
  found,
}: VerifyReport['failures'][number]): string[] {
  return [
    `  step ${step}: ${where}: ${what}`,
    ...(expected === undefined ? [] : [`      expected ${expected}`]),
    ...(found === undefined ? [] : [`      found    ${found}`]),
  ]
}
