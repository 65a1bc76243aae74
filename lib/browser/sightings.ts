import { browser } from 'wxt/browser'
import { isFirefox } from './build.ts'

/** What the browser's network stack says of one request, which `fetch` itself does not tell. */
export type Sighting =
  /** `ip` is null when the browser made the redirect itself and asked nobody (HSTS). */
  | { kind: 'redirect'; status: number; location: string; ip: string | null }
  | { kind: 'response'; ip: string | null }
  | { kind: 'failed'; error: string }

/** Finds the webRequest events of our own requests. */
export interface Sightings {
  /** Starts to look for one request. `forget` it when nothing more is of interest. */
  expect(url: string): ExpectedSighting
}

export interface ExpectedSighting {
  /** What to fetch in place of the URL. */
  taggedUrl: string
  /** The first event: who answered, or that nobody did. */
  first: Promise<Sighting>
  /** Resolves with the browser's error when the body breaks off after the first event. */
  broken: Promise<string>
  forget: () => void
}

// A fragment is visible in webRequest and never sent (feasibility notes, row 4e).
const TAG = '#gleaner-'
// Far more than are fetched at once. A body that nobody reads to its end is forgotten this way.
const MOST_EXPECTED = 250

/**
 * Listens to the extension's own requests. Call once and at once when the worker starts: a
 * listener added later may miss the first events.
 *
 * The filter also matches scripts' requests on pages of sites the person granted. Those carry no
 * tag and are dropped unread.
 */
export function watchSightings(): Sightings {
  const expected = new Map<string, (sighting: Sighting) => void>()
  const boot = crypto.randomUUID().slice(0, 8)
  let sequence = 0

  const settle: Settle = (url, sighting) => {
    const at = url.lastIndexOf(TAG)
    if (at >= 0) expected.get(url.slice(at))?.(sighting())
  }

  let stopListening = listen(settle)
  // Chromium leaves a listener deaf to sites that were granted after it was added, and a second one
  // beside it as well (version 156): all must go before new ones are added. A fetch in flight may
  // miss its event in between, and then fails.
  const listenAnew = () => {
    stopListening()
    stopListening = listen(settle)
  }
  browser.permissions.onAdded.addListener(listenAnew)

  return {
    expect: (url) => {
      sequence += 1
      const tag = `${TAG}${boot}-${sequence}`
      let tellBroken: (error: string) => void
      const broken = new Promise<string>((resolve) => {
        tellBroken = resolve
      })
      const first = new Promise<Sighting>((resolve) => {
        // onErrorOccurred also follows a manual redirect, so only the first event says who answered.
        let isFirst = true
        expected.set(tag, (sighting) => {
          if (isFirst) resolve(sighting)
          else if (sighting.kind === 'failed') tellBroken(sighting.error)
          isFirst = false
        })
      })
      for (const oldest of expected.keys()) {
        if (expected.size <= MOST_EXPECTED) break
        expected.delete(oldest)
      }
      return {
        taggedUrl: withoutTag(url) + tag,
        first,
        broken,
        forget: () => expected.delete(tag),
      }
    },
  }
}

type Settle = (url: string, sighting: () => Sighting) => void

const filter = { urls: ['http://*/*', 'https://*/*'], types: ['xmlhttprequest' as const] }

/** Adds listeners of its own; the answer takes exactly those away. */
function listen(settle: Settle): () => void {
  const { onBeforeRedirect, onErrorOccurred, onHeadersReceived, onResponseStarted } =
    browser.webRequest
  const failed = (details: { url: string; error: string }) =>
    settle(details.url, () => ({ kind: 'failed', error: details.error }))
  onErrorOccurred.addListener(failed, filter)

  if (isFirefox) {
    // Firefox fires no onBeforeRedirect for a manual redirect, and has the address here already.
    const received = (details: FirefoxHeadersDetails) => {
      settle(details.url, () => firefoxSighting(details))
      return undefined
    }
    onHeadersReceived.addListener(received, filter, ['responseHeaders'])
    return () => {
      onErrorOccurred.removeListener(failed)
      onHeadersReceived.removeListener(received)
    }
  }

  const redirected = (details: {
    url: string
    statusCode: number
    redirectUrl: string
    ip?: string
  }) =>
    settle(details.url, () => ({
      kind: 'redirect',
      status: details.statusCode,
      location: withoutTag(details.redirectUrl),
      ip: details.ip ?? null,
    }))
  const started = (details: { url: string; ip?: string }) =>
    settle(details.url, () => ({ kind: 'response', ip: details.ip ?? null }))
  onBeforeRedirect.addListener(redirected, filter)
  onResponseStarted.addListener(started, filter)
  return () => {
    onErrorOccurred.removeListener(failed)
    onBeforeRedirect.removeListener(redirected)
    onResponseStarted.removeListener(started)
  }
}

/** `redirectUrl` inherits our fragment when the target has none of its own. */
function withoutTag(url: string): string {
  const at = url.indexOf('#')
  return at < 0 ? url : url.slice(0, at)
}

interface FirefoxHeadersDetails {
  url: string
  ip?: string | null | undefined
  statusCode: number
  responseHeaders?: { name: string; value?: string | undefined }[] | undefined
}

function firefoxSighting(details: FirefoxHeadersDetails): Sighting {
  const ip = details.ip ?? null
  const location = details.responseHeaders?.find(
    ({ name }) => name.toLowerCase() === 'location',
  )?.value
  if (location === undefined || !isRedirect(details.statusCode)) return { kind: 'response', ip }
  return {
    kind: 'redirect',
    status: details.statusCode,
    location: absolute(location, details.url),
    ip,
  }
}

/** RFC 9110 §15.4: those that a fetch follows. */
function isRedirect(status: number): boolean {
  return [301, 302, 303, 307, 308].includes(status)
}

function absolute(location: string, base: string): string {
  try {
    return withoutTag(new URL(location, base).href)
  } catch {
    // Not a URL: handed on as it came, for the runner to refuse.
    return location
  }
}
