/** Whom a site should write to about our requests to it. */
export interface Contact {
  hosts: readonly string[]
  /** For a wide campaign, also of every site that no campaign names. */
  wide: boolean
  contact: string
}

/** How a request names us, and to whom nothing of that is said. */
export interface Identity {
  /** Hostname of the extension's own origin: pages the person visits are not touched. */
  self: string
  /** The browser's User-Agent and our name. */
  client: string
  /** Hosts of task servers. One network is not told what the person does for another. */
  servers: readonly string[]
}

/**
 * Session rules that make every request of this extension name the crawler and carry no cookies,
 * whatever `fetch` was told. No rule changes a response. A site that a campaign names is told that
 * campaign's contact; any other site, that of the wide campaigns.
 */
export function crawlerRules(contacts: readonly Contact[], identity: Identity) {
  const named = contacts.filter(({ hosts }) => hosts.length > 0)
  const wide = [...new Set(contacts.filter((one) => one.wide).map(({ contact }) => contact))]
  const elsewhere = [...new Set([...identity.servers, ...named.flatMap(({ hosts }) => hosts)])]
  const [only] = wide
  // Higher priorities win where several set the same header.
  return [
    rule(1, 1, identity.self, {}, [
      { header: 'User-Agent', operation: 'set', value: userAgent(identity, []) },
      { header: 'Cookie', operation: 'remove' },
    ]),
    ...(only === undefined
      ? []
      : [
          rule(
            2,
            2,
            identity.self,
            elsewhere.length > 0 ? { excludedRequestDomains: elsewhere } : {},
            // A rule cannot tell for which of several wide campaigns a request is made. `From` names
            // one mailbox and would be wrong for the others; the product's comment can name them all.
            identify(identity, wide.slice(0, MOST_CONTACTS), wide.length === 1 ? only : null),
          ),
        ]),
    ...named.map(({ hosts, contact }, index) =>
      rule(
        index + 3,
        3,
        identity.self,
        { requestDomains: [...hosts] },
        identify(identity, [contact], contact),
      ),
    ),
  ]
}

/** A User-Agent longer than this helps nobody. */
const MOST_CONTACTS = 3

type HeaderChange =
  | { header: string; operation: 'set'; value: string }
  | { header: string; operation: 'remove' }

function rule(
  id: number,
  priority: number,
  self: string,
  condition: { requestDomains?: string[]; excludedRequestDomains?: string[] },
  requestHeaders: HeaderChange[],
) {
  return {
    id,
    priority,
    action: { type: 'modifyHeaders' as const, requestHeaders },
    condition: {
      ...condition,
      // The id in Chromium, a random name of this installation in Firefox.
      initiatorDomains: [self],
      resourceTypes: ['xmlhttprequest' as const, 'other' as const],
    },
  }
}

function identify(
  identity: Identity,
  contacts: readonly string[],
  from: string | null,
): HeaderChange[] {
  return [
    { header: 'User-Agent', operation: 'set', value: userAgent(identity, contacts) },
    ...(from !== null && isMailbox(from)
      ? [{ header: 'From', operation: 'set' as const, value: from }]
      : []),
  ]
}

function userAgent({ client }: Identity, contacts: readonly string[]): string {
  const plain = contacts
    .map((contact) => contact.replace(/[^\x20-\x7e]|[()]/g, '').trim())
    .filter((contact) => contact !== '')
  return plain.length === 0 ? client : `${client} (${plain.map((one) => `+${one}`).join('; ')})`
}

/** RFC 9110 §10.1.2: `From` is a mailbox, and nothing else goes there. */
function isMailbox(contact: string): boolean {
  return /^[\x21-\x7e]+@[\x21-\x7e]+$/.test(contact)
}
