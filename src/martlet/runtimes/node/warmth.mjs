// Warms the process before there is code: requests that it answers to itself, in memory.

import { createServer } from 'node:net';
import { Duplex } from 'node:stream';

import { Server } from './server.mjs';

const NO_DESCRIPTOR = 2 ** 30;
const ROUNDS = 20;
const REQUEST = Buffer.from(
  'POST /warm?a=b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}',
);

/** A connection that sends one request and ends when it is answered. */
class Memory extends Duplex {
  constructor(answered) {
    super();
    this.answered = answered;
    this.push(REQUEST);
  }

  _read() {}

  _write(data, encoding, callback) {
    callback();
    this.answered();
  }

  setTimeout() {
    return this;
  }

  setNoDelay() {
    return this;
  }
}

async function ask(handler) {
  const server = new Server(handler, { maxBody: 1024 });
  const connection = await new Promise((resolve) => {
    const memory = new Memory(() => resolve(memory));
    server.accept(memory);
  });
  connection.destroy();
}

/** Listens in vain, on a descriptor that is none, which loads as much as listening does. */
function listen() {
  return new Promise((resolve) => createServer().on('error', resolve).listen({ fd: NO_DESCRIPTOR }));
}

/** Has everything that a request needs loaded and compiled. */
export async function warm() {
  await listen();
  for (let round = 0; round < ROUNDS; round += 1) {
    await ask((request) => ({ ...request.query, ...request.json() }));
    await ask(async ({ req, res }) => res.json(req.bodyJson));
  }
  await ask(() => new Response('warm'));
}
