// Finds the handler in the user's code and imports it.

import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { HandlerNotFound } from './failures.mjs';
import { webHandler } from './web.mjs';

const DEFAULT_HANDLER = 'handle';
const USUAL_MODULES = ['handler', 'index', 'src/main', 'main', 'src/index', 'src/handler', 'function'];
const USUAL_NAMES = ['default', 'handle', 'handler', 'main'];
// What a build has made of TypeScript lies beside it and is taken first.
const ENDINGS = ['.mjs', '.js', '.cjs', '.ts', '.mts', '.cts', '.tsx', '.jsx'];
const WRITTEN_IN_TYPESCRIPT = /\.[cm]?tsx?$/;

/**
 * Returns the function that `handler` names: `file`, `file:export`, `file.export`, or an export of the usual module.
 * Throws `HandlerNotFound`, or whatever the user's code throws while it is loaded.
 */
export async function load(code, handler) {
  const [file, name] = locate(code, handler);
  const module = await import(pathToFileURL(join(code, file)).href);
  const found = name === null ? usual(module) : attribute(module, name);
  const callable = typeof found === 'function' ? found : webHandler(found);
  if (callable) return callable;
  const wanted = name === null ? 'no default export, handle, handler or main that is a function' : `no function ${name}`;
  throw new HandlerNotFound(`${file} has ${wanted}; it exports ${exported(module)}`);
}

/** The file, relative to the code, and the export in it (null: the usual one) that a handler means. */
function locate(code, handler) {
  if (handler === DEFAULT_HANDLER) return [usualFile(code, handler), null];
  const [path, name] = handler.split(':', 2);
  const file = fileOf(code, path);
  if (file) return [file, name || null];
  if (name) throw new HandlerNotFound(`handler '${handler}' names the file ${path}, and ${listed(code)}`);
  for (let dot = path.lastIndexOf('.'); dot > 0; dot = path.lastIndexOf('.', dot - 1)) {
    const before = fileOf(code, path.slice(0, dot));
    if (before) return [before, path.slice(dot + 1)];
  }
  if (path.includes('/')) throw new HandlerNotFound(`there is no ${path}: ${listed(code)}`);
  return [usualFile(code, handler), path];
}

function usualFile(code, handler) {
  for (const name of [mainOf(code), ...USUAL_MODULES]) {
    const file = name && fileOf(code, name);
    if (file) return file;
  }
  const names = readdirSync(code).filter((name) => ENDINGS.some((ending) => name.endsWith(ending)));
  if (names.length === 1) return names[0];
  const looked = USUAL_MODULES.map((name) => `${name}.js`).join(', ');
  throw new HandlerNotFound(
    `no module to look for '${handler}' in: there is none of ${looked}, and ${listed(code)}; ` +
      'name the file in the handler (file.js) or as "main" in package.json',
  );
}

/** What package.json says the main file is. */
function mainOf(code) {
  let text;
  try {
    text = readFileSync(join(code, 'package.json'), 'utf8');
  } catch {
    return null;
  }
  const { main } = JSON.parse(text);
  return typeof main === 'string' ? main : null;
}

function fileOf(code, path) {
  const stem = WRITTEN_IN_TYPESCRIPT.test(path) ? path.replace(WRITTEN_IN_TYPESCRIPT, '') : null;
  const built = stem !== null && !globalThis.Deno && !globalThis.Bun ? [`${stem}.mjs`] : [];
  const candidates = [...built, path, ...ENDINGS.map((ending) => path + ending), ...ENDINGS.map((ending) => `${path}/index${ending}`)];
  return candidates.find((candidate) => statSync(join(code, candidate), { throwIfNoEntry: false })?.isFile());
}

/** The export that a module has a handler in, when none is named. What CommonJS exports is the default export. */
function usual(module) {
  for (const exports of [module, module.default]) {
    for (const name of USUAL_NAMES) {
      const found = exports?.[name];
      if (typeof found === 'function' || webHandler(found)) return found;
    }
  }
  return null;
}

function attribute(module, name) {
  for (const exports of [module, module.default]) {
    const found = name.split('.').reduce((value, key) => value?.[key], exports);
    if (found !== undefined) return found;
  }
  return null;
}

function exported(module) {
  const names = new Set([...Object.keys(module), ...Object.keys(Object(module.default))]);
  return [...names].slice(0, 20).join(', ') || 'nothing';
}

function listed(code) {
  const names = readdirSync(code).sort();
  const shown = names.slice(0, 20).join(', ') + (names.length > 20 ? ', …' : '');
  return names.length ? `the code has ${shown}` : 'the code is empty';
}
