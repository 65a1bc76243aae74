import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  meterPing,
  meterPong,
  meterReply,
  meterRequest,
  parseMeterText,
} from '../../../lib/protocol/meter.ts'

type Cases = { valid: string[]; invalid: { why: string; text: string }[] }
type Vectors = Record<'request' | 'reply' | 'ping' | 'pong', Cases>

const vectors: Vectors = JSON.parse(
  readFileSync(new URL('../../vectors/meter.json', import.meta.url), 'utf8'),
)
const schemas = { request: meterRequest, reply: meterReply, ping: meterPing, pong: meterPong }

describe.each(['request', 'reply', 'ping', 'pong'] as const)('a meter %s', (name) => {
  it.each(vectors[name].valid)('is accepted and unchanged: %s', (text) => {
    expect(parseMeterText(schemas[name], text)).toEqual(JSON.parse(text))
  })

  it.each(vectors[name].invalid)('is refused: $why', ({ text }) => {
    expect(parseMeterText(schemas[name], text)).toBeNull()
  })
})
