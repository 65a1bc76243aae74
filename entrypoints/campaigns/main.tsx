import { render } from 'preact'
import { pageBackground } from '../../lib/browser/page-background.ts'
import { CampaignsPage } from '../../lib/ui/campaigns-page.tsx'

render(<CampaignsPage background={pageBackground} />, document.body)
