import { createSocket } from 'node:dgram'
import { isIPv4 } from 'node:net'

export type RecordType = 'A' | 'AAAA' | 'TXT'

export interface NameServer {
  /** `address:port` */
  address: string
  /** What was asked, such as `A rebind.example`. */
  asked: string[]
  close(): Promise<void>
}

const types: Record<number, RecordType> = { 1: 'A', 16: 'TXT', 28: 'AAAA' }

/**
 * A name server on loopback that knows just enough of RFC 1035: one question, answers without
 * compression. Null is NXDOMAIN, an empty list no record of the type, `silence` no answer at all.
 */
export async function startNameServer(
  answer: (name: string, type: RecordType) => readonly string[] | null | 'silence',
): Promise<NameServer> {
  const socket = createSocket('udp4')
  const asked: string[] = []
  socket.on('message', (query, from) => {
    const labels: string[] = []
    let at = 12
    for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
      labels.push(query.toString('latin1', at + 1, at + 1 + length))
      at += 1 + length
    }
    const question = query.subarray(12, at + 5)
    const code = query.readUInt16BE(at + 1)
    const type = types[code]
    const name = labels.join('.').toLowerCase()
    if (!type) return
    asked.push(`${type} ${name}`)
    const records = answer(name, type)
    if (records === 'silence') return
    const header = Buffer.alloc(12)
    query.copy(header, 0, 0, 2)
    // Response, recursion desired and available; NXDOMAIN is 3.
    header.writeUInt16BE(0x8180 | (records === null ? 3 : 0), 2)
    header.writeUInt16BE(1, 4)
    header.writeUInt16BE(records?.length ?? 0, 6)
    const answers = (records ?? []).map((record) => {
      const data = recordData(type, record)
      const fixed = Buffer.alloc(12)
      // The name is a pointer to the question.
      fixed.writeUInt16BE(0xc00c, 0)
      fixed.writeUInt16BE(code, 2)
      fixed.writeUInt16BE(1, 4)
      fixed.writeUInt32BE(0, 6)
      fixed.writeUInt16BE(data.length, 10)
      return Buffer.concat([fixed, data])
    })
    socket.send(Buffer.concat([header, question, ...answers]), from.port, from.address)
  })
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
  return {
    address: `127.0.0.1:${socket.address().port}`,
    asked,
    close: () => new Promise((resolve) => socket.close(() => resolve())),
  }
}

function recordData(type: RecordType, record: string): Buffer {
  if (type === 'TXT') {
    // Pieces of at most 255 bytes, as a zone file's line has them.
    const pieces = record.match(/[\s\S]{1,100}/g) ?? ['']
    return Buffer.concat(
      pieces.flatMap((piece) => [Buffer.from([Buffer.byteLength(piece)]), Buffer.from(piece)]),
    )
  }
  if (isIPv4(record)) return Buffer.from(record.split('.').map(Number))
  const [head = '', tail = ''] = record.split('::')
  const groups = (text: string) =>
    text
      .split(':')
      .filter(Boolean)
      .flatMap((group) => {
        if (!isIPv4(group)) return [Number.parseInt(group, 16)]
        const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number)
        return [a * 256 + b, c * 256 + d]
      })
  const first = groups(head)
  const last = groups(tail)
  const all = [...first, ...Array<number>(8 - first.length - last.length).fill(0), ...last]
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 255]))
}
