// What is printed and logged becomes frames (docs/design.md, "Logs"), each with the id of the request it belongs to.

import { AsyncLocalStorage } from 'node:async_hooks';
import { Console } from 'node:console';
import { writeSync } from 'node:fs';
import { Writable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';

const FRAME_BYTES = 4096;
const LEVELS = { debug: 'debug', info: 'info', warn: 'warning', error: 'error' };
const METHODS = [
  ...['assert', 'count', 'countReset', 'debug', 'dir', 'dirxml', 'error', 'group', 'groupCollapsed', 'groupEnd'],
  ...['info', 'log', 'table', 'time', 'timeEnd', 'timeLog', 'trace', 'warn'],
];

const ROOM_MS = 1;
const nothing = new Int32Array(new SharedArrayBuffer(4));

const scopes = new AsyncLocalStorage();
const nobody = scope(null);
let latest = nobody;
let oneAtATime = true;

/** Where the lines of one request go: its id, and what of its lines has no end yet, by stream. */
function scope(id) {
  return { id, unfinished: { stdout: '', stderr: '' } };
}

/** Says whether one request runs at a time, so that whatever is printed while it runs is that request's. */
export function tellApart(one) {
  oneAtATime = one;
}

/** Runs `work` for the request with this id. What it prints, now or later, is tagged with it. */
export async function within(id, work) {
  const own = scope(id);
  latest = own;
  try {
    return await scopes.run(own, work);
  } finally {
    finish(own);
    if (latest === own) latest = nobody;
  }
}

/** Ends the lines of the request that runs here: before its response ends, since whoever has that may look for them. */
export function endLines() {
  finish(current());
}

/** Writes the lines of a request that were never ended. */
function finish(own) {
  for (const stream of ['stdout', 'stderr']) {
    if (own.unfinished[stream]) emit(stream, own.unfinished[stream], own);
    own.unfinished[stream] = '';
  }
}

function current() {
  return scopes.getStore() ?? (oneAtATime ? latest : nobody);
}

/** Writes a frame, and waits for room as any print does; returns whether somebody may read it. */
function put(descriptor, frame) {
  for (;;) {
    try {
      writeSync(descriptor, frame);
      return true;
    } catch (error) {
      // Node and Bun have made the descriptor one that never waits.
      if (error.code !== 'EAGAIN') return false;
      Atomics.wait(nothing, 0, 0, ROOM_MS);
    }
  }
}

/** Writes text as frames of a stream: `stdout`, `stderr`, or a level. */
export function emit(stream, text, { id } = current()) {
  const head = `\x1e{"t":${(Date.now() / 1000).toFixed(3)},"id":${JSON.stringify(id)},"s":"${stream}","m":`;
  const room = FRAME_BYTES - Buffer.byteLength(head) - '""}\n'.length;
  let start = 0;
  do {
    let piece = text.slice(start, start + room);
    let quoted = JSON.stringify(piece);
    while (Buffer.byteLength(quoted) - 2 > room) {
      piece = piece.slice(0, piece.length / 2);
      quoted = JSON.stringify(piece);
    }
    start += piece.length;
    if (start < text.length) {
      const lineEnd = piece.lastIndexOf('\n');
      if (lineEnd >= 0) {
        start -= piece.length - lineEnd - 1;
        quoted = JSON.stringify(piece.slice(0, lineEnd));
      }
    }
    if (!put(stream === 'stdout' ? 1 : 2, `${head}${quoted}}\n`)) return; // nobody reads the log
  } while (start < text.length);
}

/** `process.stdout` or `process.stderr`: every line that is complete becomes a frame. */
class LineStream extends Writable {
  #name;
  #decoder = new StringDecoder();
  level = null;

  constructor(descriptor, name) {
    super({ decodeStrings: false });
    this.fd = descriptor;
    this.isTTY = false;
    this.#name = name;
  }

  write(data, encoding, callback) {
    const text = typeof data === 'string' ? data : this.#decoder.write(data);
    if (this.level === null) this.#lines(text);
    else emit(this.level, text.replace(/\n$/, ''));
    const done = typeof encoding === 'function' ? encoding : callback;
    if (done) process.nextTick(done);
    return true;
  }

  end(data, encoding, callback) {
    if (data !== undefined && typeof data !== 'function') this.write(data, encoding, callback);
    return this;
  }

  #lines(text) {
    const { unfinished } = current();
    const lines = (unfinished[this.#name] + text).split('\n');
    unfinished[this.#name] = lines.pop();
    for (const line of lines) emit(this.#name, line);
    if (unfinished[this.#name].length >= FRAME_BYTES) finish(current());
  }
}

/** Replaces `process.stdout`, `process.stderr` and the methods of `console`. */
export function install() {
  const stdout = new LineStream(1, 'stdout');
  const stderr = new LineStream(2, 'stderr');
  for (const [name, value] of Object.entries({ stdout, stderr })) {
    Object.defineProperty(process, name, { value, configurable: true, enumerable: true, writable: true });
  }
  const ours = new Console({ stdout, stderr });
  for (const [method, level] of Object.entries(LEVELS)) {
    const print = ours[method].bind(ours);
    const stream = method === 'debug' || method === 'info' ? stdout : stderr;
    ours[method] = (...values) => {
      stream.level = level;
      try {
        print(...values);
      } finally {
        stream.level = null;
      }
    };
  }
  for (const method of METHODS) globalThis.console[method] = ours[method].bind(ours);
  process.on('exit', () => finish(current()));
}
