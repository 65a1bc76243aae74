/**
 * Whether every engine reads an international host name alike. Chromium takes any `xn--` label as it
 * is where Node decodes and checks it; Node does not apply the bidi rule where Chromium does. As a
 * link set is digested on both sides, a name on which they could differ is refused by both: each
 * `xn--` label must decode, to characters of long-settled blocks (newer engines know newer ones), the
 * decoded name must parse to the same name again, and a name with right-to-left letters must be of
 * the plain kind.
 *
 * @param hostname as `URL` gives it
 */
export function isReadAlike(hostname: string): boolean {
  if (!hostname.includes('xn--')) return true
  const labels: string[] = []
  for (const label of hostname.split('.')) {
    const decoded = label.startsWith('xn--') ? decodePunycode(label.slice(4)) : label
    if (decoded === null || !SETTLED.test(decoded)) return false
    labels.push(decoded)
  }
  if (labels.some((label) => RIGHT_TO_LEFT.test(label)) && !labels.every(isPlainBidiLabel)) {
    return false
  }
  try {
    return new URL(`https://${labels.join('.')}/`).hostname === hostname
  } catch {
    // The constructor's only failure is a name that IDNA does not allow, which is an answer here.
    return false
  }
}

/**
 * ASCII, then Latin, Greek, Cyrillic, Armenian, Hebrew, Arabic, the scripts of India, Thai, Lao,
 * Georgian, Ethiopic, Khmer, extended Latin and Greek, kana, bopomofo, Han and Hangul.
 */
const SETTLED =
  /^[a-z0-9_\-\u00b7\u00df-\u024f\u0370-\u052f\u0561-\u0587\u05d0-\u06ff\u0900-\u0eff\u10d0-\u10ff\u1200-\u137f\u1780-\u17ff\u1e00-\u1fff\u3005-\u3007\u3041-\u3129\u3400-\u4db5\u4e00-\u9fef\uac00-\ud7a3]*$/

/** Blocks of right-to-left scripts, Hebrew to Arabic Mathematical Symbols. */
const RIGHT_TO_LEFT =
  /[\u0590-\u08ff\u200f\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u

/**
 * Labels that satisfy the bidi rule (RFC 5893 §2) at a glance: letters of one right-to-left script,
 * or of ASCII with digits behind. Digits and marks of other scripts make the rule intricate.
 */
function isPlainBidiLabel(label: string): boolean {
  return (
    /^[a-z](?:[a-z0-9-]*[a-z0-9])?$/.test(label) ||
    /^[\u05d0-\u05ea]+(?:-[\u05d0-\u05ea]+)*$/.test(label) ||
    /^[\u0620-\u064a\u066e-\u06d3]+(?:-[\u0620-\u064a\u066e-\u06d3]+)*$/.test(label) ||
    label === ''
  )
}

/** RFC 3492 §6.2. Null when it is no Punycode, or of nothing but ASCII. Labels have 63 characters at most. */
function decodePunycode(text: string): string | null {
  const dash = text.lastIndexOf('-')
  const output = Array.from(dash > 0 ? text.slice(0, dash) : '', (c) => c.codePointAt(0) ?? 0)
  let codepoint = 128
  let bias = 72
  let i = 0
  for (let at = dash > 0 ? dash + 1 : 0; at < text.length; ) {
    const before = i
    let weight = 1
    for (let k = 36; ; k += 36) {
      const digit = digitOf(text.charCodeAt(at++))
      if (digit < 0) return null
      i += digit * weight
      const threshold = Math.min(Math.max(k - bias, 1), 26)
      if (digit < threshold) break
      weight *= 36 - threshold
      if (i > 0x7fffffff || weight > 0x7fffffff) return null
    }
    const length = output.length + 1
    bias = adapt(i - before, length, before === 0)
    codepoint += Math.floor(i / length)
    i %= length
    if (codepoint > 0x10ffff || (codepoint >= 0xd800 && codepoint <= 0xdfff)) return null
    output.splice(i++, 0, codepoint)
  }
  return codepoint === 128 && !output.includes(128) ? null : String.fromCodePoint(...output)
}

/** RFC 3492 §6.1. */
function adapt(delta: number, length: number, isFirst: boolean): number {
  let rest = Math.floor(delta / (isFirst ? 700 : 2))
  rest += Math.floor(rest / length)
  let k = 0
  for (; rest > 455; k += 36) rest = Math.floor(rest / 35)
  return k + Math.floor((36 * rest) / (rest + 38))
}

/** a to z are 0 to 25, 0 to 9 are 26 to 35. */
function digitOf(code: number): number {
  if (code >= 0x61 && code <= 0x7a) return code - 0x61
  return code >= 0x30 && code <= 0x39 ? code - 0x30 + 26 : -1
}
