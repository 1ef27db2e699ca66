'use strict'
// What a worker and handoff tell each other. Without handoff these functions have no
// effect, and return false.
const { spawn } = require('child_process')
const { codes } = require('./lib/errors')

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
    notices.set(notice.split('=')[0], notice)
    notify()
    return true
  }
  return false
}

const COUNT = 'X_REQUESTS'
const COUNT_MS = 1000 // from one count of requests to the next, at least
const notices = new Map() // notices to send, by key: the latest counts
let notifying = false
let counted = null // the timer of the next count

// notify sends the notices, by one process at a time.
function notify () {
  const word = [...notices.keys()].find((w) => w !== COUNT || !counted)
  if (notifying || !word) return
  if (word === COUNT) counted = setTimeout(() => { counted = null; notify() }, COUNT_MS).unref()
  notifying = true
  const child = spawn(notifier, ['notify', notices.get(word)], { stdio: 'ignore' })
  notices.delete(word)
  const again = () => { notifying = false; notify() }
  child.once('error', again).once('exit', again).unref()
}

// ready reports that the worker can serve, if handoff waits for it (--ready-when ready).
function ready () { return say({ cmd: 'ready' }, 'READY=1') }

// requestRestart requests a replacement; when that serves, this worker drains.
function requestRestart () { return say({ cmd: 'disconnect' }, 'STOPPING=1') }

// reportRequests reports how many requests this worker has served since its start, for
// --max-requests. (Node's own http servers are counted without it.)
function reportRequests (n) {
  if (!Number.isSafeInteger(n) || n < 0) throw new codes.HANDOFF_ERR_INVALID_ARGUMENT('reportRequests: want a number of requests')
  return say({ cmd: 'handoff:requests', requests: n }, 'X_REQUESTS=' + n)
}

// onDrain calls fn when the worker must finish, and waits for the promise that fn returns
// before the worker exits, for at most timeout ms (20 s). It returns a function that
// removes fn.
function onDrain (fn, { timeout = 20000 } = {}) {
  if (typeof fn !== 'function') throw new codes.HANDOFF_ERR_INVALID_ARGUMENT('onDrain: want a function')
  const hook = { fn, timeout }
  state.hooks.add(hook)
  listen()
  if (state.began) run([hook])
  return () => state.hooks.delete(hook)
}

// listen waits for the order to drain: a message on the channel, or the signal.
function listen () {
  if (!isHandoff || state.listening) return
  state.listening = true
  if (channel) {
    process.prependListener('internalMessage', (message) => {
      if (message && message.cmd === 'NODE_HANDOFF' && message.act === 'drain') begin()
    })
    // The cluster module closes the channel when the servers are closed, which tells
    // handoff that the worker has finished.
    const disconnect = process.disconnect
    process.disconnect = function () {
      if (!state.pending) return disconnect.apply(this, arguments)
      state.pending.then(() => { if (process.connected) disconnect.call(process) })
    }
  } else {
    process.prependListener(SIGNAL, signalled)
  }
}

const SIGNAL = 'SIG' + (env.HANDOFF_DRAIN_SIGNAL || 'TERM').replace(/^SIG/, '')

// signalled handles the signal. A listener disables the signal's default effect. If
// neither the program nor the preload has one, the signal is raised again after the
// hooks; a second signal, after the drain timeout, immediately.
function signalled () {
  const alone = () => process.listenerCount(SIGNAL) === 1
  const raise = () => {
    process.removeListener(SIGNAL, signalled)
    process.kill(process.pid, SIGNAL)
  }
  if (state.began) {
    if (alone()) raise()
    else process.removeListener(SIGNAL, signalled)
    return
  }
  const mine = alone() // now: a once listener is removed later
  begin()
  const after = () => {
    if (state.pending) state.pending.then(after)
    else if (mine && alone()) raise()
  }
  after()
}

function begin () {
  if (state.began) return
  state.began = true
  run([...state.hooks])
}

function run (hooks) {
  const stay = setInterval(() => {}, 1 << 30) // keeps the process alive
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

// Under the preload, which has the signal first, and calls other listeners later.
state.begin = begin
state.signalled = signalled

module.exports = { isHandoff, slot, generation, ready, onDrain, requestRestart, reportRequests }
