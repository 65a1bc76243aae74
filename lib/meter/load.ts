import { METER_MESSAGE_BYTES } from '../protocol/meter.ts'

const SMALLEST_MESSAGE_BYTES = 2_048
const MESSAGE_LASTS_MS = 10

/**
 * Length of the next load message, bytes: what the line carries in about 10 ms, from 2 to 16 KiB.
 * On a slow line large messages would make the receiver's count jump: at 1 Mbit/s 16 KiB take
 * 131 ms, and two 250 ms windows could never agree within 6 %.
 */
export function loadMessageBytes(sentBytes: number, elapsedMs: number): number {
  if (elapsedMs <= 0) return SMALLEST_MESSAGE_BYTES
  const bytes = Math.round((sentBytes / elapsedMs) * MESSAGE_LASTS_MS)
  return Math.min(METER_MESSAGE_BYTES, Math.max(SMALLEST_MESSAGE_BYTES, bytes))
}

// Below 32 KiB a worker's 4 ms timer leaves gaps at 60 Mbit/s. 256 KiB fills 500 Mbit/s.
const SMALLEST_QUEUE_BYTES = 32_768
const LARGEST_QUEUE_BYTES = 262_144

/**
 * How much an uploader keeps in `bufferedAmount`, bytes: twice what left it in the last 50 ms.
 * More only delays the stop and is wasted: what is queued is sent even after `close()`.
 */
export function uploadQueueBytes(leftInLastTickBytes: number): number {
  return Math.min(LARGEST_QUEUE_BYTES, Math.max(SMALLEST_QUEUE_BYTES, 2 * leftInLastTickBytes))
}
