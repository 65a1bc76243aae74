import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import * as z from 'zod'

/** How the task server runs. Read once, at start; nothing else looks at the environment. */
export interface ServerConfig {
  dataFolder: string
  /** An external PostgreSQL; null runs the embedded one in the data folder. */
  databaseUrl: string | null
  /** A folder with `postgres` and `initdb`, `system`, or null for the packaged one. */
  postgresBinaries: string | null
  host: string
  port: number
  /** Where `/metrics` and `/healthz` are answered; null nowhere. */
  metrics: { host: string; port: number } | null
  /** Where contributors reach the server, for the join link. */
  publicOrigin: string
  networkName: string
  operatorName: string
  operatorContact: string
  /** Origin of the log: the name of its key. A schema-less URL by convention (C2SP tlog-checkpoint). */
  logOrigin: string
  /** False when `logOrigin` is only the default: a network keeps the one it was founded with. */
  logOriginGiven: boolean
  logLevel: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace'
  /** How many proxies in front to believe for the peer's address. */
  trustedProxies: number
}

export class ConfigProblem extends Error {
  override name = 'ConfigProblem'
}

const origin = z.string().refine((given) => {
  const url = URL.canParse(given) ? new URL(given) : null
  return url !== null && /^https?:$/.test(url.protocol) && url.origin === given.replace(/\/$/, '')
})

const wholeNumber = (most: number) =>
  z
    .string()
    .regex(/^\d{1,6}$/)
    .transform(Number)
    .pipe(z.number().max(most))

/** In a URL an IPv6 address stands in brackets. */
export const inUrl = (host: string) => (host.includes(':') ? `[${host}]` : host)
const host = z
  .string()
  .regex(/^[^\s/?#@[\]]+$/)
  .refine((given) => URL.canParse(`http://${inUrl(given)}`))

/** `HOST:PORT`, an IPv6 address in brackets as in a URL. */
const listenAddress = z
  .string()
  .regex(/^(\[[0-9A-Fa-f:.]+\]|[^\s/?#@[\]:]+):\d{1,5}$/)
  .transform((given) => {
    const colon = given.lastIndexOf(':')
    const port = Number(given.slice(colon + 1))
    return { host: given.slice(0, colon).replace(/^\[|\]$/g, ''), port }
  })
  .refine(({ host, port }) => port <= 65_535 && URL.canParse(`http://${inUrl(host)}`))

const variables = {
  GLEANER_DATA: { schema: z.string().min(1), accepts: 'a folder' },
  DATABASE_URL: {
    schema: z.string().regex(/^postgres(ql)?:\/\//),
    accepts: 'a URL that begins with postgres:// or postgresql://',
  },
  GLEANER_POSTGRES: {
    schema: z.string().min(1),
    accepts: 'a folder that holds postgres and initdb, or "system"',
  },
  GLEANER_HOST: {
    schema: host,
    accepts: 'an address to listen on, such as 127.0.0.1',
  },
  GLEANER_PORT: {
    schema: wholeNumber(65_535),
    accepts: 'a port from 0 (any free one) to 65535',
  },
  GLEANER_METRICS: {
    schema: z.union([z.literal('off').transform(() => null), listenAddress]),
    accepts: '"off", or an address and port such as 127.0.0.1:9437 or [::1]:9437',
  },
  GLEANER_ORIGIN: { schema: origin, accepts: 'an origin such as https://gleaner.example' },
  GLEANER_NAME: { schema: z.string().min(1).max(100), accepts: 'a name of 1 to 100 characters' },
  GLEANER_OPERATOR: { schema: z.string().min(1).max(200), accepts: '1 to 200 characters' },
  GLEANER_CONTACT: {
    schema: z.string().min(1).max(200),
    accepts: 'an e-mail address or URL of at most 200 characters',
  },
  GLEANER_LOG_ORIGIN: {
    schema: z.string().regex(/^[^\s+]{1,200}$/),
    accepts: 'a name without spaces or plus signs, such as gleaner.example/log',
  },
  GLEANER_LOG_LEVEL: {
    schema: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace']),
    accepts: 'fatal, error, warn, info, debug or trace',
  },
  GLEANER_TRUSTED_PROXIES: {
    schema: wholeNumber(10),
    accepts: 'a number of proxies from 0 to 10',
  },
} as const
type Variable = keyof typeof variables

/** Flags win over the environment. `flags` has the names of `ServerConfig`. */
export interface ConfigFlags {
  data?: string | undefined
  databaseUrl?: string | undefined
  postgres?: string | undefined
  host?: string | undefined
  port?: string | undefined
  metrics?: string | undefined
  origin?: string | undefined
  name?: string | undefined
  operator?: string | undefined
  contact?: string | undefined
  logOrigin?: string | undefined
  logLevel?: string | undefined
  trustedProxies?: string | undefined
}

const flagOf: Record<Variable, [keyof ConfigFlags, string]> = {
  GLEANER_DATA: ['data', '--data'],
  DATABASE_URL: ['databaseUrl', '--database-url'],
  GLEANER_POSTGRES: ['postgres', '--postgres'],
  GLEANER_HOST: ['host', '--host'],
  GLEANER_PORT: ['port', '--port'],
  GLEANER_METRICS: ['metrics', '--metrics'],
  GLEANER_ORIGIN: ['origin', '--origin'],
  GLEANER_NAME: ['name', '--name'],
  GLEANER_OPERATOR: ['operator', '--operator'],
  GLEANER_CONTACT: ['contact', '--contact'],
  GLEANER_LOG_ORIGIN: ['logOrigin', '--log-origin'],
  GLEANER_LOG_LEVEL: ['logLevel', '--log-level'],
  GLEANER_TRUSTED_PROXIES: ['trustedProxies', '--trusted-proxies'],
}

/**
 * A service of the machine keeps its data in /var/lib; anybody else at home.
 * PostgreSQL never runs as root, and as nobody it could not reach root's home.
 */
function defaultDataFolder(): string {
  return process.getuid?.() === 0 ? '/var/lib/gleaner' : join(homedir(), '.gleaner')
}

/**
 * Reads flags and environment. Throws `ConfigProblem` naming the variable or
 * flag, what was given and what is accepted.
 */
export function readConfig(
  flags: ConfigFlags,
  environment: Record<string, string | undefined>,
): ServerConfig {
  // A variable that is set and empty is as if it were not set.
  const isGiven = (variable: Variable) =>
    flags[flagOf[variable][0]] !== undefined || (environment[variable] ?? '') !== ''
  const read = <V extends Variable>(
    variable: V,
  ): z.infer<(typeof variables)[V]['schema']> | null => {
    const [flag, flagName] = flagOf[variable]
    const fromFlag = flags[flag]
    const given = fromFlag ?? environment[variable]
    if (given === undefined || !isGiven(variable)) return null
    const parsed = variables[variable].schema.safeParse(given)
    if (!parsed.success) {
      const place = fromFlag === undefined ? variable : flagName
      // Whatever stands before the last @ may be a password.
      const shown =
        variable === 'DATABASE_URL' ? given.replace(/^([a-z+]*:\/\/)?.*@/i, '$1***@') : given
      throw new ConfigProblem(
        `${place} is "${shown}", which is not ${variables[variable].accepts}. Give ${variables[variable].accepts}.`,
      )
    }
    return parsed.data as z.infer<(typeof variables)[V]['schema']>
  }
  const host = read('GLEANER_HOST') ?? '127.0.0.1'
  const port = read('GLEANER_PORT') ?? 8437
  const publicOrigin = (read('GLEANER_ORIGIN') ?? `http://${inUrl(host)}:${port}`).replace(
    /\/$/,
    '',
  )
  // Of this machine alone unless said: what it counts is the operator's business.
  const metricsPort = port === 0 ? 0 : port === 65_535 ? port - 1 : port + 1
  const name = read('GLEANER_NAME') ?? 'A Gleaner network'
  return {
    dataFolder: resolve(read('GLEANER_DATA') ?? defaultDataFolder()),
    databaseUrl: read('DATABASE_URL'),
    postgresBinaries: read('GLEANER_POSTGRES'),
    host,
    port,
    metrics: isGiven('GLEANER_METRICS')
      ? read('GLEANER_METRICS')
      : { host: '127.0.0.1', port: metricsPort },
    publicOrigin,
    networkName: name,
    operatorName: read('GLEANER_OPERATOR') ?? name,
    operatorContact: read('GLEANER_CONTACT') ?? `${publicOrigin}/crawler`,
    logOrigin: read('GLEANER_LOG_ORIGIN') ?? `${new URL(publicOrigin).host}/log`,
    logOriginGiven: read('GLEANER_LOG_ORIGIN') !== null,
    logLevel: read('GLEANER_LOG_LEVEL') ?? 'warn',
    trustedProxies: read('GLEANER_TRUSTED_PROXIES') ?? 0,
  }
}
