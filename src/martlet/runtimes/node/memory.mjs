// Keeps garbage away from the limit of memory: within a request, and between requests.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const HIGH = 0.75; // of the limit: more than this, and what is left of past requests is collected
const INTERVAL = 250; // milliseconds between looks: what is no garbage is not searched for over and over

// Less than this, and the heap grows in small steps, whatever time that takes. How far it may grow is decided when V8
// starts, but by which steps it asks whenever it has collected.
const SMALL = 256 * 2 ** 20;
const SMALL_STEPS = ['--semi-space-growth-factor=1', '--heap-growing-percent=30'];

const collect = collector();

function collector() {
  if (globalThis.Bun) return () => globalThis.Bun.gc(true);
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc');
}

/**
 * Returns what is to be called after a request. The heap's own limit is decided when a process starts, and this one has
 * been started before anybody knew what the function may use (`memory`, bytes).
 */
export function boundMemory(memory) {
  if (memory < SMALL && !globalThis.Bun) SMALL_STEPS.forEach((flag) => setFlagsFromString(flag));
  let next = 0;
  return () => {
    const now = performance.now();
    if (now < next) return;
    next = now + INTERVAL;
    if (process.memoryUsage.rss() > HIGH * memory) collect();
  };
}

