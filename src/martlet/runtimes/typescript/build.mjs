// Makes JavaScript of a function in TypeScript: `node build.mjs NPM ESBUILD`. A package that has a build of its own is
// built by that; any other has its entry bundled by esbuild into a module beside it, with all that it imports of its own.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import process from 'node:process';

import { Package, refuse } from '../node/package.mjs';

const ENDINGS = ['.ts', '.mts', '.cts', '.tsx'];
const USUAL = ['handler', 'index', 'src/main', 'main', 'src/index', 'src/handler', 'function'];
const TYPESCRIPT = /\.[cm]?tsx?$/;

/** The file that the handler means, or package.json's main, or the usual one. */
function entry(handler, main) {
  const [path] = handler.split(':');
  const named = handler === 'handle' ? [] : [path, path.slice(0, Math.max(path.lastIndexOf('.'), 0))];
  const stems = [...named, main, ...USUAL].filter(Boolean);
  const candidates = stems.flatMap((stem) => [stem, ...ENDINGS.map((ending) => stem + ending)]);
  return candidates.find((file) => TYPESCRIPT.test(file) && existsSync(file));
}

const [npm, esbuild] = process.argv.slice(2);
const source = new Package(npm);
source.build();
if (!source.hasBuild) {
  const file = entry(process.env.MARTLET_HANDLER || 'handle', source.manifest.main);
  if (!file) refuse('config.handler', `there is no TypeScript to begin with: ${USUAL.join('.ts, ')}.ts, or the file that handler names`);
  const output = file.replace(TYPESCRIPT, '.mjs');
  const options = ['--bundle', '--platform=node', '--format=esm', '--target=node18', '--packages=external', '--sourcemap=inline'];
  try {
    execFileSync(esbuild, [file, ...options, `--outfile=${output}`, '--log-level=warning'], { stdio: ['ignore', 'inherit', 'inherit'] });
  } catch ({ status }) {
    process.exit(status || 1);
  }
}
