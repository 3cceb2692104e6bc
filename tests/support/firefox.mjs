// A Firefox for tests that a Chromium runs too: what they use of playwright's pages, over WebDriver BiDi.

import { once } from 'node:events';

import puppeteer from 'puppeteer-core';

/** A page that is waited for with the arguments of playwright, which come before the options. */
function adapt(page) {
  const waitForFunction = page.waitForFunction.bind(page);
  return Object.assign(page, { waitForFunction: (test, ...args) => waitForFunction(test, {}, ...args) });
}

/** A Firefox on the profile in that directory; `preferences` by their names in `about:config`. */
export const startFirefox = (executablePath, profile, preferences) =>
  puppeteer.launch({ browser: 'firefox', executablePath, headless: true, userDataDir: profile, extraPrefsFirefox: preferences });

/** The same, in a process group that can be killed whole. */
export async function launchFirefox(t, executablePath, profile) {
  const browser = await startFirefox(executablePath, profile);
  const child = browser.process();
  const kill = () => {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It is gone already.
    }
  };
  process.once('exit', kill);
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      kill();
      await ended;
    }
    process.off('exit', kill);
  };
  t.after(stop);
  const scripts = [];
  const context = {
    addInitScript: async (script) => void scripts.push(script),
    newPage: async () => {
      const page = await browser.newPage();
      for (const script of scripts) await page.evaluateOnNewDocument(script);
      return adapt(page);
    },
  };
  return { browser, context, kill: stop, profile };
}
