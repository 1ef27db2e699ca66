'use strict'
// A worker, with the interface that cluster.Worker has in a primary. The mirror
// (mirror.js) reports its events; its methods call the master.
const cluster = require('cluster')
const { EventEmitter } = require('events')
const os = require('os')
const { codes, warn } = require('./errors')
const { Outbox } = require('./outbox')
const {
  kMaster, kOutbox, kForked, kOnline, kListening, kReady, kMessage, kLeaving, kDraining, kDisconnected, kExited
} = require('./symbols')

class Worker extends EventEmitter {
  constructor (master, { worker, slot, generation, port, pid }) {
    super()
    this.setMaxListeners(0)
    this.id = worker
    this.slot = slot
    this.generation = generation
    this.port = port
    this.state = 'none' // then online, listening, disconnecting, disconnected, dead
    this.exitedAfterDisconnect = undefined
    this.ready = false
    this.leaving = false // it must exit, or has asked to
    this.process = Object.assign(new EventEmitter(), {
      pid,
      connected: true,
      exitCode: null,
      signalCode: null,
      kill: (signal) => this.kill(signal),
      send: (...args) => this.send(...args)
    })
    Object.defineProperty(this, kMaster, { value: master })
    Object.defineProperty(this, kOutbox, {
      value: new Outbox(worker, {
        deliver: (body) => master.send(this, body),
        isOpen: () => this.process.connected && !master.ended,
        failed: (err) => notSent(this, err)
      })
    })
  }

  isConnected () { return this.process.connected }
  isDead () { return this.process.exitCode !== null || this.process.signalCode !== null }

  // send returns false if so much is queued that the caller should wait. An error goes to
  // the callback, else to the listeners of 'error', if any.
  send (message, handle, ...rest) {
    const done = [handle, ...rest].find((arg) => typeof arg === 'function')
    if (handle !== undefined && handle !== null && typeof handle !== 'function') {
      const err = new codes.HANDOFF_ERR_HANDLE_NOT_SUPPORTED()
      if (!done) throw err
      process.nextTick(done, err)
      return false
    }
    return this[kOutbox].send(message, done)
  }

  // kill returns whether the process exists; signal 0 only checks that.
  kill (signal = 'SIGTERM') {
    const name = signalName(signal)
    if (this.isDead()) return false
    if (name === 0) {
      try { return process.kill(this.process.pid, 0) } catch (err) { return err.code === 'EPERM' }
    }
    this[kMaster].signal(this, name).catch(() => {}) // it has ended
    return true
  }

  destroy (signal) { this.kill(signal) }

  // disconnect replaces the worker: its slot is always served.
  disconnect () {
    this.exitedAfterDisconnect = true
    this[kMaster].restart(this.slot).catch(() => {})
    return this
  }

  // Events, from the mirror; false: already known.

  [kForked] () {
    cluster.workers = cluster.workers || {}
    cluster.workers[this.id] = this
  }

  [kOnline] () {
    if (this.state !== 'none') return false
    this.state = 'online'
    this.emit('online')
    return true
  }

  [kListening] (address) {
    this.state = 'listening'
    this.emit('listening', address)
  }

  [kReady] () {
    if (this.ready) return false
    this.ready = true
    return true
  }

  [kMessage] (message) {
    this.emit('message', message)
    this.process.emit('message', message)
  }

  [kLeaving] () {
    if (this.leaving) return false
    this.leaving = true
    return true
  }

  [kDraining] () {
    this.exitedAfterDisconnect = true
    this.state = 'disconnecting'
  }

  [kDisconnected] () {
    if (!this.process.connected) return false
    this.process.connected = false
    if (this.state !== 'dead') this.state = 'disconnected'
    if (cluster.workers && cluster.workers[this.id] === this) delete cluster.workers[this.id]
    this.emit('disconnect')
    return true
  }

  [kExited] (code, signal) {
    this.state = 'dead'
    this.process.emit('exit', code, signal)
    this.emit('exit', code, signal)
  }
}

function signalName (signal) {
  const { signals } = os.constants
  if (signal === 0) return 0
  if (signal === null) return 'SIGTERM'
  let name = String(signal).toUpperCase()
  if (typeof signal === 'number') name = Object.keys(signals).find((n) => signals[n] === signal)
  else if (signals[name] === undefined) name = 'SIG' + name
  if (signals[name] === undefined) throw new codes.ERR_UNKNOWN_SIGNAL(signal)
  return name
}

// notSent reports a message without a callback. It ignores workers that are exiting: a
// broadcast can always meet some.
function notSent (worker, err) {
  if (!worker.process.connected || worker.leaving || worker[kMaster].ended || err.code === 'ERR_IPC_CHANNEL_CLOSED') return
  if (worker.listenerCount('error') > 0) worker.emit('error', err)
  else warn('HANDOFF_MESSAGE_DROPPED', `${err.message} (for worker ${worker.id})`)
}

module.exports = { Worker }
