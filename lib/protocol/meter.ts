import * as z from 'zod/mini'
import { count, digest } from './fields.ts'

/** Paths on the task server. Load and pings use two sockets, so that no ping waits behind load. */
export const METER_PATH = '/v1/meter'
export const METER_PING_PATH = '/v1/meter/ping'

/** Longest binary message. Larger ones arrive as rare events: 1 MiB at 20 Mbit/s is one in 0.4 s. */
export const METER_MESSAGE_BYTES = 16_384

/** Longest text message on these sockets, in UTF-16 units. The longest legal one has under 200. */
export const METER_TEXT_LENGTH = 512

const direction = z.enum(['down', 'up'])

/** Why a rule ended a test: the rate settled, or a cap was reached first. */
export const meterReading = z.enum(['plateau', 'time', 'bytes'])
export type MeterReadingReason = z.infer<typeof meterReading>

/** Why the server ends or refuses a test without a result. */
export const meterFailure = z.enum([
  'no-session',
  'busy',
  'rate-limited',
  'stalled',
  'protocol',
  'unavailable',
])
export type MeterFailureReason = z.infer<typeof meterFailure>

/** From the node on `/v1/meter`: `start` once and first, then at most one `stop`. */
export const meterRequest = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('start'),
    direction,
    token: digest,
    /** Lowest of the node's pings, rounded. The server needs it for the windows of an upload. */
    baseRttMs: count.check(z.maximum(10_000)),
    /** The most load the node agrees to; the server's own limit may be lower. */
    maxBytes: count.check(z.positive()),
  }),
  z.strictObject({ type: z.literal('stop'), reason: meterReading }),
])
export type MeterRequest = z.infer<typeof meterRequest>

/** From the server on `/v1/meter`. */
export const meterReply = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('ready'),
    maxBytes: count.check(z.positive()),
    maxMs: count.check(z.positive()),
  }),
  z.strictObject({ type: z.literal('stop'), reason: z.union([meterReading, meterFailure]) }),
  z.strictObject({
    type: z.literal('result'),
    /** Load counted by the server: received of an upload, handed to the network of a download. */
    bytes: count,
    elapsedMs: count,
    /** Only of an upload: for a download the node's count is the true one. */
    bitsPerSecond: z.optional(count),
  }),
])
export type MeterReply = z.infer<typeof meterReply>

const pingId = count

/** From the node on `/v1/meter/ping`. */
export const meterPing = z.strictObject({ type: z.literal('ping'), id: pingId })
export type MeterPing = z.infer<typeof meterPing>

/** From the server on `/v1/meter/ping`, at once and in order. */
export const meterPong = z.strictObject({ type: z.literal('pong'), id: pingId })
export type MeterPong = z.infer<typeof meterPong>

/** Parses a text message from the other side with `schema`; null when it is not one. */
export function parseMeterText<Schema extends z.ZodMiniType>(
  schema: Schema,
  text: string,
): z.infer<Schema> | null {
  if (text.length > METER_TEXT_LENGTH) return null
  try {
    const parsed = schema.safeParse(JSON.parse(text))
    return parsed.success ? parsed.data : null
  } catch {
    // Not JSON: refused like any other message that is not ours.
    return null
  }
}
