'use strict'
// sticky-listen's interface (3.3.0), with handoff's sticky balance under it: the
// kernel chooses a worker by the client's address, and the master sees no connection.
//
// The kernel does not read requests: behindProxy and cipHeader, which choose by a header,
// are an error. Behind a proxy let the proxy choose, with a port for each worker
// (handoff run --ports; examples/nginx).
const { EventEmitter } = require('events')
const { codes } = require('./lib/errors')
const { kFollow } = require('./lib/symbols')

const HOLD_MS = 1000
const LISTEN = 'sticky:listen'

// createBalancer is for the primary process: its listen sends the address to the workers,
// also to later ones.
function createBalancer (options) {
  if (!options || typeof options.activeWorkers !== 'function') throw new codes.HANDOFF_ERR_INVALID_ARGUMENT('Must provide activeWorkers option (returns a list of worker processes)')
  if (options.behindProxy || options.cipHeader) {
    throw new codes.HANDOFF_ERR_NOT_SUPPORTED('sticky-listen under handoff chooses by the client\'s address, in the kernel: behindProxy and cipHeader are not supported. Give each worker a port (handoff run --ports) and let the proxy choose')
  }
  const balancer = new EventEmitter()
  let master = null
  let forget = null // stops following recluster's masters
  let where = null
  let open = false
  const there = new Set() // workers that listen
  const tell = (w) => { if (where) w.send({ msg: LISTEN, where }, () => {}) }
  const gone = (w) => there.delete(w.id)
  // It listens when every worker does and the kernel steers to all of them: until then
  // each new worker would move clients. A status requested now follows the steering.
  const look = () => {
    if (open || !where || !master.live || there.size < master.options.workers) return
    open = true
    const m = master
    m.status().then(() => { if (master === m && where) balancer.emit('listening') }, () => {}) // or the master has ended
  }
  const listening = (w, address) => {
    there.add(w.id)
    if (where && !open) where.bound = address
    look()
  }
  function leave () {
    if (!master) return
    master.removeListener('online', tell)
    master.removeListener('listening', listening)
    master.removeListener('live', look)
    master.removeListener('exit', gone)
    master = null
  }
  function follow (m) {
    leave()
    master = m
    there.clear()
    m.balance('sticky').then(() => {
      if (master !== m || !where) return
      m.on('online', tell)
      m.on('listening', listening)
      m.on('live', look)
      m.on('exit', gone)
      for (const w of m.workers.values()) tell(w)
    }, (err) => { if (master === m) balancer.emit('error', err) })
  }
  // Finds the master of the workers: run() may be called before or after.
  balancer.listen = function (port, host, ...rest) {
    const workers = options.activeWorkers()
    if (!workers || typeof workers[kFollow] !== 'function') throw new codes.HANDOFF_ERR_NOT_RECLUSTER()
    const done = [host, ...rest].find((arg) => typeof arg === 'function')
    if (done) balancer.once('listening', done)
    where = typeof port === 'object' ? { ...port } : { port, host: typeof host === 'string' ? host : undefined }
    if (forget) forget()
    forget = workers[kFollow](follow)
    return balancer
  }
  balancer.address = () => where && where.bound ? { address: where.bound.address || '::', port: where.bound.port, family: where.bound.addressType === 4 && where.bound.address ? 'IPv4' : 'IPv6' } : null
  balancer.close = function (done) {
    if (forget) forget()
    forget = null
    if (master) for (const w of master.workers.values()) w.send({ msg: LISTEN, where: null }, () => {})
    leave()
    where = null
    open = false
    if (done) process.nextTick(done)
    process.nextTick(() => balancer.emit('close'))
    return balancer
  }
  return balancer
}

// listen is for a worker: its server listens at the balancer's address.
function listen (server) {
  let listening = false
  holdReady(server)
  process.on('message', (message) => {
    if (!message || message.msg !== LISTEN) return
    if (message.where && !listening) {
      listening = true
      server.listen(message.where)
    } else if (!message.where && listening) {
      listening = false
      server.close()
    }
  })
  return server
}

// holdReady delays the worker's ready message until its server listens. Programs send it
// right after listen(server), as in sticky-listen's README, and the previous worker would
// exit while no other listens. The delay is limited: a program may wait for its workers
// before its balancer listens.
function holdReady (server) {
  const send = process.send
  if (typeof send !== 'function') return
  const held = []
  let released = false
  const release = () => {
    released = true
    clearTimeout(late)
    if (process.send === hold) process.send = send
    for (const args of held.splice(0)) if (process.connected) send.apply(process, args)
  }
  const hold = function (message, ...rest) {
    if (released || !message || message.cmd !== 'ready') return send.call(process, message, ...rest)
    held.push([message, ...rest])
    return true
  }
  const late = setTimeout(release, HOLD_MS)
  server.once('listening', release)
  process.send = hold
}

module.exports = { createBalancer, listen }
