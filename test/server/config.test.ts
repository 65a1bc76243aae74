import { resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type ConfigFlags, ConfigProblem, readConfig } from '../../server/config.ts'

const problemOf = (flags: ConfigFlags, environment: Record<string, string> = {}): string => {
  try {
    readConfig(flags, environment)
  } catch (error) {
    if (error instanceof ConfigProblem) return error.message
    throw error
  }
  throw new Error('it was accepted')
}

const long = 'x'.repeat(201)
/** Each variable with its flag, values that it refuses, and words of what it accepts. */
const wrong: [
  variable: string,
  flag: string,
  name: keyof ConfigFlags,
  values: string[],
  accepts: string,
][] = [
  ['DATABASE_URL', '--database-url', 'databaseUrl', ['mysql://h/db', 'h/db'], 'postgres://'],
  [
    'GLEANER_HOST',
    '--host',
    'host',
    ['not a host', 'http://x', 'a/b', '[::1]', '300.1.1.1'],
    '127.0.0.1',
  ],
  [
    'GLEANER_PORT',
    '--port',
    'port',
    ['http', '-1', '65536', '80.5', '1e3', '0x50', ' ', '8437 '],
    'from 0 (any free one) to 65535',
  ],
  [
    'GLEANER_METRICS',
    '--metrics',
    'metrics',
    [
      'on',
      '9437',
      ':9437',
      '127.0.0.1',
      '127.0.0.1:65536',
      '::1:9437',
      '300.1.1.1:1',
      'http://x:1',
    ],
    '"off", or an address and port such as 127.0.0.1:9437',
  ],
  [
    'GLEANER_ORIGIN',
    '--origin',
    'origin',
    ['gleaner.example', 'ftp://gleaner.example', 'https://gleaner.example/path', 'https://'],
    'https://gleaner.example',
  ],
  ['GLEANER_NAME', '--name', 'name', ['x'.repeat(101)], '1 to 100 characters'],
  ['GLEANER_OPERATOR', '--operator', 'operator', [long], '1 to 200 characters'],
  ['GLEANER_CONTACT', '--contact', 'contact', [long], 'at most 200 characters'],
  [
    'GLEANER_LOG_ORIGIN',
    '--log-origin',
    'logOrigin',
    ['two words', 'a+b', long],
    'without spaces or plus signs',
  ],
  ['GLEANER_LOG_LEVEL', '--log-level', 'logLevel', ['verbose', 'INFO'], 'warn, info, debug'],
  [
    'GLEANER_TRUSTED_PROXIES',
    '--trusted-proxies',
    'trustedProxies',
    ['yes', '-1', '11', '1.5'],
    'from 0 to 10',
  ],
]

describe.each(wrong)('%s', (variable, flag, name, values, accepts) => {
  test.each(values)(
    '"%s" is refused, naming the variable, what was given and what is accepted',
    (given) => {
      const message = problemOf({}, { [variable]: given })
      expect(message).toMatch(new RegExp(`^${variable} is "`))
      expect(message).toContain(`"${given}"`)
      expect(message).toContain(accepts)
    },
  )

  test.each(values)('"%s" as a flag is refused under the flag’s name', (given) => {
    const message = problemOf({ [name]: given })
    expect(message).toMatch(new RegExp(`^${flag} is "`))
    expect(message).toContain(`"${given}"`)
    expect(message).toContain(accepts)
  })
})

test('a flag that is given and empty is refused, not passed over', () => {
  for (const [, flag, name] of wrong) expect(problemOf({ [name]: '' })).toContain(`${flag} is ""`)
  expect(problemOf({ data: '' })).toContain('--data is "", which is not a folder')
  expect(problemOf({ postgres: '' })).toContain('--postgres is ""')
})

test('a password is not repeated in an error', () => {
  for (const url of [
    'mysql://gleaner:secret@db/x',
    'mysql://gleaner:sec:r@secret@db/x',
    'gleaner:secret@db/x',
  ]) {
    expect(problemOf({}, { DATABASE_URL: url })).not.toContain('secret')
    expect(problemOf({}, { DATABASE_URL: url })).toContain('***@db/x')
  }
})

test('without flags and environment there is a default for everything', () => {
  const config = readConfig({}, {})
  expect(config).toMatchObject({
    databaseUrl: null,
    postgresBinaries: null,
    host: '127.0.0.1',
    port: 8437,
    metrics: { host: '127.0.0.1', port: 8438 },
    publicOrigin: 'http://127.0.0.1:8437',
    networkName: 'A Gleaner network',
    operatorName: 'A Gleaner network',
    operatorContact: 'http://127.0.0.1:8437/crawler',
    logOrigin: '127.0.0.1:8437/log',
    logOriginGiven: false,
    trustedProxies: 0,
  })
  expect(config.dataFolder).toBe(resolve(config.dataFolder))
})

test('a variable that is set and empty is as if it were not set', () => {
  const names = ['GLEANER_DATA', 'GLEANER_POSTGRES', ...wrong.map(([variable]) => variable)]
  expect(readConfig({}, Object.fromEntries(names.map((name) => [name, ''])))).toEqual(
    readConfig({}, {}),
  )
})

test('the environment is read', () => {
  expect(
    readConfig(
      {},
      {
        GLEANER_DATA: '/srv/gleaner',
        DATABASE_URL: 'postgresql://db/gleaner',
        GLEANER_POSTGRES: 'system',
        GLEANER_HOST: '0.0.0.0',
        GLEANER_PORT: '80',
        GLEANER_METRICS: '10.0.0.7:9437',
        GLEANER_ORIGIN: 'https://gleaner.example/',
        GLEANER_NAME: 'Barley',
        GLEANER_OPERATOR: 'Barley e. V.',
        GLEANER_CONTACT: 'crawl@barley.example',
        GLEANER_LOG_ORIGIN: 'barley.example/log',
        GLEANER_LOG_LEVEL: 'debug',
        GLEANER_TRUSTED_PROXIES: '2',
      },
    ),
  ).toEqual({
    dataFolder: '/srv/gleaner',
    databaseUrl: 'postgresql://db/gleaner',
    postgresBinaries: 'system',
    host: '0.0.0.0',
    port: 80,
    metrics: { host: '10.0.0.7', port: 9437 },
    publicOrigin: 'https://gleaner.example',
    networkName: 'Barley',
    operatorName: 'Barley e. V.',
    operatorContact: 'crawl@barley.example',
    logOrigin: 'barley.example/log',
    logOriginGiven: true,
    logLevel: 'debug',
    trustedProxies: 2,
  })
})

test('flags win over the environment', () => {
  const environment = {
    GLEANER_DATA: '/srv/environment',
    GLEANER_PORT: '1',
    GLEANER_HOST: '0.0.0.0',
    GLEANER_LOG_LEVEL: 'debug',
  }
  expect(
    readConfig({ data: '/srv/flag', port: '2', logLevel: 'error' }, environment),
  ).toMatchObject({
    dataFolder: '/srv/flag',
    port: 2,
    host: '0.0.0.0',
    logLevel: 'error',
  })
  // A wrong variable under a right flag is not even looked at.
  expect(readConfig({ port: '2' }, { GLEANER_PORT: 'wrong' }).port).toBe(2)
})

test('the origin follows host and port, an IPv6 address in brackets', () => {
  expect(readConfig({ host: '::1', port: '80' }, {})).toMatchObject({
    host: '::1',
    publicOrigin: 'http://[::1]:80',
    logOrigin: '[::1]/log',
  })
})

test.each([
  [{}, {}, { host: '127.0.0.1', port: 8438 }],
  [{ port: '0' }, {}, { host: '127.0.0.1', port: 0 }],
  [{ port: '65535', host: '0.0.0.0' }, {}, { host: '127.0.0.1', port: 65_534 }],
  [{ metrics: 'off' }, {}, null],
  [{}, { GLEANER_METRICS: 'off' }, null],
  [{ metrics: '0.0.0.0:0' }, { GLEANER_METRICS: 'off' }, { host: '0.0.0.0', port: 0 }],
  [{ metrics: '[::1]:9437' }, {}, { host: '::1', port: 9437 }],
] as [ConfigFlags, Record<string, string>, unknown][])(
  'with %j and %j metrics are at %j',
  (flags, environment, expected) => {
    expect(readConfig(flags, environment).metrics).toEqual(expected)
  },
)
