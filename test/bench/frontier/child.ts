import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** A process of the bench's own that answers what it is asked. */
export interface Child<Ask> {
  pid: number
  /** What it said when it was ready. */
  ready: unknown
  ask<Answer>(ask: Ask): Promise<Answer>
  /** Asks it to stop and waits for its end; kills it after a while. May be called twice. */
  stop(): Promise<void>
}

/** Longer than a server takes to end its requests and its database to write a checkpoint. */
const stopWithinMs = 40_000

/** Starts a script beside this file with these arguments; resolves when it says it is ready. */
export async function startChild<Ask extends { kind: string }>(
  script: string,
  args: readonly string[],
): Promise<Child<Ask | { kind: 'stop' }>> {
  const child = fork(fileURLToPath(new URL(script, import.meta.url)), [...args], {
    execArgv: ['--import', import.meta.resolve('tsx')],
  })
  const waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: Error) => void }
  >()
  let asked = 0
  const answerTo = (id: number) =>
    new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }))
  child.on('message', ({ id, value, error }: { id: number; value?: unknown; error?: string }) => {
    const asker = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) asker?.resolve(value)
    else asker?.reject(new Error(`${script}: ${error}`))
  })
  const ended = new Promise<void>((resolve) => {
    child.once('exit', (code, signal) => {
      for (const { reject } of waiting.values()) {
        reject(new Error(`${script}: the process ended (${code ?? signal})`))
      }
      resolve()
    })
  })
  const ready = await answerTo(0)
  const ask = async <Answer>(what: Ask | { kind: 'stop' }): Promise<Answer> => {
    asked += 1
    const answer = answerTo(asked)
    child.send({ id: asked, ask: what })
    return (await answer) as Answer
  }
  return {
    pid: child.pid as number,
    ready,
    ask,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const kill = setTimeout(() => child.kill('SIGKILL'), stopWithinMs)
      // It may end before it answers.
      await ask({ kind: 'stop' }).catch(() => undefined)
      if (child.connected) child.disconnect()
      await ended
      clearTimeout(kill)
    },
  }
}

/** The other end, in the script: answers questions until told to stop or until nobody is there. */
export function answerParent<Ask extends { kind: string }>(options: {
  ready: unknown
  answer: (ask: Ask) => Promise<unknown>
  stop: () => Promise<void>
}) {
  const answer = (ask: Ask | { kind: 'stop' }): Promise<unknown> =>
    ask.kind === 'stop' ? options.stop() : options.answer(ask as Ask)
  process.on('message', ({ id, ask }: { id: number; ask: Ask | { kind: 'stop' } }) => {
    void answer(ask).then(
      (value) => process.send?.({ id, value }),
      (error: unknown) => process.send?.({ id, error: String(error) }),
    )
  })
  // The bench is gone: nobody will say stop.
  process.on('disconnect', () => void options.stop())
  // Ctrl-C reaches the whole group; the bench says stop when it is done with us.
  process.on('SIGINT', () => {})
  process.send?.({ id: 0, value: options.ready })
}
