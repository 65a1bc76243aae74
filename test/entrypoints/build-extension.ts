import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

/** Which of the three builds. */
export type Build = 'chrome' | 'chrome-lab' | 'firefox'

/**
 * Builds the extension as `npm run build` does, but into a folder of the test's own, so that tests
 * that run at once do not overwrite each other's build.
 *
 * @returns the folder with the manifest
 */
export function buildExtension(build: Build, folder: string): string {
  runWxt('build', build, folder)
  const name = {
    chrome: 'chrome-mv3',
    'chrome-lab': 'chrome-mv3-lab',
    firefox: 'firefox-mv2',
  }[build]
  return join(folder, name)
}

/** Runs one command of WXT's. Throws with everything that it printed when it fails. */
export function runWxt(command: 'build' | 'zip', build: Build, folder: string): void {
  const browser = build === 'firefox' ? 'firefox' : 'chrome'
  const script = `
    import { ${command} } from 'wxt'
    await ${command}({ outDir: ${JSON.stringify(folder)}, browser: ${JSON.stringify(browser)} })
  `
  const { GLEANER_LAB: _, ...env } = process.env
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', script],
    {
      // vitest sets it to `test`, and then the build would not be the one that is shipped.
      env: {
        ...env,
        NODE_ENV: 'production',
        ...(build === 'chrome-lab' && { GLEANER_LAB: '1' }),
      },
      encoding: 'utf8',
    },
  )
  if (status !== 0) throw new Error(`wxt ${command} ${build} failed:\n${stdout}\n${stderr}`)
}
