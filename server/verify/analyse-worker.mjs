// A worker thread starts from JavaScript; the rest of the server is TypeScript run by tsx.
import { register } from 'tsx/esm/api'

register()
const { analyse } = await import('./analyse.ts')

export default ({ payload, ...as }) => analyse(payload, as)
