#!/usr/bin/env python3
"""Verifies a release of Gleaner, by the steps of lib/protocol/README.md section 11.

    python3 verify_release.py FOLDER --key NAME+HEX+BASE64 [--json]

It was written from that document and from the standards that it names, not from the project's
code, and shares nothing with it: it needs the standard library and the `openssl` command, version
3 or later, which checks Ed25519 signatures. Exit status: 0 when everything verifies, 1 when
something does not, 2 when it was called wrongly or cannot work here.

A release is data from strangers. Nothing is opened but regular files that a walk of the folder has
found; a name that the data gives is only ever looked up among them. Every read is bounded. Each
signature starts a process, so this is a check of the rules rather than a tool for large releases.
"""

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import datetime
import hashlib
import itertools
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import zlib

MAX_FAILURES = 100
MAX_ROWS = 3_000_000
MAX_LINE = 1 << 20  # of every file of lines
MAX_FILE = 1 << 20  # of every other file that is read as a whole
MAX_RECORD = 64 << 20  # one WARC record, decoded
MAX_MEMBER = 32 << 20  # one WARC record, packed
MAX_HEAD = 16 << 10  # its head
MAX_GAP = 64 << 10  # bytes of a WARC file in a row that nobody names
CHUNK = 64 << 10
GZIP_HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0])  # RFC 1952 section 2.3, but XFL and OS
SAFE_INTEGER = 2**53

PARQUET = 'data/train-00000-of-00001.parquet'
INDEX = 'warc/index.cdxj'
ROWS = 'attestations.jsonl.gz'
REQUIRED = ('release.json', 'README.md', 'network.json', PARQUET, INDEX, ROWS)
WARC_FILE = re.compile(r'warc/[A-Za-z0-9._-]+\.warc\.gz')
CAMPAIGN_FILE = re.compile(r'campaigns/[a-z0-9][a-z0-9-]{0,62}\.json')
PATH = re.compile(r'(?!(.*/)?\.{0,2}(/|$))[A-Za-z0-9._/-]{1,4096}')
REVISIT_PROFILE = 'http://netpreserve.org/warc/1.1/revisit/identical-payload-digest'
REBUILT_NOTE = b'note: body decoded by the client, status line and headers rebuilt\r\n'
TYPE = 'application/vnd.gleaner.%s+json'

# Fields of each type of record, in their order; one that ends in `?` may be missing.
SUBJECT = 'WARC-Type WARC-Record-ID WARC-Date WARC-Target-URI '
RECORD_FIELDS = {
    'warcinfo': 'WARC-Type WARC-Record-ID WARC-Date WARC-Filename Content-Type '
    'WARC-Block-Digest Content-Length',
    'response': SUBJECT + 'Content-Type WARC-Payload-Digest WARC-Block-Digest Content-Length',
    'metadata': SUBJECT + 'WARC-Refers-To Content-Type WARC-Block-Digest Content-Length',
    'conversion': SUBJECT + 'WARC-Refers-To? Content-Type WARC-Payload-Digest WARC-Block-Digest '
    'Content-Length',
    'revisit': SUBJECT + 'WARC-Profile WARC-Refers-To WARC-Refers-To-Target-URI '
    'WARC-Refers-To-Date WARC-Payload-Digest WARC-Block-Digest Content-Type? WARC-Truncated? '
    'Content-Length',
}
CONTENT_TYPES = {
    'warcinfo': 'application/warc-fields',
    'response': 'application/http; msgtype=response',
    'metadata': 'application/warc-fields',
    'conversion': 'text/plain; charset=utf-8',
    'revisit': 'application/http; msgtype=response',
}
RECORD_ID = re.compile(
    r'<urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}>'
)
WARCINFO = """software: {generator}
format: WARC file version 1.1
conformsTo: http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/
isPartOf: {name}
description: texts that independent observers attested; dates are days, UTC
"""


# --- Failures -------------------------------------------------------------------------------------


class Enough(Exception):
    """The list of failures is full; what follows would not change the verdict."""


class Report:
    """Failures, each with the number of the step (section 11, Verifying) that it belongs to."""

    def __init__(self):
        self.failures = []

    def fail(self, step, what):
        if len(what) > 400:
            what = what[:400] + '...'
        self.failures.append((step, what))
        if len(self.failures) >= MAX_FAILURES:
            raise Enough

    @contextlib.contextmanager
    def attempt(self, step, where):
        """Makes whatever is wrong with the data inside a failure of this step."""
        try:
            yield
        except (ValueError, OSError, zlib.error, RecursionError) as problem:
            self.fail(step, f'{where}: {problem}')


# --- Encodings (section 1) ------------------------------------------------------------------------


def sha256(data):
    return hashlib.sha256(data).digest()


def base64url(text, size):
    """Bytes in JSON: base64url without padding, strictly (RFC 4648 section 5)."""
    if re.fullmatch(r'[A-Za-z0-9_-]*', text):
        with contextlib.suppress(ValueError):
            data = base64.urlsafe_b64decode(text + '=' * (-len(text) % 4))
            if len(data) == size and to_base64url(data) == text:
                return data
    raise ValueError(f'not {size} bytes of base64url: {ascii(text[:100])}')


def to_base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


def base64_padded(text):
    """Bytes in DSSE envelopes and signed notes: base64 with padding, strictly."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError('base64 with stray bits')
    return data


def parse_json(data):
    """JSON in UTF-8, in which no object has two members of one name."""

    def closed_object(pairs):
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError('JSON with two members of one name')
        return members

    def no_constant(name):
        raise ValueError(f'JSON with {name}')

    def number(digits):
        value = float(digits)
        return int(value) if value.is_integer() else value

    return json.loads(
        data.decode('utf-8'), object_pairs_hook=closed_object, parse_constant=no_constant,
        parse_float=number,
    )  # fmt: skip


def canonical(value):
    """Canonical JSON (RFC 8785) of a value whose numbers are safe integers."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode('utf-16-be', 'surrogatepass'))
        return b'{' + b','.join(canonical(n) + b':' + canonical(value[n]) for n in names) + b'}'
    if isinstance(value, list):
        return b'[' + b','.join(canonical(item) for item in value) + b']'
    if isinstance(value, float) or (type(value) is int and abs(value) >= SAFE_INTEGER):
        raise ValueError('a number that is not an integer below 2^53')
    return json.dumps(value, ensure_ascii=False).encode('utf-8')


def parse_canonical(data):
    value = parse_json(data)
    if canonical(value) != data:
        raise ValueError('not canonical JSON')
    return value


# --- Shapes of messages (section 1: objects are closed) -------------------------------------------
# A shape is a function that tells whether a value has it. `closed` throws, to name the member.


def closed(shapes):
    """An object with these members and no others; a name that ends in `?` may be missing."""
    known = {name.rstrip('?'): shape for name, shape in shapes.items()}
    needed = {name for name in shapes if not name.endswith('?')}

    def check(value):
        if not isinstance(value, dict):
            raise ValueError('not a JSON object')
        for name in sorted((needed - value.keys()) | (value.keys() - known.keys())):
            raise ValueError(f'member {ascii(name[:100])} is missing or unknown')
        for name, member in value.items():
            if not known[name](member):
                raise ValueError(f'member {name!r} has a wrong value')
        return True

    return check


def text(most, least=1):
    """A string whose length is counted in UTF-16 units."""
    return lambda value: isinstance(value, str) and least <= (
        len(value.encode('utf-16-le', 'surrogatepass')) // 2
    ) <= most


def matching(pattern):
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.ASCII))


def integer(least, most=SAFE_INTEGER - 1):
    return lambda value: type(value) is int and least <= value <= most


def list_of(shape, least, most):
    return lambda value: (
        isinstance(value, list) and least <= len(value) <= most and all(map(shape, value))
    )


def one_of(*values):
    return lambda value: any(type(value) is type(one) and value == one for one in values)


def nullable(shape):
    return lambda value: value is None or shape(value)


def is_day(value):
    if not matching(r'\d{4}-\d{2}-\d{2}')(value):
        return False
    with contextlib.suppress(ValueError):
        return bool(datetime.date.fromisoformat(value))
    return False


def is_url(value):
    return text(2048)(value) and bool(re.fullmatch(r'https?://\S+', value))


def is_rate(value):
    return type(value) in (int, float) and 0 < value <= 100


count = integer(0)
is_flag = one_of(True, False)
is_digest = matching(r'[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]')
is_instant = matching(r'\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,3})?Z')
is_id = matching(r'[a-z0-9][a-z0-9-]{0,62}')
is_operator = closed({'name': text(200), 'contact': text(200)})

is_envelope = closed({
    'payloadType': text(100),
    'payload': text(65536, 0),
    'signatures': list_of(closed({'keyid': is_digest, 'sig': text(120, 0)}), 1, 8),
})

is_network = closed({
    'version': one_of(1), 'name': text(100), 'operator': is_operator, 'campaignKey': is_digest,
    'leaseKey': is_digest, 'receiptKey': is_digest, 'logKey': text(300), 'createdAt': is_instant,
})

has_campaign_members = closed({
    'version': one_of(1), 'id': is_id, 'title': text(120), 'purpose': text(2000),
    'operator': is_operator, 'use': one_of('research', 'search', 'ai-training', 'archive'),
    'sites': list_of(closed({
        'host': matching(r'(?=.{1,253}$)(?=.*\.)[a-z0-9]([a-z0-9.-]*[a-z0-9])?'),
        'scheme': one_of('https', 'http'),
        'pathPrefixes': list_of(lambda v: text(512)(v) and v.startswith('/'), 1, 50),
        'requestsPerSecond': is_rate, 'requestsInFlight': integer(1, 32),
    }), 0, 100),
    'wide?': closed({
        'root': is_digest, 'size': integer(1, 1_000_000), 'category': text(200),
        'scheme': one_of('https', 'http'),
        'requestsPerSecond': is_rate, 'requestsInFlight': integer(1, 32),
    }),
    'types?': list_of(one_of('html', 'text', 'feed', 'json', 'pdf'), 1, 5),
    'canaryHosts': list_of(text(253), 0, 20), 'seeds': list_of(is_url, 1, 1000),
    'limits': closed({
        'pageBytes': integer(1024, 16 << 20), 'pageMs': integer(100, 120_000),
        'pages': integer(1, 10**9), 'pagesPerHost?': integer(1, 10**9), 'depth': integer(0, 1000),
    }),
    'retentionDays': integer(1, 36_500), 'quorum': integer(2, 5),
    'points': closed({
        'perPage': count, 'perDuplicate': count, 'perPayload': count, 'budget': count,
        'funding': one_of('subsidy', 'consumer'),
    }),
    'validFrom': is_instant, 'validUntil': is_instant,
})


def is_campaign(value):
    has_campaign_members(value)
    if not value['sites'] and 'wide' not in value:
        raise ValueError('a campaign with neither sites nor a list of domains')
    return True


LOG_ENTRIES = {
    'network': closed({'type': text(9), 'envelope': is_envelope}),
    'campaign': closed({'type': text(9), 'envelope': is_envelope}),
    'row': closed({'type': text(9), 'commitment': is_digest}),
    'epoch': closed({
        'type': text(9), 'number': count, 'day': is_day, 'transfersRoot': is_digest,
        'transfers': count, 'balancesRoot': is_digest, 'accounts': count,
    }),
    'release': closed({'type': text(9), 'name': text(200), 'sums': is_digest, 'rows': count}),
    'opt-out': closed({
        'type': text(9), 'scope': one_of('host', 'prefix', 'domain'), 'target': text(2400),
        'day': is_day,
    }),
}

is_release = closed({
    'version': one_of(1), 'name': text(200), 'campaigns': list_of(is_digest, 1, 100),
    'createdAt': is_instant, 'rows': count, 'duplicates': count, 'generator': text(100),
})

is_preference = one_of('y', 'n', 'unknown')

is_row = closed({
    'agreementPermille': integer(0, 1000), 'campaign': is_digest, 'day': is_day,
    'duplicate': is_flag, 'gaps': count, 'grade': one_of('exact', 'sentences'),
    'language': nullable(text(35)), 'payload': nullable(is_digest), 'quorum': count,
    'robots': nullable(is_digest), 'signals': list_of(closed({
        'source': one_of('header', 'meta', 'link', 'a', 'robots', 'tdmrep', 'rsl', 'ai-txt'),
        'name': text(60), 'value': text(256, 0),
    }), 0, 100),
    'status': count, 'text': is_digest, 'title': nullable(text(1000, 0)), 'type': text(100),
    'url': is_url,
    'use?': closed({
        'aiInput': is_preference, 'search': is_preference, 'tdm': is_preference,
        'train': is_preference,
    }),
})

is_line = closed({
    'row': text(65536), 'salt': is_digest, 'leafIndex': count,
    'attestations': list_of(is_envelope, 1, 5),
    'warc': closed({'file': text(200), 'offset': count, 'length': count}),
})

is_attestation = closed({
    'campaign': is_digest, 'day': is_day, 'gaps': count, 'payload?': is_digest,
    'text': is_digest, 'transform': one_of('gleaner-text/1'), 'url': is_url,
})

is_clear_entry = closed({'leafIndex': count, 'entry': text(MAX_LINE)})

is_index_entry = closed({
    'url': is_url, 'mime': text(100), 'status': matching(r'[1-9]\d{2}'),
    'digest': matching(r'sha256:[0-9a-f]{64}'), 'length': matching(r'0|[1-9]\d{0,15}'),
    'offset': matching(r'0|[1-9]\d{0,15}'), 'filename': text(200),
})


# --- Use signals (section 11, Use) ----------------------------------------------------------------

# Dictionaries of RFC 9651. A bare item; one with parameters; a list of such; a member.
SF_KEY = r'[a-z*][a-z0-9_.*-]*'
SF_ITEM = (
    r'(?:[A-Za-z*][!#$%&\'*+.^_`|~0-9A-Za-z:/-]*|-?\d{1,12}\.\d{1,3}|-?\d{1,15}(?![\d.])|\?[01]'
    r'|"(?:[ !#-\[\]-~]|\\["\\])*"|:[A-Za-z0-9+/=]*:|@-?\d{1,15}(?![\d.])'
    r'|%"(?:[ !#$&-~]|%[0-9a-f]{2})*")'
)
SF_PARAMETERS = rf'(?:; *{SF_KEY}(?:={SF_ITEM})?)*'
SF_LIST = rf'\( *(?:{SF_ITEM}{SF_PARAMETERS}(?: +{SF_ITEM}{SF_PARAMETERS})* *)?\)'
SF_MEMBER = re.compile(rf'({SF_KEY})(?:=({SF_ITEM}|{SF_LIST}))?{SF_PARAMETERS}[ \t]*(,[ \t]*|$)')
RSL_TOKENS = {
    'all': {'train', 'search', 'aiInput'}, 'ai-all': {'train', 'aiInput'}, 'ai-train': {'train'},
    'train-ai': {'train'}, 'ai-input': {'aiInput'}, 'search': {'search'},
}  # fmt: skip
VALUED = ('max-image-preview', 'max-snippet', 'max-video-preview', 'unavailable_after')
CUT = 256


def lower_ascii(value):
    return ''.join(chr(ord(c) + 32) if 'A' <= c <= 'Z' else c for c in value)


def content_usage(value):
    said, at = {}, 0
    value = value.strip(' ')
    while at < len(value):
        member = SF_MEMBER.match(value, at)
        if not member or (member[3] and member.end() == len(value)):
            return {}
        said[member[1]] = member[2]
        at = member.end()
    pairs = (('train', said.get('train-ai')), ('search', said.get('search')))
    return {name: token for name, token in pairs if token in ('y', 'n')}


def content_signal(value):
    names = {'ai-train': 'train', 'search': 'search', 'ai-input': 'aiInput'}
    found = {}
    for part in re.split('[,;]', re.sub('[ \t]', '', lower_ascii(value))):
        words = part.split('=')
        if len(words) == 2 and words[0] in names and words[1] in ('yes', 'no'):
            strictest(found, names[words[0]], words[1][0])
    return found


def robots_directives(value):
    for part in lower_ascii(value).split(','):
        scope = re.match(r'[ \t]*([a-z0-9_.*-]{1,60})[ \t]*:', part)
        if scope and scope[1] not in VALUED:
            if scope[1] not in ('gleaner', '*', 'robots'):
                continue
            part = part[scope.end() :]
        if {'noai', 'noimageai'} & set(re.split('[ \t;]+', part)):
            return {'train': 'n'}
    return {}


def licence_terms(value):
    words = value.split(' ')

    def after(label):
        return next((w[len(label) + 1 :] for w in words if w.startswith(label + '=')), None)

    def covered(label):
        tokens = (after(label) or '').split('+')
        return set().union(*(RSL_TOKENS.get(token, set()) for token in tokens))

    payment = after('payment')
    paid = payment not in (None, 'free', 'attribution')
    free = not paid and payment != 'attribution' and 'conditional' not in words
    said = {}
    for name in ('train', 'search', 'aiInput'):
        permitted = after('permits') is None or name in covered('permits')
        if name in covered('prohibits'):
            said[name] = 'n'
        elif not permitted:
            if name == 'train':
                said[name] = 'n'
        elif paid or (name == 'train' and 'server' in words):
            said[name] = 'n'
        elif free and name in covered('permits'):
            said[name] = 'y'
    return said


def strictest(found, name, value):
    if value == 'n' or name not in found:
        found[name] = value


def use_of(signals):
    """What signals say together: y, n or unknown of each kind of use."""
    found, reservations, doubtful = {}, {}, False
    read = set()
    for signal in signals:
        if signal['source'] == 'rsl':
            read.update([one for one in signal['value'].split(' ') if one.startswith('url=')][:1])
    for signal in signals:
        source, name, value = signal['source'], signal['name'], signal['value']
        whole = value
        if len(value.encode('utf-16-le', 'surrogatepass')) // 2 == CUT:
            doubtful = True
            value = value.rpartition(',')[0]
        if source == 'robots' and value.startswith('/'):
            value = re.sub(r'^[^ \t]*[ \t]*', '', value)
        said = {}
        if source in ('header', 'meta', 'robots') and name == 'content-usage':
            said = content_usage(value)
        elif source in ('header', 'meta', 'robots') and name == 'content-signal':
            said = content_signal(value)
        elif (source, name) in (
            ('header', 'x-robots-tag'), ('meta', 'robots'), ('meta', 'gleaner'),
        ):  # fmt: skip
            said = robots_directives(value)
        elif source in ('tdmrep', 'header', 'meta') and name == 'tdm-reservation':
            values = re.sub('[ \t]', '', value).split(',')
            if '1' in values or '0' in values:
                stage = reservations.setdefault(source, {})
                strictest(stage, 'tdm', 'n' if '1' in values else 'y')
        elif (source, name) == ('robots', 'license') and f'url={whole}' not in read:
            said = {'train': 'n'}
        elif (source, name) in (('rsl', 'unreadable'), ('ai-txt', 'disallow')):
            said = {'train': 'n'}
        elif (source, name) == ('rsl', 'terms'):
            said = licence_terms(value)
        elif (source, name) == ('meta', 'observers-differ'):
            doubtful = True
        for dimension, preference in said.items():
            strictest(found, dimension, preference)
    stages = [reservations[one] for one in ('meta', 'header', 'tdmrep') if one in reservations]
    for stage in stages if doubtful else stages[:1]:
        strictest(found, 'tdm', stage['tdm'])
    use = {}
    for name in ('aiInput', 'search', 'tdm', 'train'):
        said = found.get(name, 'unknown')
        use[name] = 'unknown' if doubtful and said == 'y' else said
    return use


# --- Signatures: Ed25519 (RFC 8032), DSSE v1 (section 1), signed notes (section 10) ---------------


class Ed25519:
    """Checks signatures with the openssl command, a few at a time."""

    SPKI = bytes.fromhex('302a300506032b6570032100')  # DER before the raw key, RFC 8410 section 4

    def __init__(self, report, folder):
        self.report = report
        self.folder = folder
        self.names = itertools.count()
        self.workers = os.cpu_count() or 2
        self.pool = concurrent.futures.ThreadPoolExecutor(self.workers)
        self.waiting = collections.deque()

    def verifies(self, key, message, signature):
        if len(key) != 32 or len(signature) != 64 or has_small_order(key):
            return False
        place = os.path.join(self.folder, str(next(self.names)))
        parts = {'.key': self.SPKI + key, '.message': message, '.signature': signature}
        for ending, data in parts.items():
            with open(place + ending, 'wb') as file:
                file.write(data)
        done = subprocess.run(
            ['openssl', 'pkeyutl', '-verify', '-pubin', '-keyform', 'DER', '-inkey', place + '.key',
             '-rawin', '-in', place + '.message', '-sigfile', place + '.signature'],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=60, check=False,
        )  # fmt: skip
        for ending in parts:
            os.remove(place + ending)
        return done.returncode == 0

    def expect(self, step, what, key, message, signature):
        """Checks in the background; it is a failure of the step if the signature is not right."""
        self.waiting.append((step, what, self.pool.submit(self.verifies, key, message, signature)))
        if len(self.waiting) > 16 * self.workers:
            self.settle_one()

    def settle_one(self):
        step, what, verdict = self.waiting.popleft()
        if not verdict.result():
            self.report.fail(step, what)

    def settle(self):
        while self.waiting:
            self.settle_one()

    def works(self):
        """RFC 8032 section 7.1, test 2: the right signature is taken and a wrong one is not."""
        key = '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c'
        signature = (
            '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da'
            '085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00'
        )
        key, signature = bytes.fromhex(key), bytes.fromhex(signature)
        return self.verifies(key, b'\x72', signature) and not self.verifies(key, b'\x73', signature)


def has_small_order(key):
    """Whether eight times the point is the neutral one: everybody can sign under such a key.

    By the curve equation and the doubling of RFC 8032 section 5.1, y is 0, 1 or -1, or double the
    point has y = 0, which comes to d y^4 + 2 y^2 = 1.
    """
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p)
    y = int.from_bytes(key, 'little') % 2**255 % p  # without the sign of x
    return y in (0, 1, p - 1) or (d * y**4 + 2 * y**2 - 1) % p == 0


def pre_authentication(payload_type, payload):
    """PAE of DSSE v1."""
    kind = payload_type.encode('utf-8')
    return b'DSSEv1 %d %s %d %s' % (len(kind), kind, len(payload), payload)


def open_envelope(envelope, payload_type):
    """The payload, the message that is signed, and the pairs of key and signature; unverified."""
    if envelope['payloadType'] != payload_type:
        raise ValueError(f'payload type {ascii(envelope["payloadType"])}, not {payload_type}')
    payload = base64_padded(envelope['payload'])
    pairs = [
        (base64url(one['keyid'], 32), base64_padded(one['sig'])) for one in envelope['signatures']
    ]
    return payload, pre_authentication(payload_type, payload), pairs


def verified_payload(ed25519, envelope, payload_type, key):
    """The payload of an envelope that this key must have signed, whatever the `keyid`s say."""
    payload, message, pairs = open_envelope(envelope, payload_type)
    if not any(ed25519.verifies(key, message, signature) for _, signature in pairs):
        raise ValueError('no signature that verifies under the expected key')
    return payload


def parse_verifier_key(vkey):
    """NAME+HEX+BASE64 of a C2SP signed note: the name, the key's id and the raw Ed25519 key."""
    name, identifier, encoded = (vkey.split('+', 2) + ['', ''])[:3]
    data = base64_padded(encoded)
    if not name or re.search(r'\s', name) or len(data) != 33 or data[0] != 1:
        raise ValueError('not a verifier key of a signed note with Ed25519')
    if sha256(name.encode('utf-8') + b'\n' + data)[:4].hex() != identifier:
        raise ValueError('the id in the verifier key is not that of its name and key')
    return name, data[1:33]


def parse_note(data, name, key):
    """Text of a signed note, and the signatures that claim to be of this key."""
    if re.search(rb'[\x00-\x09\x0b-\x1f]', data):
        raise ValueError('control characters in a signed note')
    data.decode('utf-8')
    body, blank, tail = data.rpartition(b'\n\n')
    if not blank or not tail.endswith(b'\n'):
        raise ValueError('not a signed note')
    ours = []
    identifier = sha256(name.encode('utf-8') + b'\n\x01' + key)[:4]
    for line in tail[:-1].decode('utf-8').split('\n'):
        parts = re.fullmatch(r'— ([^\s+]+) (\S+)', line)
        signature = base64_padded(parts[2]) if parts else b''
        if len(signature) <= 4:
            raise ValueError('malformed signature line')
        if parts[1] == name and signature[:4] == identifier:
            ours.append(signature[4:])
    return body + b'\n', ours


# --- The folder -----------------------------------------------------------------------------------


class Folder:
    """The regular files of a release, by their path. Nothing else of it is ever opened."""

    def __init__(self, root, report):
        self.root = root
        self.sizes = {}
        todo = ['']
        while todo:
            inside = todo.pop()
            with report.attempt(5, ascii(inside)), os.scandir(os.path.join(root, inside)) as found:
                for item in found:
                    path = inside + item.name
                    status = item.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        todo.append(path + '/')
                    elif stat.S_ISREG(status.st_mode):
                        self.sizes[path] = status.st_size
                    else:
                        report.fail(5, f'{ascii(path)} is neither a regular file nor a folder')

    def open(self, path):
        if path not in self.sizes:
            raise ValueError('there is no such file')
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(os.path.join(self.root, path), flags), 'rb')

    def read(self, path, most=MAX_FILE):
        with self.open(path) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f'longer than {most} bytes')
        return data

    def pieces(self, path):
        with self.open(path) as file:
            while piece := file.read(CHUNK):
                yield piece

    def digest(self, path):
        state = hashlib.sha256()
        for piece in self.pieces(path):
            state.update(piece)
        return state.digest()

    def lines(self, path):
        return split_lines(self.pieces(path))

    def gzip_lines(self, path):
        return split_lines(inflate(self.pieces(path)))


def split_lines(pieces):
    """Lines without their line feed; each must end in one and have at most MAX_LINE bytes."""
    rest = b''
    for piece in pieces:
        *lines, rest = (rest + piece).split(b'\n')
        for line in [*lines, rest]:
            if len(line) > MAX_LINE:
                raise ValueError(f'a line of more than {MAX_LINE} bytes')
        yield from lines
    if rest:
        raise ValueError('the last line does not end in a line feed')


def inflate(pieces):
    """What the gzip members hold, all of them whole, in small pieces."""
    data = b''
    while True:
        while len(data) < len(GZIP_HEADER) and (piece := next(pieces, b'')):
            data += piece
        member = gzip_member(data)
        while not member.eof:
            data = data or next(pieces, b'')
            piece = member.decompress(data, CHUNK)
            if not data and not piece and not member.eof:
                raise ValueError('the file ends within a gzip member')
            data = member.unconsumed_tail
            if piece:
                yield piece
        data = member.unused_data or next(pieces, b'')
        if not data:
            return


def gzip_member(data):
    """What decodes the gzip member that begins so: without flags, and so without names, or time."""
    if not data.startswith(GZIP_HEADER):
        raise ValueError('no plain gzip member is there')
    return zlib.decompressobj(wbits=31)


# --- The Merkle tree (RFC 6962) and its tiles (C2SP tlog-tiles) -----------------------------------


def leaf_hash(entry):
    return sha256(b'\x00' + entry)


def tree_root(leaves):
    """Root of the tree over leaf hashes that stand one after another, 32 bytes each."""
    peaks = []  # (height, hash) of the complete subtrees so far, from the left
    for at in range(0, len(leaves), 32):
        height, node = 0, bytes(leaves[at : at + 32])
        while peaks and peaks[-1][0] == height:
            height, node = height + 1, sha256(b'\x01' + peaks.pop()[1] + node)
        peaks.append((height, node))
    if not peaks:
        return sha256(b'')
    root = peaks.pop()[1]
    while peaks:
        root = sha256(b'\x01' + peaks.pop()[1] + root)
    return root


def tile_path(number, width):
    """`tile/0/x001/x234/067`, and `.p/W` after it for one of less than 256 hashes."""
    groups = []
    while number >= 1000 or not groups:
        number, group = divmod(number, 1000)
        groups.insert(0, f'{group:03d}')
    if number:
        groups.insert(0, f'{number:03d}')
    path = '/'.join(['x' + group for group in groups[:-1]] + groups[-1:])
    return f'log/tile/0/{path}' + ('' if width == 256 else f'.p/{width}')


# --- WARC 1.1 -------------------------------------------------------------------------------------


def read_member(file, offset, end):
    """What the gzip member at `offset` holds, and where it ends: at `end` at the latest."""
    file.seek(offset)
    data = file.read(min(CHUNK, end - offset))
    at = offset + len(data)
    member = gzip_member(data)
    decoded = bytearray()
    while not member.eof:
        if not data:
            data = file.read(min(CHUNK, end - at))
            at += len(data)
        piece = member.decompress(data, MAX_RECORD + 1 - len(decoded))
        if not data and not piece and not member.eof:
            raise ValueError('no whole gzip member is there')
        data = member.unconsumed_tail
        decoded += piece
        if len(decoded) > MAX_RECORD:
            raise ValueError(f'a record of more than {MAX_RECORD} bytes')
    return bytes(decoded), at - len(member.unused_data)


def parse_record(data):
    """Named fields and block of the one record that `data` must be."""
    head, gap, rest = data.partition(b'\r\n\r\n')
    if not gap or len(head) > MAX_HEAD:
        raise ValueError('not a WARC record')
    version, *lines = head.decode('utf-8').split('\r\n')
    fields = {}
    for line in lines:
        parts = re.fullmatch(r'([A-Za-z0-9-]+): ([^\x00-\x1f\x7f-\x9f]*)', line)
        if not parts or parts[1] in fields:
            raise ValueError('malformed WARC field, or one that is there twice')
        fields[parts[1]] = parts[2]
    if version != 'WARC/1.1':
        raise ValueError('not a record of WARC 1.1')
    kind = fields.get('WARC-Type', '')
    expected = [n for n in RECORD_FIELDS.get(kind, '').split() if n[-1:] != '?' or n[:-1] in fields]
    if not expected or [*fields] != [name.rstrip('?') for name in expected]:
        raise ValueError(f'not a record with the fields of type {ascii(kind)}')
    fixed = {'WARC-Profile': REVISIT_PROFILE, 'WARC-Truncated': 'length'}
    fixed['Content-Type'] = CONTENT_TYPES[kind]
    for name, value in fields.items():
        if value != fixed.get(name, value):
            raise ValueError(f'another {name} than a record of type {kind} has')
        if name in ('WARC-Record-ID', 'WARC-Refers-To') and not RECORD_ID.fullmatch(value):
            raise ValueError(f'{name} is no derived id')
    length = fields.get('Content-Length', '')
    if not re.fullmatch(r'0|[1-9][0-9]{0,9}', length):
        raise ValueError('a WARC record without a length')
    block, after = rest[: int(length)], rest[int(length) :]
    if len(block) != int(length) or after != b'\r\n\r\n':
        raise ValueError('a WARC record of another length than it says')
    if fields.get('WARC-Block-Digest') != label(sha256(block)):
        raise ValueError('WARC-Block-Digest is not that of the block')
    if fields['WARC-Type'] != 'warcinfo' and not is_day(fields['WARC-Date']):
        raise ValueError('WARC-Date is not a day')
    if kind == 'revisit' and (
        (block != b'') != ('Content-Type' in fields) or (block != b'') != ('WARC-Truncated' in fields)
    ):
        raise ValueError('the fields of a revisit do not fit its block')
    return fields, block


def label(digest):
    """A digest as WARC and CDXJ write it."""
    return f'sha256:{digest.hex()}'


class Warcs:
    """WARC files of the release, and which of their bytes the rows and the index name."""

    def __init__(self, folder):
        self.folder = folder
        self.named = {path: set() for path in folder.sizes if WARC_FILE.fullmatch(path)}
        self.responses = {}  # what the metadata after a response must say, by file and offset

    def record(self, path, offset, length):
        """The record that is exactly these bytes."""
        if path not in self.named:
            raise ValueError('names no WARC file of the release')
        end = offset + length
        if length > MAX_MEMBER or end > self.folder.sizes[path]:
            raise ValueError('names too many bytes, or bytes after the end of the WARC file')
        self.named[path].add((offset, end))
        with self.folder.open(path) as file:
            data, actual = read_member(file, offset, end)
        if actual != end:
            raise ValueError('names more than one gzip member')
        fields, block = parse_record(data)
        if fields['WARC-Type'] == 'response':
            about = ('WARC-Record-ID', 'WARC-Target-URI', 'WARC-Date')
            self.responses[path, end] = [fields[name] for name in about]
        return fields, block

    def check_rest(self, path, release):
        """What nobody names: warcinfo at the begin, and after a response that it is rebuilt."""
        at = 0
        size = self.folder.sizes[path]
        with self.folder.open(path) as file:
            for start, end in [*sorted(self.named[path]), (size, size)]:
                if start < at:
                    raise ValueError(f'records that are named overlap at {start}')
                if start - at > MAX_GAP:
                    raise ValueError(f'more than {MAX_GAP} bytes at {at} that nobody names')
                if at < start:
                    data, after = read_member(file, at, start)
                    fields, block = parse_record(data)
                    if after != start or not self.is_note(path, at, fields, block, release):
                        raise ValueError(f'a record at {at} that no row and no index line names')
                at = end

    def is_note(self, path, at, fields, block, release):
        """Whether a record says nothing but what its place and release.json say already."""
        if fields['WARC-Type'] == 'metadata':
            about = ('WARC-Refers-To', 'WARC-Target-URI', 'WARC-Date')
            response = self.responses.get((path, at))
            return block == REBUILT_NOTE and response == [fields[name] for name in about]
        if fields['WARC-Type'] != 'warcinfo' or at != 0:
            return False
        if not release:
            return True
        said = WARCINFO.replace('\n', '\r\n').format(**release).encode('utf-8')
        stated = fields['WARC-Filename'], fields['WARC-Date']
        return block == said and stated == (path.split('/')[-1], release['createdAt'])


# --- The nine steps -------------------------------------------------------------------------------


class Verifier:
    """One release. Each step leaves what it learned for the next ones, None when it could not."""

    def __init__(self, folder, vkey, ed25519, report):
        self.folder = folder
        self.vkey = vkey
        self.ed25519 = ed25519
        self.report = report
        self.size = self.root = None  # of the checkpoint
        self.leaves = None  # 32 bytes for each leaf
        self.network = None  # payload of the network's envelope
        self.logged = collections.defaultdict(list)  # entries in clear, by type
        self.release = None  # release.json
        self.quorums = {}  # of each campaign, by the manifest's digest
        self.warcs = Warcs(folder)
        self.firsts = {}  # places of texts that are no duplicates, by digest of the text
        self.indexed = {}  # (url, day, digest) of rows to be indexed: their (status, type)
        self.pages = set()  # (url, day, digest) that a revisit may refer to
        self.payloads = {}  # payload of exact rows: the first such line
        self.lines = self.duplicates = 0

    def run(self):
        self.checkpoint()
        self.tiles()
        self.entries()
        self.release_entry()
        self.files()
        self.campaigns()
        self.rows()
        self.index()
        self.counts()

    def checkpoint(self):
        """Step 1. A C2SP tlog-checkpoint: origin, size, root; signed by the given key."""
        with self.report.attempt(1, 'log/checkpoint'):
            name, key = parse_verifier_key(self.vkey)
            body, signatures = parse_note(self.folder.read('log/checkpoint'), name, key)
            origin, size, root, *more = body.decode('utf-8')[:-1].split('\n')
            if not re.fullmatch(r'0|[1-9][0-9]{0,15}', size) or '' in more:
                raise ValueError('not a checkpoint')
            if origin != name:
                raise ValueError(f'the origin is {ascii(origin)}, not {name}')
            if not signatures:
                raise ValueError('not signed by the given key')
            if not all(self.ed25519.verifies(key, body, signature) for signature in signatures):
                raise ValueError('the signature of the given key does not verify')
            self.root = base64_padded(root)
            self.size = int(size)

    def tiles(self):
        """Step 2. Level 0 of the C2SP tlog-tiles gives the leaves, and these the root."""
        if self.size is None:
            return
        with self.report.attempt(2, 'log/tile/0'):
            expected = {'log/checkpoint', 'log/entries.jsonl'}
            leaves = bytearray()
            for number in range(-(-self.size // 256)):
                width = min(256, self.size - 256 * number)
                path = tile_path(number, width)
                tile = self.folder.read(path) if path in self.folder.sizes else b''
                if len(tile) != 32 * width:
                    raise ValueError(f'{path} does not hold {width} hashes')
                expected.add(path)
                leaves += tile
            for path in sorted(self.folder.sizes):
                if path.startswith('log/') and path not in expected:
                    self.report.fail(2, f'{ascii(path)} is no part of the log')
            if tree_root(leaves) != self.root:
                raise ValueError('the root of the leaves is not that of the checkpoint')
            self.leaves = leaves

    def is_leaf(self, index, entry):
        """Whether the entry is in the log there; true when there are no leaves to check against."""
        if self.leaves is None:
            return True
        return bytes(self.leaves[32 * index : 32 * index + 32]) == leaf_hash(entry)

    def entries(self):
        """Step 3. Entries in clear are in the log; the first of them is the network's."""
        path, last = 'log/entries.jsonl', -1
        with self.report.attempt(3, path):
            for number, data in enumerate(self.folder.lines(path), 1):
                with self.report.attempt(3, f'{path} line {number}'):
                    line = parse_json(data)
                    is_clear_entry(line)
                    index, last_index, last = line['leafIndex'], last, line['leafIndex']
                    entry = parse_canonical(line['entry'].encode('utf-8'))
                    kind = entry.get('type') if isinstance(entry, dict) else None
                    if not isinstance(kind, str) or kind not in LOG_ENTRIES:
                        raise ValueError('not an entry of the log')
                    LOG_ENTRIES[kind](entry)
                    if index <= last_index:
                        self.report.fail(3, f'{path} line {number}: leaf indexes do not ascend')
                    if not self.is_leaf(index, line['entry'].encode('utf-8')):
                        raise ValueError(f'is not what the log has at {index}')
                    self.logged[kind].append((index, entry))
        with self.report.attempt(3, 'network'):
            first = next(iter(self.logged['network']), (None, None))
            if first[0] != 0:
                raise ValueError('entry 0 of the log is not the network, or is not given')
            envelope = first[1]['envelope']
            payload = open_envelope(envelope, TYPE % 'network')[0]
            network = parse_json(payload)
            is_network(network)
            verified_payload(
                self.ed25519, envelope, TYPE % 'network', base64url(network['campaignKey'], 32)
            )
            self.network = network
            if network['logKey'] != self.vkey:
                self.report.fail(3, 'the logKey of the network is not the given key')
            if parse_json(self.folder.read('network.json')) != envelope:
                self.report.fail(3, 'network.json is not the envelope in the log')

    def release_entry(self):
        """Step 4. The log has one entry for this SHA256SUMS, and release.json agrees with it."""
        with self.report.attempt(4, 'release.json'):
            release = parse_json(self.folder.read('release.json'))
            is_release(release)
            self.release = release
        with self.report.attempt(4, 'release entry'):
            sums = to_base64url(self.folder.digest('SHA256SUMS'))
            entries = [entry for _, entry in self.logged['release'] if entry['sums'] == sums]
            if len(entries) != 1:
                raise ValueError(f'{len(entries)} entries in the log are for this SHA256SUMS')
            for name in ('name', 'rows') if self.release else ():
                if entries[0][name] != self.release[name]:
                    self.report.fail(4, f'{name} in the log is not that in release.json')

    def files(self):
        """Step 5. SHA256SUMS lists exactly the files that are there, and each has its digest."""
        listed, last = set(), ''
        with self.report.attempt(5, 'SHA256SUMS'):
            for number, line in enumerate(self.folder.lines('SHA256SUMS'), 1):
                with self.report.attempt(5, f'SHA256SUMS line {number}'):
                    parts = re.fullmatch(r'([0-9a-f]{64})  (.+)', line.decode('utf-8'))
                    if not parts or not PATH.fullmatch(parts[2]):
                        raise ValueError('not a digest and a path')
                    path, previous, last = parts[2], last, parts[2]
                    if last <= previous:
                        raise ValueError('paths do not ascend')
                    listed.add(path)
                    if path == 'SHA256SUMS' or path.startswith('log/'):
                        raise ValueError('names what it must not')
                    if self.folder.digest(path).hex() != parts[1]:
                        raise ValueError(f'{ascii(path)} has another digest')
        for path in sorted(self.folder.sizes):
            if path.startswith('log/') or path == 'SHA256SUMS':
                continue
            if path not in listed:
                self.report.fail(5, f'{ascii(path)} is not in SHA256SUMS')
            known = path in REQUIRED or WARC_FILE.fullmatch(path) or CAMPAIGN_FILE.fullmatch(path)
            if not known and path.startswith(('data/', 'warc/', 'campaigns/')):
                self.report.fail(5, f'{ascii(path)} has no place in a release')
        for path in REQUIRED:
            if path not in self.folder.sizes:
                self.report.fail(5, f'{path} is missing')

    def campaigns(self):
        """Step 6. The manifests are those of release.json, signed by the campaign key and logged."""
        wanted = set(self.release['campaigns']) if self.release else None
        logged = [entry['envelope'] for _, entry in self.logged['campaign']]
        for path in sorted(self.folder.sizes):
            if not path.startswith('campaigns/'):
                continue
            with self.report.attempt(6, ascii(path)):
                envelope = parse_json(self.folder.read(path))
                is_envelope(envelope)
                payload = open_envelope(envelope, TYPE % 'campaign')[0]
                manifest = parse_json(payload)
                is_campaign(manifest)
                if path != f'campaigns/{manifest["id"]}.json':
                    raise ValueError('the name of the file is not the id of the campaign')
                name = to_base64url(sha256(payload))
                if wanted is not None and name not in wanted:
                    raise ValueError('is not a campaign of release.json')
                if self.network:
                    key = base64url(self.network['campaignKey'], 32)
                    verified_payload(self.ed25519, envelope, TYPE % 'campaign', key)
                if envelope not in logged:
                    raise ValueError('is not in the log in clear')
                self.quorums[name] = manifest['quorum']
        for name in sorted((wanted or set()) - self.quorums.keys()):
            self.report.fail(6, f'no good manifest of campaign {name}')

    def rows(self):
        """Step 7, rows. Every line of attestations.jsonl.gz by itself and against those before."""
        leaf_indexes, keys = set(), set()
        with self.report.attempt(7, ROWS):
            for data in self.folder.gzip_lines(ROWS):
                if self.lines == MAX_ROWS:
                    self.report.fail(8, f'more than {MAX_ROWS} rows')
                    break
                self.lines += 1
                where = f'row {self.lines}'
                with self.report.attempt(7, where):
                    line = parse_json(data)
                    is_line(line)
                    row = parse_canonical(line['row'].encode('utf-8'))
                    is_row(row)
                    self.commitment(where, line, row, leaf_indexes)
                    for number, envelope in enumerate(line['attestations'], 1):
                        with self.report.attempt(7, f'{where} attestation {number}'):
                            self.attestation(where, envelope, row, keys)
                    with self.report.attempt(7, f'{where} text'):
                        self.text(where, line, row)
        self.ed25519.settle()

    def commitment(self, where, line, row, leaf_indexes):
        """Step 7. The row is in the log, and is a row of this release."""
        commitment = sha256(base64url(line['salt'], 32) + line['row'].encode('utf-8'))
        leaf = canonical({'commitment': to_base64url(commitment), 'type': 'row'})
        if not self.is_leaf(line['leafIndex'], leaf):
            self.report.fail(7, f'{where}: its commitment is not in the log at its leaf index')
        if line['leafIndex'] in leaf_indexes:
            self.report.fail(7, f'{where}: its leaf index is that of an earlier row')
        leaf_indexes.add(line['leafIndex'])
        if self.release and row['campaign'] not in self.release['campaigns']:
            self.report.fail(7, f'{where}: its campaign is not one of the release')
        if (row['grade'] == 'exact') != (row['payload'] is not None):
            self.report.fail(7, f'{where}: payload and grade do not fit')
        if row['grade'] == 'exact' and row['agreementPermille'] != 1000:
            self.report.fail(7, f'{where}: exact with an agreement below 1000')
        needed = use_of(row['signals'])
        stated = row.get('use', needed)
        order = ('y', 'unknown', 'n')
        if any(order.index(stated[name]) < order.index(needed[name]) for name in needed):
            self.report.fail(7, f'{where}: its use is less restrictive than its signals')
        if row['quorum'] < self.quorums.get(row['campaign'], 0):
            self.report.fail(7, f'{where}: its quorum is below that of the campaign')
        if len(line['attestations']) < row['quorum']:
            self.report.fail(7, f'{where}: fewer attestations than its quorum')

    def attestation(self, where, envelope, row, keys):
        """Step 7. One observer's statement: of this row, by a key that signed nothing else."""
        payload, message, pairs = open_envelope(envelope, TYPE % 'attestation')
        if len(pairs) != 1:
            raise ValueError('not exactly one signature')
        key, signature = pairs[0]
        if key in keys:
            self.report.fail(7, f'{where}: one-use key {key.hex()} was used before')
        keys.add(key)
        wrong = f'{where}: the signature under one-use key {key.hex()} does not verify'
        self.ed25519.expect(7, wrong, key, message, signature)
        statement = parse_canonical(payload)
        is_attestation(statement)
        for name in ('campaign', 'day', 'text', 'url', 'payload'):
            if statement.get(name) != row[name]:
                self.report.fail(7, f'{where}: an attestation of another {name}')
        if statement['gaps'] > row['gaps']:
            self.report.fail(7, f'{where}: an attestation with more gaps than the row')

    def text(self, where, line, row):
        """Step 7, text; step 8, duplicates; and what the index must have for this row."""
        place = tuple(line['warc'][name] for name in ('file', 'offset', 'length'))
        if row['duplicate']:
            self.duplicates += 1
            if row['text'] not in self.firsts:
                self.report.fail(8, f'{where}: a duplicate of no earlier row')
            elif place not in self.firsts[row['text']]:
                self.report.fail(7, f'{where}: points to another record than the earlier row')
        else:
            self.firsts.setdefault(row['text'], set()).add(place)
        for digest in (row['payload'], None if row['duplicate'] else row['text']):
            if digest is not None:
                self.pages.add((row['url'], row['day'], label(base64url(digest, 32))))
        if row['payload'] is not None:
            self.payloads.setdefault(label(base64url(row['payload'], 32)), self.lines)
        if row['payload'] is not None or row['duplicate']:
            digest = label(base64url(row['payload'] or row['text'], 32))
            facts = self.indexed.setdefault((row['url'], row['day'], digest), set())
            facts.add((str(row['status']), row['type']))
        fields, block = self.warcs.record(*place)
        if (fields['WARC-Type'], fields.get('Content-Type')) != (
            'conversion', 'text/plain; charset=utf-8',
        ):  # fmt: skip
            raise ValueError('is not a conversion record of plain text')
        if to_base64url(sha256(block)) != row['text']:
            raise ValueError('is not the text that the row commits to')
        if fields.get('WARC-Payload-Digest') != label(sha256(block)):
            raise ValueError('WARC-Payload-Digest is not that of the text')
        origin = fields.get('WARC-Target-URI'), fields['WARC-Date']
        if not row['duplicate'] and origin != (row['url'], row['day']):
            raise ValueError('the record is of another URL or day')

    def index(self):
        """Step 7, WARC. The index, the records that it names, and the bytes that nobody names."""
        seen, responses, last = set(), set(), b''
        with self.report.attempt(7, INDEX):
            for number, data in enumerate(self.folder.lines(INDEX), 1):
                with self.report.attempt(7, f'{INDEX} line {number}'):
                    if data < last:
                        self.report.fail(7, f'{INDEX} line {number}: lines do not ascend')
                    last = data
                    parts = re.fullmatch(rb'(\S+) ([0-9]{8})000000 (\{.*\})', data)
                    if not parts:
                        raise ValueError('not a line of CDXJ with a day')
                    line = parse_json(parts[3])
                    is_index_entry(line)
                    day = parts[2].decode()
                    day = f'{day[:4]}-{day[4:6]}-{day[6:]}'
                    name = line['url'], day, line['digest']
                    seen.add(name)
                    facts = self.indexed.get(name, ())
                    if line['mime'] == 'warc/revisit':
                        known = any(line['status'] == status for status, _ in facts)
                    else:
                        known = (line['status'], line['mime']) in facts
                    if not known:
                        self.report.fail(7, f'{INDEX} line {number}: is of no row')
                    if self.indexed_record(line, day):
                        responses.add(line['digest'])
        for name in sorted(self.indexed.keys() - seen):
            self.report.fail(7, f'{INDEX}: has no line of {ascii(name)}')
        for digest in sorted(self.payloads.keys() - responses):
            self.report.fail(7, f'row {self.payloads[digest]}: no response has its payload')
        for path in sorted(self.warcs.named):
            with self.report.attempt(7, ascii(path)):
                self.warcs.check_rest(path, self.release)

    def indexed_record(self, line, day):
        """Step 7. The record that a line of the index names; whether it is a good response."""
        fields, block = self.warcs.record(
            line['filename'], int(line['offset']), int(line['length'])
        )
        revisit = line['mime'] == 'warc/revisit'
        if fields['WARC-Type'] != ('revisit' if revisit else 'response'):
            raise ValueError(f'names a record of type {ascii(fields["warc-type"])}')
        if (fields.get('WARC-Target-URI'), fields['WARC-Date']) != (line['url'], day):
            raise ValueError('names a record of another URL or day')
        if fields.get('WARC-Payload-Digest') != line['digest']:
            raise ValueError('names a record with another WARC-Payload-Digest')
        _, gap, body = block.partition(b'\r\n\r\n')
        if revisit:
            earlier = fields['WARC-Refers-To-Target-URI'], fields['WARC-Refers-To-Date']
            if (*earlier, line['digest']) not in self.pages:
                raise ValueError('a revisit that refers to a page that no row is')
            if block and (not gap or body):
                raise ValueError('a revisit with a body')
        elif not gap or label(sha256(body)) != line['digest']:
            raise ValueError('a response whose body has another digest')
        return not revisit

    def counts(self):
        """Step 8. Numbers of rows and duplicates are those of release.json."""
        if self.release and self.lines != self.release['rows']:
            self.report.fail(8, f'{self.lines} lines for {self.release["rows"]} rows')
        if self.release and self.duplicates != self.release['duplicates']:
            self.report.fail(8, f'{self.duplicates} duplicates, not as release.json says')


# --- The command ----------------------------------------------------------------------------------


def require_openssl(ed25519):
    """Whether signatures can be checked here at all; exits with 2 when not."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            ['openssl', 'version'], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=60, check=False,
        ).stdout.decode('utf-8', 'replace')  # fmt: skip
        version = re.match(r'OpenSSL (\d+)\.', said)
        if version and int(version[1]) >= 3 and ed25519.works():
            return
    print('needs the openssl command, version 3 or later', file=sys.stderr)
    sys.exit(2)


def verify(root, vkey):
    report = Report()
    with tempfile.TemporaryDirectory() as scratch:
        ed25519 = Ed25519(report, scratch)
        require_openssl(ed25519)
        try:
            Verifier(Folder(root, report), vkey, ed25519, report).run()
        except Enough:
            pass
        finally:
            ed25519.pool.shutdown(cancel_futures=True)
    return sorted(report.failures, key=lambda failure: failure[0])


def main():
    parser = argparse.ArgumentParser(description='Verifies a release of Gleaner.')
    parser.add_argument('folder')
    parser.add_argument('--key', required=True, help='verifier key of the log: NAME+HEX+BASE64')
    parser.add_argument('--json', action='store_true', help='write the result as JSON')
    options = parser.parse_args()
    try:
        parse_verifier_key(options.key)
    except ValueError as problem:
        parser.error(str(problem))
    if not os.path.isdir(options.folder):
        parser.error('there is no such folder')
    failures = verify(options.folder, options.key)
    note = 'step 9: cannot read Parquet here; step 5 binds the file by its digest'
    if options.json:
        listed = [{'step': step, 'what': what} for step, what in failures]
        print(json.dumps({'ok': not failures, 'failures': listed, 'notes': [note]}))
    else:
        for step, what in failures:
            print(f'step {step}: {what}'.encode('ascii', 'backslashreplace').decode())
        if len(failures) >= MAX_FAILURES:
            print('stopped: there may be more')
        print(note)
        print('FAILED' if failures else 'OK')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
