// Keeps what a process leaves lying between requests away from its limit of memory.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const HIGH = 0.75; // of the limit: more than this, and what is left of past requests is collected
const INTERVAL = 250; // milliseconds between looks: what is no garbage is not searched for over and over

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
  let next = 0;
  return () => {
    const now = performance.now();
    if (now < next) return;
    next = now + INTERVAL;
    if (process.memoryUsage.rss() > HIGH * memory) collect();
  };
}

