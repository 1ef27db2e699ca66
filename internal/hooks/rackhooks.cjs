'use strict'
// Runs RackMan's .rackhooks.js beside handoff: one event a line on stdin. The file
// is loaded anew when it has changed; a hook that throws is one line, and hurts
// nobody.
const fs = require('fs')
const file = process.argv[process.argv.length - 1]
const names = { // handoff's event -> the hook, and what it is given
  'cluster.started': ['cluster', 'started'],
  'cluster.shutdown': ['cluster', 'shutdown'],
  'cluster.reloading': ['cluster', 'reloading'],
  'cluster.changed': ['cluster', 'changed', 'file'],
  'worker.ready': ['worker', 'started', 'port'],
  'worker.shutdown': ['worker', 'shutdown', 'port'],
  'worker.crashed': ['worker', 'crashed', 'port']
}
let stamp, hooks = {}

function say (text) { process.stderr.write(String(text).replace(/\n/g, ' ') + '\n') }

function load () {
  let now
  try {
    const s = fs.statSync(file)
    now = [s.ino, s.size, s.mtimeMs].join()
  } catch (err) {
    hooks = {}
    stamp = undefined
    return
  }
  if (now === stamp) return
  stamp = now
  try {
    delete require.cache[require.resolve(file)]
    hooks = require(file) || {}
  } catch (err) {
    hooks = {}
    say('Error in ' + file + ': ' + (err && err.message))
  }
}

function call (event) {
  const name = names[event.event]
  if (!name) return
  load()
  const hook = hooks[name[0]] && hooks[name[0]][name[1]]
  if (typeof hook !== 'function') return
  const wrong = (err) => say('Error in ' + name[0] + name[1][0].toUpperCase() + name[1].slice(1) + ' hook: ' + (err && err.message))
  try {
    const done = name[2] ? hook(event[name[2]]) : hook()
    if (done && typeof done.then === 'function') done.then(undefined, wrong)
  } catch (err) { wrong(err) }
}

process.on('uncaughtException', (err) => say('Error in a hook: ' + (err && err.message)))
process.on('unhandledRejection', (err) => say('Error in a hook: ' + (err && err.message)))
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2']) process.on(signal, () => {}) // it ends with its stdin

let rest = ''
process.stdin.setEncoding('utf8')
process.stdin.on('data', (text) => {
  const lines = (rest + text).split('\n')
  rest = lines.pop()
  for (const line of lines) {
    let event
    try { event = JSON.parse(line) } catch (err) { continue }
    call(event)
  }
})
// The master has ended: the next one starts another.
process.stdin.on('end', () => setTimeout(() => process.exit(), 1000))
load()
