import { render } from 'preact'
import { pageBackground } from '../../lib/browser/page-background.ts'
import { OnboardingPage } from '../../lib/ui/onboarding-page.tsx'

/** `join.html#JOINLINK`: the link has a `#` of its own, so everything after the first is the link. */
const link = decodeURI(location.hash.slice(1))

render(<OnboardingPage background={pageBackground} link={link} />, document.body)
