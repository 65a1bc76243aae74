import { render } from 'preact'
import { pageBackground } from '../../lib/browser/page-background.ts'
import { JournalPage } from '../../lib/ui/journal-page.tsx'

render(<JournalPage background={pageBackground} />, document.body)
