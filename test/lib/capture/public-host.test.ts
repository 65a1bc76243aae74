import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  addressRefusal,
  hostRefusal,
  networkBlock,
  networkBlockWide,
} from '../../../lib/capture/public-host.ts'
import vectors from '../../vectors/network-blocks.json' with { type: 'json' }

describe('a host', () => {
  test.each([
    ['https://example.com/', null],
    ['https://a.b.co.uk/x?y', null],
    ['https://xn--bcher-kva.de/', null],
    ['https://1.2.3.4.example.com/', null],
    ['https://local.example.com/', null],
    ['https://127.0.0.1/', 'ip-literal'],
    ['https://127.0.0.1./', 'ip-literal'],
    ['https://8.8.8.8/', 'ip-literal'],
    ['https://127.1/', 'ip-literal'],
    ['https://2130706433/', 'ip-literal'],
    ['https://0x7f000001/', 'ip-literal'],
    ['https://0x7f.1/', 'ip-literal'],
    ['https://0177.0.0.01/', 'ip-literal'],
    ['https://127。0。0。1/', 'ip-literal'],
    ['https://①②⑦.0.0.1/', 'ip-literal'],
    ['https://[::1]/', 'ip-literal'],
    ['https://[::ffff:127.0.0.1]/', 'ip-literal'],
    ['https://[2606:4700::1111]/', 'ip-literal'],
    ['https://256.1.1.1/', 'unparsable'],
    ['https://example.com./', 'trailing-dot'],
    ['https://localhost./', 'trailing-dot'],
    ['https://localhost/', 'single-label'],
    ['https://router/', 'single-label'],
    ['https://com/', 'single-label'],
    ['https://foo.localhost/', 'private-name'],
    ['https://printer.local/', 'private-name'],
    ['https://PRINTER.LOCAL/', 'private-name'],
    ['https://printer.ｌｏｃａｌ/', 'private-name'],
    ['https://metadata.google.internal/', 'private-name'],
    ['https://a.onion/', 'private-name'],
    ['https://nas.home.arpa/', 'private-name'],
    ['https://1.0.0.127.in-addr.arpa/', 'private-name'],
    ['https://fritz.lan/', 'private-name'],
    ['https://wiki.corp/', 'private-name'],
    ['data:text/html,x', 'unparsable'],
    ['not a url', 'unparsable'],
  ])('in %s gets %s', (url, refusal) => {
    expect(hostRefusal(url)).toBe(refusal)
  })
})

describe('a peer address', () => {
  test.each([
    ['8.8.8.8', null],
    ['1.1.1.1', null],
    ['172.15.255.255', null],
    ['172.32.0.0', null],
    ['100.63.255.255', null],
    ['100.128.0.0', null],
    ['198.17.255.255', null],
    ['198.20.0.0', null],
    ['223.255.255.255', null],
    ['203.0.113.9', null],
    ['198.51.100.9', null],
    ['192.0.2.9', null],
    ['0.0.0.0', 'unspecified'],
    ['0.1.2.3', 'unspecified'],
    ['10.255.255.255', 'private'],
    ['100.64.0.0', 'shared'],
    ['100.127.255.255', 'shared'],
    ['127.8.9.10', 'loopback'],
    ['169.254.169.254', 'link-local'],
    ['172.16.0.0', 'private'],
    ['172.31.255.255', 'private'],
    ['192.0.0.8', 'protocol'],
    ['192.88.99.1', 'tunnel'],
    ['192.168.1.1', 'private'],
    ['198.18.0.0', 'benchmarking'],
    ['198.19.255.255', 'benchmarking'],
    ['224.0.0.1', 'multicast'],
    ['240.0.0.1', 'reserved'],
    ['255.255.255.255', 'reserved'],
    ['2606:4700:4700::1111', null],
    ['2001:4860:4860::8888', null],
    ['2001:db8::1', null],
    ['3fff::1', null],
    ['::', 'unspecified'],
    ['::1', 'loopback'],
    ['0:0:0:0:0:0:0:1', 'loopback'],
    ['::127.0.0.1', 'reserved'],
    ['fc00::1', 'private'],
    ['fdff:ffff::1', 'private'],
    ['fe80::1', 'link-local'],
    ['febf::1', 'link-local'],
    ['fec0::1', 'reserved'],
    ['ff02::1', 'multicast'],
    ['100::1', 'reserved'],
    ['5f00::1', 'reserved'],
    ['64:ff9b:1::1', 'reserved'],
    ['4000::1', 'reserved'],
    ['::ffff:8.8.8.8', null],
    ['::ffff:127.0.0.1', 'loopback'],
    ['::ffff:7f00:1', 'loopback'],
    ['::FFFF:192.168.0.1', 'private'],
    ['64:ff9b::8.8.8.8', null],
    ['64:ff9b::10.0.0.1', 'private'],
    ['2002:0808:0808::1', null],
    ['2002:7f00:1::', 'loopback'],
    ['2002:c0a8:0101::1', 'private'],
    ['2001:0:1234::1', 'tunnel'],
    ['2001:10::1', 'protocol'],
    ['2001:1ff:ffff::', 'protocol'],
    ['2001:200::1', null],
    ['', 'malformed'],
    ['example.com', 'malformed'],
    ['1.2.3', 'malformed'],
    ['1.2.3.4.5', 'malformed'],
    ['1.2.3.256', 'malformed'],
    ['01.2.3.4', 'malformed'],
    ['0x7f.0.0.1', 'malformed'],
    ['fe80::1%eth0', 'malformed'],
    ['[::1]', 'malformed'],
    [':::', 'malformed'],
    ['1::2::3', 'malformed'],
    ['1:2:3:4:5:6:7', 'malformed'],
    ['1:2:3:4:5:6:7:8:9', 'malformed'],
    ['1:2:3:4:5:6:7::8', 'malformed'],
    ['1:2:3:4:5:6:7::', 'reserved'],
    ['::1.2.3.4:5', 'malformed'],
    ['1.2.3.4::', 'malformed'],
    [':1', 'malformed'],
    ['1:', 'malformed'],
  ])('%s gets %s', (ip, refusal) => {
    expect(addressRefusal(ip)).toBe(refusal)
  })

  test('inside a private IPv4 block is refused in every embedding', () => {
    const octet = fc.nat(255)
    fc.assert(
      fc.property(octet, octet, octet, (b, c, d) => {
        const ip = `10.${b}.${c}.${d}`
        const hex = (high: number, low: number) => (high * 256 + low).toString(16)
        expect(addressRefusal(ip)).toBe('private')
        expect(addressRefusal(`::ffff:${ip}`)).toBe('private')
        expect(addressRefusal(`64:ff9b::${ip}`)).toBe('private')
        expect(addressRefusal(`2002:${hex(10, b)}:${hex(c, d)}::1`)).toBe('private')
      }),
    )
  })
})

describe('a network block', () => {
  test.each(vectors.cases)('of $ip follows the vector', (vector) => {
    expect(networkBlock(vector.ip)).toBe(vector.block)
    expect(networkBlockWide(vector.ip)).toBe(vector.wide)
  })

  test('of what is no address is an error', () => {
    expect(() => networkBlock('example.com')).toThrow(RangeError)
    expect(() => networkBlockWide('')).toThrow(RangeError)
  })
})
