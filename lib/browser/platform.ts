import { isFirefox } from './build.ts'

/**
 * Says why this browser must not be used, in words for the person, or null. A Chromium without
 * `targetAddressSpace` would ignore the option in silence and reach into the person's own network.
 */
export function platformRefusal(): string | null {
  if (!isFirefox && !('targetAddressSpace' in Request.prototype)) {
    return (
      'This browser is too old to keep your home network out of reach of web requests. ' +
      'Gleaner stays off here. Update the browser to Chromium 142 or newer.'
    )
  }
  return null
}
