#!/usr/bin/env node
// The package's command. Everything else is TypeScript, run by tsx.
import { register } from 'tsx/esm/api'

register()
await import('./cli.ts')
