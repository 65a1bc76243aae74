/** DSSE payload types of every signed statement, by name. */
export const payloadType = {
  network: 'application/vnd.gleaner.network+json',
  campaign: 'application/vnd.gleaner.campaign+json',
  certificate: 'application/vnd.gleaner.certificate+json',
  session: 'application/vnd.gleaner.session+json',
  consent: 'application/vnd.gleaner.consent+json',
  lease: 'application/vnd.gleaner.lease+json',
  observation: 'application/vnd.gleaner.observation+json',
  attestation: 'application/vnd.gleaner.attestation+json',
  receipt: 'application/vnd.gleaner.receipt+json',
} as const
