'use strict'
// dutch-master's interface (0.2.5), with handoff under it.
const cluster = require('cluster')
const { Master } = require('./lib/master')

const nothing = { info () {}, warn () {}, debug () {}, error () {}, child () { return nothing } }
const SHUTDOWN_MS = 30000 // as its README promises

module.exports = start
module.exports.start = start

function start (options) {
  if (!(cluster.isPrimary || cluster.isMaster) || process.env.HANDOFF_GENERATION) return
  const logger = options.logger || nothing
  const number = typeof options.numWorkers === 'function' ? options.numWorkers() : options.numWorkers
  const numWorkers = number === undefined ? 2 : parseInt(number, 10)
  if (!(numWorkers > 0)) throw new TypeError('numWorkers: want a number of workers, from 1')
  if (!options.worker) throw new TypeError('worker: want the script that workers run')
  const restartSignal = options.restartSignal || 'SIGUSR2'
  const beforeFork = options.beforeFork || (() => {})
  let state = 'starting'
  let restarting = false
  const master = new Master({
    exec: options.worker,
    workers: numWorkers,
    execArgv: process.execArgv,
    env: options.workerEnvironment,
    flags: ['--drain-timeout', SHUTDOWN_MS + 'ms', '--respawn', '1s', '--backoff', '30s',
      ...(options.readyTimeout === undefined ? [] : ['--ready-timeout', typeof options.readyTimeout === 'number' ? Math.round(options.readyTimeout * 1000) + 'ms' : options.readyTimeout])]
  })
  const logs = new Map() // worker -> its child logger
  const log = (w) => logs.get(w) || logger

  function forks (n) {
    for (let i = 0; i < n; i++) {
      beforeFork()
      logger.info('Creating new worker')
    }
  }

  logger.info({ numWorkers }, 'Starting cluster')
  forks(numWorkers)
  master.on('fork', (w) => logs.set(w, logger.child ? logger.child({ workerId: w.id, workerPid: w.process.pid }) : logger))
  master.on('listening', (w) => {
    if (w.told) return // only the first counts
    w.told = true
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
  // One that asks to go has its replacement first; so has one that disconnects.
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
    else log(w).warn(w.told ? 'Worker disconnection was unexpected' : 'Worker disconnected unexpectedly while starting')
  })
  master.on('exit', (w, code, signal) => {
    log(w).info({ code, signal }, 'Worker exited')
    logs.delete(w)
    if (w.crashed && !w.leaving && state !== 'stopping') forks(1)
  })
  master.on('end', (code, err) => {
    if (state === 'stopping') return
    logger.warn({ err: err || new Error('handoff ended with code ' + code) }, 'Cluster did not shutdown cleanly within timeout, exiting')
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
    master.reload().then(() => logger.info('Restart complete'), (err) => logger.warn({ err }, 'Restart failed, the workers before serve on')).then(() => {
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
