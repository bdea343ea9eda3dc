// The contract function for Open Runtimes, in JavaScript.

export default async (context) => routes[context.req.path](context);

const routes = {
  '/text': ({ res }) => res.text('text ✓'),
  '/json': ({ res }) => res.json({ hello: 'world', unicode: 'żółw 🐢' }),
  '/binary': ({ res }) => res.binary(Uint8Array.from({ length: 256 }, (_, index) => index)),
  '/empty': ({ res }) => res.empty(),
  '/redirect': ({ res }) => res.redirect('/target'),
  '/request': request,
  '/body': ({ req, res }) => res.json(req.bodyJson),
  '/log': log,
  '/nothing': () => {},
  '/raise': raise,
};

function request({ req, res }) {
  const { method, url, scheme, host, port, path, query, queryString, headers, bodyText } = req;
  return res.json({ method, url, scheme, host, port, path, query, queryString, headers, bodyText });
}

function log({ res, log, error }) {
  log('info line');
  error('error line');
  return res.text('logged');
}

function raise() {
  throw new RangeError('the reason ✗');
}
