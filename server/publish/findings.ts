/** One thing that is not as it should be, in plain words. */
export type VerifyFailure = {
  /** Of README §11, 1 to 9. */
  step: number
  /** File, and line or row where there is one. */
  where: string
  what: string
  expected?: string
  found?: string
}

/** More would not help anybody to understand what is wrong. */
const maxFailures = 100
const maxCharacters = 300

/** Failures as they are found: the first hundred, and the first of every step beyond that. */
export class Findings {
  readonly failures: VerifyFailure[] = []
  readonly #byStep = new Map<number, number>()

  add(
    step: number,
    where: string,
    what: string,
    compared: { expected?: string | number; found?: string | number } = {},
  ): void {
    const earlier = this.count(step)
    this.#byStep.set(step, earlier + 1)
    if (this.failures.length >= maxFailures && earlier > 0) return
    this.failures.push({
      step,
      where: printable(where),
      what: printable(what),
      ...(compared.expected === undefined ? {} : { expected: printable(compared.expected) }),
      ...(compared.found === undefined ? {} : { found: printable(compared.found) }),
    })
  }

  /** Failures found at a step, kept or not. */
  count(step: number): number {
    return this.#byStep.get(step) ?? 0
  }

  /** All failures found, kept or not. */
  get total(): number {
    return [...this.#byStep.values()].reduce((sum, count) => sum + count, 0)
  }
}

/** A stranger's words: short, and without characters that act on a terminal or hide. */
export function printable(value: string | number): string {
  const text = String(value).replace(
    /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  )
  return text.length <= maxCharacters ? text : `${text.slice(0, maxCharacters)}…`
}
