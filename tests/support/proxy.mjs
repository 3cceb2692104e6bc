// A proxy of the kind that lets no WebSocket through, before a server.

import { createServer, request } from 'node:http';

export class Proxy {
  #server;
  #swallowed = new Set();
  /** How many WebSockets were asked for. */
  upgrades = 0;
  /** How many other requests were passed on. */
  requests = 0;

  /** Before `url`. Upgrades are answered by 403, or `swallowed`: not at all. `answers` may answer a request itself: then it tells so. */
  static async start(url, { swallowed = false, answers = () => false } = {}) {
    const proxy = new Proxy();
    const { hostname, port } = new URL(url);
    proxy.#server = createServer((asked, answer) => {
      proxy.requests += 1;
      if (answers(asked, answer)) return;
      const { host: _, ...headers } = asked.headers;
      const passed = request({ hostname, port, path: asked.url, method: asked.method, headers }, (told) => {
        answer.writeHead(told.statusCode, told.headers);
        told.pipe(answer);
      });
      passed.on('error', () => answer.destroy());
      answer.on('close', () => passed.destroy());
      asked.pipe(passed);
    });
    proxy.#server.on('upgrade', (_, socket) => {
      proxy.upgrades += 1;
      if (swallowed) proxy.#swallowed.add(socket);
      else socket.end('HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
    });
    await new Promise((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    proxy.url = `http://127.0.0.1:${proxy.#server.address().port}`;
    proxy.sync = `${proxy.url.replace('http', 'ws')}/sync`;
    return proxy;
  }

  async stop() {
    // Which the server does not count any more.
    for (const socket of this.#swallowed) socket.destroy();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
