'use strict'
// What a worker may say to handoff, and hear from it. Without handoff each of these
// does nothing, and says so in its value.
const { spawn } = require('child_process')

const env = process.env
const isHandoff = env.HANDOFF_GENERATION !== undefined && env.WORKER_ID !== undefined
const slot = isHandoff ? Number(env.WORKER_ID) : 0
const generation = isHandoff ? Number(env.HANDOFF_GENERATION) : 0
// Behind a launcher (npm, a shell) there is no channel: notices go by NOTIFY_SOCKET.
const channel = isHandoff && typeof process.send === 'function' && process.channel !== undefined
const notifier = env.HANDOFF_PRELOAD_NOTIFY

const DRAIN = Symbol.for('handoff.drain') // shared with the preload, and with other copies of this
const state = process[DRAIN] || (process[DRAIN] = { began: false, hooks: new Set(), listening: false, pending: null })

function say (message, notice) {
  if (channel && process.connected) {
    process.send(message, () => {})
    return true
  }
  if (isHandoff && notifier && env.NOTIFY_SOCKET) {
    spawn(notifier, ['notify', notice], { stdio: 'ignore' }).on('error', () => {}).unref()
    return true
  }
  return false
}

// ready says that the worker is warm, where handoff waits for it (--ready-when ready).
function ready () { return say({ cmd: 'ready' }, 'READY=1') }

// requestRestart asks for a replacement; when that serves, this worker drains.
function requestRestart () { return say({ cmd: 'disconnect' }, 'STOPPING=1') }

// reportRequests says how many requests this worker has served since its start, for
// --max-requests. (Node's own http servers are counted without it.)
function reportRequests (n) {
  if (!Number.isSafeInteger(n) || n < 0) throw new TypeError('reportRequests: want a number of requests')
  return say({ cmd: 'handoff:requests', requests: n }, 'X_REQUESTS=' + n)
}

// onDrain has fn called when the worker is to finish; what it returns is awaited
// before the worker exits, for timeout ms at most (20 s). It returns what takes fn
// out again.
function onDrain (fn, { timeout = 20000 } = {}) {
  if (typeof fn !== 'function') throw new TypeError('onDrain: want a function')
  const hook = { fn, timeout }
  state.hooks.add(hook)
  listen()
  if (state.began) run([hook])
  return () => state.hooks.delete(hook)
}

// listen hears the order to drain: the channel's, or the signal.
function listen () {
  if (!isHandoff || state.listening) return
  state.listening = true
  if (channel) {
    process.prependListener('internalMessage', (message) => {
      if (message && message.cmd === 'NODE_HANDOFF' && message.act === 'drain') begin()
    })
    // The cluster module closes the channel when the servers are, and handoff takes
    // that for the end.
    const disconnect = process.disconnect
    process.disconnect = function () {
      if (!state.pending) return disconnect.apply(this, arguments)
      state.pending.then(() => { if (process.connected) disconnect.call(process) })
    }
  } else {
    process.on('SIG' + (env.HANDOFF_DRAIN_SIGNAL || 'TERM').replace(/^SIG/, ''), begin)
  }
}

function begin () {
  if (state.began) return
  state.began = true
  run([...state.hooks])
}

function run (hooks) {
  const stay = setInterval(() => {}, 1 << 30) // the process has something to do
  const all = Promise.all(hooks.map(({ fn, timeout }) => new Promise((resolve) => {
    const late = setTimeout(resolve, timeout)
    Promise.resolve().then(fn).catch((err) => {
      console.error('handoff: a drain hook failed:', err)
    }).finally(() => { clearTimeout(late); resolve() })
  })))
  const pending = Promise.all([state.pending, all]).then(() => {
    clearInterval(stay)
    if (state.pending === pending) state.pending = null
  })
  state.pending = pending
}

module.exports = { isHandoff, slot, generation, ready, onDrain, requestRestart, reportRequests }
