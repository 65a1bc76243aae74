/** Six blocks of running text, enough for the extractor to see an article. */
export const paragraphs = [
  'Tea is an infusion of the leaves of one evergreen shrub. Everything else that is called tea is a tisane. The difference matters to botanists and to nobody who is thirsty.',
  'A kettle holds one and a half litres of water. It boils them within four minutes and a half. The pot is warmed first and emptied again before the leaves go in.',
  'Black tea stands for three minutes in water that has just boiled. Green tea stands for two minutes in water of eighty degrees. White tea is patient and forgives almost everything.',
  'A tin of two hundred grams costs nine euros in the village shop. The same tin costs eleven euros at the station. The leaves keep for a year when they are dry and dark.',
  'Milk goes in first, or last, according to the school one went to. Sugar is a matter between the drinker and the spoon. Lemon curdles milk, and the two are never served together.',
  'The used leaves are good for roses. They are spread around the stem in spring and watered well. The roses have not been asked for their opinion of this custom.',
] as const

interface Shown {
  paragraphs?: readonly string[]
  /** A block outside the article, another for every visitor of a live site. */
  promotion?: string
  title?: string
  language?: string
  head?: string
  links?: string
}

/** A small article page, with what a test wants to be different. */
export function teaPage(shown: Shown = {}): string {
  const { title = 'On tea', language = 'en', head = '', promotion = 'Nothing new.' } = shown
  return `<!doctype html><html lang="${language}"><head><title>${title}</title>${head}</head><body>
<nav><a href="/">Home</a> <a href="/coffee">Coffee</a></nav>
<article><h1>On tea</h1>
${(shown.paragraphs ?? paragraphs).map((text) => `<p>${text}</p>`).join('\n')}
</article>
<footer><div>${promotion}</div>${shown.links ?? ''}</footer></body></html>`
}

/** The paragraphs with one of them said otherwise. */
export function changed(at: number, from: string | RegExp, to: string): string[] {
  return paragraphs.map((text, i) => {
    if (i !== at) return text
    const said = text.replace(from, to)
    if (said === text) throw new Error(`paragraph ${at} does not say ${from}`)
    return said
  })
}

/** The paragraphs with the first few replaced by others of about the same length. */
export function replaced(count: number, word: string): string[] {
  return paragraphs.map((text, i) =>
    i < count
      ? text
          .split('. ')
          .map((sentence, n) => `${word} ${i} ${n} says ${sentence.replaceAll(/e/g, word)}`)
          .join('. ')
      : text,
  )
}
