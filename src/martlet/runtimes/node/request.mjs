// The request as a handler sees it. It is the context of Open Runtimes as well: `({ req, res, log, error }) => …`.

import { BadJson } from './failures.mjs';
import { OpenRequest, logger, responses } from './open-runtimes.mjs';

/** Returns headers by lower-case name; values of one that came several times are joined. */
export function readHeaders(raw) {
  const headers = {};
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index].toLowerCase();
    const before = headers[name];
    headers[name] = before === undefined ? raw[index + 1] : before + (name === 'cookie' ? '; ' : ', ') + raw[index + 1];
  }
  return headers;
}

export class FunctionRequest {
  #arrived = performance.now();
  #open;
  #query;
  #signal;
  #silent;

  /** `silent`: whether the lines of `log` and `error` are dropped. `aborted`: makes the signal when it is wanted. */
  constructor({ method, target, headers, body, aborted, silent = false }) {
    const mark = target.indexOf('?');
    this.method = method;
    this.rawPath = mark < 0 ? target : target.slice(0, mark);
    this.queryString = mark < 0 ? '' : target.slice(mark + 1);
    this.headers = headers;
    this.body = body;
    this.#signal = aborted;
    this.#silent = silent;
  }

  /** The path below the function's root, decoded; begins with a slash. */
  get path() {
    if (!this.rawPath.includes('%')) return this.rawPath;
    try {
      return decodeURIComponent(this.rawPath);
    } catch {
      return this.rawPath;
    }
  }

  /** The address as the client wrote it, less what of the path is not the function's. */
  get url() {
    const { scheme, host, port, rawPath, queryString } = this;
    const usual = port === (scheme === 'https' ? 443 : 80);
    return `${scheme}://${host}${usual ? '' : `:${port}`}${rawPath}${queryString && `?${queryString}`}`;
  }

  get scheme() {
    return this.headers['x-forwarded-proto'] === 'https' ? 'https' : 'http';
  }

  get host() {
    return (this.headers.host ?? 'localhost').replace(/:\d*$/, '');
  }

  get port() {
    return Number(/:(\d+)$/.exec(this.headers.host ?? '')?.[1]) || (this.scheme === 'https' ? 443 : 80);
  }

  /** The first value of each name of the query. */
  get query() {
    const values = {};
    for (const [name, value] of this.queryParams) values[name] ??= value;
    return values;
  }

  /** The query as `URLSearchParams`, which knows all values of a name. */
  get queryParams() {
    return (this.#query ??= new URLSearchParams(this.queryString));
  }

  /** A header, whose name may be written in any case; undefined where it was not sent. */
  getHeader(name) {
    return this.headers[name.toLowerCase()];
  }

  /** The body as text, in the charset that content-type names (UTF-8 by default). */
  text() {
    const charset = /charset="?([^\s";]+)/i.exec(this.headers['content-type'] ?? '')?.[1] ?? 'utf-8';
    if (/^utf-?8$/i.test(charset)) return this.body.toString();
    try {
      return new TextDecoder(charset).decode(this.body);
    } catch {
      return this.body.toString();
    }
  }

  /** The body read as JSON; `{}` where it is empty. Throws `BadJson`, which is answered with 400 if it is let pass. */
  json() {
    if (this.body.length === 0) return {};
    try {
      return JSON.parse(this.body.toString());
    } catch (error) {
      throw new BadJson(`the request body is not JSON: ${error.message}`);
    }
  }

  /** The id that the response, the log and the platform's records have. */
  get id() {
    return this.headers['x-request-id'] ?? null;
  }

  get function() {
    return this.headers['x-faas-function'] ?? null;
  }

  get revision() {
    return this.headers['x-faas-revision'] ?? null;
  }

  /** Milliseconds the request had when it arrived; the instance is ended when they are over. */
  get deadlineMs() {
    const value = this.headers['x-faas-deadline'];
    return value === undefined ? null : Number(value);
  }

  /** Milliseconds that are left of `deadlineMs` now. */
  get remainingMs() {
    return this.deadlineMs === null ? null : this.deadlineMs - (performance.now() - this.#arrived);
  }

  /** An `AbortSignal`: the client has left. */
  get signal() {
    return this.#signal();
  }

  /** The request as Open Runtimes has it. */
  get req() {
    return (this.#open ??= new OpenRequest(this));
  }

  /** The responses of Open Runtimes. */
  get res() {
    this.#open ??= new OpenRequest(this);
    return responses;
  }

  get log() {
    return logger('info', this.#silent);
  }

  get error() {
    return logger('error', this.#silent);
  }

  /** Whether the handler has asked for `req` or `res`, and so must return a response. */
  get owesResponse() {
    return this.#open !== undefined;
  }
}
