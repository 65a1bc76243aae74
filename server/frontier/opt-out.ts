import { parse } from 'tldts'
import { canonicalUrl } from '../../lib/capture/canonical-url.ts'
import { hostRefusal } from '../../lib/capture/public-host.ts'
import type { OptOutScope } from '../../lib/protocol/opt-out.ts'

/** What a site's owner takes out of every campaign. */
export interface OptOutTarget {
  scope: OptOutScope
  /** Lower-case ASCII name, without a dot at its end. */
  host: string
  /** Of a prefix: canonical and without a slash at its end. `/` for a host or domain. */
  path: string
}

/**
 * Whether an opt-out covers an address. Scheme and port never count: who says no to a host says no
 * to all that answers under its name.
 *
 * - `host`: exactly this name; a subdomain is another host.
 * - `domain`: the name and everything below it.
 * - `prefix`: on exactly this name, the path itself and what follows it after `/` or `?`. `/blog`
 *   covers `/blog`, `/blog/`, `/blog/a` and `/blog?page=2`, and not `/blogger`.
 */
export function optOutCovers(optOut: OptOutTarget, url: string): boolean {
  if (!URL.canParse(url)) return false
  const { hostname, pathname } = new URL(url)
  const host = hostname.replace(/\.$/, '')
  switch (optOut.scope) {
    case 'host':
      return host === optOut.host
    case 'domain':
      return host === optOut.host || host.endsWith(`.${optOut.host}`)
    case 'prefix':
      return (
        host === optOut.host && (pathname === optOut.path || pathname.startsWith(`${optOut.path}/`))
      )
  }
}

/** The names under which an opt-out that covers this address can stand: its host and all above it. */
export function namesAbove(url: string): string[] {
  if (!URL.canParse(url)) return []
  const labels = new URL(url).hostname.replace(/\.$/, '').split('.')
  return labels.map((_, at) => labels.slice(at).join('.'))
}

/** How the target is written for people and in the log: a name, or name and path. */
export function targetText({ host, path }: Pick<OptOutTarget, 'host' | 'path'>): string {
  return path === '/' ? host : `${host}${path}`
}

export type ReadTarget = { ok: true; target: OptOutTarget } | { ok: false; problem: string }

const wrong = (problem: string): ReadTarget => ({ ok: false, problem })

/** As long as the longest URL of the wire. */
const mostCharacters = 2048

/**
 * Reads what somebody typed or pasted: a name, an address with scheme, path and query, capitals,
 * letters of any script, a dot at the end, `*.` in front. A prefix that is the whole host becomes
 * that host, so that one thing is asked for in one way.
 */
export function readTarget(scope: OptOutScope, given: string): ReadTarget {
  const text = given.trim().replace(/^[<"'“‘]+|[>"'”’]+$/g, '')
  if (text === '') return wrong('Give the name of your host, such as www.example.org.')
  if (text.length > mostCharacters) {
    return wrong(
      `That is ${text.length} characters long; an address has at most ${mostCharacters}.`,
    )
  }
  const shown = `“${text.length > 80 ? `${text.slice(0, 80)}…` : text}”`
  const scheme = /^([a-z][a-z0-9+.-]*):(?:\/\/|$)/i.exec(text)?.[1]?.toLowerCase()
  if (scheme !== undefined && scheme !== 'http' && scheme !== 'https') {
    return wrong(`${shown} is an address of ${scheme}; we only fetch http and https.`)
  }
  const bare = text.replace(/^(?:https?:)?\/\//i, '')
  if (/^(\*\.|\.)/.test(bare) && scope !== 'domain') {
    return wrong(
      `${shown} means a domain with everything below it. Choose the scope “domain” for that, or name one host.`,
    )
  }
  const address = `https://${bare.replace(/^(\*\.|\.)/, '')}`
  if (!URL.canParse(address)) {
    return wrong(
      `${shown} is no host name and no web address. It should look like www.example.org.`,
    )
  }
  const url = new URL(address)
  if (url.username !== '' || url.password !== '') {
    return wrong(
      `${shown} looks like an e-mail address or holds a password. Give only the host, such as www.example.org.`,
    )
  }
  const host = url.hostname.replace(/\.$/, '')
  switch (hostRefusal(`https://${host}/`)) {
    case null:
      break
    case 'ip-literal':
      return wrong(
        `${shown} is a network address. We only ever fetch by name: give the host's name.`,
      )
    default:
      return wrong(
        `${shown} is not a public name of the web, so it is never fetched. Give a whole name, such as www.example.org.`,
      )
  }
  if (!isHostName(host)) return wrong(`${shown} is no host name that the DNS can hold.`)
  if (scope === 'domain' && parse(host).domain === null) {
    return wrong(
      `“${host}” is a public suffix: many owners register names below it, and none speaks for all. Give your own domain, such as example.${host}.`,
    )
  }
  if (scope !== 'prefix') return { ok: true, target: { scope, host, path: '/' } }
  if (url.search !== '') {
    return wrong(
      `${shown} has a query (what follows “?”). A prefix is a path, and covers every query below it: leave the query out.`,
    )
  }
  const canonical = canonicalUrl(`https://${host}${url.pathname}`)
  if (!canonical.ok) return wrong(`${shown} is no address that can be fetched.`)
  const path = new URL(canonical.url).pathname.replace(/\/+$/, '')
  if (path === '') return { ok: true, target: { scope: 'host', host, path: '/' } }
  return { ok: true, target: { scope, host, path } }
}

/** Labels of RFC 1035 §2.3.4, with the underscore that is in use. */
function isHostName(host: string): boolean {
  return (
    host.length <= 253 &&
    host.split('.').every((label) => /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label))
  )
}

export interface ProofPlaces {
  /** Names to ask for TXT records. The first is the one that instructions name. */
  dns: string[]
  /** Addresses of the well-known file. The first is the one that instructions name. */
  files: string[]
}

/**
 * Where control is looked for. The DNS says it at the host or at any parent down to the registrable
 * domain, for whoever holds a zone holds what is below. A file speaks for its own host; for a domain
 * it may also lie on the registrable domain.
 *
 * The registrable domain is the one of the private part of the Public Suffix List: below a name at
 * which others get subdomains (github.io), each is its own owner, and its parent says nothing.
 * Where nobody answers over https, the auditor asks for the file over http.
 */
export function proofPlaces({ scope, host }: OptOutTarget): ProofPlaces {
  const registrable = parse(host, { allowPrivateDomains: true }).domain ?? host
  const names = namesAbove(`https://${host}/`)
  const owned = names.slice(0, Math.max(1, names.indexOf(registrable) + 1))
  const asked = owned.length <= mostNames ? owned : [host, ...owned.slice(1 - mostNames)]
  const speaking = scope === 'domain' ? [...new Set([host, registrable])] : [host]
  return {
    // RFC 1035 §2.3.4: a name has 253 characters at most.
    dns: asked.map((name) => `_gleaner.${name}`).filter((name) => name.length <= 253),
    files: speaking.map((name) => `https://${name}/.well-known/gleaner-opt-out.txt`),
  }
}

/** Look-ups an opt-out may cost each time. Names deeper than this leave out the middle ones. */
const mostNames = 5

/** The TXT record that proves control. The file holds the token alone. */
export function proofRecord(token: string): string {
  return `gleaner-opt-out=${token}`
}

const minuteMs = 60_000

/** How long a request waits for its proof. */
export const waitingMs = 7 * 24 * 60 * minuteMs

/**
 * When to look again: every minute while whoever asked is probably still at it, then hourly, for
 * DNS records may be hours on their way.
 */
export function nextLookMs(requestedAtMs: number, nowMs: number): number {
  return nowMs + (nowMs - requestedAtMs < 10 * minuteMs ? minuteMs : 60 * minuteMs)
}
