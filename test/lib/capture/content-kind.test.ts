import { expect, test } from 'vitest'
import { contentKind, isWanted } from '../../../lib/capture/content-kind.ts'

test.each([
  ['text/html', 'html'],
  ['application/xhtml+xml', 'html'],
  ['text/plain', 'text'],
  ['application/rss+xml', 'feed'],
  ['application/atom+xml', 'feed'],
  ['application/rdf+xml', 'feed'],
  ['application/xml', 'feed'],
  ['text/xml', 'feed'],
  ['application/json', 'json'],
  ['application/ld+json', 'json'],
  ['application/pdf', 'pdf'],
  ['image/svg+xml', null],
  ['text/css', null],
  ['application/javascript', null],
  ['application/octet-stream', null],
  ['image/png', null],
  ['application/jsonp', null],
  ['', null],
])('the type "%s" is of kind %s', (type, kind) => {
  expect(contentKind(type)).toBe(kind)
  // What has no kind is wanted by nobody.
  expect(isWanted(type, ['html', 'text', 'feed', 'json', 'pdf'])).toBe(kind !== null)
})

test('a campaign that names no kinds wants pages, plain text and feeds', () => {
  expect(isWanted('text/html', undefined)).toBe(true)
  expect(isWanted('text/plain', undefined)).toBe(true)
  expect(isWanted('application/atom+xml', undefined)).toBe(true)
  expect(isWanted('application/json', undefined)).toBe(false)
  expect(isWanted('application/pdf', undefined)).toBe(false)
})

test('a campaign that names kinds wants no others', () => {
  expect(isWanted('application/pdf', ['pdf'])).toBe(true)
  expect(isWanted('text/html', ['pdf'])).toBe(false)
})
