/**
 * Everything in which the lab build differs from the production build. The
 * manifest's switch stands in wxt.config.ts and reads the same variable,
 * GLEANER_LAB. Nothing else may ask which build it is: it asks one of these.
 */
export const build = {
  /** Shows the badge in pages and on the icon. */
  lab: import.meta.env.GLEANER_LAB,

  /** Lets a site live on loopback, where the demo and the tests put theirs. */
  loopbackSitesAllowed: import.meta.env.GLEANER_LAB,

  /**
   * What Chromium is told about the address of every site, so that it refuses
   * the others itself. Nothing in the lab, where sites are on loopback.
   */
  targetAddressSpace: import.meta.env.GLEANER_LAB ? undefined : 'public',
} as const

/** Which browser this was built for. Firefox lacks `targetAddressSpace` and differs in webRequest. */
export const isFirefox = import.meta.env.FIREFOX

/** How the extension names itself to servers and sites. */
export const clientName = `Gleaner/${import.meta.env.GLEANER_VERSION}`
