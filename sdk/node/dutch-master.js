'use strict'
// dutch-master's interface (0.2.5), with handoff under it.
const cluster = require('cluster')
const { codes } = require('./lib/errors')
const { Master, seconds } = require('./lib/master')
const { kInfo } = require('./lib/symbols')

const nothing = { info () {}, warn () {}, debug () {}, error () {}, child () { return nothing } }
const DRAIN_TIMEOUT = '30s' // as the original's README promises

module.exports = start
module.exports.start = start

function start (options) {
  if (!(cluster.isPrimary || cluster.isMaster) || process.env.HANDOFF_GENERATION) return
  const logger = options.logger || nothing
  const number = typeof options.numWorkers === 'function' ? options.numWorkers() : options.numWorkers
  const numWorkers = number === undefined ? 2 : parseInt(number, 10)
  if (!(numWorkers > 0)) throw new codes.HANDOFF_ERR_INVALID_ARGUMENT('numWorkers: want a number of workers, from 1')
  if (!options.worker) throw new codes.HANDOFF_ERR_INVALID_ARGUMENT('worker: want the script that workers run')
  const restartSignal = options.restartSignal || 'SIGUSR2'
  const beforeFork = options.beforeFork || (() => {})
  let state = 'starting'
  let restarting = false
  const master = new Master({
    exec: options.worker,
    workers: numWorkers,
    execArgv: process.execArgv,
    env: options.workerEnvironment,
    settings: { readyTimeout: seconds(options.readyTimeout), drainTimeout: DRAIN_TIMEOUT, respawn: '1s', backoff: '30s' }
  })
  const log = (w) => w[kInfo].log

  function forks (n) {
    for (let i = 0; i < n; i++) {
      beforeFork()
      logger.info('Creating new worker')
    }
  }

  logger.info({ numWorkers }, 'Starting cluster')
  forks(numWorkers)
  master.on('fork', (w) => {
    w[kInfo] = { listening: false, log: logger.child ? logger.child({ workerId: w.id, workerPid: w.process.pid }) : logger }
  })
  master.on('listening', (w) => {
    if (w[kInfo].listening) return // only the first counts
    w[kInfo].listening = true
    log(w).info('Worker listening')
  })
  master.on('ready', (w) => {
    if (restarting && w.generation > master.live) log(w).info('Replacement worker available - disconnecting')
  })
  master.on('live', () => {
    if (state !== 'starting') return
    state = 'running'
    logger.info({ workers: [...master.workers.keys()] }, 'Cluster ready')
  })
  master.on('message', (w, message) => {
    if (message && message.event === 'request-restart') log(w).info('Worker dying')
  })
  // A worker that asks to exit, or disconnects, is replaced first.
  master.on('leaving', (w) => { if (!w.exitedAfterDisconnect && state !== 'stopping') forks(1) })
  master.on('draining', (w) => {
    log(w).debug({ state }, 'Stopping worker')
    log(w).debug('Disconnecting worker')
  })
  master.on('event', (e, w) => {
    if (!w) return
    if (e.event === 'worker.terminated') log(w).debug('Killing worker')
    else if (e.event === 'worker.killed') log(w).debug('Hard-killing worker as it did not die gracefully')
  })
  master.on('disconnect', (w) => {
    if (w.exitedAfterDisconnect) log(w).info('Worker disconnected')
    else log(w).warn(w[kInfo].listening ? 'Worker disconnection was unexpected' : 'Worker disconnected unexpectedly while starting')
  })
  master.on('exit', (w, code, signal) => {
    log(w).info({ code, signal }, 'Worker exited')
    if (w.crashed && !w.leaving && state !== 'stopping') forks(1)
  })
  master.on('end', (code, err) => {
    if (state === 'stopping') return
    logger.warn({ err: err || new codes.HANDOFF_ERR_EXITED(code) }, 'Cluster did not shutdown cleanly within timeout, exiting')
    process.exit(1)
  })

  process.on(restartSignal, () => {
    logger.info({ signal: restartSignal }, 'Restart requested')
    if (restarting) {
      logger.warn('Restart already in process, ignoring this request')
      return
    }
    restarting = true
    state = 'restarting'
    for (const w of master.workers.values()) log(w).info('Restarting worker')
    forks(numWorkers)
    master.reload().then(() => logger.info('Restart complete'), (err) => logger.warn({ err }, 'Restart failed; the previous workers continue')).then(() => {
      restarting = false
      if (state === 'restarting') state = 'running'
    })
  })
  process.on('SIGTERM', () => {
    if (state === 'stopping') return
    state = 'stopping'
    logger.info({ signal: 'SIGTERM' }, 'Shutdown requested')
    master.stop().then(() => {
      logger.info('Cluster shutdown cleanly')
      process.exit(0)
    })
  })
  master.start()
}
