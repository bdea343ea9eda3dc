// The function contract of Open Runtimes: its request, its responses, and what its headers ask for.

import { randomBytes } from 'node:crypto';
import { format } from 'node:util';

import { emit } from './logs.mjs';
import { Reply } from './reply.mjs';

export const NOTHING_RETURNED =
  'Return statement missing. return context.res.empty() if no response is expected.';

const PREFIX = 'x-open-runtimes-';
const LOG_ID = `${PREFIX}log-id`;

/** `context.req`. */
export class OpenRequest {
  #request;

  constructor(request) {
    this.#request = request;
    this.method = request.method;
    this.scheme = request.scheme;
    this.host = request.host;
    this.port = request.port;
    this.path = request.rawPath;
    this.queryString = request.queryString;
    this.query = queryOf(request.queryString);
    this.headers = request.headers;
    this.url = request.url;
  }

  get bodyBinary() {
    return this.#request.body;
  }

  get bodyText() {
    return this.#request.body.toString();
  }

  get bodyRaw() {
    return this.bodyText;
  }

  get bodyJson() {
    return this.#request.json();
  }

  /** The body in the form that its content type calls for. */
  get body() {
    const type = this.headers['content-type'] ?? '';
    if (type.startsWith('application/json')) return this.bodyText && this.bodyJson;
    return /^(?:application\/octet-stream|image\/|audio\/|video\/|font\/)/.test(type) ? this.bodyBinary : this.bodyText;
  }
}

/** The last value of each name, as it was sent: not decoded. */
function queryOf(queryString) {
  const pairs = queryString.matchAll(/(?:^|&)([^&=]+)=?([^&]*)/g);
  return Object.fromEntries(Array.from(pairs, ([, name, value]) => [name, value]));
}

/** `context.res`. */
export const responses = {
  binary: (bytes, status = 200, headers = {}) => reply(bytes, status, headers, 'application/octet-stream'),
  text: (text, status = 200, headers = {}) => reply(String(text), status, headers, 'text/plain'),
  send: (text, status = 200, headers = {}) => reply(String(text), status, headers, 'text/plain'),
  json: (value, status = 200, headers = {}) => reply(JSON.stringify(value), status, headers, 'application/json'),
  redirect: (url, status = 301, headers = {}) => reply('', status, { ...headers, location: url }, null),
  empty: () => new Reply(null, 204, []),
};

function reply(body, status, headers, type) {
  const lines = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]);
  const named = lines.find(([name]) => name === 'content-type');
  if (named) named[1] = withCharset(String(named[1]));
  else if (type) lines.push(['content-type', withCharset(type)]);
  return new Reply(typeof body === 'string' ? body : Buffer.from(body), status, lines);
}

function withCharset(type) {
  const textual = type.startsWith('text/') || type.startsWith('application/json');
  return textual && !type.includes('charset=') ? `${type}; charset=utf-8` : type;
}

/** `context.log` and `context.error`. */
export function logger(level, silent) {
  return (...values) => {
    if (!silent) emit(level, format(...values));
  };
}

/** Answers what is asked of the runtime rather than of the function; null for everything else. */
export function operation(target, startup) {
  if (target === '/__opr/health') return new Reply('OK', 200, [['content-type', 'text/plain']]);
  if (target !== '/__opr/timings') return null;
  return new Reply(`startup=${startup.toFixed(3)}`, 200, [['content-type', 'text/plain']]);
}

/** What the `x-open-runtimes-*` headers of a request ask for. Takes them out of the headers. */
export class Terms {
  #secret;
  #timeout;

  constructor(headers) {
    const asked = {};
    for (const name of Object.keys(headers)) {
      if (!name.startsWith(PREFIX)) continue;
      asked[name.slice(PREFIX.length)] = headers[name];
      delete headers[name];
    }
    this.#secret = asked.secret;
    this.#timeout = asked.timeout;
    this.silent = asked.logging === 'disabled';
    this.logId = asked['log-id'] || (Object.keys(asked).length > 0 ? randomBytes(8).toString('hex') : null);
  }

  /** A response instead of the function's, where the headers are not as they must be; else null. */
  refusal() {
    const secret = process.env.OPEN_RUNTIMES_SECRET;
    if (secret && secret !== this.#secret) {
      return failure(`Unauthorized. Provide correct "${PREFIX}secret" header.`);
    }
    if (this.#timeout !== undefined && !/^0*[1-9]\d*$/.test(this.#timeout)) {
      return failure(`Header "${PREFIX}timeout" must be an integer greater than 0.`);
    }
    return null;
  }

  /** What the handler returns, or a failure where it takes longer than the header allows. */
  async within(returned) {
    if (this.#timeout === undefined) return returned;
    let timer;
    const over = new Promise((resolve) => {
      timer = setTimeout(resolve, Number(this.#timeout) * 1000, failure('Execution timed out.'));
    });
    return Promise.race([returned, over]).finally(() => clearTimeout(timer));
  }

  /** The response's headers, less those that are not the function's to set, with the id of the log. */
  mark(headers) {
    const kept = headers.filter(([name]) => !String(name).toLowerCase().startsWith(PREFIX));
    return this.logId === null ? kept : [...kept, [LOG_ID, this.logId]];
  }
}

function failure(text) {
  return new Reply(text, 500, [['content-type', 'text/plain; charset=utf-8']]);
}
