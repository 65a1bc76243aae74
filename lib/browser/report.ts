/** The edge at which failures in the background are caught: they are told, and work goes on. */
export function report(where: string): (error: unknown) => void {
  return (error) => console.warn(`gleaner: could not ${where}:`, error)
}
