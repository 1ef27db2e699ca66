'use strict'
// cluster-master's interface (0.2.1), with handoff under it.
const cluster = require('cluster')
const os = require('os')
const util = require('util')
const { codes } = require('./lib/errors')
const { Master, milliseconds, seconds } = require('./lib/master')
const { capture } = require('./lib/output')
const { Repl } = require('./lib/repl')

const STOP_MS = 30000 // the original waits forever

let master = null
let size = 0
let restarting = false
let quitting = false
let hard = false
let danger = false
let repl = null // null: none
const waiting = [] // callbacks of restarts during a restart

module.exports = exports = clusterMaster
exports.restart = restart
exports.resize = resize
exports.quitHard = quitHard
exports.quit = quit

function debug (...args) {
  console.error(...args)
  if (repl) repl.print(util.format(...args))
}

function clusterMaster (c) {
  if (cluster.isWorker || process.env.HANDOFF_GENERATION) throw new codes.HANDOFF_ERR_IN_WORKER()
  if (master) throw new codes.HANDOFF_ERR_ALREADY_STARTED()
  if (typeof c === 'string') c = { exec: c }
  if (!c || !c.exec) throw new codes.HANDOFF_ERR_INVALID_ARGUMENT("Must define a 'exec' script")
  size = c.size || os.cpus().length
  const minRestartAge = c.minRestartAge === undefined ? 2000 : c.minRestartAge
  const stop = c.stopTimeout === undefined ? STOP_MS : c.stopTimeout
  const onMessage = c.onMessage || c.onmessage
  master = new Master({
    exec: c.exec,
    args: c.args || c.argv || [],
    execArgv: c.execArgv || process.execArgv,
    env: c.env,
    workers: size,
    silent: c.silent,
    settings: {
      readyTimeout: seconds(c.readyTimeout),
      canary: milliseconds(minRestartAge),
      drainTimeout: milliseconds(stop),
      respawn: '1s',
      maxFailures: 3
    }
  })
  if (c.silent) capture(master, debug)
  master.on('fork', (w) => {
    debug('Worker %j setting up', w.id)
    w.birth = Date.now()
    Object.defineProperty(w, 'age', { get: () => Date.now() - w.birth, enumerable: true, configurable: true })
    w.pid = w.process.pid
    if (onMessage) w.on('message', function (message) { onMessage.call(w, message) })
  })
  master.on('disconnect', (w) => debug('Worker %j disconnect', w.id))
  master.on('event', (e, w) => { if (e.event === 'worker.killed' && w) debug('Worker %j, forcefully killing', w.id) })
  master.on('exit', (w, code, signal) => {
    if (w.crashed) {
      debug('Worker %j exited abnormally', w.id)
      if (w.age < minRestartAge) {
        danger = true
        debug('Worker %j died too quickly, danger', w.id)
      }
    } else debug('Worker %j exited', w.id)
  })
  master.on('end', (code, err) => {
    closeRepl()
    if (quitting) return
    if (err) debug('DANGER! something bad has happened')
    process.exit(1)
  })
  process.on('exit', closeRepl)
  if (c.signals !== false) {
    let interrupted = false
    process.on('SIGHUP', () => restart())
    process.on('SIGINT', () => {
      if (interrupted) return quitHard()
      interrupted = true
      quit()
    })
    process.on('SIGTERM', () => quit())
  }
  debug('resize and then setup repl')
  master.start()
  master.once('live', () => { danger = false })
  setupRepl(c.repl)
}

function check () { if (!master) throw new codes.HANDOFF_ERR_NOT_RUNNING('call clusterMaster(config) first') }

// restart calls back when every new worker serves and the old ones have exited, or with
// an error if the new code does not serve: the previous workers continue. A restart
// during another calls back with it.
function restart (cb) {
  check()
  if (typeof cb !== 'function') cb = null
  if (restarting) {
    debug('Already restarting.  Cannot restart yet.')
    if (cb) waiting.push(cb)
    return
  }
  restarting = true
  const current = [...master.workers.values()].filter((w) => !w.leaving).length
  if (current !== size) debug('resize %d -> %d, change = %d', current, size, size - current)
  let i = 0
  debug('graceful %d of %d', i, size)
  const count = (w) => { if (w.exitedAfterDisconnect) debug('graceful %d of %d', ++i, size) }
  master.on('exit', count)
  master.reload().then(() => {
    if (current !== size) debug('resize cb')
    debug('graceful completion')
    danger = false
  }, (err) => {
    if (!quitting) {
      debug('New worker died quickly. Aborting restart.')
      debug(err.message)
    }
    return err
  }).then((err) => {
    master.removeListener('exit', count)
    restarting = false
    for (const f of [cb, ...waiting.splice(0)]) if (f) err ? f(err) : f()
  })
}

// resize calls back when that many workers serve.
function resize (n, cb) {
  check()
  if (typeof n === 'function') { cb = n; n = size }
  if (n === undefined || n === null) n = size
  n = +n
  if (!Number.isInteger(n) || n < 0) throw new codes.HANDOFF_ERR_INVALID_ARGUMENT('resize: want a number of workers')
  if (n === 0) return quit(cb)
  const before = size
  debug('resize %d -> %d, change = %d', before, n, n - before)
  size = n
  if (n > before) debug('resizing up %d', n - before)
  for (const w of master.workers.values()) if (w.slot >= n && !w.leaving) debug('resizing down %d', w.id)
  master.scale(n).then(() => master.until(() => {
    if (size !== n) return true // superseded
    const all = [...master.workers.values()]
    return all.length === n && all.every((w) => w.ready) && new Set(all.map((w) => w.slot)).size === n
  }, 'ready', 'exit')).then(() => {
    debug('done resizing')
    danger = false
    if (cb) cb()
  }, (err) => { if (cb) cb(err) })
}

function quit (cb) {
  check()
  if (quitting) return quitHard()
  quitting = true
  debug('Graceful shutdown...')
  master.stop().then(() => {
    if (hard) return
    debug('Graceful shutdown successful')
    if (typeof cb === 'function') cb()
    process.exit(0)
  })
}

function quitHard () {
  check()
  quitting = hard = true
  debug('Forceful shutdown')
  master.stop({ now: true }).then(() => process.exit(1))
}

function setupRepl (address) {
  if (address === undefined) address = process.env.CLUSTER_MASTER_REPL || 'cluster-master-socket'
  if (address === null || address === false || address === 'null' || address === 'false') return
  debug('setup repl')
  repl = new Repl(context, debug)
  repl.listen(address)
}

function closeRepl () {
  if (repl) repl.close()
}

// context is the context of a REPL session.
const context = {
  resize,
  restart,
  stop: quit,
  kill: quitHard,
  cluster,
  get size () { return size },
  get connections () { return repl.connections },
  get workers () { return [...master.workers.values()].map((w) => new Worker(w)) },
  select,
  get pids () { return select('pid') },
  get ages () { return select('age') },
  get states () { return select('state') },
  get danger () { return danger },
  debug
}

// select is a map of ids to a field of the workers.
function select (field) {
  const all = {}
  for (const w of master.workers.values()) all[w.id] = w[field]
  return all
}

// Worker is a worker as the REPL shows it.
class Worker {
  constructor (w) {
    this.id = String(w.id)
    this.pid = w.pid
    this.state = w.state
    this.age = w.age
    Object.defineProperty(this, 'disconnect', { value: () => { w.disconnect() } })
    Object.defineProperty(this, 'kill', { value: (signal) => { w.kill(signal) } })
  }
}
