import { browser } from 'wxt/browser'
import { clientName } from './build.ts'

/** Whom a site should write to about our requests to it. */
export interface Contact {
  hosts: readonly string[]
  contact: string
}

/**
 * Makes every request of this extension name the crawler and carry no cookies, whatever `fetch`
 * was told. The rules are bound to the extension's own origin: pages the person visits are not
 * touched, and no rule changes a response. Session rules end with the browser, so this runs at
 * each start and after each change of consent.
 */
export async function identify(contacts: readonly Contact[]): Promise<void> {
  const old = await browser.declarativeNetRequest.getSessionRules()
  await browser.declarativeNetRequest.updateSessionRules({
    removeRuleIds: old.map(({ id }) => id),
    addRules: [
      rule(1, 1, {}, [
        { header: 'User-Agent', operation: 'set', value: userAgent() },
        { header: 'Cookie', operation: 'remove' },
      ]),
      ...contacts
        .filter(({ hosts }) => hosts.length > 0)
        .map(({ hosts, contact }, index) =>
          // A higher priority wins where both set the same header.
          rule(index + 2, 2, { requestDomains: [...hosts] }, [
            { header: 'User-Agent', operation: 'set', value: userAgent(contact) },
            ...(isMailbox(contact)
              ? [{ header: 'From', operation: 'set' as const, value: contact }]
              : []),
          ]),
        ),
    ],
  })
}

type HeaderChange =
  | { header: string; operation: 'set'; value: string }
  | { header: string; operation: 'remove' }

function rule(
  id: number,
  priority: number,
  condition: { requestDomains?: string[] },
  requestHeaders: HeaderChange[],
) {
  return {
    id,
    priority,
    action: { type: 'modifyHeaders' as const, requestHeaders },
    condition: {
      ...condition,
      // The id in Chromium, a random name of this installation in Firefox.
      initiatorDomains: [new URL(browser.runtime.getURL('/')).hostname],
      resourceTypes: ['xmlhttprequest' as const, 'other' as const],
    },
  }
}

function userAgent(contact?: string): string {
  const plain = contact?.replace(/[^\x20-\x7e]|[()]/g, '').trim()
  return `${navigator.userAgent} ${clientName}${plain ? ` (+${plain})` : ''}`
}

/** RFC 9110 §10.1.2: `From` is a mailbox, and nothing else goes there. */
function isMailbox(contact: string): boolean {
  return /^[\x21-\x7e]+@[\x21-\x7e]+$/.test(contact)
}
