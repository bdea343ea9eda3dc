// The package that is being built: what its package.json says, and npm at work on it.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const LOCKS = ['package-lock.json', 'npm-shrinkwrap.json'];
const QUIET = ['--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=warn'];
const BUNDLES = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt'];
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
    const { MARTLET_CACHE: cache = '/tmp', NODE_EXTRA_CA_CERTS, SSL_CERT_FILE } = process.env;
    // Node.js brings certificates of its own, and does not look at those that the machine trusts.
    const trusted = [NODE_EXTRA_CA_CERTS, SSL_CERT_FILE, ...BUNDLES].find((file) => file && existsSync(file));
    // What npm waits before it tries again: 10 s and 60 s by default, longer than those wait who deploy.
    const patience = { npm_config_fetch_retry_mintimeout: '1000', npm_config_fetch_retry_maxtimeout: '5000' };
    try {
      execFileSync(process.execPath, [this.#npm, ...command], {
        stdio: ['ignore', 'inherit', 'inherit'],
        env: {
          ...patience,
          ...process.env,
          ...(trusted && { NODE_EXTRA_CA_CERTS: trusted }),
          NODE_ENV: '',
          npm_config_cache: join(cache, 'npm'),
        },
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
