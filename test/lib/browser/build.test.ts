import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { buildExtension, runWxt } from '../../entrypoints/build-extension.ts'

const folder = mkdtempSync(join(tmpdir(), 'gleaner-build-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

// Built once, when the file is loaded, so that tables of tests can name them.
const production = buildExtension('chrome', folder)
const lab = buildExtension('chrome-lab', folder)
const firefox = buildExtension('firefox', folder)

describe('permissions', () => {
  test('the production build for Chromium asks for no site when it is installed', () => {
    expect(manifest(production)).toMatchObject({
      manifest_version: 3,
      name: 'Gleaner',
      minimum_chrome_version: '142',
      permissions: [
        'alarms',
        'idle',
        'webRequest',
        'declarativeNetRequestWithHostAccess',
        'unlimitedStorage',
      ],
      optional_host_permissions: ['https://*/*', 'http://*/*'],
    })
    expect(manifest(production)).not.toHaveProperty('host_permissions')
  })

  test('the Firefox build is MV2, persistent, and declares what it collects', () => {
    expect(manifest(firefox)).toMatchObject({
      manifest_version: 2,
      permissions: [
        'alarms',
        'idle',
        'webRequest',
        'declarativeNetRequestWithHostAccess',
        'unlimitedStorage',
        'dns',
      ],
      optional_permissions: ['https://*/*', 'http://*/*'],
      background: { persistent: true },
      browser_specific_settings: {
        gecko: {
          strict_min_version: '140.0',
          data_collection_permissions: {
            required: ['websiteContent'],
            optional: ['technicalAndInteraction'],
          },
        },
      },
    })
  })

  test.each([
    ['Chromium', production],
    ['lab', lab],
    ['Firefox', firefox],
  ])('the %s build reaches into no page and is reached by none', (_, build) => {
    for (const key of [
      'content_scripts',
      'web_accessible_resources',
      'externally_connectable',
      'chrome_url_overrides',
      'declarative_net_request',
    ]) {
      expect(manifest(build)).not.toHaveProperty(key)
    }
    expect(JSON.stringify(manifest(build).content_security_policy)).toContain("script-src 'self'")
    for (const [name, code] of scripts(build)) {
      expect(code, name).not.toMatch(/\beval\(|new Function\(|importScripts\(/)
      // A rule of declarativeNetRequest that changes a response; webRequest only reads.
      expect(code, name).not.toMatch(/\bresponseHeaders: \[/)
      expect(code, name).not.toContain('webRequestBlocking')
    }
  })
})

describe('the lab build', () => {
  test('has a manifest that differs in its name and its granted sites only', () => {
    const { name, host_permissions, ...rest } = manifest(lab)
    const { name: _, optional_host_permissions, ...other } = manifest(production)
    expect(rest).toEqual(other)
    expect(name).toBe('Gleaner LAB')
    expect(host_permissions).toEqual(optional_host_permissions)
  })

  test('has code that differs in the constants of lib/browser/build.ts only', () => {
    const productionCode = scripts(production)
    const labCode = scripts(lab)
    expect([...labCode.keys()]).toEqual([...productionCode.keys()])
    const changed = [...productionCode].flatMap(([name, code]) => {
      const lines = code.split('\n')
      const labLines = labCode.get(name)?.split('\n') ?? []
      expect(labLines.length, name).toBe(lines.length)
      return lines.flatMap((line, at) =>
        line === labLines[at] ? [] : [`${line.trim()} → ${labLines[at]?.trim()}`],
      )
    })
    expect(new Set(changed)).toEqual(
      new Set([
        'lab: false, → lab: true,',
        'loopbackSitesAllowed: false, → loopbackSitesAllowed: true,',
        'targetAddressSpace: "public" → targetAddressSpace: void 0',
      ]),
    )
  })

  test('cannot be packed', () => {
    expect(() => runWxt('zip', 'chrome-lab', folder)).toThrow(/never packed/)
    expect(readdirSync(folder).filter((name) => name.endsWith('.zip'))).toEqual([])
  })
})

function manifest(build: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(build, 'manifest.json'), 'utf8'))
}

/** Code by file name, with the hashes taken out of names and imports. */
function scripts(build: string): Map<string, string> {
  const files = readdirSync(build, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.js'))
    .map((name): [string, string] => [
      withoutHash(name),
      withoutHash(readFileSync(join(build, name), 'utf8')),
    ])
  return new Map(files.sort(([a], [b]) => (a < b ? -1 : 1)))
}

function withoutHash(text: string): string {
  return text.replace(/-[\w-]{8}\.(js|css)\b/g, '.$1')
}
