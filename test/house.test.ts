import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import type * as z from 'zod/mini'
import { isMessage, members } from './lib/protocol/message-members.ts'

// Keeps the house: what DESIGN calls floors, and what nobody would notice going wrong.

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string) => readFileSync(join(root, path), 'utf8')

/** Every file of the project; what begins with a dot is made by tools or for them. */
function filesBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true })
    .filter(({ name }) => !/^\.|^node_modules$|\.tsbuildinfo$/.test(name))
    .flatMap((entry) => {
      const path = posix.join(folder, entry.name)
      return entry.isDirectory() ? filesBelow(path) : [path]
    })
}
const files = filesBelow('').sort()
const code = files.filter((path) => /\.(ts|tsx|mjs)$/.test(path))
const inside = (...folders: string[]) =>
  code.filter((path) => folders.some((folder) => path.startsWith(`${folder}/`)))

/** What a file imports, in any way: specifiers as written. Comments are not read. */
function specifiers(path: string): string[] {
  const text = read(path)
  if (path.endsWith('.html')) {
    return [...text.matchAll(/\bsrc="([^"]+)"/g)].map((match) => match[1] ?? '')
  }
  const statements = withoutComments(text)
  return [
    /^\s*(?:import|export)\b[^'";]*?\bfrom\s*['"]([^'"]+)['"]/gm,
    /^\s*import\s*['"]([^'"]+)['"]/gm,
    /\bimport\(\s*['"]([^'"]+)['"]\s*\)/g,
    /\bnew URL\(\s*['"](\.[^'"]+)['"],\s*import\.meta\.url/g,
    /\bimport\('([^']+)'\)\./g,
  ].flatMap((form) => [...statements.matchAll(form)].map((match) => match[1] ?? ''))
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[\s;{}(,])\/\/[^\n]*/g, '$1')
}

/** The file of the project that a relative specifier names, or the package. */
function target(from: string, specifier: string): string {
  return specifier.startsWith('.') ? posix.join(posix.dirname(from), specifier) : specifier
}

const imports = new Map(
  files
    .filter((path) => /\.(ts|tsx|mjs|html)$/.test(path))
    .map((path) => [path, specifiers(path).map((specifier) => target(path, specifier))] as const),
)

/** Each import of these files that is not allowed, as `file → target`. */
function forbidden(from: readonly string[], isAllowed: (to: string, file: string) => boolean) {
  return from.flatMap((file) =>
    (imports.get(file) ?? []).filter((to) => !isAllowed(to, file)).map((to) => `${file} → ${to}`),
  )
}
const isOurs = (to: string) => /^(lib|server|entrypoints|test)\//.test(to)
const startsWithOne = (to: string, ...folders: string[]) =>
  folders.some((folder) => to.startsWith(`${folder}/`))

describe('imports point down', () => {
  test('they are found at all', () => {
    expect(imports.get('server/pipeline.ts')).toContain('server/verify/decide.ts')
    expect(imports.get('server/gleaner.mjs')).toContain('server/cli.ts')
    expect(imports.get('server/verify/analyser.ts')).toContain('server/verify/analyse-worker.mjs')
    expect(imports.get('entrypoints/popup/index.html')).toContain('entrypoints/popup/main.tsx')
  })

  test('relative imports name their file', () => {
    const missing = forbidden(
      code,
      (to, file) => !isOurs(to) || existsSync(join(root, to)) || file === 'test/house.test.ts',
    )
    expect(missing).toEqual([])
  })

  test('lib knows nothing of server, entrypoints or tests', () => {
    expect(forbidden(inside('lib'), (to) => !isOurs(to) || startsWithOne(to, 'lib'))).toEqual([])
  })

  test('nothing but tests imports tests', () => {
    const notTests = inside('lib', 'server', 'entrypoints')
    expect(forbidden(notTests, (to) => !startsWithOne(to, 'test'))).toEqual([])
  })

  test.each([
    // Floor 1.
    ['lib/protocol', []],
    // Floor 2.
    ['lib/crypto', ['lib/protocol']],
    ['lib/capture', ['lib/protocol', 'lib/crypto']],
    ['lib/tlog', ['lib/protocol', 'lib/crypto']],
    // Floor 3: decisions. They do not know each other.
    ['lib/meter', ['lib/protocol', 'lib/capture', 'lib/tlog', 'lib/crypto']],
    ['lib/consent', ['lib/protocol', 'lib/capture', 'lib/tlog', 'lib/crypto']],
    // Floor 4: adapters, which may use the floors below and what they adapt.
    [
      'lib/runner',
      ['lib/protocol', 'lib/capture', 'lib/tlog', 'lib/crypto', 'lib/meter', 'lib/consent'],
    ],
  ])('%s imports only what stands below it: %j', (folder, below) => {
    const wrong = forbidden(
      inside(folder),
      (to) => !isOurs(to) || startsWithOne(to, folder, ...below),
    )
    expect(wrong).toEqual([])
  })

  test('the runner’s machine decides from consent and plain values, without any adapter', () => {
    // ports.ts has only the types of what the machine's commands and events carry.
    const allowed = /^(lib\/(protocol|capture|tlog|crypto|consent)\/|lib\/runner\/ports\.ts$)/
    expect(forbidden(['lib/runner/machine.ts'], (to) => allowed.test(to))).toEqual([])
    expect(read('lib/runner/machine.ts')).not.toMatch(/^import \{[^}]*\} from '\.\/ports\.ts'/m)
  })

  const stages = ['frontier', 'lease', 'verify', 'dedupe', 'ledger', 'publish']
  test.each(stages)(
    'the stage server/%s knows lib and itself: no adapter, no other stage',
    (stage) => {
      const wrong = forbidden(
        inside(`server/${stage}`),
        (to) => !isOurs(to) || startsWithOne(to, 'lib', `server/${stage}`),
      )
      expect(wrong).toEqual([])
      const adapters = ['lib/browser', 'lib/ui', 'lib/runner']
      expect(forbidden(inside(`server/${stage}`), (to) => !startsWithOne(to, ...adapters))).toEqual(
        [],
      )
    },
  )

  test.each([
    ['server/store', stages.map((stage) => `server/${stage}`)],
    ['server/http', ['server/store', ...stages.map((stage) => `server/${stage}`)]],
    ['server/node', ['server/store']],
  ])('the adapter %s imports no composition', (folder, below) => {
    const wrong = forbidden(
      inside(folder),
      (to) => !isOurs(to) || startsWithOne(to, 'lib', folder, ...below),
    )
    expect(wrong).toEqual([])
  })

  test('entrypoints are the extension’s: they import lib and nothing of the server', () => {
    const wrong = forbidden(
      inside('entrypoints'),
      (to) => !isOurs(to) || startsWithOne(to, 'lib', 'entrypoints'),
    )
    expect(wrong).toEqual([])
  })

  test('only lib/browser uses extension APIs', () => {
    const wrong = forbidden(
      inside('lib', 'server'),
      (to, file) =>
        !/^(wxt|webextension-polyfill|idb)(\/|$)/.test(to) || file.startsWith('lib/browser/'),
    )
    expect(wrong).toEqual([])
  })
})

describe('shared code runs in the extension and on the server', () => {
  const shared = inside('lib').filter((path) => !/^lib\/(browser|ui)\//.test(path))

  test('it imports nothing of Node', () => {
    expect(
      forbidden(shared, (to) => !/^node:|^(fs|path|crypto|zlib|net|http|os)$/.test(to)),
    ).toEqual([])
    for (const path of shared) {
      expect.soft(withoutStrings(path), path).not.toMatch(/\b(process|Buffer|__dirname|require)\b/)
    }
  })

  test('it mentions no global of a page or of an extension', () => {
    for (const path of shared) {
      expect
        .soft(withoutStrings(path), path)
        .not.toMatch(
          /(?<![.\w])(window|localStorage|sessionStorage|indexedDB|navigator|chrome|browser|HTMLElement|DOMParser|XMLHttpRequest)\b(?!\??:)|(?<![.\w])document\.(?!success|data|error)/,
        )
    }
  })

  function withoutStrings(path: string): string {
    return withoutComments(read(path)).replace(/'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g, "''")
  }
})

describe('nothing lies about', () => {
  const reached = (roots: readonly string[]): Set<string> => {
    const found = new Set<string>()
    const waiting = [...roots]
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      if (found.has(path)) continue
      found.add(path)
      waiting.push(...(imports.get(path) ?? []).filter((to) => imports.has(to)))
    }
    return found
  }
  const entrypoints = files.filter((path) =>
    /^entrypoints\/([^/]+\/index\.html|[^/]+\.ts)$/.test(path),
  )
  const running = reached([...entrypoints, 'server/gleaner.mjs', 'wxt.config.ts'])
  const tests = files.filter((path) => /^test\/.*(\.test\.ts|\.mjs)$/.test(path))

  test('every source file is reached from an entry point', () => {
    const dead = inside('lib', 'server', 'entrypoints').filter(
      (path) => !running.has(path) && !path.endsWith('.d.ts'),
    )
    expect(dead).toEqual([])
  })

  test('every file of the tests is a test, or is used by one', () => {
    // A bench is run by its name: `npm run bench -- ingest`.
    const benches = files.filter((path) => /^test\/bench\/[^/]+\.ts$/.test(path))
    const used = reached([...tests, ...benches])
    // Started as a process of its own, by name.
    const started = inside('test').filter((path) =>
      [...used].some((user) => user.startsWith('test/') && user !== path && namesFile(user, path)),
    )
    const usedByStarted = reached(started)
    const dead = inside('test').filter((path) => !used.has(path) && !usedByStarted.has(path))
    expect(dead).toEqual([])
  })

  function namesFile(user: string, path: string): boolean {
    return read(user).includes(path.slice(path.lastIndexOf('/') + 1))
  }

  test('a test stands where what it tests stands', () => {
    const folders = new Set(inside('lib', 'server', 'entrypoints').map((path) => dirname(path)))
    const astray = files.filter(
      (path) =>
        /^test\/(lib|server|entrypoints)\/.*\.test\.ts$/.test(path) &&
        !folders.has(dirname(path).slice('test/'.length)) &&
        dirname(path) !== 'test/entrypoints',
    )
    expect(astray).toEqual([])
  })
})

describe('every message has specification and vectors', async () => {
  const vectors = new Set(
    readdirSync(join(root, 'test/vectors/messages')).map((name) => name.replace(/\.json$/, '')),
  )
  const named = new Map<z.ZodMiniType, string>()
  const fileOf = new Map<string, string>()
  for (const path of inside('lib/protocol')) {
    const exported: Record<string, unknown> = await import(join(root, path))
    for (const [name, value] of Object.entries(exported)) {
      if (!isMessage(value)) continue
      const message = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
      named.set(value, message)
      fileOf.set(message, path.slice('lib/protocol/'.length))
    }
  }
  const messages = [...named].map(([schema, name]) => ({ schema, name }))

  test('there are messages at all', () => {
    expect(fileOf.get('lease-grant')).toBe('lease.ts')
    expect(messages.length).toBeGreaterThan(30)
  })

  test('vectors', () => {
    const without = messages
      .map(({ name }) => name)
      // The meter's are one file of their own; a site only ever stands in a campaign.
      .filter((name) => !vectors.has(name) && !name.startsWith('meter-') && name !== 'site')
    expect(without).toEqual([])
    const meter = JSON.parse(read('test/vectors/meter.json')) as Record<string, unknown>
    for (const name of fileOf.keys()) {
      if (name.startsWith('meter-')) expect(meter).toHaveProperty(name.slice('meter-'.length))
    }
  })

  test('a row in §13 of the specification with exactly its members', () => {
    const readme = read('lib/protocol/README.md')
    const rows = readme
      .slice(readme.indexOf('## 13. Messages'))
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .map((line) =>
        line
          .split('|')
          .map((cell) => cell.trim())
          .filter(Boolean)
          .join(' | '),
      )
    const expected = messages
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map(
        ({ schema, name }) =>
          `\`${name}\` | \`${fileOf.get(name)}\` | \`${members(schema, withoutSelf(schema))}\``,
      )
    expect(rows).toEqual(expected)
  })

  const withoutSelf = (schema: z.ZodMiniType) =>
    new Map([...named].filter(([other]) => other !== schema))
})

describe('the two builds differ in one constant file', () => {
  test('only it, its type and the build’s configuration ask which build it is', () => {
    const asking = ['lib', 'entrypoints', 'wxt.config.ts']
      .flatMap((place) => files.filter((path) => path === place || path.startsWith(`${place}/`)))
      .filter((path) => /\.(ts|tsx|html|css)$/.test(path) && read(path).includes('GLEANER_LAB'))
    expect(asking.sort()).toEqual(['lib/browser/build.ts', 'lib/browser/env.d.ts', 'wxt.config.ts'])
  })

  test('the server has one way to run: no branch for demo or lab where quorum and leases are decided', () => {
    for (const path of inside('server/verify', 'server/lease', 'server/store', 'server/frontier')) {
      // PostgreSQL listens on loopback where there are no Unix sockets: that is its own business.
      const text = withoutComments(read(path))
      expect.soft(text, path).not.toMatch(/\b(demo|lab)\b|\bis(Demo|Lab)\b|GLEANER_(DEMO|LAB)/i)
      if (path !== 'server/store/embedded-postgres.ts') {
        expect.soft(text, path).not.toMatch(/loopback|127\.0\.0|localhost/i)
      }
    }
  })

  test('loopback sites are allowed by an argument that only the demo gives', () => {
    const giving = inside('server').filter((path) =>
      /loopbackAllowed: true/.test(withoutComments(read(path))),
    )
    expect(giving.every((path) => path.startsWith('server/demo/'))).toBe(true)
  })
})

describe('names', () => {
  test('no file is called after nothing in particular', () => {
    const vague = code.filter((path) =>
      /(^|\/)(utils?|helpers?|common|misc|shared|index)\.(ts|tsx|mjs)$/.test(path),
    )
    expect(vague).toEqual([])
  })

  test('no file only re-exports', () => {
    const barrels = code.filter((path) => {
      const lines = withoutComments(read(path))
        .split('\n')
        .filter((line) => line.trim() !== '')
      return lines.length > 0 && lines.every((line) => /^\s*export\b.*\bfrom\b/.test(line))
    })
    expect(barrels).toEqual([])
  })

  test('the top level holds what the house rules name', () => {
    const top = [...new Set(files.map((path) => path.split('/')[0] ?? ''))].sort()
    const folders = ['entrypoints', 'lib', 'public', 'server', 'test']
    const documents = ['ARCHITECTURE.md', 'CHANGELOG.md', 'LICENSE', 'README.md', 'SECURITY.md']
    const tools = [
      'biome.json',
      'package-lock.json',
      'package.json',
      'tsconfig.json',
      'vitest.config.ts',
      'wxt.config.ts',
    ]
    expect(top).toEqual([...folders, ...documents, ...tools].sort())
  })

  test('no type check is switched off', () => {
    for (const path of code.filter((one) => one !== 'test/house.test.ts')) {
      expect
        .soft(read(path), path)
        .not.toMatch(/@ts-(ignore|nocheck|expect-error)|biome-ignore-all/)
    }
  })
})
