// The contract of the web's own types: an object with `fetch(Request)` that returns a `Response`.

/** Makes a handler of an object with `fetch`, as many web frameworks export; null where it is none. */
export function webHandler(application) {
  if (typeof application?.fetch !== 'function') return null;
  return (request) => application.fetch(webRequest(request), process.env, { waitUntil: ignore, passThroughOnException: ignore });
}

/** Whether a value is a `Response`, whoever has made its class. */
export function isWebResponse(value) {
  return value?.[Symbol.toStringTag] === 'Response' && typeof value.arrayBuffer === 'function';
}

function webRequest(request) {
  const { method, url, signal } = request;
  const body = method === 'GET' || method === 'HEAD' ? undefined : request.body;
  return new Request(url, { method, headers: Object.entries(request.headers), body, signal });
}

function ignore() {}
