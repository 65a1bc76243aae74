// `npm test`: everything, in one place and in order. Prints what it does, goes on after a
// failure, and ends with one line: N passed, N failed.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { register } from 'tsx/esm/api'

const project = fileURLToPath(new URL('..', import.meta.url))
const bin = (...parts) => join(project, 'node_modules', ...parts)
const totals = { passed: 0, failed: 0, skipped: 0 }

/** Runs a program of ours; resolves to its exit status. */
function run(title, args, environment = {}) {
  process.stdout.write(`\n== ${title}\n`)
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, {
      cwd: project,
      stdio: 'inherit',
      env: { ...process.env, ...environment },
    })
    child.on('exit', (status, signal) => resolve(signal ? 1 : status))
    child.on('error', () => resolve(1))
  })
}

async function check(title, args, environment) {
  const status = await run(title, args, environment)
  if (status === 0) totals.passed += 1
  else totals.failed += 1
}

await check('format and lint', [bin('@biomejs', 'biome', 'bin', 'biome'), 'ci', '--colors=off'])
await check('prepare the extension’s types', [bin('wxt', 'bin', 'wxt.mjs'), 'prepare'])
await check('types: extension', [bin('typescript', 'bin', 'tsc'), '--noEmit'])
await check('types: server', [
  bin('typescript', 'bin', 'tsc'),
  '--noEmit',
  '-p',
  'server/tsconfig.json',
])
for (const [title, args, environment] of [
  ['build: Chrome', ['build'], {}],
  ['build: Firefox', ['build', '-b', 'firefox'], {}],
  ['build: Chrome, lab', ['build'], { GLEANER_LAB: '1' }],
]) {
  await check(title, [bin('wxt', 'bin', 'wxt.mjs'), ...args], environment)
}

process.stdout.write('\n== a browser for the end-to-end tests\n')
register()
const { findChrome } = await import('../server/demo/chrome.ts')
let chrome = null
try {
  chrome = await findChrome((text) => process.stdout.write(`${text}\n`))
  process.stdout.write(`${chrome}\n`)
  totals.passed += 1
} catch (error) {
  process.stdout.write(`${error.message}\n`)
  totals.failed += 1
}

const folder = await mkdtemp(join(tmpdir(), 'gleaner-test-'))
const report = join(folder, 'report.json')
const status = await run(
  'tests',
  [
    bin('vitest', 'vitest.mjs'),
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
    ...process.argv.slice(2),
  ],
  chrome === null ? {} : { CHROME_PATH: chrome },
)
if (existsSync(report)) {
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(
    await readFile(report, 'utf8'),
  )
  totals.passed += numPassedTests
  totals.failed += numFailedTests
  totals.skipped += numPendingTests
  // A file that did not load has no failed test of its own.
  totals.failed += testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  ).length
} else totals.failed += 1
if (status !== 0 && totals.failed === 0) totals.failed += 1
await rm(folder, { recursive: true, force: true })

const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : ''
process.stdout.write(`\n${totals.passed} passed, ${totals.failed} failed${skipped}\n`)
process.exitCode = totals.failed === 0 ? 0 : 1
