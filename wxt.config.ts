import { readFileSync } from 'node:fs'
import { defineConfig } from 'wxt'

/** The one switch between the production and the lab build. See lib/browser/build.ts. */
const lab = process.env.GLEANER_LAB === '1'

const { version, description } = JSON.parse(readFileSync('package.json', 'utf8')) as {
  version: string
  description: string
}

/** Any site may be asked for, none is granted: each campaign requests its own, in the click. */
const everySite = ['https://*/*', 'http://*/*']

export default defineConfig({
  modules: ['@wxt-dev/webextension-polyfill'],
  imports: false,
  outDirTemplate: lab
    ? '{{browser}}-mv{{manifestVersion}}-lab'
    : '{{browser}}-mv{{manifestVersion}}',

  manifest: ({ browser, manifestVersion }) => ({
    name: lab ? 'Gleaner LAB' : 'Gleaner',
    version,
    description,
    permissions: [
      // The doorbell that wakes a stopped worker.
      'alarms',
      'idle',
      // The peer's address, and where a redirect leads.
      'webRequest',
      // Names the crawler to sites and strips cookies, on our own requests only.
      'declarativeNetRequestWithHostAccess',
      // Keys and journal are not to be evicted.
      'unlimitedStorage',
      // Firefox has no targetAddressSpace: it looks the name up before it asks.
      ...(browser === 'firefox' ? ['dns'] : []),
    ],
    ...sitePermissions(manifestVersion),
    ...(browser === 'firefox' ? firefox : chromium),
    content_security_policy: contentSecurityPolicy(manifestVersion),
  }),

  vite: () => ({
    define: {
      'import.meta.env.GLEANER_LAB': JSON.stringify(lab),
      'import.meta.env.GLEANER_VERSION': JSON.stringify(version),
    },
    // Reviewers and the rebuild check read the output.
    build: { minify: false, modulePreload: false },
  }),

  hooks: {
    'zip:start': () => {
      if (lab) {
        throw new Error(
          'The lab build allows loopback sites and holds every host permission. ' +
            'It is never packed: unset GLEANER_LAB and zip the production build.',
        )
      }
    },
  },
})

const chromium = {
  // First version that ships Request.targetAddressSpace enabled. The worker checks again when it starts.
  minimum_chrome_version: '142',
}

const firefox = {
  browser_specific_settings: {
    gecko: {
      id: 'gleaner@gleaner.example',
      // First version that asks the person for data_collection_permissions.
      strict_min_version: '140.0',
      data_collection_permissions: {
        required: ['websiteContent'],
        optional: ['technicalAndInteraction'],
      },
    },
  },
} as const

function sitePermissions(manifestVersion: 2 | 3) {
  if (manifestVersion === 3) {
    return lab ? { host_permissions: everySite } : { optional_host_permissions: everySite }
  }
  // MV2 has no key for hosts alone. WXT moves host_permissions into permissions.
  return lab ? { host_permissions: everySite } : { optional_permissions: everySite }
}

function contentSecurityPolicy(manifestVersion: 2 | 3) {
  // Sites and task servers are unknown at build time, so any may be connected to; nothing else is loaded.
  const policy =
    "default-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; " +
    "frame-ancestors 'none'; connect-src https: http: wss: ws:"
  return manifestVersion === 3 ? { extension_pages: policy } : policy
}
