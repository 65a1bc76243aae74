import { browser } from 'wxt/browser'
import { returnable } from './site-access.ts'

/** Match pattern of a task server. Match patterns know no port in Firefox: any port of the host. */
export function serverOrigins(origin: string): string[] {
  const { protocol, hostname } = new URL(origin)
  return [`${protocol}//${hostname}/*`]
}

/** Whether the browser grants all of these now. */
export function holdsOrigins(origins: string[]): Promise<boolean> {
  return browser.permissions.contains({ origins })
}

// A prompt may be answered in another window or never settle: look at the facts as well.
const LOOK_EVERY_MS = 500

/**
 * Asks the browser for access to these sites. Call it in the click itself, before any `await`.
 * The browser's own promise may never settle (its prompt can be invisible), so this also looks
 * whether the access is there, and ends with `false` when the person gives up waiting.
 */
export async function requestOrigins(origins: string[], givenUp: AbortSignal): Promise<boolean> {
  const asked = browser.permissions.request({ origins }).catch(async (error: unknown) => {
    // Firefox refuses to ask for what the manifest already grants (the lab build).
    if (await holdsOrigins(origins)) return true
    throw error
  })
  let timer: ReturnType<typeof setInterval> | undefined
  const seen = new Promise<boolean>((resolve) => {
    timer = setInterval(() => {
      void holdsOrigins(origins).then((held) => held && resolve(true))
    }, LOOK_EVERY_MS)
    givenUp.addEventListener('abort', () => resolve(false), { once: true })
  })
  try {
    return await Promise.race([asked, seen])
  } finally {
    clearInterval(timer)
  }
}

/** Gives access back that nobody needs any more, as far as what is still needed stays. */
export async function dropOrigins(unwanted: string[], needed: string[]): Promise<void> {
  const held = (await browser.permissions.getAll()).origins ?? []
  const origins = returnable(held, unwanted, needed)
  if (origins.length === 0) return
  try {
    await browser.permissions.remove({ origins })
  } catch {
    // The lab build holds them by its manifest and cannot give them back.
  }
}
