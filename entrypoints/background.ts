import { defineBackground } from 'wxt/utils/define-background'
import { startBackground } from '../lib/browser/background.ts'

export default defineBackground({
  type: 'module',
  // Firefox MV2: its event pages would die in the middle of a fetch.
  persistent: true,
  main: startBackground,
})
