import type { Background } from '../ui/background.ts'
import { build } from './build.ts'
import { ask } from './messages.ts'
import { requestOrigins, serverOrigins } from './permissions.ts'
import { campaignOrigins } from './site-access.ts'

/** What a page of this extension hands to its components. */
export const pageBackground: Background = {
  ask,
  requestOrigins,
  campaignOrigins,
  serverOrigins,
  lab: build.lab,
}
