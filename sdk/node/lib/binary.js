'use strict'
// Finds the handoff binary: HANDOFF_BIN, the package for this platform, PATH. What PATH
// has may be this package's own command (node_modules/.bin), which looks here, too.
const fs = require('fs')
const path = require('path')
const { codes } = require('./errors')

function runs (file) {
  try {
    fs.accessSync(file, fs.constants.X_OK)
    return fs.statSync(file).isFile()
  } catch (err) {
    return false
  }
}

const OWN = path.join('@handoff', 'node', 'bin', 'handoff.js')

function isOwn (file) {
  const real = fs.realpathSync(file)
  return real === path.join(__dirname, '..', 'bin', 'handoff.js') || real.endsWith(path.sep + OWN)
}

function findBinary (env = process.env) {
  if (env.HANDOFF_BIN) {
    const file = path.resolve(env.HANDOFF_BIN)
    if (runs(file)) return file
    throw new codes.HANDOFF_ERR_BINARY_NOT_EXECUTABLE(env.HANDOFF_BIN)
  }
  const name = `@handoff/${process.platform}-${process.arch}`
  try {
    const file = require.resolve(name + '/bin/handoff')
    if (runs(file)) return file
  } catch (err) {} // it is not installed
  for (const dir of (env.PATH || '').split(path.delimiter)) {
    const file = path.join(dir, 'handoff')
    if (dir && runs(file) && !isOwn(file)) return file
  }
  throw new codes.HANDOFF_ERR_BINARY_NOT_FOUND(name)
}

module.exports = { findBinary }
