#!/usr/bin/env node
// Builds the console page: `node www/build.mjs [--out folder]`, by default into www/dist.
//
// The result is a folder for any static host, under any path, without special headers: index.html, files whose names change with
// their content, a service worker, and .br and .gz beside everything that gets smaller by it.

import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';

import * as esbuild from 'esbuild';

const here = path.dirname(fileURLToPath(import.meta.url));
const flag = process.argv.indexOf('--out');
const out = flag > 0 ? path.resolve(process.argv[flag + 1]) : path.join(here, 'dist');
const brotli = promisify(brotliCompress);
const zip = promisify(gzip);
const hash = (bytes, encoding = 'hex') => createHash('sha256').update(bytes).digest(encoding);
const short = (bytes) => hash(bytes).slice(0, 10);

await rm(out, { recursive: true, force: true });
await mkdir(path.join(out, 'assets'), { recursive: true });

/** Writes a file under a name that changes with its content. */
async function write(name, bytes, folder = 'assets') {
  const { name: stem, ext } = path.parse(name);
  const file = `${folder}/${stem}-${short(bytes)}${ext}`;
  await mkdir(path.join(out, folder), { recursive: true });
  await writeFile(path.join(out, file), bytes);
  return { file, bytes: bytes.length };
}
const copy = async (from, folder) => write(path.basename(from), await readFile(from), folder);

/** A file of the sample data. Its rows are known here, so that the first load can say how far it is. */
async function sample(name, rows) {
  const { file, bytes } = await copy(path.join(here, 'sample', `${name}.arrow`), 'sample');
  return { url: file, bytes, rows };
}

const SAMPLE = { symbols: await sample('symbols', 8116), words: await sample('words', 9198) };

/** Fonts are wanted as woff2 alone: every browser that can run the page reads it. */
const woff2Only = {
  name: 'woff2-only',
  setup(build) {
    build.onLoad({ filter: /@fontsource.*\.css$/ }, async ({ path: file }) => {
      const css = await readFile(file, 'utf8');
      return {
        contents: css.replace(/,\s*url\([^)]*\.woff\)\s*format\('woff'\)/g, '').replaceAll('font-display: swap', 'font-display: block'),
        loader: 'css',
        resolveDir: path.dirname(file),
      };
    });
  },
};

/**
 * The database comes as a script for the page, a script for its worker, and four builds of the engine: of three a browser takes one,
 * and the full one is for the live view. Each names the next by address; here those get the hashed names.
 */
async function engine() {
  const dist = (name) => fileURLToPath(import.meta.resolve(`eddydb/${name}`));
  const builds = {};
  let worker = await readFile(dist('worker.js'), 'utf8');
  for (const build of ['relaxed', 'simd', 'plain', 'full']) {
    builds[build] = await copy(dist(`eddydb_${build}.wasm`));
    worker = renamed(worker, `./eddydb_${build}.wasm`, builds[build].file);
  }
  const { code } = await esbuild.transform(worker, { minify: true, target: 'es2022', format: 'esm', legalComments: 'none' });
  const script = await write('worker.js', Buffer.from(code));
  return { builds, script };
}

/** `text` with a file of the package under its name in `assets/`. */
function renamed(text, from, file) {
  if (!text.includes(from)) throw new Error(`eddydb names no ${from}: has its layout changed?`);
  return text.replaceAll(from, `./${path.basename(file)}`);
}

const parts = await engine();
const page = {
  name: 'eddydb',
  setup(build) {
    build.onLoad({ filter: /eddydb[\\/]|pkg[\\/]dist[\\/]browser\.js$/ }, async ({ path: file }) => {
      if (path.basename(file) !== 'browser.js') return undefined;
      return { contents: renamed(await readFile(file, 'utf8'), './worker.js', parts.script.file), loader: 'js' };
    });
    // For contexts that cannot start a worker; a page can.
    build.onResolve({ filter: /^\.\/inline\.js$/ }, () => ({ path: 'inline', namespace: 'absent' }));
    build.onLoad({ filter: /.*/, namespace: 'absent' }, () => ({ contents: 'export {};', loader: 'js' }));
  },
};

const common = {
  bundle: true,
  minify: true,
  target: 'es2022',
  legalComments: 'none',
  logLevel: 'warning',
  logOverride: { 'import-is-undefined': 'silent' },
  absWorkingDir: here,
};

const { metafile } = await esbuild.build({
  ...common,
  entryPoints: { main: 'src/main.ts', style: 'styles/main.css' },
  format: 'esm',
  outdir: path.join(out, 'assets'),
  entryNames: '[name]-[hash]',
  assetNames: '[name]-[hash]',
  metafile: true,
  loader: { '.woff2': 'file', '.svg': 'file' },
  plugins: [woff2Only, page],
  define: { SAMPLE: JSON.stringify(SAMPLE) },
});

const outputs = Object.entries(metafile.outputs).map(([file, { entryPoint }]) => ({
  file: path.relative(out, path.resolve(here, file)).split(path.sep).join('/'),
  entryPoint,
}));
const output = (entry) => outputs.find(({ entryPoint }) => entryPoint === entry).file;
const font = (start) => outputs.find(({ file }) => file.startsWith(`assets/${start}`)).file;

const icon = await copy(path.join(here, 'src/icon.svg'));
const manifest = JSON.stringify({
  name: 'Eddy',
  short_name: 'Eddy',
  description: 'Search by meaning, on this device.',
  start_url: '../',
  scope: '../',
  display: 'standalone',
  background_color: '#f8f7f3',
  theme_color: '#f8f7f3',
  icons: [{ src: path.basename(icon.file), sizes: 'any', type: 'image/svg+xml' }],
});
const manifestFile = `assets/eddy-${short(manifest)}.webmanifest`;
await writeFile(path.join(out, manifestFile), manifest);

const theme = (await esbuild.transform(await readFile(path.join(here, 'src/head.js'), 'utf8'), { minify: true })).code.trim();
const csp = [
  "default-src 'self'",
  `script-src 'self' 'wasm-unsafe-eval' 'sha256-${hash(theme, 'base64')}'`,
  "style-src 'self'",
  // A page's own host by WebSocket: not every browser counts it as 'self'.
  "connect-src 'self' ws: wss:",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');
const textFonts = ['newsreader-latin', 'instrument-sans-latin', 'geist-mono-latin'].map(font);
const values = {
  csp,
  theme,
  manifest: manifestFile,
  'icon.svg': icon.file,
  'main.js': output('src/main.ts'),
  'main.css': output('styles/main.css'),
  preload: textFonts.map((file) => `<link rel="preload" href="${file}" as="font" type="font/woff2" crossorigin />`).join('\n    '),
};
const html = (await readFile(path.join(here, 'index.html'), 'utf8')).replace(/\{\{([^}]+)\}\}/g, (_, name) => {
  if (!(name in values)) throw new Error(`index.html asks for {{${name}}}, which the build does not know`);
  return values[name];
});
await writeFile(path.join(out, 'index.html'), html);

/** All files of the result, as paths from its root. */
async function list(folder = '') {
  const entries = await readdir(path.join(out, folder), { withFileTypes: true });
  const nested = await Promise.all(entries.map((entry) => (entry.isDirectory() ? list(path.posix.join(folder, entry.name)) : [path.posix.join(folder, entry.name)])));
  return nested.flat().sort();
}

// The page needs its code, its text fonts and one engine to open without a network. Glyph fonts follow when the device has time.
const files = await list();
const later = files.filter((file) => file.endsWith('.woff2') && !textFonts.includes(file));
const needed = ['./', ...files.filter((file) => !/^sample\/|^index\.html$|\.wasm$/.test(file) && !later.includes(file))];
await esbuild.build({
  ...common,
  entryPoints: ['src/service-worker.ts'],
  format: 'iife',
  outfile: path.join(out, 'service-worker.js'),
  define: {
    BUILD: JSON.stringify(short(html + files.join())),
    NEEDED: JSON.stringify(needed),
    LATER: JSON.stringify(later),
    ENGINES: JSON.stringify(Object.fromEntries(Object.entries(parts.builds).map(([build, { file }]) => [build, file]))),
  },
});

// What a host sends; several files at once, as each takes one thread.
let total = 0;
const download = new Map();
await Promise.all(
  (await list()).map(async (file) => {
    const bytes = await readFile(path.join(out, file));
    total += bytes.length;
    download.set(file, bytes.length);
    if (/\.(woff2|png|webp)$/.test(file)) return;
    const small = await brotli(bytes, {
      params: {
        [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
        [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
        [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
      },
    });
    if (small.length > bytes.length * 0.97) return;
    download.set(file, small.length);
    await writeFile(path.join(out, `${file}.br`), small);
    await writeFile(path.join(out, `${file}.gz`), await zip(bytes, { level: 9 }));
  }),
);
const weight = (names) => names.reduce((sum, file) => sum + download.get(file), 0);
const kilobytes = (bytes) => `${(bytes / 1000).toFixed(0)} kB`;
const code = ['index.html', values['main.js'], values['main.css'], parts.script.file];
console.log(
  `the console is in ${path.relative(process.cwd(), out) || '.'}: ${(total / 1e6).toFixed(1)} MB of files; a first visit downloads ` +
    `${kilobytes(weight(code))} of page, ${kilobytes(weight([parts.builds.relaxed.file]))} of engine, ${kilobytes(weight(textFonts))} of fonts, ` +
    `${kilobytes(weight([SAMPLE.symbols.url, SAMPLE.words.url]))} of sample data; the live view ${kilobytes(weight([parts.builds.full.file]))} more`,
);
