import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import WebSocket, { type WebSocket as Peer, WebSocketServer } from 'ws'
import type { SocketNotice } from '../../../lib/protocol/socket.ts'
import { createDoorbell, type Doorbell, type SocketLike } from '../../../lib/runner/socket.ts'
import { now, sleep, until } from './place.ts'

let server: WebSocketServer
let peers: Peer[]
let heard: string[]
let notices: SocketNotice[]
let tokens: number
let doorbell: Doorbell
let greet: (peer: Peer, text: string) => void

beforeEach(async () => {
  peers = []
  heard = []
  notices = []
  tokens = 0
  greet = (peer, text) => {
    if (text.includes('authenticate')) peer.send('{"type":"ready"}')
    if (text.includes('ping')) peer.send('{"type":"pong"}')
  }
  server = new WebSocketServer({ port: 0, host: '127.0.0.1', path: '/v1/socket' })
  await new Promise((resolve) => server.on('listening', resolve))
  server.on('connection', (peer) => {
    peers.push(peer)
    peer.on('message', (data) => {
      heard.push(String(data))
      greet(peer, String(data))
    })
  })
  doorbell = createDoorbell({
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token: async () => `token-${++tokens}`,
    connect: (url) => new WebSocket(url) as unknown as SocketLike,
    sleep,
    random: () => 0.5,
    now,
    onNotice: (notice) => notices.push(notice),
  })
})
afterEach(() => {
  doorbell.stop()
  for (const peer of peers) peer.terminate()
  server.close()
})

test('says its token first, then pings every 20 s', async () => {
  doorbell.start()
  doorbell.start()
  await until('it is connected', () => doorbell.connected())
  await sleep(50_000)
  expect(peers).toHaveLength(1)
  expect(heard[0]).toBe('{"type":"authenticate","token":"token-1"}')
  expect(heard.slice(1).every((text) => text === '{"type":"ping"}')).toBe(true)
  expect(heard.length).toBeGreaterThanOrEqual(3)
  expect(heard.length).toBeLessThanOrEqual(5)
  expect(new Set(notices.slice(1).map(({ type }) => type))).toEqual(new Set(['pong']))
})

describe('what was heard', () => {
  test('is as old as the question, not as the answer', async () => {
    let answer = () => {}
    greet = (peer, text) => {
      if (text.includes('authenticate')) peer.send('{"type":"ready"}')
      if (text.includes('ping')) answer = () => peer.send('{"type":"pong"}')
    }
    doorbell.start()
    await until('it is connected', () => doorbell.connected())
    await sleep(500)
    const beforeMs = now()
    doorbell.ask()
    const afterMs = now()
    await until('it was asked', () => heard.length === 2)
    await sleep(1_000)
    expect(doorbell.heardMs()).toBeLessThan(beforeMs)
    answer()
    await until('it was answered', () => doorbell.askedMs() === null)
    expect(doorbell.heardMs()).toBeGreaterThanOrEqual(beforeMs)
    expect(doorbell.heardMs()).toBeLessThanOrEqual(afterMs)
    expect(notices.at(-1)).toEqual({ type: 'pong' })
  })

  test('is asked for once at a time, and only on a connection', async () => {
    greet = (peer, text) => {
      if (text.includes('authenticate')) peer.send('{"type":"ready"}')
    }
    doorbell.ask()
    expect(doorbell.askedMs()).toBeNull()
    doorbell.start()
    await until('it is connected', () => doorbell.connected())
    for (let i = 0; i < 5; i++) doorbell.ask()
    await until('it was asked', () => heard.length === 2)
    doorbell.ask()
    await sleep(500)
    expect(heard.filter((text) => text.includes('ping'))).toHaveLength(1)
  })

  test('a pong that nobody asked for makes nothing fresh', async () => {
    doorbell.start()
    await until('it is connected', () => doorbell.connected())
    const heardMs = doorbell.heardMs()
    peers[0]?.send('{"type":"pong"}')
    await until('it came', () => notices.at(-1)?.type === 'pong')
    expect(doorbell.heardMs()).toBe(heardMs)
  })

  test('ends with the connection', async () => {
    doorbell.start()
    await until('it is connected', () => doorbell.connected())
    expect(doorbell.heardMs()).not.toBeNull()
    greet = () => {}
    peers[0]?.terminate()
    await until('it is lost', () => doorbell.heardMs() === null)
    await until('it said its token again', () => heard.length === 2)
    expect(doorbell.heardMs()).toBeNull()
  })
})

test('passes notices on, and nothing else', async () => {
  doorbell.start()
  await until('it is connected', () => doorbell.connected())
  const [peer] = peers
  for (const text of [
    '{"type":"work"}',
    'not json',
    '{"type":"execute"}',
    '{"type":"work","url":"http://x.example"}',
    '{"type":"halt","campaign":null}',
    `{"type":"halt","campaign":"${'A'.repeat(70_000)}"}`,
  ]) {
    peer?.send(text)
  }
  peer?.send(Buffer.from('{"type":"outcomes"}'), { binary: true })
  peer?.send('{"type":"follow-ups"}')
  await until('all arrived', () => notices.at(-1)?.type === 'follow-ups')
  expect(notices.map(({ type }) => type)).toEqual(['ready', 'work', 'halt', 'follow-ups'])
})

test('connects again with a fresh token when the connection is lost', async () => {
  doorbell.start()
  await until('it is connected', () => doorbell.connected())
  peers[0]?.terminate()
  await until('it is connected again', () => peers.length === 2 && doorbell.connected())
  expect(heard).toContain('{"type":"authenticate","token":"token-2"}')
  expect(notices.filter(({ type }) => type === 'ready')).toHaveLength(2)
})

test('waits ever longer for a server that never gets ready', async () => {
  greet = (peer) => peer.close()
  const startedMs = performance.now()
  doorbell.start()
  await until('it tried four times', () => peers.length === 4)
  // 1.5 + 3 + 6 s of its time, which is ten times ours.
  expect(performance.now() - startedMs).toBeGreaterThanOrEqual(1_000)
  expect(doorbell.connected()).toBe(false)
})

test('leaves a connection on which nothing is heard any more', async () => {
  greet = (peer, text) => {
    if (text.includes('authenticate')) peer.send('{"type":"ready"}')
  }
  doorbell.start()
  await until('it is connected', () => doorbell.connected())
  await until('it connected anew', () => peers.length === 2)
})

test('stops at once, and stays stopped', async () => {
  doorbell.start()
  await until('it is connected', () => doorbell.connected())
  doorbell.stop()
  await until('the peer sees it', () => peers[0]?.readyState === 3)
  await sleep(5_000)
  expect(peers).toHaveLength(1)
  expect(doorbell.connected()).toBe(false)
})

test('a token that cannot be had is asked for again later', async () => {
  let asked = 0
  const other = createDoorbell({
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token: async () => {
      asked += 1
      if (asked < 3) throw new Error('no session')
      return 'token'
    },
    connect: (url) => new WebSocket(url) as unknown as SocketLike,
    sleep,
    random: () => 0,
    now,
    onNotice: (notice) => notices.push(notice),
  })
  other.start()
  await until('it is connected', () => other.connected())
  other.stop()
  expect(asked).toBe(3)
})
