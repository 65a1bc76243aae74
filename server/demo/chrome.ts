import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'

export class NoBrowser extends Error {
  override name = 'NoBrowser'
}

const names = [
  'chromium',
  'chromium-browser',
  'google-chrome',
  'google-chrome-stable',
  'microsoft-edge',
]
const places = [
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
  'C:\\Program Files (x86)\\Microsoft\\Edge\\Application\\msedge.exe',
]
const cacheFolder = join(homedir(), '.cache', 'gleaner')

/**
 * Finds a Chrome or Chromium; else installs one: by puppeteer's installer, or,
 * as root on Debian, by apt-get. Throws `NoBrowser`, saying what to install.
 */
export async function findChrome(say: (text: string) => void): Promise<string> {
  const found = installedChrome()
  if (found) return found
  say('No Chrome or Chromium found; trying to install one.')
  const downloaded = await download().catch((error: unknown) => {
    say(`puppeteer's installer could not: ${(error as Error).message.split('\n')[0]}`)
    return null
  })
  if (downloaded) return downloaded
  if (process.getuid?.() === 0 && existsSync('/etc/debian_version')) {
    say('Installing Debian’s chromium with apt-get.')
    try {
      const quiet = { stdio: 'pipe', timeout: 300_000 } as const
      execFileSync('apt-get', ['update', '-qq'], quiet)
      execFileSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'chromium'], {
        ...quiet,
        env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      })
    } catch (error) {
      say(`apt-get could not: ${(error as Error).message.split('\n')[0]}`)
    }
    const installed = installedChrome()
    if (installed) return installed
  }
  throw new NoBrowser(
    'No Chrome or Chromium here, and none could be installed. Install one (Debian, Ubuntu: sudo apt-get install chromium; elsewhere https://www.google.com/chrome/), or name it: CHROME_PATH=/path/to/chrome',
  )
}

function installedChrome(): string | null {
  const named = process.env.CHROME_PATH
  if (named) {
    if (existsSync(named)) return named
    throw new NoBrowser(
      `CHROME_PATH is "${named}", where there is no file. Name the browser's program.`,
    )
  }
  const inPath = (process.env.PATH ?? '')
    .split(delimiter)
    .filter(Boolean)
    .flatMap((folder) => names.map((name) => join(folder, name)))
  return [...inPath, ...places].find(existsSync) ?? null
}

async function download(): Promise<string> {
  const { Browser, BrowserTag, detectBrowserPlatform, install, resolveBuildId } = await import(
    '@puppeteer/browsers'
  )
  const platform = detectBrowserPlatform()
  if (!platform) throw new Error('no build for this platform')
  const timeout = AbortSignal.timeout(20_000)
  const buildId = await Promise.race([
    resolveBuildId(Browser.CHROME, platform, BrowserTag.STABLE),
    new Promise<never>((_, fail) =>
      timeout.addEventListener('abort', () =>
        fail(new Error('the download server did not answer')),
      ),
    ),
  ])
  const installed = await install({ browser: Browser.CHROME, buildId, cacheDir: cacheFolder })
  return installed.executablePath
}
