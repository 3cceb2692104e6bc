// The engine in the thread of its caller, loaded only where a browser context cannot have a worker.

export { browserOpener } from './host-browser.js';
export { inProcessPort } from './in-process.js';
