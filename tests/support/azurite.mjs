// Azurite, a server of Azure Blob Storage, in this process and in memory, with an empty container `eddy`. EDDY_TEST_AZURITE names where it is installed;
// prints its address when it is ready. Ends when its standard input does, so with whoever started it.

import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';

// The account that every Azurite has, by its documentation.
const account = 'devstoreaccount1';
const key = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

process.stdin.on('end', () => process.exit(0)).resume();

const probe = createServer().listen(0, '127.0.0.1');
await once(probe, 'listening');
const { port } = probe.address();
await new Promise((resolve) => probe.close(resolve));

const ready = new Promise((resolve) => {
  console.log = (text) => String(text).includes('successfully listens') || String(text).includes('successfully listening') ? resolve() : undefined;
});
process.argv = [
  ...process.argv.slice(0, 2), '--blobPort', String(port), '--inMemoryPersistence', '--skipApiVersionCheck', '--disableTelemetry', '--silent',
];
createRequire(import.meta.url)(join(process.env.EDDY_TEST_AZURITE, 'node_modules', 'azurite', 'dist', 'src', 'blob', 'main.js'));
await ready;

const date = new Date().toUTCString();
const version = '2021-08-06';
const signed = `PUT${'\n'.repeat(12)}x-ms-date:${date}\nx-ms-version:${version}\n/${account}/${account}/eddy\nrestype:container`;
const signature = createHmac('sha256', Buffer.from(key, 'base64')).update(signed).digest('base64');
const response = await fetch(`http://127.0.0.1:${port}/${account}/eddy?restype=container`, {
  method: 'PUT',
  headers: { 'x-ms-date': date, 'x-ms-version': version, authorization: `SharedKey ${account}:${signature}` },
});
if (response.status !== 201) throw new Error(`the container was not made: ${response.status} ${await response.text()}`);
process.stdout.write(`http://127.0.0.1:${port}/${account}\n`);
