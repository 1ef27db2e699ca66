#!/usr/bin/env node
'use strict'
// The command `handoff` of the npm package: becomes the binary for this platform. Where
// Node cannot (process.execve: 22.15, 23.11), it stays in front of it, passes signals on,
// and ends as it does.
const { constants } = require('os')
const { findBinary } = require('../lib/binary')

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGTTIN', 'SIGTTOU', 'SIGWINCH']
const OF_A_TERMINAL = ['SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGWINCH'] // sent to all that run in front, the binary too

function find () {
  try {
    return findBinary()
  } catch (err) {
    console.error(err.message)
    process.exit(1)
  }
}

function standInFront (binary, args) {
  const terminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY
  let child = null
  const early = []
  for (const name of SIGNALS) {
    process.on(name, () => {
      if (terminal && OF_A_TERMINAL.includes(name)) return
      if (child) child.kill(name)
      else early.push(name)
    })
  }
  child = require('child_process').spawn(binary, args, { stdio: 'inherit' })
  for (const name of early) child.kill(name)
  child.on('error', (err) => {
    console.error(`handoff: cannot run ${binary}: ${err.message}`)
    process.exit(1)
  })
  child.on('exit', (code, signal) => {
    if (!signal) process.exit(code)
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
    setTimeout(() => process.exit(128 + constants.signals[signal]), 1000) // one that does not end Node
  })
}

const binary = find()
const args = process.argv.slice(2)
if (process.execve) process.execve(binary, [binary, ...args], process.env)
else standInFront(binary, args)
