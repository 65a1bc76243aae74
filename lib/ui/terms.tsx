/**
 * What a person says yes or no to before anything leaves the device. A change of its meaning needs a
 * new TERMS_WORDING, so that people are asked again.
 */
export function Terms(props: {
  busy: boolean
  answered: 'unasked' | 'yes' | 'no'
  onAnswer: (answer: 'yes' | 'no') => void
}) {
  return (
    <>
      <h1>Lend the idle part of your line to open datasets</h1>

      <section class="card first">
        <h2>Sites will see this computer’s internet address</h2>
        <p>
          Pages are fetched over your connection. Each site sees your internet address, as if you
          had opened the page yourself, together with a note that the visitor is Gleaner and whom to
          write to. The campaign’s server sees your address as well.
        </p>
      </section>

      <p>
        Gleaner fetches public web pages for campaigns that you choose, so that anyone can check
        what those pages said. That is all it does.
      </p>

      <section class="stack">
        <h2>What is fetched, and for whom</h2>
        <ul class="points-list">
          <li>Only pages of the sites named in a campaign, at the rate it names.</li>
          <li>
            Only for campaigns you agree to, one by one. Each says who runs it, what for and how
            long data is kept. Its terms are signed, and listed in a public log.
          </li>
          <li>Page text and facts about the answer go to the campaign’s server.</li>
          <li>
            Now and then your line is measured against that server, within 1 % of your data cap. The
            result stays on this device and only limits how much of the line is used.
          </li>
        </ul>
      </section>

      <section class="stack">
        <h2>What never happens</h2>
        <ul class="points-list">
          <li>Your browsing, history, tabs, passwords and cookies are not read or sent.</li>
          <li>Nothing is fetched under your log-ins, and no form is sent.</li>
          <li>Nothing is read from devices in your home network.</li>
          <li>Nobody can route traffic through your computer: this is not a proxy or a VPN.</li>
          <li>The pages you visit are not changed.</li>
        </ul>
      </section>

      <section class="stack">
        <h2>What stays in your hands</h2>
        <ul class="points-list">
          <li>At most 100 MB a day and 1 GB a month, enforced on this device.</li>
          <li>Pause with one click. Withdraw from a campaign and it stops at once.</li>
          <li>A journal on this device lists every page that was fetched for you.</li>
        </ul>
      </section>

      <section class="stack" aria-label="Your choice">
        <p>
          {props.answered === 'no'
            ? 'You said no. Nothing leaves this device, and you can change your mind here.'
            : 'Until you say yes, nothing leaves this device. Yes alone joins nothing: you choose campaigns next.'}
        </p>
        <div class="choice">
          <button
            type="button"
            id="consent-no"
            data-testid="consent-no"
            disabled={props.busy}
            aria-pressed={props.answered === 'no'}
            onClick={() => props.onAnswer('no')}
          >
            No, I decline
          </button>
          <button
            type="button"
            id="consent-yes"
            data-testid="consent-yes"
            disabled={props.busy}
            onClick={() => props.onAnswer('yes')}
          >
            Yes, I agree
          </button>
        </div>
      </section>
    </>
  )
}
