import { browser } from 'wxt/browser'
import { clientName } from './build.ts'
import { type Contact, crawlerRules } from './crawler-rules.ts'

/**
 * Sets the rules that name the crawler on every request of this extension. Session rules end with
 * the browser, so this runs at each start and after each change of consent or of networks.
 *
 * @param servers hosts of the task servers
 */
export async function identify(
  contacts: readonly Contact[],
  servers: readonly string[],
): Promise<void> {
  const old = await browser.declarativeNetRequest.getSessionRules()
  await browser.declarativeNetRequest.updateSessionRules({
    removeRuleIds: old.map(({ id }) => id),
    addRules: crawlerRules(contacts, {
      self: new URL(browser.runtime.getURL('/')).hostname,
      client: `${navigator.userAgent} ${clientName}`,
      servers,
    }),
  })
}
