import { useEffect, useState } from 'preact/hooks'
import type { JournalEntry } from '../runner/ports.ts'
import type { Background } from './background.ts'
import { Page, Problem } from './frame.tsx'
import { errorSentence, useOverview } from './overview.ts'
import { bytesWords, resultWords, timestamp, verdictWords } from './words.ts'

// A screenful or five; the rest comes on demand.
const ROWS = 200

/** Every page that was fetched or refused on this device. */
export function JournalPage(props: { background: Background }) {
  const { background } = props
  const { overview, problem } = useOverview(background)
  const [entries, setEntries] = useState<JournalEntry[] | null>(null)
  const [search, setSearch] = useState('')
  const [limit, setLimit] = useState(ROWS)
  const [failure, setFailure] = useState<string | null>(null)
  const [deleting, setDeleting] = useState(false)

  // Each new overview means that a second has passed: look again.
  useEffect(() => {
    let current = true
    background.ask('journal', { beforeMs: null, limit, search }).then(
      (found) => current && setEntries(found),
      (error: unknown) => current && setFailure(errorSentence(error)),
    )
    return () => {
      current = false
    }
  }, [background, search, limit, overview])

  const empty = async () => {
    await background.ask('delete-journal', null)
    setEntries([])
    setDeleting(false)
  }

  const titles = new Map(
    overview?.networks.flatMap(({ campaigns }) =>
      campaigns.map(({ digest, campaign }) => [digest, campaign.title]),
    ) ?? [],
  )

  return (
    <Page lab={background.lab} wide>
      <div class="stack">
        <h1>Journal</h1>
        <p class="quiet">
          Every page fetched or refused for you. It stays on this device and is never sent.
        </p>
      </div>
      <Problem sentence={failure ?? problem} />
      <label>
        Find in addresses
        <input
          type="search"
          data-testid="journal-search"
          value={search}
          onInput={(event) => setSearch(event.currentTarget.value)}
        />
      </label>
      {entries?.length === 0 ? (
        <p class="card">
          {search
            ? 'No address contains this.'
            : 'Nothing yet. Pages appear here as they are fetched.'}
        </p>
      ) : (
        entries && <JournalTable entries={entries} titles={titles} />
      )}
      <div class="split">
        {entries?.length === limit ? (
          <button type="button" class="plain" onClick={() => setLimit(limit + ROWS)}>
            Show more
          </button>
        ) : (
          <span class="quiet small">{entries?.length ?? 0} entries shown</span>
        )}
        {deleting ? (
          <span class="choice">
            <button type="button" onClick={() => setDeleting(false)}>
              Keep it
            </button>
            <button type="button" data-testid="journal-delete" onClick={empty}>
              Delete all
            </button>
          </span>
        ) : (
          <button type="button" class="link" onClick={() => setDeleting(true)}>
            Delete the journal
          </button>
        )}
      </div>
    </Page>
  )
}

function JournalTable(props: { entries: JournalEntry[]; titles: ReadonlyMap<string, string> }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls sideways, so keys must reach it
    <section class="table-frame" tabIndex={0} aria-label="Journal entries">
      <table data-testid="journal">
        <thead>
          <tr>
            <th scope="col">Time</th>
            <th scope="col">Address</th>
            <th scope="col">Campaign</th>
            <th scope="col" class="amount">
              Down
            </th>
            <th scope="col" class="amount">
              Up
            </th>
            <th scope="col">Result</th>
            <th scope="col">Verdict</th>
            <th scope="col" class="amount">
              Points
            </th>
          </tr>
        </thead>
        <tbody>
          {props.entries.map((entry) => (
            <tr key={entry.id} data-testid="journal-row">
              <td>{timestamp(entry.atMs)}</td>
              <td class="url">{entry.url}</td>
              <td class="wrap">
                {props.titles.get(entry.campaign) ?? `${entry.campaign.slice(0, 8)}…`}
              </td>
              <td class="amount">{bytesWords(entry.bytesDown)}</td>
              <td class="amount">{bytesWords(entry.bytesUp)}</td>
              <td class="wrap">{resultWords(entry)}</td>
              <td class="wrap">{verdictWords(entry)}</td>
              <td class="amount">{entry.outcome ? entry.outcome.points : '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  )
}
