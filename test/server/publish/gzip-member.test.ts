import { Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { firstMember, gzipMember, unpackMembers } from '../../../server/publish/gzip-member.ts'

test('members are unpacked whatever their sizes and however a file comes in', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 400 }),
      async (contents, chunkBytes) => {
        const file = Buffer.concat(contents.map(gzipMember))
        expect(await unpacked(file, chunkBytes)).toEqual(Buffer.concat(contents))
      },
    ),
    { numRuns: 100 },
  )
})

test('a member is told from what follows it', () => {
  const member = gzipMember(Buffer.from('text'))
  const followed = Buffer.concat([member, Buffer.from('\0more')])
  expect(firstMember(followed, 4)).toEqual({ content: Buffer.from('text'), length: member.length })
  expect(firstMember(followed, 3)).toBeUndefined()
})

const member = gzipMember(Buffer.from('text'.repeat(100)))
const edited = (at: number, value: number) =>
  Buffer.concat([member.subarray(0, at), Buffer.of(value), member.subarray(at + 1)])

test.each([
  ['nothing', Buffer.alloc(0)],
  ['a zero after the last member', Buffer.concat([member, Buffer.of(0)])],
  ['a zero before another member', Buffer.concat([member, Buffer.of(0), member])],
  ['half a member', member.subarray(0, -9)],
  ['a member without its end', member.subarray(0, -1)],
  ['another check sum', edited(member.length - 8, 1)],
  ['another length', edited(member.length - 3, 9)],
  ['a time in the header', edited(4, 1)],
  ['a flag in the header', edited(3, 1)],
])('a file is refused that has %s', async (_, file) => {
  for (const chunkBytes of [1, 10, member.length, 1000]) {
    await expect(unpacked(file, chunkBytes)).rejects.toThrow()
  }
})

test('a reader who stops early is not kept waiting', async () => {
  const big = gzipSync(Buffer.alloc(10_000_000))
  for await (const piece of unpackMembers(Readable.from([big, big]))) {
    expect(piece.length).toBeGreaterThan(0)
    break
  }
})

async function unpacked(file: Buffer, chunkBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  for (let at = 0; at < file.length; at += chunkBytes) {
    chunks.push(file.subarray(at, at + chunkBytes))
  }
  const pieces: Buffer[] = []
  for await (const piece of unpackMembers(Readable.from(chunks))) pieces.push(piece)
  return Buffer.concat(pieces)
}
