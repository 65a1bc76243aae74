// The auditor as a process of its own. The rest of the server is TypeScript run by tsx.
import { register } from 'tsx/esm/api'

register()
const { serveParent } = await import('./child.ts')
serveParent()
