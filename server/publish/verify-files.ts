import { streamDigest } from './file-digest.ts'
import type { Findings } from './findings.ts'
import type { ReleaseFolder } from './release-folder.ts'

/** Files that every release has; besides campaigns/ and WARC files. */
const required = [
  'README.md',
  'attestations.jsonl.gz',
  'data/train-00000-of-00001.parquet',
  'network.json',
  'release.json',
  'warc/index.cdxj',
]

/** Folders in which only what the specification names may be: readers take all of them. */
const closed = [
  { folder: 'data/', allowed: /^data\/train-00000-of-00001\.parquet$/ },
  { folder: 'warc/', allowed: /^warc\/(index\.cdxj|[A-Za-z0-9._-]+\.warc\.gz)$/ },
  { folder: 'campaigns/', allowed: /^campaigns\/[a-z0-9][a-z0-9-]{0,62}\.json$/ },
]

/**
 * Step 5.
 *
 * @returns bytes hashed
 */
export async function verifyFiles(
  folder: ReleaseFolder,
  sums: Buffer | undefined,
  findings: Findings,
  onProgress: (done: number, total: number) => void,
): Promise<number> {
  for (const { path, what } of folder.oddities) findings.add(5, path, `is ${what}`)
  const present = [...folder.paths].filter(
    (path) => path !== 'SHA256SUMS' && !path.startsWith('log/'),
  )
  for (const path of required) {
    if (folder.bytesOf(path) === undefined) findings.add(5, path, 'is missing')
  }
  for (const path of present) {
    const place = closed.find(({ folder }) => path.startsWith(folder))
    if (place !== undefined && !place.allowed.test(path)) {
      findings.add(5, path, 'is no file that a release has there')
    }
  }
  if (sums === undefined) {
    findings.add(5, 'SHA256SUMS', 'is missing or too large')
    return 0
  }
  const listed = parseSums(sums, findings)
  for (const path of present) {
    if (!listed.has(path)) findings.add(5, path, 'is not listed in SHA256SUMS')
  }
  let hashed = 0
  const total = present.reduce((sum, path) => sum + (folder.bytesOf(path) ?? 0), 0)
  for (const [path, expected] of listed) {
    const bytes = folder.bytesOf(path)
    if (bytes === undefined) {
      findings.add(5, path, 'is listed in SHA256SUMS but not there')
      continue
    }
    const found = await streamDigest(await folder.stream(path))
    if (found !== expected) {
      findings.add(5, path, 'has another digest than SHA256SUMS says', { expected, found })
    }
    hashed += bytes
    onProgress(hashed, total)
  }
  return hashed
}

function parseSums(sums: Buffer, findings: Findings): Map<string, string> {
  const listed = new Map<string, string>()
  const lines = sums.toString().split('\n')
  if (lines.pop() !== '') findings.add(5, 'SHA256SUMS', 'the last line has no line feed')
  let previous = Buffer.alloc(0)
  for (const [at, line] of lines.entries()) {
    const where = `SHA256SUMS line ${at + 1}`
    const parts = /^([0-9a-f]{64}) {2}(.+)$/.exec(line)
    const [, digest = '', path = ''] = parts ?? []
    if (parts === null || !isPlainPath(path)) {
      findings.add(5, where, 'is not HEX, two spaces and a path within the release', {
        found: line,
      })
      continue
    }
    const bytes = Buffer.from(path)
    if (Buffer.compare(previous, bytes) >= 0) {
      findings.add(5, where, 'is not in ascending order of paths', { found: path })
    }
    previous = bytes
    if (path === 'SHA256SUMS' || path.startsWith('log/')) {
      findings.add(5, where, 'lists a file that it cannot speak for', { found: path })
      continue
    }
    listed.set(path, digest)
  }
  return listed
}

/** Relative, with no part that leads elsewhere and no character that needs escaping anywhere. */
function isPlainPath(path: string): boolean {
  return /^[A-Za-z0-9._/-]+$/.test(path) && !path.split('/').some((part) => /^\.{0,2}$/.test(part))
}
