// What people are told when their code fails: in an answer, and in the log without the platform's own frames.

import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';

import { emit } from './logs.mjs';

const MESSAGE_CHARACTERS = 4096;
const OURS = fileURLToPath(new URL('.', import.meta.url));
const NOT_THE_USERS = /\(?(?:node|ext|internal|native):/;
const PLACE = /^(?:file:\/\/)?(\/.*):(\d+)\n/;

/** The code was loaded, or could be, and has no such handler. */
export class HandlerNotFound extends Error {
  name = 'HandlerNotFound';
}

/** The request body is not JSON. A handler that lets it pass answers 400. */
export class BadJson extends Error {
  name = 'BadJson';
}

/** Describes what was thrown, which may be anything. `code`: the folder that paths are told relative to. */
export function describe(error, code) {
  const traceback = error instanceof HandlerNotFound ? '' : trace(error);
  return { type: kind(error), message: message(error, code).slice(0, MESSAGE_CHARACTERS), traceback };
}

/** Writes to the log what was thrown, and where. */
export function log(error) {
  emit('error', trace(error));
}

/** The name of the kind of thing that was thrown. */
export function kind(error) {
  const name = error?.name;
  if (typeof name === 'string' && name && name !== 'Error') return name;
  return error?.constructor?.name || typeof error;
}

/** What it says of itself, with what to do about it where that is known. */
export function message(error, code) {
  const text = String((error instanceof Error ? error.message : null) ?? describeValue(error));
  const place = error instanceof SyntaxError && PLACE.exec(error.stack ?? '');
  if (place && code !== undefined) return `${relative(code, place[1])}, line ${place[2]}: ${text}`;
  if (/MODULE_NOT_FOUND$/.test(error?.code) && /Cannot find (?:package|module) '[^./]/.test(text)) {
    return `${text.split('\n')[0]}; add it to \`dependencies\` or to package.json`;
  }
  return text;
}

function describeValue(value) {
  return typeof value === 'string' ? value : inspect(value);
}

function trace(error) {
  const lines = describeValue(error).split('\n');
  return lines.filter((line) => !/^\s+at /.test(line) || !(line.includes(OURS) || NOT_THE_USERS.test(line))).join('\n');
}
