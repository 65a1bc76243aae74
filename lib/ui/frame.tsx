import type { ComponentChildren } from 'preact'

/** The bar on top of every page: the mark, the name, and the badge of a lab build. */
export function Bar(props: { lab: boolean; children?: ComponentChildren }) {
  return (
    <header class="bar">
      <img src="/icon/gleaner.svg" alt="" />
      <span class="name">Gleaner</span>
      {props.lab && (
        <span class="lab" data-testid="lab-badge" title="For tests: loopback sites are allowed">
          LAB
        </span>
      )}
      {props.children}
    </header>
  )
}

/** A page of its own tab. */
export function Page(props: { lab: boolean; wide?: boolean; children: ComponentChildren }) {
  return (
    <div class={props.wide ? 'page wide' : 'page'}>
      <Bar lab={props.lab} />
      <main class="stack loose">{props.children}</main>
    </div>
  )
}

/** Something that went wrong, and what to do. Read out when it appears. */
export function Problem(props: { sentence: string | null }) {
  return (
    <div role="alert">
      {props.sentence !== null && (
        <p class="card problem" data-testid="problem">
          {props.sentence}
        </p>
      )}
    </div>
  )
}
