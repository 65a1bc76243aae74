#!/usr/bin/env node
// npm run bench -- NAME [flags]: runs test/bench/NAME.ts. Each bench's head comment says what it measures and how.
import { readdirSync } from 'node:fs'
import { register } from 'tsx/esm/api'

const [name = '', ...flags] = process.argv.slice(2)
const names = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -'.ts'.length))

if (!names.includes(name)) {
  console.error(`npm run bench -- NAME [--json]\nNAME is one of: ${names.join(', ')}`)
  process.exit(2)
}
register()
// The bench reads its flags where a program reads them.
process.argv.splice(1, process.argv.length - 1, `${import.meta.dirname}/${name}.ts`, ...flags)
await import(`./${name}.ts`)
