'use strict'
// sticky-listen's interface (3.3.0), with handoff's sticky balance under it: the
// kernel chooses a worker by the client's address, and the master sees no connection.
//
// A kernel cannot look into a request: behindProxy and cipHeader, which choose by a
// header, are an error. Behind a proxy let the proxy choose, with a port for each
// worker (handoff run --ports; examples/nginx).
const { EventEmitter } = require('events')

const LISTEN = 'sticky:listen'

// createBalancer is for the calling (primary) process: its listen tells the workers
// where to listen, those that come later, too.
function createBalancer (options) {
  if (!options || typeof options.activeWorkers !== 'function') throw new TypeError('Must provide activeWorkers option (returns a list of worker processes)')
  if (options.behindProxy || options.cipHeader) {
    throw new Error('sticky-listen under handoff chooses by the client\'s address, in the kernel: behindProxy and cipHeader cannot be had. Give each worker a port (handoff run --ports) and let the proxy choose')
  }
  const master = options.activeWorkers.master && options.activeWorkers.master()
  if (!master) throw new Error('createBalancer: activeWorkers must be that of @handoff/node/recluster, after run()')
  const balancer = new EventEmitter()
  let where = null
  let open = false
  const tell = (w) => { if (where) w.send({ msg: LISTEN, where }, () => {}) }
  const there = new Set() // workers that listen
  // It listens when every worker does: until then clients would move with each.
  const listening = (w, address) => {
    there.add(w.id)
    if (open || !where || there.size < master.options.workers) return
    open = true
    where.bound = address
    balancer.emit('listening')
  }
  balancer.listen = function (port, host, ...rest) {
    const done = [host, ...rest].find((arg) => typeof arg === 'function')
    if (done) balancer.once('listening', done)
    where = typeof port === 'object' ? { ...port } : { port, host: typeof host === 'string' ? host : undefined }
    master.ask('POST', '/v1/balance?to=sticky').then(() => {
      master.on('online', tell)
      master.on('listening', listening)
      for (const w of master.workers.values()) tell(w)
    }, (err) => balancer.emit('error', err))
    return balancer
  }
  balancer.address = () => where && where.bound ? { address: where.bound.address || '::', port: where.bound.port, family: where.bound.addressType === 4 && where.bound.address ? 'IPv4' : 'IPv6' } : null
  balancer.close = function (done) {
    master.removeListener('online', tell)
    master.removeListener('listening', listening)
    for (const w of master.workers.values()) w.send({ msg: LISTEN, where: null }, () => {})
    where = null
    open = false
    if (done) process.nextTick(done)
    process.nextTick(() => balancer.emit('close'))
    return balancer
  }
  return balancer
}

// listen is for a worker: its server listens where the balancer says.
function listen (server) {
  let listening = false
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

module.exports = { createBalancer, listen }
