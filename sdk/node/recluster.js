'use strict'
// recluster's interface (1.0.0), with handoff under it.
const cluster = require('cluster')
const os = require('os')
const { EventEmitter } = require('events')
const { Master } = require('./lib/master')

const isProduction = process.env.NODE_ENV === 'production'
const RUNNING = Symbol.for('handoff.recluster') // for sticky-listen

module.exports = function recluster (file, opt) {
  opt = opt || {}
  opt.workers = opt.workers || os.cpus().length
  // recluster's own second, where none is given, cuts requests that take longer.
  if (opt.timeout === undefined || opt.timeout === null) opt.timeout = isProduction ? 3600 : 30
  opt.readyWhen = opt.readyWhen || 'listening'
  opt.args = opt.args || []
  opt.execArgv = opt.execArgv || []
  opt.log = opt.log || { respawns: true }
  const logger = opt.logger || console
  const respawn = opt.respawn > 0 ? opt.respawn : 1
  const backoff = Math.max(opt.backoff || respawn, respawn)

  const self = new EventEmitter()
  const workers = []
  const activeWorkers = { length: opt.workers }
  const failures = {} // of slots, in a row
  const followers = new Set() // are called with each master
  let master = null
  let silent = false // after stop: nothing is told any more

  function emit (...args) { if (!silent) self.emit(...args) }

  function deactivate (w) {
    if (activeWorkers[w._rc_wid] === w) activeWorkers[w._rc_wid] = null
  }

  // The log says when, by the rule that handoff keeps.
  function mustBeReplaced (w) {
    if (w._rc_isReplaced || silent) return
    w._rc_isReplaced = true
    if (!opt.log.respawns) return
    const n = failures[w._rc_wid] = (failures[w._rc_wid] || 0) + 1
    const wait = n === 1 ? Math.max(respawn * 1000 - (Date.now() - w._rc_began), 0) : Math.min(respawn * 2 ** (n - 1), backoff) * 1000
    logger.log('[' + w.process.pid + '] worker (' + w._rc_wid + ':' + w.id + ') must be replaced, respawning in', Math.round(wait))
  }

  self.run = function () {
    if (!(cluster.isPrimary || cluster.isMaster) || master) return
    silent = false
    const readyWhen = ['listening', 'started'].includes(opt.readyWhen) ? opt.readyWhen : 'ready'
    master = new Master({
      exec: file,
      args: opt.args,
      execArgv: opt.execArgv,
      workers: opt.workers,
      flags: ['--ready-when', readyWhen, '--drain-timeout', seconds(opt.timeout), '--respawn', seconds(respawn), '--backoff', seconds(backoff),
        '--keepalive-linger', seconds(Math.min(6, opt.timeout)),
        ...(opt.readyTimeout === undefined ? [] : ['--ready-timeout', typeof opt.readyTimeout === 'number' ? seconds(opt.readyTimeout) : opt.readyTimeout])]
    })
    master.on('fork', (w) => {
      w._rc_wid = w.slot
      w._rc_isReplaced = false
      w._rc_began = Date.now()
      workers.push(w)
    })
    master.on('online', (w) => { w._rc_arg = undefined; emit('online', w) })
    master.on('listening', (w, address) => {
      if (readyWhen === 'listening') w._rc_arg = address
      emit('listening', w, address)
    })
    master.on('message', (w, message) => {
      if (readyWhen === 'ready' && message && message.cmd === 'ready') w._rc_arg = message
      emit('message', w, message)
    })
    master.on('ready', (w) => {
      failures[w._rc_wid] = 0
      activeWorkers[w._rc_wid] = w
      emit('ready', w, w._rc_arg)
    })
    master.on('leaving', (w) => {
      deactivate(w)
      if (w.exitedAfterDisconnect) { // handoff retires it
        w._rc_isReplaced = true
        return
      }
      mustBeReplaced(w)
      // Its time counts from now; it is not cut short before somebody else serves.
      const late = setTimeout(() => {
        if (workers.some((o) => o !== w && o._rc_wid === w._rc_wid && o.ready)) w.kill()
      }, opt.timeout * 1000)
      late.unref()
      w.once('exit', () => clearTimeout(late))
    })
    master.on('disconnect', (w) => emit('disconnect', w))
    master.on('exit', (w, code, signal) => {
      workers.splice(workers.indexOf(w), 1)
      deactivate(w)
      if (w.crashed) mustBeReplaced(w)
      emit('exit', w, code, signal)
    })
    master.on('end', (code, err) => {
      const was = master
      master = null
      if (was.stopping || !(err || code)) return
      err = err || new Error('handoff ended with code ' + code)
      if (self.listenerCount('error')) self.emit('error', err)
      else logger.log('recluster: the workers have ended, nobody starts them any more: ' + err.message)
    })
    master.start()
    for (const f of followers) f(master)
  }

  // reload calls back when every new worker is ready and the old ones are gone, or
  // with an error when the new code does not serve: the old serves on then.
  self.reload = function (cb) {
    if (!(cluster.isPrimary || cluster.isMaster)) return
    if (!master) return cb && process.nextTick(cb, new Error('it does not run'))
    master.reload().then(() => cb && cb(), (err) => cb && cb(err))
  }

  // terminate kills all workers, and calls back when they are gone.
  self.terminate = function (cb) {
    self.stop(true)
    if (!master) return cb && process.nextTick(cb)
    master.stopping = true
    master.stop({ now: true }).then(() => cb && cb())
  }

  // stop forgets the workers: none is replaced any more, nothing is told.
  self.stop = function (dead) {
    if (!(cluster.isPrimary || cluster.isMaster)) return
    silent = true
    if (master && dead !== true) master.freeze().catch(() => {})
  }

  self.workers = () => workers
  self.activeWorkers = () => activeWorkers
  // Whoever has the workers may know by whom they run: f is called with the master
  // that there is, and with each one that a later run() makes, until the answer is called.
  Object.defineProperty(activeWorkers, RUNNING, {
    value: (f) => {
      followers.add(f)
      if (master) f(master)
      return () => followers.delete(f)
    }
  })
  return self
}

function seconds (n) { return Math.round(n * 1000) + 'ms' }
