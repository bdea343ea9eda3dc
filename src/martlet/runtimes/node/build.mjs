// Installs the packages of a function and runs its own build: `node build.mjs NPM`. Source and result are one folder.

import process from 'node:process';

import { Package } from './package.mjs';

new Package(process.argv[2]).build();
