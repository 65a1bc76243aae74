import { browser } from 'wxt/browser'

// The shortest period that Chromium allows (feasibility notes, row 6c).
const PERIOD_MINUTES = 0.5

/**
 * Rings every 30 s, also when the worker has died: the ring starts it again. The ring itself means
 * nothing more; what there is to do is read from the store. Call once and at once at start.
 */
export function onAlarm(ring: () => void): void {
  browser.alarms.onAlarm.addListener(ring)
  // Made anew at each start: an alarm may be lost when the browser or the extension is updated.
  void browser.alarms.create('doorbell', { periodInMinutes: PERIOD_MINUTES })
}
