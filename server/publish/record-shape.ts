import { httpType, identicalPayloadProfile, infoType, textType } from './warc.ts'
import type { ParsedRecord } from './warc-record.ts'

/**
 * What a record has that no record of a release may have; undefined when there is nothing. A field
 * more would be a place for words that no quorum signed.
 */
export function shapeComplaint(record: ParsedRecord): string | undefined {
  const { fields } = record
  const expected = fieldsOf(record)
  if (expected === undefined) return `its record is of type ${fields.get('WARC-Type')}`
  const names = [...fields.keys()]
  if (names.join() !== expected.join()) {
    return `its record has other fields than ${expected.join(', ')}`
  }
  for (const [name, value] of fields) {
    if (!isAllowed(name, value, fields.get('WARC-Type') ?? '')) {
      return `its record has a ${name} that no release writes`
    }
  }
  return undefined
}

/** Names in their order. Undefined for a type that is not known. */
function fieldsOf({ fields, block }: ParsedRecord): string[] | undefined {
  const subject = ['WARC-Type', 'WARC-Record-ID', 'WARC-Date', 'WARC-Target-URI']
  const digests = ['WARC-Payload-Digest', 'WARC-Block-Digest']
  const length = 'Content-Length'
  switch (fields.get('WARC-Type')) {
    case 'warcinfo':
      return [...subject.slice(0, 3), 'WARC-Filename', 'Content-Type', 'WARC-Block-Digest', length]
    case 'response':
      return [...subject, 'Content-Type', ...digests, length]
    case 'metadata':
      return [...subject, 'WARC-Refers-To', 'Content-Type', 'WARC-Block-Digest', length]
    case 'conversion': {
      // The response, where there is one.
      const source = fields.has('WARC-Refers-To') ? ['WARC-Refers-To'] : []
      return [...subject, ...source, 'Content-Type', ...digests, length]
    }
    case 'revisit': {
      const earlier = ['WARC-Refers-To', 'WARC-Refers-To-Target-URI', 'WARC-Refers-To-Date']
      const head = block.length > 0 ? ['Content-Type', 'WARC-Truncated'] : []
      return [...subject, 'WARC-Profile', ...earlier, ...digests, ...head, length]
    }
    default:
      return undefined
  }
}

/** Whether a field that says nothing of its own says only that. Others are compared elsewhere. */
function isAllowed(name: string, value: string, type: string): boolean {
  switch (name) {
    case 'WARC-Record-ID':
    case 'WARC-Refers-To':
      return recordIdForm.test(value)
    case 'Content-Type':
      if (type === 'conversion') return value === textType
      return value === (type === 'response' || type === 'revisit' ? httpType : infoType)
    case 'WARC-Profile':
      return value === identicalPayloadProfile
    case 'WARC-Truncated':
      return value === 'length'
    default:
      return true
  }
}

// RFC 9562 §5.8.
const recordIdForm =
  /^<urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}>$/
