import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import puppeteer, { type Browser } from 'puppeteer-core'

export const projectFolder = fileURLToPath(new URL('../..', import.meta.url))

/** Builds the lab extension and returns its folder. */
export async function buildLabExtension(): Promise<string> {
  const folder = join(projectFolder, '.output', 'chrome-mv3-lab')
  await promisify(execFile)(
    process.execPath,
    [join(projectFolder, 'node_modules', 'wxt', 'bin', 'wxt.mjs'), 'build'],
    { cwd: projectFolder, env: { ...process.env, GLEANER_LAB: '1' } },
  )
  if (!existsSync(join(folder, 'manifest.json')))
    throw new Error(`the build left nothing in ${folder}`)
  return folder
}

export interface Contributor {
  browser: Browser
  extensionId: string
  close(): Promise<void>
}

/** A browser with a profile of its own and the lab extension in it. */
export async function openContributor(options: {
  executable: string
  extension: string
  headed: boolean
  /** Chromium's --host-resolver-rules. */
  hostRules: string
}): Promise<Contributor> {
  const profile = await mkdtemp(join(tmpdir(), 'gleaner-profile-'))
  const browser = await puppeteer.launch({
    executablePath: options.executable,
    headless: !options.headed,
    userDataDir: profile,
    pipe: true,
    // The demo ends browsers itself, with everything else that it started.
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
    enableExtensions: [options.extension],
    args: [
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      `--host-resolver-rules=${options.hostRules}`,
    ],
  })
  try {
    const worker = await browser.waitForTarget(
      (target) =>
        target.type() === 'service_worker' && target.url().startsWith('chrome-extension://'),
      { timeout: 20_000 },
    )
    return {
      browser,
      extensionId: new URL(worker.url()).host,
      async close() {
        await browser.close()
        await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
      },
    }
  } catch (error) {
    await browser.close()
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
    throw error
  }
}

/**
 * Joins as a person would: says yes on the page that opened at installation,
 * pastes the link, agrees to the campaign. Each wait is bounded.
 */
export async function joinByHand(contributor: Contributor, joinLink: string): Promise<void> {
  const welcome = await contributor.browser.waitForTarget(
    (target) => target.type() === 'page' && target.url().includes('/welcome.html'),
    { timeout: 20_000 },
  )
  const page = await welcome.page()
  if (!page) throw new Error('the welcome page closed')
  // Without this a tab in the background draws nothing and takes no clicks.
  await page.bringToFront()
  const click = async (testId: string) => {
    const button = await page.waitForSelector(`[data-testid="${testId}"]:not([disabled])`, {
      timeout: 20_000,
    })
    await button?.click()
  }
  await click('consent-yes')
  await page.waitForSelector('[data-testid="join-link"]', { timeout: 20_000 })
  await page.type('[data-testid="join-link"]', joinLink)
  await click('join-network')
  await click('campaign-agree')
  await page.waitForSelector('[data-testid="agreed"]', { timeout: 20_000 })
}
