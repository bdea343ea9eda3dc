// The contract function, in TypeScript.

let counter = 0;

export default async (req) => (routes[req.path] ?? inspect)(req);

const routes = {
  '/json': () => ({ hello: 'world', unicode: 'żółw 🐢', list: [1, 2.5, null, true] }),
  '/echo': (req) => new Response(req.body, { headers: { 'content-type': req.getHeader('Content-Type') } }),
  '/text': () => 'text ✓',
  '/binary': () => Uint8Array.from({ length: 256 }, (_, index) => index),
  '/empty': () => {},
  '/status': () => new Response('teapot', { status: 418, headers: { 'x-colour': 'blue' } }),
  '/raise': raise,
  '/crash': () => process.exit(3),
  '/sleep': sleep,
  '/environment': () => ({ GREETING: process.env.GREETING ?? null }),
  '/log': log,
  '/say': say,
  '/count': () => ({ count: ++counter }),
  '/stream': stream,
  '/length': (req) => ({ length: req.body.length }),
  '/large': () => 'x'.repeat(5_000_000),
  '/split': ({ res }) => res.text('', 200, { 'x-colour': 'blue\r\nx-other: 1' }),
  '/unmodified': ({ res }) => res.text('unseen', 304),
  '/break': breakOff,
};

function inspect({ method, path, query, headers, body }) {
  return { method, path, query, headers, length: body.length };
}

function raise() {
  throw new RangeError('the reason ✗');
}

async function sleep(req) {
  const milliseconds = Number(req.query.ms);
  await pause(milliseconds);
  return { slept: milliseconds };
}

function log() {
  console.log('to stdout ✓');
  process.stderr.write('to stderr\n');
  console.warn('a warning');
  return 'logged';
}

async function say(req) {
  console.warn(`${req.query.word} before`);
  await pause(100);
  console.warn(`${req.query.word} after`);
  return 'said';
}

async function* stream() {
  yield 'one\n';
  await pause(300);
  yield 'two\n';
}

async function* breakOff() {
  yield 'one\n';
  throw new RangeError('the reason');
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
