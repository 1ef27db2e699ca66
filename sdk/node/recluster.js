'use strict'
// recluster's interface (1.0.0), with handoff under it.
const cluster = require('cluster')
const os = require('os')
const { EventEmitter } = require('events')
const { codes } = require('./lib/errors')
const { Master, seconds } = require('./lib/master')
const { kFollow, kInfo } = require('./lib/symbols')

const isProduction = process.env.NODE_ENV === 'production'

module.exports = function recluster (file, opt) {
  opt = opt || {}
  opt.workers = opt.workers || os.cpus().length
  // recluster's default of one second would cut off longer requests.
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
  const followers = new Set() // called with each master
  let master = null
  let silent = false // after stop: no more events

  function emit (...args) { if (!silent) self.emit(...args) }

  function deactivate (w) {
    if (activeWorkers[w._rc_wid] === w) activeWorkers[w._rc_wid] = null
  }

  // logReplaced logs when the replacement starts, by handoff's own rule.
  function logReplaced (w) {
    if (w._rc_isReplaced || silent) return
    w._rc_isReplaced = true
    if (!opt.log.respawns) return
    const n = failures[w._rc_wid] = (failures[w._rc_wid] || 0) + 1
    const wait = n === 1 ? Math.max(respawn * 1000 - (Date.now() - w[kInfo].began), 0) : Math.min(respawn * 2 ** (n - 1), backoff) * 1000
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
      settings: {
        readyWhen,
        readyTimeout: seconds(opt.readyTimeout),
        drainTimeout: seconds(opt.timeout),
        respawn: seconds(respawn),
        backoff: seconds(backoff),
        keepaliveLinger: seconds(Math.min(6, opt.timeout))
      }
    })
    master.on('fork', (w) => {
      w._rc_wid = w.slot
      w._rc_isReplaced = false
      w[kInfo] = { began: Date.now(), arg: undefined } // arg: what 'ready' passes on
      workers.push(w)
      if (silent && !master.stopping) w.kill() // a replacement that was started while stop() was in progress
    })
    master.on('online', (w) => emit('online', w))
    master.on('listening', (w, address) => {
      if (readyWhen === 'listening') w[kInfo].arg = address
      emit('listening', w, address)
    })
    master.on('message', (w, message) => {
      if (readyWhen === 'ready' && message && message.cmd === 'ready') w[kInfo].arg = message
      emit('message', w, message)
    })
    master.on('ready', (w) => {
      failures[w._rc_wid] = 0
      activeWorkers[w._rc_wid] = w
      emit('ready', w, w[kInfo].arg)
    })
    master.on('leaving', (w) => {
      deactivate(w)
      if (w.exitedAfterDisconnect) { // handoff drains it
        w._rc_isReplaced = true
        return
      }
      logReplaced(w)
      // Its timeout counts from now: it is not killed before another worker serves.
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
      if (w.crashed) logReplaced(w)
      emit('exit', w, code, signal)
    })
    master.on('end', (code, err) => {
      const was = master
      master = null
      if (was.stopping || !err) return
      if (self.listenerCount('error')) self.emit('error', err)
      else logger.log('recluster: the workers have ended and are not restarted: ' + err.message)
    })
    master.start()
    for (const f of followers) f(master)
  }

  // reload calls back when every new worker is ready and the old ones have exited, or
  // with an error if the new code does not serve: the previous workers continue.
  self.reload = function (cb) {
    if (!(cluster.isPrimary || cluster.isMaster)) return
    if (!master) return cb && process.nextTick(cb, new codes.HANDOFF_ERR_NOT_RUNNING('call run() first'))
    master.reload().then(() => cb && cb(), (err) => cb && cb(err))
  }

  // terminate kills all workers, and calls back when they have exited.
  self.terminate = function (cb) {
    self.stop(true)
    if (!master) return cb && process.nextTick(cb)
    master.stopping = true
    master.stop({ now: true }).then(() => cb && cb())
  }

  // stop ends the supervision: no worker is replaced any more, and there are no more
  // events.
  self.stop = function (dead) {
    if (!(cluster.isPrimary || cluster.isMaster)) return
    silent = true
    if (master && dead !== true) master.freeze().catch(() => {})
  }

  self.workers = () => workers
  self.activeWorkers = () => activeWorkers
  // For sticky-listen: f is called with the master, and with each one that a later run()
  // makes, until the function returned is called.
  Object.defineProperty(activeWorkers, kFollow, {
    value: (f) => {
      followers.add(f)
      if (master) f(master)
      return () => followers.delete(f)
    }
  })
  return self
}
