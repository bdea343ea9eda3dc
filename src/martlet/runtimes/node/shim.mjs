// Runs a function written for Node.js, Deno or Bun, by the program protocol (docs/runtimes.md): started and warmed
// before there is code, told on stdin what to become, serving on descriptor 3.

import { closeSync, readSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';

import { describe } from './failures.mjs';
import { load } from './loader.mjs';
import * as logs from './logs.mjs';
import { boundMemory } from './memory.mjs';
import { Server } from './server.mjs';
import { warm } from './warmth.mjs';

const LISTENER = 3;
const ANSWER = 4;
const OURS = /^MARTLET_(?!FUNCTION$|REVISION$)/;

/**
 * Waits for the specification: one line of JSON on stdin. Returns null where it ends without one.
 *
 * No module here may import node:process: that makes process.stdin, after which nothing can be waited for so.
 */
function specification() {
  const pieces = [];
  const buffer = Buffer.alloc(65536);
  for (let size; (size = readSync(0, buffer)) > 0; ) {
    pieces.push(Buffer.from(buffer.subarray(0, size)));
    if (buffer[size - 1] === 0x0a) return JSON.parse(Buffer.concat(pieces).toString());
  }
  return null;
}

/** Says on descriptor 4 what has become of the code. */
function answer(document) {
  const line = `${JSON.stringify(document)}\n`;
  // Deno's files know no descriptor but those it has opened itself; its sockets do.
  if (globalThis.Deno) return new Promise((done) => new Socket({ fd: ANSWER, readable: false }).end(line, done));
  writeSync(ANSWER, line);
  closeSync(ANSWER);
  return undefined;
}

/** Gives the process the function's folder and variables, as its code is to find them. */
function enter({ function: name, revision, code, environment }) {
  process.chdir(code);
  for (const variable of Object.keys(process.env)) {
    if (OURS.test(variable)) delete process.env[variable];
  }
  Object.assign(process.env, environment, { MARTLET_FUNCTION: name, MARTLET_REVISION: String(revision) });
}

const started = performance.now();
logs.install();
await warm();
const told = specification();
if (told === null) process.exit(0);
enter(told);
logs.tellApart(told.concurrency === 1);
const begun = performance.now();
try {
  const handler = await load(told.code, told.handler);
  const startup = (performance.now() - started) / 1000;
  const server = new Server(handler, { maxBody: told.max_body, startup, afterwards: boundMemory(told.memory) });
  process.on('SIGTERM', () => server.close(() => process.exit(0)));
  server.listen(LISTENER);
  await answer({ mode: 'handler', load_ms: performance.now() - begun });
} catch (error) {
  await answer({ error: describe(error, told.code) });
  process.exit(1);
}
