// Serves the instance contract (docs/design.md) over HTTP/1.1.

import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';

import { BadJson, kind, log, message } from './failures.mjs';
import { endLines, within } from './logs.mjs';
import { NOTHING_RETURNED, Terms, operation } from './open-runtimes.mjs';
import { Reply, replyOf, send } from './reply.mjs';
import { FunctionRequest, readHeaders } from './request.mjs';

const MAX_HEAD = 65536;
const EMPTY = Buffer.alloc(0);
const HEALTHY = new Reply('{"status":"ok"}', 200, [['content-type', 'application/json']]);

export class Server {
  #handler;
  #maxBody;
  #startup;
  #afterwards;
  #running = 0;
  #whenIdle = null;
  #http;
  #listener = null;

  /** `startup`: seconds it took to start. `afterwards`: called when a response is sent. */
  constructor(handler, { maxBody, startup = 0, afterwards = () => {} }) {
    this.#handler = handler;
    this.#maxBody = maxBody;
    this.#startup = startup;
    this.#afterwards = afterwards;
    // Clients of HTTP/1.0 name no host.
    const options = { maxHeaderSize: MAX_HEAD, requireHostHeader: false };
    this.#http = createHttpServer(options, (incoming, outgoing) => this.#serve(incoming, outgoing));
    // How long a connection may wait is the node's decision.
    Object.assign(this.#http, { keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0, timeout: 0 });
  }

  /** Accepts connections on a descriptor that listens already. */
  listen(descriptor) {
    // Bun's HTTP server cannot listen on a descriptor, but it takes connections.
    const handOver = () => createServer({ allowHalfOpen: true }, (connection) => this.accept(connection));
    this.#listener = globalThis.Bun ? handOver() : this.#http;
    this.#listener.listen({ fd: descriptor });
  }

  /** Serves one connection. */
  accept(connection) {
    this.#http.emit('connection', connection);
  }

  /** Accepts nothing more, and calls back when the requests that run are finished. */
  close(callback) {
    this.#listener.close();
    this.#whenIdle = callback;
    if (this.#running === 0) callback();
  }

  async #serve(incoming, outgoing) {
    this.#running += 1;
    outgoing.sendDate = false;
    outgoing.once('close', () => {
      this.#running -= 1;
      if (this.#running > 0) return;
      if (this.#whenIdle) this.#whenIdle();
      else this.#afterwards();
    });
    try {
      if (incoming.url === '/_martlet/health') await send(outgoing, HEALTHY, incoming.method);
      else await this.#answer(incoming, outgoing);
    } catch (error) {
      log(error);
      cut(outgoing);
    }
  }

  async #answer(incoming, outgoing) {
    const headers = readHeaders(incoming.rawHeaders);
    const body = await read(incoming, headers, this.#maxBody);
    if (body === null) return refuse(outgoing, this.#maxBody);
    await within(headers['x-request-id'] ?? null, () => this.#invoke(incoming, outgoing, headers, body));
  }

  async #invoke({ method, url: target }, outgoing, headers, body) {
    const terms = new Terms(headers);
    const request = new FunctionRequest({ method, target, headers, body, silent: terms.silent, aborted: signalOf(outgoing) });
    try {
      const reply = operation(target, this.#startup) ?? terms.refusal() ?? (await terms.within(this.#call(request)));
      reply.headers = terms.mark(reply.headers);
      await send(outgoing, reply, method, endLines);
    } catch (error) {
      if (outgoing.headersSent) throw error;
      const reply = failed(error, request.id);
      reply.headers = terms.mark(reply.headers);
      await send(outgoing, reply, method, endLines);
    }
  }

  async #call(request) {
    const value = await this.#handler(request, request);
    if (value === undefined && request.owesResponse) throw new Error(NOTHING_RETURNED);
    return replyOf(value);
  }
}

/** Reads a request's body; null when it is over the limit. */
function read(incoming, headers, maxBody) {
  const announced = headers['content-length'];
  if (announced === undefined && headers['transfer-encoding'] === undefined) return EMPTY;
  if (Number(announced) > maxBody) return null;
  return new Promise((resolve, reject) => {
    const pieces = [];
    let size = 0;
    incoming.on('data', (piece) => {
      size += piece.length;
      if (size <= maxBody) pieces.push(piece);
      else resolve(null);
    });
    incoming.on('end', () => resolve(pieces.length === 1 ? pieces[0] : Buffer.concat(pieces)));
    incoming.on('error', reject);
  });
}

function refuse(outgoing, maxBody) {
  const text = `the request body is over ${maxBody} bytes`;
  outgoing.writeHead(413, ['content-type', 'text/plain', 'content-length', String(text.length), 'connection', 'close']);
  outgoing.end(text);
}

/** Ends the connection behind what was written: by the missing end the client sees that the response is not whole. */
function cut(outgoing) {
  if (outgoing.socket) outgoing.socket.destroySoon();
  else outgoing.destroy();
}

/** The answer to a request whose handler threw; the log has where. */
function failed(error, id) {
  if (error instanceof BadJson) {
    const title = 'The request body is not JSON';
    const problem = { type: 'about:blank', status: 400, code: 'bad_json', title, detail: error.message, request_id: id };
    return new Reply(JSON.stringify(problem), 400, [['content-type', 'application/problem+json']]);
  }
  log(error);
  const type = kind(error);
  const headers = [['content-type', 'application/json'], ['x-martlet-error', type.replace(/[^\x20-\x7e]/g, '?')]];
  return new Reply(JSON.stringify({ type, message: message(error) }), 500, headers);
}

/** Makes the signal that says that the client has left, when it is first asked for. */
function signalOf(outgoing) {
  let controller = null;
  return () => {
    if (controller === null) {
      controller = new AbortController();
      if (outgoing.destroyed) controller.abort();
      else outgoing.once('close', () => outgoing.writableFinished || controller.abort());
    }
    return controller.signal;
  };
}
