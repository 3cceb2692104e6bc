try {
  const theme = localStorage.getItem('eddy-console:theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {}
