import { browser } from 'wxt/browser'
import type { RunnerState } from '../consent/limits.ts'
import { build } from './build.ts'

/** The states an icon can show. They differ by shape, so that colour is not needed to tell them apart. */
export type IconName = 'working' | 'waiting' | 'paused' | 'off' | 'stopped'

/** Which icon stands for a state. */
export function iconOf(state: RunnerState): IconName {
  switch (state.kind) {
    case 'working':
      return 'working'
    case 'paused':
    case 'capped':
      return 'paused'
    case 'off':
      return 'off'
    case 'waiting':
      switch (state.reason) {
        case 'halted-by-operator':
        case 'server-refuses':
        case 'network-changed':
          return 'stopped'
        default:
          return 'waiting'
      }
  }
}

/** Shows the state on the toolbar; `title` is what a screen reader and the mouse pointer get. */
export async function showIcon(icon: IconName, title: string): Promise<void> {
  const action = browser.action ?? browser.browserAction
  await action.setIcon({ path: { 16: `/icon/${icon}-16.png`, 32: `/icon/${icon}-32.png` } })
  await action.setTitle({ title: build.lab ? `${title} (LAB)` : title })
  if (build.lab) {
    await action.setBadgeText({ text: 'LAB' })
    await action.setBadgeBackgroundColor({ color: '#A23B2A' })
  }
}
