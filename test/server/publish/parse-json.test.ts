import { expect, test } from 'vitest'
import { parseJson } from '../../../server/publish/parse-json.ts'

test.each([
  '{"a":1,"b":{"a":[{"a":2},{"a":3}]},"c":[]}',
  '{"a":"\\"a\\":1,\\"a\\":","b":"{","c":"\\\\"}',
  ' [ {"a" : 1} , {"a" : 1} ] ',
  '"a"',
  '{"__proto__":1,"":2}',
])('JSON in which each reader finds the same is read: %s', (text) => {
  expect(parseJson(text)).toEqual(JSON.parse(text))
  expect(parseJson(Buffer.from(text))).toEqual(JSON.parse(text))
})

test.each([
  ['a name twice', '{"a":1,"a":1}'],
  ['a name twice, once with an escape', '{"a":1,"\\u0061":1}'],
  ['a name twice further in', '[{"b":{"a":1,"c":{"a":1},"a":2}}]'],
  ['__proto__ twice', '{"__proto__":1,"__proto__":2}'],
  ['a byte order mark', '\ufeff{}'],
  ['no JSON', '{"a":1'],
])('JSON that readers differ on is none: %s', (_, text) => {
  expect(parseJson(text)).toBeUndefined()
  expect(parseJson(Buffer.from(text))).toBeUndefined()
})

test('bytes that are not UTF-8 are no JSON', () => {
  expect(parseJson(Buffer.from('"\xff"', 'latin1'))).toBeUndefined()
})
