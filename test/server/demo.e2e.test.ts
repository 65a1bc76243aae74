import { spawn } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const gleaner = fileURLToPath(new URL('../../server/gleaner.mjs', import.meta.url))

/** Runs the command as a person would and returns its exit status and what it printed. */
function run(args: readonly string[]): Promise<{ status: number | null; output: string }> {
  return new Promise((settle) => {
    const child = spawn(process.execPath, [gleaner, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (part: Buffer) => {
      output += part.toString()
    })
    child.stderr.on('data', (part: Buffer) => {
      output += part.toString()
    })
    child.on('exit', (status) => settle({ status, output }))
  })
}

test('three browsers, a live site and a forger end in a release that verifies', async () => {
  const { status, output } = await run(['demo', '--json'])
  const last = output.trimEnd().split('\n').at(-1) ?? ''
  expect(last, output).toMatch(/^\{/)
  const summary = JSON.parse(last) as Record<string, number | boolean | string>
  expect(summary, output).toMatchObject({
    crawlFinished: true,
    forgedSentencesPublished: 0,
    contributorAddressesPublished: 0,
    requestsIntoDisallowedFolder: 0,
    ledgerBalanced: true,
    verifyOk: true,
  })
  for (const name of [
    'pagesVerified',
    'exactPages',
    'sentencePages',
    'divergentPages',
    'duplicatePages',
    'pagesRefusedByRobots',
    'observations',
    'payloadsUploaded',
    'bytesUp',
    'bytesDown',
    'forgedSentencesOffered',
  ]) {
    expect(summary[name], name).toBeGreaterThan(0)
  }
  expect(status, output).toBe(0)

  const { releasePath, verifyKey } = summary
  const again = await run(['verify', String(releasePath), '--key', String(verifyKey), '--json'])
  expect(again.status, again.output).toBe(0)
  await rm(resolve(String(releasePath), '..', '..'), { recursive: true, force: true })
}, 240_000)

test('a site folder without pages is refused in a sentence', async () => {
  const { status, output } = await run(['demo', '--site', '/nowhere'])
  expect(status).toBe(1)
  expect(output).toContain('/nowhere is not a folder')
  expect(output).toContain('--site FOLDER')
}, 60_000)
