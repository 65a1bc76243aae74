import { render } from 'preact'
import { iconOf } from '../../lib/browser/icon.ts'
import { pageBackground } from '../../lib/browser/page-background.ts'
import { PopupPage } from '../../lib/ui/popup-page.tsx'

render(<PopupPage background={pageBackground} iconOf={iconOf} nowMs={Date.now} />, document.body)
