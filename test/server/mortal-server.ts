import { type ChildProcess, spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Command } from './crashing-server.ts'
import type { Strike } from './strikes.ts'

type Line = { answer: unknown } | { error: string } | { struck: Strike }

/** The server was killed where it was told to be. */
export class Struck extends Error {
  readonly strike: Strike

  constructor(strike: Strike) {
    super(`killed: ${strike.step}, ${strike.when}`)
    this.strike = strike
  }
}

/** One life of `crashing-server.ts`: a process that loads and then waits for its first command. */
export class MortalServer {
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>
  readonly #child: ChildProcess
  readonly #waiting: { resolve: (answer: unknown) => void; reject: (error: Error) => void }[] = []
  #strike: Strike | null = null
  #log = ''

  constructor() {
    const program = fileURLToPath(new URL('./crashing-server.ts', import.meta.url))
    const child = spawn(process.execPath, ['--import', 'tsx', program], {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.#child = child
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#log += text
    })
    // A command to one that is gone: `close` tells whoever waits for the answer.
    child.stdin.on('error', () => {})
    createInterface(child.stdout).on('line', (line) => this.#hear(JSON.parse(line) as Line))
    this.ended = new Promise((resolve) => {
      child.once('close', () => {
        for (const { reject } of this.#waiting.splice(0)) reject(this.#end())
        resolve()
      })
    })
  }

  /** Where it was struck, once it was. */
  get strike(): Strike | null {
    return this.#strike
  }

  /** What it logged, warnings and worse, as lines of JSON. */
  get log(): string {
    return this.#log
  }

  /**
   * Gives a command and waits for its answer.
   *
   * @throws Struck when the process was killed first
   */
  tell(command: Command): Promise<unknown> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
      return Promise.reject(this.#end())
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#child.stdin?.write(`${JSON.stringify(command)}\n`)
    })
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  #hear(line: Line): void {
    if ('struck' in line) {
      this.#strike = line.struck
      return
    }
    const waiting = this.#waiting.shift()
    if ('error' in line) waiting?.reject(new Error(line.error))
    else waiting?.resolve(line.answer)
  }

  #end(): Error {
    if (this.#strike) return new Struck(this.#strike)
    return new Error(`the server ended by itself:\n${this.#log}`)
  }
}

/** A port that nothing listens on, below those that systems give out by themselves. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    await new Promise((resolve) => server.close(resolve))
    if (isFree) return port
  }
}
