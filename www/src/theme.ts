/** Follows the system until the user chooses; the choice is kept. The script in the head applies it before the first paint. */
export function toggleTheme(): void {
  const root = document.documentElement;
  const dark = root.dataset['theme'] ? root.dataset['theme'] === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  const theme = dark ? 'light' : 'dark';
  root.dataset['theme'] = theme;
  try {
    localStorage.setItem('eddy-console:theme', theme);
  } catch {
    // Kept for this visit only.
  }
}
