import { parse } from 'tldts'

/** The parts of a host name that Common Crawl's URL index has columns for. Null where there is none. */
export type HostParts = {
  tld: string | null
  secondLast: string | null
  thirdLast: string | null
  fourthLast: string | null
  fifthLast: string | null
  registrySuffix: string | null
  registeredDomain: string | null
  privateSuffix: string | null
  privateDomain: string | null
  reversed: string
}

/** Takes a canonical host name apart by the Public Suffix List that tldts carries. */
export function hostParts(host: string): HostParts {
  const registry = parse(host)
  if (registry.isIp) return { ...noParts, reversed: host }
  const labels = host.split('.').reverse()
  const withPrivate = parse(host, { allowPrivateDomains: true })
  return {
    tld: labels[0] ?? null,
    secondLast: labels[1] ?? null,
    thirdLast: labels[2] ?? null,
    fourthLast: labels[3] ?? null,
    fifthLast: labels[4] ?? null,
    registrySuffix: registry.publicSuffix,
    registeredDomain: registry.domain,
    privateSuffix: withPrivate.publicSuffix,
    privateDomain: withPrivate.domain,
    reversed: labels.join('.'),
  }
}

const noParts = {
  tld: null,
  secondLast: null,
  thirdLast: null,
  fourthLast: null,
  fifthLast: null,
  registrySuffix: null,
  registeredDomain: null,
  privateSuffix: null,
  privateDomain: null,
}
