/** What a release that verifies proves, in plain words: the same on the card and in the report. */
export const proves: readonly string[] = [
  'The files are the ones that the operator committed to in the log, none changed, added or missing.',
  'For each row, at least as many different one-use keys as its quorum signed exactly this text for this address on this day.',
  'Whoever changes a row later needs another checkpoint signed by the log’s key, and the two contradict each other.',
]

/** What it leaves open. Said wherever a success is reported. */
export const provesNot: readonly string[] = [
  'that the site served this text: observers say they saw it, and a site may show each what it likes;',
  'that the keys belong to different people: the operator could have invented them;',
  'that the page is true, complete or current, or that response headers and look-up columns are right: the first nobody checks, the others are the operator’s word;',
  'that the operator shows everyone the same log: compare checkpoints with others who have one.',
]
