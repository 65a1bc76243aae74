interface ImportMetaEnv {
  readonly GLEANER_LAB: boolean
  readonly GLEANER_VERSION: string
}

/** https://wicg.github.io/local-network-access/ — TypeScript's DOM types do not have it yet. */
interface RequestInit {
  targetAddressSpace?: 'public'
}
