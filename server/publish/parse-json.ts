/**
 * JSON that may be anything. Undefined when it is none, is not UTF-8, or has an object with two
 * members of one name: readers differ on which they take, so it says different things to each.
 */
export function parseJson(source: string | Uint8Array): unknown {
  try {
    const text = typeof source === 'string' ? source : utf8.decode(source)
    const value: unknown = JSON.parse(text)
    return hasRepeatedMember(text) ? undefined : value
  } catch (error) {
    // The decoder's complaint is a TypeError.
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined
    throw error
  }
}

/** UTF-8 as it must be; undefined when it is not. A byte order mark is a character like others. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes)
  } catch (error) {
    if (error instanceof TypeError) return undefined
    throw error
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @param text that is JSON */
function hasRepeatedMember(text: string): boolean {
  /** Names so far in each object that is open; null for a list. */
  const open: (Set<string> | null)[] = []
  let start = 0
  let end = 0
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '{':
        open.push(new Set())
        break
      case '[':
        open.push(null)
        break
      case '}':
      case ']':
        open.pop()
        break
      case '"':
        start = at
        end = endOfString(text, at)
        at = end - 1
        break
      case ':': {
        const names = open.at(-1)
        const name = JSON.parse(text.slice(start, end)) as string
        if (names?.has(name)) return true
        names?.add(name)
      }
    }
  }
  return false
}

/** Where the string that begins at `start` is over. */
function endOfString(text: string, start: number): number {
  let at = start + 1
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at + 1
}
