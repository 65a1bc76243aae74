/** Encoded body sizes, which only the browser's resource timing tells. */
export interface WireBytes {
  /** Resolves with the encoded size of a finished fetch, or 0 when the browser does not say. */
  of(taggedUrl: string): Promise<number>
}

// The entry follows the end of the body by a task or two; later than this it does not come.
const WAIT_MS = 50
// A fetch that nobody asks about (aborted, failed) must not stay for ever.
const KEPT = 250

/** Watches every fetch of this context. */
export function watchWireBytes(): WireBytes {
  const sizes = new Map<string, number>()
  const waiting = new Map<string, (bytes: number) => void>()

  const take = (entries: PerformanceEntryList) => {
    for (const entry of entries as PerformanceResourceTiming[]) {
      const resolve = waiting.get(entry.name)
      if (resolve) resolve(entry.encodedBodySize)
      else sizes.set(entry.name, entry.encodedBodySize)
    }
    for (const name of sizes.keys()) {
      if (sizes.size <= KEPT) break
      sizes.delete(name)
    }
    // The browser's own buffer stops for good at 250 entries (feasibility notes, row 4f).
    performance.clearResourceTimings()
  }
  const observer = new PerformanceObserver((list) => take(list.getEntries()))
  observer.observe({ type: 'resource' })

  return {
    of: (taggedUrl) => {
      take(observer.takeRecords())
      const known = sizes.get(taggedUrl)
      sizes.delete(taggedUrl)
      if (known !== undefined) return Promise.resolve(known)
      return new Promise((resolve) => {
        const settle = (bytes: number) => {
          clearTimeout(timer)
          waiting.delete(taggedUrl)
          resolve(bytes)
        }
        const timer = setTimeout(() => settle(0), WAIT_MS)
        waiting.set(taggedUrl, settle)
      })
    },
  }
}
