// What a handler may return, and what becomes of it on the wire.

import { isWebResponse } from './web.mjs';

const JSON_TYPE = ['content-type', 'application/json'];
const TEXT_TYPE = ['content-type', 'text/plain; charset=utf-8'];
const BYTES_TYPE = ['content-type', 'application/octet-stream'];
const FRAMING = new Set(['connection', 'content-length', 'keep-alive', 'transfer-encoding']);
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/**
 * Status, headers (pairs; a value may be an array), and a body: a string, bytes, null for none, or an iterator of strings
 * and bytes that is streamed.
 */
export class Reply {
  constructor(body, status, headers) {
    this.body = body;
    this.status = status;
    this.headers = headers;
  }
}

/** Turns what a handler returned into a reply. Throws a TypeError where that cannot be sent. */
export function replyOf(value) {
  if (value instanceof Reply) return value;
  if (value === undefined || value === null) return new Reply(null, 204, []);
  if (typeof value === 'string') return new Reply(value, 200, [TEXT_TYPE]);
  const bytes = bytesOf(value);
  if (bytes) return new Reply(bytes, 200, [BYTES_TYPE]);
  if (isWebResponse(value)) return new Reply(value.body && piecesOf(value.body), value.status, webHeaders(value.headers));
  const pieces = piecesOf(value);
  if (pieces) return new Reply(pieces, 200, []);
  const json = JSON.stringify(value);
  if (json === undefined) throw new TypeError(`a value of type ${typeof value} cannot be sent`);
  return new Reply(json, 200, [JSON_TYPE]);
}

/** The bytes of a value that is bytes, or null. */
function bytesOf(value) {
  if (Buffer.isBuffer(value)) return value;
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return Buffer.from(value);
  return null;
}

/** An iterator over what is meant to be streamed: async iterables (streams among them) and generators; or null. */
function piecesOf(value) {
  if (typeof value[Symbol.asyncIterator] === 'function') return value[Symbol.asyncIterator]();
  return typeof value.next === 'function' ? value : null;
}

function webHeaders(headers) {
  const pairs = [...headers].filter(([name]) => name !== 'set-cookie');
  const cookies = headers.getSetCookie();
  return cookies.length > 0 ? [...pairs, ['set-cookie', cookies]] : pairs;
}

/**
 * Sends a reply. A stream whose first piece fails throws, and nothing has been sent; later it is cut short.
 * `beforeEnd`: called before the last bytes are sent.
 */
export async function send(outgoing, reply, method, beforeEnd = () => {}) {
  if (!Number.isInteger(reply.status) || reply.status < 200 || reply.status > 599) {
    throw new RangeError(`${reply.status} is not an HTTP status (200 to 599)`);
  }
  const fields = lines(reply.headers);
  if (typeof reply.body?.next === 'function') return stream(outgoing, reply.status, fields, reply.body, method, beforeEnd);
  const bodiless = reply.status === 204 || reply.status === 304;
  const body = bodiless || reply.body === null ? '' : reply.body;
  if (!bodiless) fields.push('content-length', String(Buffer.byteLength(body)));
  outgoing.writeHead(reply.status, fields);
  beforeEnd();
  outgoing.end(method === 'HEAD' ? '' : body);
}

/** Headers as names and values in turn. Throws a TypeError where one would not stay on its line. */
function lines(headers) {
  const fields = [];
  for (const [name, given] of headers) {
    const key = String(name).toLowerCase();
    for (const value of Array.isArray(given) ? given : [given]) {
      const text = String(value);
      if (!NAME.test(key) || !VALUE.test(text)) {
        throw new TypeError(`${JSON.stringify(`${name}: ${text}`)} cannot be sent as a header`);
      }
      if (!FRAMING.has(key)) fields.push(key, text);
    }
  }
  return fields;
}

async function stream(outgoing, status, fields, pieces, method, beforeEnd) {
  try {
    const first = await pieces.next();
    if (!fields.includes('content-type')) fields.push(...(typeof first.value === 'string' ? TEXT_TYPE : BYTES_TYPE));
    const opening = first.done ? '' : encode(first.value);
    outgoing.writeHead(status, fields);
    if (method === 'HEAD' || status === 204 || status === 304) {
      beforeEnd();
      return void outgoing.end();
    }
    if (opening.length > 0) await write(outgoing, opening);
    for (let piece = first; !piece.done && !outgoing.destroyed; ) {
      piece = await pieces.next();
      if (!piece.done) await write(outgoing, encode(piece.value));
    }
    beforeEnd();
    outgoing.end();
  } finally {
    await pieces.return?.();
  }
}

function encode(piece) {
  if (typeof piece === 'string') return Buffer.from(piece);
  const bytes = piece !== null && typeof piece === 'object' && bytesOf(piece);
  if (!bytes) throw new TypeError(`a stream is made of strings and bytes, and this piece is of type ${typeof piece}`);
  return bytes;
}

/** Writes a piece, and waits until there is room for the next one or nobody is left to read it. */
function write(outgoing, piece) {
  if (piece.length === 0 || outgoing.write(piece)) return undefined;
  return new Promise((resolve) => {
    const done = () => {
      outgoing.off('drain', done).off('close', done);
      resolve();
    };
    outgoing.on('drain', done).on('close', done);
  });
}
