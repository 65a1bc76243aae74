import { browser } from 'wxt/browser'
import type { DeviceState } from '../consent/limits.ts'

// The shortest interval that browser.idle accepts is 15 s; a minute is when people say "away".
const IDLE_AFTER_SECONDS = 60

/** What this browser tells about the device now; null where it tells nothing. */
export async function readDevice(): Promise<DeviceState> {
  const { connection, getBattery } = navigator as NavigatorFacts
  // In Chromium only pages have getBattery, and Firefox has none: a worker answers null.
  const battery = await getBattery?.call(navigator)
  return {
    onBattery: battery === undefined ? null : !battery.charging,
    metered: connection?.saveData ?? null,
    idle: (await browser.idle.queryState(IDLE_AFTER_SECONDS)) !== 'active',
    online: navigator.onLine,
  }
}

interface NavigatorFacts {
  connection?: { saveData?: boolean }
  getBattery?: () => Promise<{ charging: boolean }>
}
