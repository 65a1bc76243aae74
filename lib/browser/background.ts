import { browser } from 'wxt/browser'
import { onAlarm } from './alarm.ts'
import { type Installation, restoreInstallation } from './installation.ts'
import { answerRequests, type Handlers } from './messages.ts'
import { watchSightings } from './sightings.ts'
import { openStore } from './store.ts'
import { watchWireBytes } from './wire-bytes.ts'

/**
 * Starts the background. All listeners are registered at once and in this one task, because a
 * worker that was woken by an event only gets it if the listener is there when the script ends.
 */
export function startBackground(): void {
  const sightings = watchSightings()
  const wireBytes = watchWireBytes()

  let restoring: Promise<Installation> | null = null
  const installation = () => {
    restoring ??= openStore()
      .then((store) => restoreInstallation({ store, sightings, wireBytes }))
      .catch((error) => {
        // The next alarm or page tries again.
        restoring = null
        throw error
      })
    return restoring
  }
  const run = (act: (installed: Installation) => Promise<void> | void) => {
    installation()
      .then(act)
      .catch((error) => console.error('gleaner: background', error))
  }

  onAlarm(() => run((installed) => installed.ring()))
  browser.idle.onStateChanged.addListener(() => run((installed) => installed.ring()))
  browser.permissions.onRemoved.addListener(() => run((installed) => installed.accessRemoved()))
  browser.runtime.onInstalled.addListener(({ reason }) => {
    if (reason === 'install') void browser.tabs.create({ url: '/welcome.html' })
  })
  self.addEventListener('online', () => run((installed) => installed.lineChanged()))
  self.addEventListener('offline', () => run((installed) => installed.ring()))
  answerRequests(handlersOf(installation))

  run(() => {})
}

/** Handlers that wait for the installation to be restored. */
function handlersOf(installation: () => Promise<Installation>): Handlers {
  return {
    overview: async (given) => (await installation()).overview(given),
    'answer-terms': async (given) => (await installation())['answer-terms'](given),
    'join-network': async (given) => (await installation())['join-network'](given),
    offers: async (given) => (await installation()).offers(given),
    agree: async (given) => (await installation()).agree(given),
    withdraw: async (given) => (await installation()).withdraw(given),
    leave: async (given) => (await installation()).leave(given),
    pause: async (given) => (await installation()).pause(given),
    resume: async (given) => (await installation()).resume(given),
    journal: async (given) => (await installation()).journal(given),
    'delete-journal': async (given) => (await installation())['delete-journal'](given),
  }
}
