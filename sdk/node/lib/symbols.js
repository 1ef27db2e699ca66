'use strict'
// Private members of objects that programs use.
module.exports = {
  // Worker: the events from the mirror, and the master that it calls.
  kMaster: Symbol('handoff.master'),
  kOutbox: Symbol('handoff.outbox'),
  kForked: Symbol('handoff.forked'),
  kOnline: Symbol('handoff.online'),
  kListening: Symbol('handoff.listening'),
  kReady: Symbol('handoff.ready'),
  kMessage: Symbol('handoff.message'),
  kLeaving: Symbol('handoff.leaving'),
  kDraining: Symbol('handoff.draining'),
  kDisconnected: Symbol('handoff.disconnected'),
  kExited: Symbol('handoff.exited'),
  // What the drop-ins store on a worker.
  kInfo: Symbol('handoff.info'),
  // recluster's active workers: a function that follows the master they run under.
  // Registered, so that several copies of this package agree on it.
  kFollow: Symbol.for('handoff.recluster')
}
