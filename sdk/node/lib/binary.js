'use strict'
// Finds the handoff binary: HANDOFF_BIN, the package for this platform, PATH.
const fs = require('fs')
const path = require('path')

function runs (file) {
  try {
    fs.accessSync(file, fs.constants.X_OK)
    return fs.statSync(file).isFile()
  } catch (err) {
    return false
  }
}

function findBinary (env = process.env) {
  if (env.HANDOFF_BIN) {
    const file = path.resolve(env.HANDOFF_BIN)
    if (runs(file)) return file
    throw new Error(`handoff: HANDOFF_BIN is ${env.HANDOFF_BIN}, which is not an executable file`)
  }
  const name = `@handoff/${process.platform}-${process.arch}`
  try {
    const file = require.resolve(name + '/bin/handoff')
    if (runs(file)) return file
  } catch (err) {} // it is not installed
  for (const dir of (env.PATH || '').split(path.delimiter)) {
    if (dir && runs(path.join(dir, 'handoff'))) return path.join(dir, 'handoff')
  }
  throw new Error(`handoff: no binary found. Install ${name} (npm install leaves it out with --omit=optional), set HANDOFF_BIN to one, or put it into PATH`)
}

module.exports = { findBinary }
