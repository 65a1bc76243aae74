import { readdirSync, readFileSync } from 'node:fs'

// sysconf(_SC_CLK_TCK) is 100 wherever Node runs on Linux.
const tickMs = 10

/**
 * User and system time of these processes and, of `withChildren`, of their children and of those
 * that ended. Null where the system does not tell.
 */
export function cpuMs(about: { pids: readonly number[]; withChildren: number }): number | null {
  if (process.platform !== 'linux') return null
  let ticks = 0
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    let stat: string
    try {
      stat = readFileSync(`/proc/${name}/stat`, 'utf8')
    } catch {
      // Ended since the folder was read.
      continue
    }
    // proc(5): the name is in parentheses and may hold anything; state is the third field.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const [parent, own] = [Number(fields[1]), Number(fields[11]) + Number(fields[12])]
    const pid = Number(name)
    if (about.pids.includes(pid)) ticks += own
    else if (pid === about.withChildren) ticks += own + Number(fields[13]) + Number(fields[14])
    else if (parent === about.withChildren) ticks += own
  }
  return ticks * tickMs
}

/** Busy and all milliseconds of all cores; null where the system does not tell. */
export function machineMs(): { busy: number; all: number } | null {
  if (process.platform !== 'linux') return null
  const fields = readFileSync('/proc/stat', 'utf8').split('\n')[0]?.trim().split(/\s+/).slice(1, 9)
  const ticks = (fields ?? []).map(Number)
  const all = ticks.reduce((sum, one) => sum + one, 0)
  // idle and iowait
  return { busy: (all - (ticks[3] ?? 0) - (ticks[4] ?? 0)) * tickMs, all: all * tickMs }
}
