import { parseIpv6 } from './public-host.ts'

export interface Scrubbed {
  text: string
  /** Replacements made, by kind. */
  counts: { email: number; address: number; phone: number }
}

/**
 * Replaces e-mail addresses, IPv4 and IPv6 addresses (public or not: a page may echo its reader's)
 * and phone numbers by `[email]`, `[address]` and `[phone]`. Part of transform `gleaner-text/1`:
 * a change here is a new transform. Scrubbing twice changes nothing more, hostile text apart.
 *
 * It finds patterns, not persons. Where a number might be data, data wins: a phone number counts
 * with a leading +, in North American form, with 00 and separators, or after a word like "Tel.".
 * Every pattern is bounded or consumes what it reads, so the work is linear in the text.
 */
export function scrub(text: string): Scrubbed {
  const counts = { email: 0, address: 0, phone: 0 }
  let scrubbed = text
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const before = scrubbed
    scrubbed = scrubOnce(before, counts)
    if (scrubbed === before) break
  }
  return { text: scrubbed, counts }
}

/** A replacement can lay open its neighbour ("203.0.113.9fe80::1"). Text that is not made for it needs two rounds. */
const MAX_ROUNDS = 10

function scrubOnce(text: string, counts: Scrubbed['counts']): string {
  const replace = (kind: keyof Scrubbed['counts']) => {
    counts[kind]++
    return `[${kind}]`
  }
  return text
    .replace(EMAIL, () => replace('email'))
    .replace(IPV6_RUN, (run, at: number, whole: string) => {
      const address = ipv6In(run, whole[at - 1] ?? '', whole[at + run.length] ?? '')
      return address === '' ? run : run.replace(address, () => replace('address'))
    })
    .replace(IPV4, (address) => (isIpv4(address) ? replace('address') : address))
    .replace(LABELLED_PHONE, (_, label: string) => `${label}${replace('phone')}`)
    .replace(INTERNATIONAL_PHONE, (number) =>
      GROUPED_BY_THOUSANDS.test(number) ? number : replace('phone'),
    )
    .replace(ZERO_ZERO_PHONE, (number) => (/^\d+$/.test(number) ? number : replace('phone')))
    .replace(NORTH_AMERICAN_PHONE, () => replace('phone'))
}

/** Letters of alphabets in which addresses are written without spaces around: Latin, Greek, Cyrillic. */
const L = 'A-Za-z\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u024f\\u0370-\\u052f'

/** RFC 5321 §4.5.3.1: 64 octets before the @; labels of 63. A top-level domain has letters. */
const EMAIL = new RegExp(
  `[${L}0-9._%+-]{1,64}@(?:[${L}0-9](?:[${L}0-9-]{0,61}[${L}0-9])?\\.){1,8}(?:xn--[a-z0-9-]{1,59}|[${L}]{2,24})(?![${L}0-9])`,
  'g',
)

/** Four numbers, not a part of more; not after a "v", which makes it a version. */
const IPV4 = /(?<![\dvV])(?<!\d\.)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\d|\.\d)/g

/** All that may be an IPv6 address, whole runs at a time. */
const IPV6_RUN = /[0-9A-Fa-f:.]{3,}/g

function isIpv4(text: string): boolean {
  return text.split('.').every((octet) => Number(octet) <= 255)
}

/** The address in a run of its characters, or ''. A digit is asked for: `a::b` is a name in C++. */
function ipv6In(run: string, before: string, after: string): string {
  if (/\w/.test(after)) return ''
  // A full stop or colon of the sentence is no part of it.
  let address = run.replace(/\.+$|(?<!:):$/, '')
  if (address.startsWith(':') && !address.startsWith('::')) address = address.slice(1)
  else if (/\w/.test(before)) return ''
  return /\d/.test(address) && parseIpv6(address) !== null ? address : ''
}

/** Between two digits of a phone number: at most three of these. */
const GAP = '[ .\\-/()\\u00a0\\u2010-\\u2013]{0,3}'

/** ITU-T E.164: at most 15 digits. Under 8 it is as likely to be anything else. */
const INTERNATIONAL_PHONE = new RegExp(`(?<![\\w+])\\+[1-9](?:${GAP}\\d){7,14}(?!\\d)`, 'g')
const GROUPED_BY_THOUSANDS = /^\+\d{1,3}(?:([ .])\d{3})(?:\1\d{3})+$/

const ZERO_ZERO_PHONE = new RegExp(`(?<![\\w.,+-])(?<!\\d )00[1-9](?:${GAP}\\d){8,13}(?!\\d)`, 'g')

const NORTH_AMERICAN_PHONE =
  /(?<![\w.,/+-])(?:1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-.]\d{4}(?![\w-]|[.,]\d)/g

const LABELLED_PHONE = new RegExp(
  `(?<![${L}])((?:tele(?:phone|fon|fax|fone|fono)|teléfono|téléphone|tél|tel|fon|fax|phone|mobile?|hotline|whatsapp|тел|电话|電話)[.:：]{0,2} ?)\\+?[(]?\\d(?:${GAP}\\d){5,14}(?!\\d)`,
  'gi',
)
