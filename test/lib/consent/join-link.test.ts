import { expect, test } from 'vitest'
import { formatJoinLink, joinLinkSentence, parseJoinLink } from '../../../lib/consent/join-link.ts'

const fingerprint = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'

test.each([
  [`https://barley.example/join#${fingerprint}`, 'https://barley.example'],
  [`  https://barley.example:8443/join#${fingerprint}\n`, 'https://barley.example:8443'],
  [`http://127.0.0.1:3000/join#${fingerprint}`, 'http://127.0.0.1:3000'],
  [`http://localhost:3000/join#${fingerprint}`, 'http://localhost:3000'],
  [`http://[::1]:3000/join#${fingerprint}`, 'http://[::1]:3000'],
])('%s is a join link', (text, origin) => {
  expect(parseJoinLink(text)).toEqual({ ok: true, origin, fingerprint })
  expect(parseJoinLink(formatJoinLink(origin, fingerprint)).ok).toBe(true)
})

test.each([
  ['', 'not-a-link'],
  ['barley.example', 'not-a-link'],
  [`ftp://barley.example/join#${fingerprint}`, 'not-a-link'],
  [`https://barley.example/#${fingerprint}`, 'not-a-link'],
  [`https://barley.example/join?x=1#${fingerprint}`, 'not-a-link'],
  [`https://user@barley.example/join#${fingerprint}`, 'not-a-link'],
  ['https://barley.example/join', 'no-fingerprint'],
  [`https://barley.example/join#${fingerprint.slice(1)}`, 'no-fingerprint'],
  [`http://barley.example/join#${fingerprint}`, 'insecure'],
  [`http://192.168.1.5/join#${fingerprint}`, 'insecure'],
  [`http://127.0.0.1.evil.example/join#${fingerprint}`, 'insecure'],
] as const)('%s is refused: %s', (text, reason) => {
  expect(parseJoinLink(text)).toEqual({ ok: false, reason })
  expect(joinLinkSentence[reason]).toMatch(/\.$/)
})
