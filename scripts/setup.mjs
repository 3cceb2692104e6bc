// Makes a bare machine ready to build and test, once: looks first, installs only what is missing, says what it does, and
// when it cannot, says what to install and how. Run alone: npm run setup. EDDY_INSTALL=never only looks.

import { createHash } from 'node:crypto';
import { accessSync, constants, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Problem, ask, main, must, root, run } from './run.mjs';

const windows = process.platform === 'win32';
const wasmTarget = 'wasm32-unknown-unknown';
const mayInstall = process.env.EDDY_INSTALL !== 'never';

/** What the set-up builds or downloads is kept here: `cargo clean` and a fresh clone do not cost it again. */
export const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'eddydb');

const say = (words) => console.error(`set-up: ${words}`);

function executable(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** The file that a command name stands for on the PATH, or else in `directories`. */
export function which(name, directories = []) {
  const file = windows ? `${name}.exe` : name;
  return [...(process.env.PATH ?? '').split(delimiter).filter(Boolean), ...directories]
    .map((directory) => join(directory, file))
    .find(executable);
}

const hasApt = () => process.platform === 'linux' && process.getuid() === 0 && which('apt-get');

let aptUpdated = false;
/** Installs Debian packages; tells whether it could. */
async function apt(...packages) {
  if (!mayInstall || !hasApt()) return false;
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const install = () => run('apt-get', ['install', '-y', '--no-install-recommends', ...packages], { env, capture: true });
  say(`installing ${packages.join(' ')} with apt-get`);
  let result = await install();
  // Package lists that are missing or old are the usual reason.
  if (result.code !== 0 && !aptUpdated) {
    aptUpdated = true;
    await run('apt-get', ['update'], { env, capture: true });
    result = await install();
  }
  if (result.code !== 0) say(`apt-get could not install them: ${result.output.trim().split('\n').at(-1)}`);
  return result.code === 0;
}

function atLeast(version, least) {
  const [a, b] = [version, least].map((text) => text.split('.').map(Number));
  for (let at = 0; at < 3; at += 1) if ((a[at] ?? 0) !== (b[at] ?? 0)) return (a[at] ?? 0) > (b[at] ?? 0);
  return true;
}

/** The npm packages of the lock file. */
async function npmPackages() {
  const lock = join(root, 'package-lock.json');
  const stamp = join(root, 'node_modules', '.eddy-lock');
  const hash = createHash('sha256').update(readFileSync(lock)).digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return;
  const installed = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs) {
    if (!mayInstall) throw new Problem('The npm packages are missing or older than package-lock.json. Run: npm ci');
    say('installing the npm packages (npm ci)');
    const { code } = await run('npm', ['ci', '--no-audit', '--no-fund']);
    if (code !== 0) {
      throw new Problem('The npm packages could not be installed. With a network (or a filled npm cache), run: npm ci');
    }
  }
  writeFileSync(stamp, hash);
}

const debianRust = ['rustc-web', 'cargo-web', 'rust-web-src', 'rust-web-clippy', 'rustfmt-web'];

const rustAdvice = (why) => `${why}
Install Rust with rustup, https://rustup.rs:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
or on Debian, as root:
    apt-get install --no-install-recommends ${debianRust.join(' ')}`;

/** The rustup target triple of this machine, where rustup has an installer for it. */
function hostTriple() {
  const cpu = { x64: 'x86_64', arm64: 'aarch64' }[process.arch];
  const system = { linux: 'unknown-linux-gnu', darwin: 'apple-darwin', win32: 'pc-windows-msvc' }[process.platform];
  return cpu && system && `${cpu}-${system}`;
}

const privateRust = { CARGO_HOME: join(cache, 'rust', 'cargo'), RUSTUP_HOME: join(cache, 'rust', 'rustup') };
const privateCargo = () => executable(join(privateRust.CARGO_HOME, 'bin', windows ? 'cargo.exe' : 'cargo'));

/** Installs rustup and Rust into the project's cache; tells whether it could. */
async function installRustup() {
  const triple = hostTriple();
  if (!mayInstall || !triple) return false;
  say(`no Rust found: installing it with rustup into ${join(cache, 'rust')}; your home stays as it is`);
  try {
    const url = `https://static.rust-lang.org/rustup/dist/${triple}/rustup-init${windows ? '.exe' : ''}`;
    const response = await fetch(url, { signal: AbortSignal.timeout(300_000) });
    if (!response.ok) throw new Error(`${url}: ${response.status}`);
    const directory = mkdtempSync(join(tmpdir(), 'eddy-rustup-'));
    const file = join(directory, windows ? 'rustup-init.exe' : 'rustup-init');
    writeFileSync(file, Buffer.from(await response.arrayBuffer()), { mode: 0o755 });
    const options = ['-y', '--no-modify-path', '--profile', 'minimal', '--component', 'clippy', '--component', 'rustfmt', '--target', wasmTarget];
    const { code } = await run(file, options, { env: { ...privateRust, RUSTUP_INIT_SKIP_PATH_CHECK: 'yes' } });
    rmSync(directory, { recursive: true, force: true });
    return code === 0 && privateCargo();
  } catch (error) {
    say(`rustup could not be downloaded (${error.cause?.message ?? error.message})`);
    return false;
  }
}

/** cargo and rustc, new enough, on the PATH of everything that follows. */
async function rust() {
  const least = /^rust-version = "([^"]+)"/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))[1];
  const usual = [join(process.env.CARGO_HOME || join(homedir(), '.cargo'), 'bin')];
  let cargo = which('cargo', usual);
  if (!cargo && (privateCargo() || (await installRustup()))) {
    Object.assign(process.env, privateRust);
    cargo = join(privateRust.CARGO_HOME, 'bin', 'cargo');
  }
  if (!cargo && (await apt(...debianRust))) cargo = which('cargo');
  if (!cargo) throw new Problem(rustAdvice(`Rust ${least} or newer is needed to build Eddy, and there is none.`));
  const bin = join(cargo, '..');
  if (which('cargo') !== cargo) process.env.PATH = `${bin}${delimiter}${process.env.PATH}`;
  const version = (await ask('rustc', ['--version']))?.split(' ')[1];
  if (!version) throw new Problem(rustAdvice(`${cargo} is there, but rustc does not run.`));
  if (!atLeast(version, least)) {
    const newer = mayInstall && which('rustup') && (say(`Rust ${version} is older than ${least}: adding rustup's stable toolchain`), true);
    const add = ['toolchain', 'install', 'stable', '--profile', 'minimal', '--component', 'clippy', '--component', 'rustfmt'];
    if (!newer || (await run('rustup', add)).code !== 0) {
      throw new Problem(rustAdvice(`Rust ${least} or newer is needed to build Eddy; ${join(bin, 'rustc')} is ${version}. Run rustup update, or:`));
    }
    process.env.RUSTUP_TOOLCHAIN = 'stable';
  }
  if (!windows && !which('cc') && !(await apt('gcc', 'libc6-dev'))) {
    throw new Problem('A C compiler (cc) is needed to link Rust programs. On Debian: apt-get install gcc libc6-dev; on macOS: xcode-select --install');
  }
}

/** rustfmt and clippy, for the checks. */
async function rustTools() {
  for (const [name, component] of [['fmt', 'rustfmt'], ['clippy', 'clippy']]) {
    if (await ask('cargo', [name, '--version'])) continue;
    if (mayInstall && which('rustup') && (await run('rustup', ['component', 'add', component])).code === 0) continue;
    throw new Problem(`cargo ${name} is needed for the checks. With rustup: rustup component add ${component}`);
  }
}

const hasStd = (directory) => existsSync(directory) && readdirSync(directory).some((name) => /^libstd-.*\.rlib$/.test(name));

/**
 * The standard library for WebAssembly. Where rustup cannot give it, Debian's Rust builds its own once, into a system root
 * of ours: an empty crate with `-Z build-std`, whose libraries are kept; later builds are told by EDDY_WASM_RUSTFLAGS.
 */
async function wasmStd() {
  const directory = await ask('rustc', ['--print', 'target-libdir', '--target', wasmTarget]);
  if (directory && hasStd(directory)) return;
  if (mayInstall && which('rustup')) {
    say(`adding Rust's ${wasmTarget} target (rustup)`);
    if ((await run('rustup', ['target', 'add', wasmTarget])).code === 0) return;
  }
  const advice = `Rust's standard library for ${wasmTarget} is needed. With a network: rustup target add ${wasmTarget}
or on Debian, as root: apt-get install --no-install-recommends rustc-web cargo-web rust-web-src`;
  const rustc = '/usr/bin/rustc';
  const source = async () => {
    const home = executable(rustc) && (await ask(rustc, ['--print', 'sysroot']));
    return home && existsSync(join(home, 'lib/rustlib/src/rust/library/std')) && home;
  };
  if (!(await source()) && !(await apt('rustc-web', 'cargo-web', 'rust-web-src'))) throw new Problem(advice);
  if (!(await source())) throw new Problem(advice);
  const version = (await ask(rustc, ['--version'])).split(' ')[1];
  const sysroot = join(cache, `wasm-sysroot-${version}`);
  const libraries = join(sysroot, 'lib', 'rustlib', wasmTarget, 'lib');
  if (!hasStd(libraries)) {
    if (!mayInstall) throw new Problem(advice);
    say(`building Rust's standard library for ${wasmTarget} (about a minute, once)`);
    const crate = mkdtempSync(join(tmpdir(), 'eddy-std-'));
    mkdirSync(join(crate, 'src'));
    writeFileSync(join(crate, 'Cargo.toml'), '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2021"\n');
    writeFileSync(join(crate, 'src', 'lib.rs'), '#![no_std]\n');
    const build = ['build', '-Z', 'build-std=std,panic_abort,test', '--release', '--target', wasmTarget];
    await must('/usr/bin/cargo', build, {
      cwd: crate,
      env: { RUSTC: rustc, RUSTC_BOOTSTRAP: '1', RUSTFLAGS: '-C embed-bitcode=yes', CARGO_TARGET_DIR: join(crate, 'target') },
    });
    mkdirSync(libraries, { recursive: true });
    const built = join(crate, 'target', wasmTarget, 'release', 'deps');
    for (const name of readdirSync(built)) {
      if (name.endsWith('.rlib') && !name.startsWith('libempty-')) copyFileSync(join(built, name), join(libraries, name));
    }
    rmSync(crate, { recursive: true, force: true });
  }
  // The compiler that built the library is the only one that can use it.
  process.env.EDDY_WASM_RUSTC = rustc;
  process.env.EDDY_WASM_RUSTFLAGS = `--sysroot ${sysroot}`;
  const linker = await wasmLinker();
  if (linker) process.env.CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER = linker;
}

/** rust-lld, where the compiler does not bring its own. */
async function wasmLinker() {
  const home = await ask('rustc', ['--print', 'sysroot']);
  const own = home && join(home, 'lib', 'rustlib', hostTriple() ?? '', 'bin', 'rust-lld');
  if (own && existsSync(own)) return own;
  const find = () => which('rust-lld') ?? which('wasm-ld') ?? [14, 15, 16, 17, 18, 19, 20, 21, 22].map((n) => which(`wasm-ld-${n}`)).find(Boolean);
  return find() ?? ((await apt('lld')) ? find() : undefined);
}

/** The environment of cargo when it compiles to WebAssembly. */
export function wasmEnv() {
  const rustc = process.env.EDDY_WASM_RUSTC;
  return rustc ? { RUSTC: rustc, RUSTFLAGS: process.env.EDDY_WASM_RUSTFLAGS } : {};
}

/** wasm-bindgen's command-line tool, in the version of the crate. */
async function wasmBindgen() {
  const { findWasmBindgen, wasmBindgenDirectory, wasmBindgenVersion } = await import('./wasm.mjs');
  if (!findWasmBindgen()) {
    const version = wasmBindgenVersion();
    const directory = join(wasmBindgenDirectory(), '..');
    const command = ['install', 'wasm-bindgen-cli', '--version', version, '--locked', '--root', directory];
    const advice = `wasm-bindgen's command-line tool ${version} is needed. With a network: cargo ${command.join(' ')}`;
    if (!mayInstall) throw new Problem(advice);
    say(`building wasm-bindgen ${version} (about two minutes, once) into ${directory}`);
    const target = mkdtempSync(join(tmpdir(), 'eddy-bindgen-'));
    const { code } = await run('cargo', command, { env: { CARGO_TARGET_DIR: target } });
    rmSync(target, { recursive: true, force: true });
    if (code !== 0 || !findWasmBindgen()) throw new Problem(advice);
  }
  process.env.PATH = `${join(findWasmBindgen(), '..')}${delimiter}${process.env.PATH}`;
}

/** Browsers that playwright has downloaded, newest first. */
function playwrightBrowsers() {
  const home = process.env.PLAYWRIGHT_BROWSERS_PATH
    || { darwin: join(homedir(), 'Library/Caches/ms-playwright'), win32: join(homedir(), 'AppData/Local/ms-playwright') }[process.platform]
    || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ms-playwright');
  if (!existsSync(home)) return [];
  const programs = ['chrome-linux/chrome', 'chrome-linux64/chrome', 'chrome-mac/Chromium.app/Contents/MacOS/Chromium', 'chrome-win/chrome.exe', 'chrome-win64/chrome.exe'];
  return readdirSync(home)
    .filter((name) => /^chromium-\d+$/.test(name))
    .sort((a, b) => Number(b.slice(9)) - Number(a.slice(9)))
    .flatMap((name) => programs.map((program) => join(home, name, program)));
}

function findChromium() {
  const places = [
    process.env.EDDY_CHROMIUM,
    ...['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'].map((name) => which(name)),
    '/usr/bin/chromium',
    '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
    'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
    ...playwrightBrowsers(),
  ];
  return places.find((file) => file && executable(file));
}

/** A Chromium for the tests, told to them as EDDY_CHROMIUM, and its driver as CHROMEDRIVER. */
async function browser() {
  if (process.env.EDDY_CHROMIUM && !executable(process.env.EDDY_CHROMIUM)) {
    throw new Problem(`EDDY_CHROMIUM is ${process.env.EDDY_CHROMIUM}, which is no program`);
  }
  const advice = `A Chromium is needed for the browser tests: install one, and if it is not found, set EDDY_CHROMIUM to its path.
On Debian, as root: apt-get install chromium chromium-driver; elsewhere: npx playwright-core install chromium`;
  if (!findChromium() && !(await apt('chromium', 'chromium-driver'))) {
    if (!mayInstall) throw new Problem(advice);
    say('downloading Chromium (playwright-core)');
    if ((await run('npx', ['playwright-core', 'install', 'chromium'])).code !== 0) throw new Problem(advice);
  }
  process.env.EDDY_CHROMIUM = findChromium() ?? '';
  if (!process.env.EDDY_CHROMIUM) throw new Problem(advice);
  let driver = process.env.CHROMEDRIVER ?? which('chromedriver');
  if (!driver && (await apt('chromium-driver'))) driver = which('chromedriver');
  if (driver) process.env.CHROMEDRIVER = driver;
}

/** A Firefox, installed where apt-get can; undefined where there is none: the tests that a Chromium has run do without a second browser. */
export async function firefox() {
  const named = process.env.EDDY_FIREFOX;
  if (named && !executable(named)) throw new Problem(`EDDY_FIREFOX is ${named}, which is no program`);
  const find = () => named || which('firefox-esr') || which('firefox');
  return find() || ((await apt('firefox-esr')) ? find() : undefined);
}

/** The steps, in the order in which they need each other. */
const steps = { packages: npmPackages, rust, 'rust-tools': rustTools, 'wasm-std': wasmStd, 'wasm-bindgen': wasmBindgen, browser };

/** What building needs: all that `npm start` does. */
export const toBuild = ['packages', 'rust', 'wasm-std', 'wasm-bindgen'];

/** Takes the named steps, all of them unless told. Changes `process.env` for what follows. */
export async function setup(names = Object.keys(steps)) {
  const [major] = process.versions.node.split('.').map(Number);
  if (major < 20) throw new Problem(`Node 20 or newer is needed; this is ${process.versions.node}. See https://nodejs.org`);
  for (const [name, step] of Object.entries(steps)) if (names.includes(name)) await step();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    await setup();
    say('everything is there');
  });
}
