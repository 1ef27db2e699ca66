'use strict'
// The workers of a master as the caller sees them, from its events. If events are lost,
// the status replaces them.
const { warn } = require('./errors')
const {
  kForked, kOnline, kListening, kReady, kMessage, kLeaving, kDraining, kDisconnected, kExited
} = require('./symbols')
const { Worker } = require('./worker')

const kEarly = Symbol('early')
const kApply = Symbol('apply')
const kReconcile = Symbol('reconcile')

class Mirror {
  // master emits the events; sync() requests the status among them, and returns a
  // promise.
  constructor (master, sync) {
    this.master = master
    this.sync = sync
    this.workers = new Map() // by id
    this.live = 0 // the generation that serves
    this[kEarly] = null // until a requested status arrives: events of workers not known yet
  }

  // follow of client.js calls these.

  event (e) {
    const known = this.workers.has(e.worker)
    if (!known && this[kEarly] && e.worker !== undefined && e.event !== 'worker.started') {
      this[kEarly].push(e)
      return
    }
    this[kApply](e)
  }

  lost (n) {
    warn('HANDOFF_EVENTS_LOST', `handoff: this process was busy for too long; ${n} events and messages of workers are lost`)
    this.replaced()
  }

  replaced () {
    this[kEarly] = this[kEarly] || []
    this.sync().catch(() => { this[kEarly] = null }) // handoff ends, or another master takes over
  }

  // end: handoff has ended, and so has every worker.
  end () {
    for (const w of [...this.workers.values()]) this[kExited](w, null, null, false)
  }

  [kApply] (e) {
    const w = this.workers.get(e.worker)
    const f = APPLY[e.event]
    if (f) f(this, e, w)
    this.master.emit('event', e, w)
  }

  // [kReconcile] applies the events that were lost, as far as the status shows them.
  [kReconcile] (status) {
    const early = this[kEarly] || []
    this[kEarly] = null
    const there = new Map(status.workers.map((ws) => [ws.worker, ws]))
    for (const w of [...this.workers.values()]) if (!there.has(w.id)) this[kExited](w, null, null, false)
    for (const ws of there.values()) {
      const apply = (event) => this[kApply]({ ...ws, event })
      if (!this.workers.has(ws.worker)) apply('worker.started')
      const w = this.workers.get(ws.worker)
      if (w.state === 'none' && ws.ready_at) apply('node.online')
      if (!w.ready && ws.ready_at) apply('worker.ready')
      if (ws.phase === 'draining' && !w.exitedAfterDisconnect) apply('worker.draining')
      else if (ws.phase === 'quieting') this[kLeaving](w)
    }
    for (const e of early) if (this.workers.has(e.worker)) this[kApply](e)
    if (status.generation > this.live) this[kApply]({ event: 'cluster.reloaded', generation: status.generation })
  }

  [kLeaving] (w) {
    if (w[kLeaving]()) this.master.emit('leaving', w)
  }

  [kDisconnected] (w) {
    if (w[kDisconnected]()) this.master.emit('disconnect', w)
  }

  [kExited] (w, code, signal, crashed) {
    this.workers.delete(w.id)
    w.process.exitCode = code === null && signal === null ? 0 : code
    w.process.signalCode = signal
    w.crashed = crashed
    this[kDisconnected](w)
    w[kExited](code, signal)
    this.master.emit('exit', w, code, signal)
  }
}

// The handlers of the events: f(mirror, event, worker); worker is undefined if it is
// unknown.
const ended = (m, e, w) => {
  if (w) m[kExited](w, e.code === undefined ? null : e.code, e.killed_by || null, e.event === 'worker.crashed')
}
const serves = (m, e) => {
  if (!(e.generation > m.live)) return // already known from the status
  m.live = e.generation
  m.master.emit('live', e.generation)
}
const noReload = (m) => m.master.emit('unsettled')

const APPLY = {
  'worker.started' (m, e, w) {
    if (w) return
    w = new Worker(m.master, e)
    m.workers.set(w.id, w)
    w[kForked]()
    m.master.emit('fork', w)
  },
  'node.online' (m, e, w) { if (w && w[kOnline]()) m.master.emit('online', w) },
  'node.listening' (m, e, w) {
    if (!w) return
    w[kListening](e.address)
    m.master.emit('listening', w, e.address)
  },
  'worker.ready' (m, e, w) { if (w && w[kReady]()) m.master.emit('ready', w) },
  'node.message' (m, e, w) {
    if (!w) return
    if (e.message && e.message.cmd === 'disconnect') m[kLeaving](w)
    w[kMessage](e.message)
    m.master.emit('message', w, e.message)
  },
  'worker.leaving' (m, e, w) { if (w) m[kLeaving](w) },
  'worker.draining' (m, e, w) {
    if (!w) return
    w[kDraining]()
    m[kLeaving](w)
    m.master.emit('draining', w)
  },
  'node.disconnect' (m, e, w) { if (w) m[kDisconnected](w) },
  'worker.shutdown': ended,
  'worker.crashed': ended,
  'worker.lost': ended,
  'cluster.started': serves,
  'cluster.reloaded': serves,
  'cluster.failed' (m, e) {
    if (e.generation !== undefined) m.master.emit('failed', e.generation, e.reason, e.stderr)
  },
  'reload.refused': noReload,
  'config.failed': noReload,
  'upgrade.failed': noReload,
  'cluster.status' (m, e) {
    m[kReconcile](e.status)
    m.master.emit('unsettled')
  },
  'worker.garbled' (m, e) {
    warn('HANDOFF_MESSAGE_DROPPED', `handoff: worker ${e.worker} (slot ${e.slot}, pid ${e.pid}): ${e.msg}`)
  },
  'told.lost' (m, e) {
    warn('HANDOFF_EVENTS_LOST', `handoff: this process was busy for too long; ${e.messages} messages of workers are lost`)
  }
}

module.exports = { Mirror }
