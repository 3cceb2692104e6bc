// What the README tells a reader to type works: commands exist, options too, links lead somewhere, examples compile.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { eddyProgram } from '../../scripts/native.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const documents = ['README.md', 'CONTRIBUTING.md', 'pkg/README.md', 'worker/README.md', 'www/sample/README.md'];
const read = (name) => readFileSync(join(root, name), 'utf8');

/** The fenced blocks of one language. */
const blocks = (name, language) => [...read(name).matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].filter((match) => match[1] === language).map((match) => match[2]);

const lines = documents.flatMap((name) => blocks(name, 'sh')).flatMap((block) => block.split('\n')).map((line) => line.trim()).filter((line) => line && !line.startsWith('#'));

test('npm scripts that are named exist', () => {
  const scripts = (directory) => {
    const path = join(root, directory, 'package.json');
    return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).scripts ?? {} : {};
  };
  const named = documents.flatMap((document) => {
    // Of the directory that is named behind the command ("`npm run deploy` in `worker/`"), else of the document's package or the whole.
    const commands = read(document).matchAll(/\bnpm (?:run ([\w-]+)|(start|test)\b)(?:`\s+in\s+`([\w/-]+)`)?/g);
    return [...commands].map(([, script, short, at]) => ({ document, script: script ?? short, at: at ? [at] : [dirname(document), '.'] }));
  });
  for (const script of ['start', 'test', 'deploy']) assert.ok(named.some((each) => each.document === 'README.md' && each.script === script), script);
  for (const { document, script, at } of named) {
    assert.ok(at.some((directory) => scripts(directory)[script]), `${document}: npm run ${script} in ${at.join(' or ')}`);
  }
});

test('eddy has the commands and options that are shown', () => {
  const eddy = eddyProgram();
  const shown = lines.filter((line) => line.startsWith('eddy '));
  assert.ok(shown.length >= 4);
  for (const line of shown) {
    const [, command, ...words] = line.split(/\s+/);
    const help = execFileSync(eddy, [command, '--help'], { encoding: 'utf8' });
    for (const word of words.filter((each) => each.startsWith('--'))) assert.ok(help.includes(word), `${line}: ${word} is not in the help`);
  }
});

test('links lead to files', () => {
  for (const name of documents) {
    for (const [, target] of read(name).matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g)) {
      assert.ok(existsSync(join(root, dirname(name), target)), `${name}: ${target}`);
    }
  }
});

test('examples in TypeScript compile', () => {
  // Inside the repository, so that the package is found by its name.
  mkdirSync(join(root, 'target'), { recursive: true });
  const directory = mkdtempSync(join(root, 'target', 'readme-'));
  try {
    const prelude = 'declare function embed(text: string): Promise<Float32Array>;\n';
    const examples = documents.flatMap((name) => blocks(name, 'ts'));
    assert.ok(examples.length >= 2);
    examples.forEach((example, at) => {
      const own = example.includes('declare function embed') ? '' : prelude;
      writeFileSync(join(directory, `example-${at}.ts`), `${own}${example}\nexport {};\n`);
    });
    const compilerOptions = { target: 'es2022', module: 'nodenext', moduleResolution: 'nodenext', strict: true, noEmit: true, lib: ['es2023', 'dom'], types: [], skipLibCheck: false };
    writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
    writeFileSync(join(directory, 'package.json'), '{"type": "module"}');
    try {
      execFileSync(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', directory], { encoding: 'utf8' });
    } catch (error) {
      assert.fail(`${error.stdout}${error.stderr}`);
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
