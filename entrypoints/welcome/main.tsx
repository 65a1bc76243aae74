import { render } from 'preact'
import { pageBackground } from '../../lib/browser/page-background.ts'
import { OnboardingPage } from '../../lib/ui/onboarding-page.tsx'

render(<OnboardingPage background={pageBackground} link="" />, document.body)
