// The package that is being built: what its package.json says, and npm at work on it.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const LOCKS = ['package-lock.json', 'npm-shrinkwrap.json'];
const QUIET = ['--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=warn'];
const TOLD = 4;

/** Ends the build, and says which field of the deploy is to blame and why. */
export function refuse(field, message) {
  writeSync(TOLD, `${JSON.stringify({ field, message })}\n`);
  process.exit(1);
}

export class Package {
  #npm;

  /** `npm`: its path. The package is in the working directory. */
  constructor(npm) {
    this.#npm = realpathSync(npm);
    this.manifest = read('package.json');
    this.asked = (process.env.MARTLET_DEPENDENCIES ?? '').split('\n').filter(Boolean);
  }

  get hasBuild() {
    return Boolean(this.manifest.scripts?.build);
  }

  get #needsPackages() {
    const { dependencies, optionalDependencies, workspaces } = this.manifest;
    return [dependencies, optionalDependencies, workspaces].some((names) => names && Object.keys(names).length > 0);
  }

  /** Installs what it depends on, and runs its own build if it has one. npm is not run where there is nothing to do. */
  build() {
    const lean = this.hasBuild ? [] : ['--omit=dev'];
    if (this.#needsPackages || (this.hasBuild && this.manifest.devDependencies)) {
      this.#run(LOCKS.some(existsSync) ? 'ci' : 'install', ...lean, ...QUIET);
    }
    if (this.asked.length > 0) this.#run('install', ...lean, ...QUIET, '--', ...this.asked);
    if (!this.hasBuild) return;
    this.#run('run', 'build');
    if (existsSync('node_modules')) this.#run('prune', '--omit=dev', ...QUIET);
  }

  #run(...command) {
    const cache = join(process.env.MARTLET_CACHE ?? '/tmp', 'npm');
    try {
      execFileSync(process.execPath, [this.#npm, ...command], {
        stdio: ['ignore', 'inherit', 'inherit'],
        env: { ...process.env, NODE_ENV: '', npm_config_cache: cache },
      });
    } catch ({ status }) {
      process.exit(status || 1);
    }
  }
}

function read(name) {
  if (!existsSync(name)) return {};
  try {
    return JSON.parse(readFileSync(name, 'utf8'));
  } catch (error) {
    return refuse('code', `${name} is not JSON: ${error.message}`);
  }
}
