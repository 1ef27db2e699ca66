'use strict'
// cluster-master's interface (0.2.1), with handoff under it.
const cluster = require('cluster')
const fs = require('fs')
const net = require('net')
const os = require('os')
const path = require('path')
const util = require('util')
const { Master } = require('./lib/master')

let master = null
let config = null
let size = 0
let restarting = false
let quitting = false
let hard = false
let danger = false
let connections = 0
const repls = new Set()
let server = null

module.exports = exports = clusterMaster
exports.restart = restart
exports.resize = resize
exports.quitHard = quitHard
exports.quit = quit

function debug (...args) {
  console.error(...args)
  const text = util.format(...args)
  for (const r of repls) r.outputStream ? r.outputStream.write(text + '\n') : r.output.write(text + '\n')
}

function clusterMaster (c) {
  if (cluster.isWorker || process.env.HANDOFF_GENERATION) throw new Error("ClusterMaster answers to no one!\n(don't run in a cluster worker script)")
  if (master) throw new Error('This cluster has a master already')
  if (typeof c === 'string') c = { exec: c }
  if (!c || !c.exec) throw new Error("Must define a 'exec' script")
  config = c
  size = c.size || os.cpus().length
  const minRestartAge = c.minRestartAge === undefined ? 2000 : c.minRestartAge
  const stop = c.stopTimeout === undefined ? 5000 : c.stopTimeout
  const onMessage = c.onMessage || c.onmessage
  master = new Master({
    exec: c.exec,
    args: c.args || c.argv || [],
    execArgv: c.execArgv || process.execArgv,
    env: c.env,
    workers: size,
    silent: c.silent,
    flags: ['--canary', minRestartAge + 'ms', '--drain-timeout', stop + 'ms', '--respawn', '1s', '--max-failures', '3']
  })
  master.on('fork', (w) => {
    debug('Worker %j setting up', w.id)
    w.age = 0
    w.birth = Date.now()
    Object.defineProperty(w, 'age', { get: () => Date.now() - w.birth })
    Object.defineProperty(w, 'pid', { get: () => w.process.pid })
    if (c.silent) {
      const { PassThrough } = require('stream')
      w.process.stdout = new PassThrough()
      w.process.stderr = new PassThrough()
    }
    if (onMessage) w.on('message', function (message) { onMessage.call(w, message) })
  })
  master.on('disconnect', (w) => debug('Worker %j disconnect', w.id))
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
  setupRepl()
}

function check () { if (!master) throw new Error('There is no cluster: call clusterMaster(config) first') }

// restart calls back when every new worker serves and the old ones are gone, or with
// an error when the new code does not: the old serves on.
function restart (cb) {
  check()
  if (typeof cb !== 'function') cb = null
  if (restarting) {
    debug('Already restarting.  Cannot restart yet.')
    if (cb) master.until(() => !restarting, 'restarted').then(() => cb(), cb)
    return
  }
  restarting = true
  let i = 0
  const count = (w) => { if (w.exitedAfterDisconnect) debug('graceful %d of %d', ++i, size) }
  master.on('exit', count)
  master.reload().then(() => {
    debug('graceful completion')
    danger = false
    return null
  }, (err) => {
    debug('New worker died quickly. Aborting restart.')
    debug(err.message)
    return err
  }).then((err) => {
    if (master) master.removeListener('exit', count)
    restarting = false
    if (master) master.emit('restarted')
    if (cb) err ? cb(err) : cb()
  })
}

// resize calls back when there are as many workers that serve.
function resize (n, cb) {
  check()
  if (typeof n === 'function') { cb = n; n = size }
  if (n === undefined || n === null) n = size
  n = +n
  if (!Number.isInteger(n) || n < 0) throw new TypeError('resize: want a number of workers')
  if (n === 0) return quit(cb)
  const before = size
  debug('resize %d -> %d, change = %d', before, n, n - before)
  size = n
  if (n > before) debug('resizing up %d', n - before)
  for (const w of master.workers.values()) if (w.slot >= n && !w.leaving) debug('resizing down %d', w.id)
  master.scale(n).then(() => master.until(() => {
    if (size !== n) return true // overtaken
    const all = [...master.workers.values()]
    return all.length === n && all.every((w) => w.ready)
  }, 'ready', 'exit')).then(() => {
    debug('done resizing')
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

// The REPL: on a unix socket that only this user can open, or on loopback. Who can
// connect can do everything that this process can.
function setupRepl () {
  let address = config.repl
  if (address === undefined) address = process.env.CLUSTER_MASTER_REPL || 'cluster-master-socket'
  if (address === null || address === false || address === 'null' || address === 'false') return
  debug('setup repl')
  if (typeof address === 'string' && /^[0-9]+$/.test(address)) address = +address
  server = net.createServer(startRepl)
  server.on('error', (err) => debug('ClusterMaster repl: %s', err.message))
  const listening = () => debug('ClusterMaster repl listening on %s', typeof address === 'object' ? address.address + ':' + address.port : address)
  if (typeof address === 'string') {
    address = path.resolve(address)
    debug('starting repl on %s', address)
    try {
      if (fs.lstatSync(address).isSocket()) fs.unlinkSync(address)
    } catch (err) {} // it is not there
    const mask = process.umask(0o177)
    server.listen(address, listening)
    process.umask(mask)
  } else if (typeof address === 'number') {
    debug('starting repl on 127.0.0.1:%d', address)
    server.listen(address, '127.0.0.1', listening)
  } else {
    debug('starting repl on %s:%d', address.address || '127.0.0.1', address.port)
    server.listen(address.port, address.address || '127.0.0.1', listening)
  }
}

function closeRepl () {
  if (!server) return
  server.close()
  for (const r of repls) r.close()
  server = null
}

function startRepl (sock) {
  const id = ++connections
  let ended = false
  sock.on('error', () => {})
  sock.write('Starting repl #' + id + '\n')
  const r = require('repl').start({
    prompt: 'ClusterMaster (`help` for cmds) ' + process.pid + ' ' + id + '> ', input: sock, output: sock, terminal: false, useGlobal: false, ignoreUndefined: true
  })
  const list = () => [...master.workers.values()]
  const each = (f) => list().reduce((all, w) => { all[w.id] = f(w); return all }, {})
  const context = {
    repl: r,
    resize,
    restart,
    stop: quit,
    kill: quitHard,
    cluster,
    get size () { return size },
    get connections () { return connections },
    get workers () { return list().map((w) => ({ id: w.id, pid: w.process.pid, state: w.state, age: w.age, disconnect: () => w.disconnect(), kill: (s) => w.kill(s) })) },
    select: (f) => list().filter(f),
    get pids () { return list().map((w) => w.process.pid) },
    get ages () { return each((w) => w.age) },
    get states () { return each((w) => w.state) },
    get danger () { return danger },
    debug,
    sock,
    help: [
      'help        - display these commands', 'repl        - access the REPL', 'resize(n)   - resize the cluster to `n` workers',
      'restart(cb) - gracefully restart workers, cb is optional', 'stop()      - gracefully stop workers and master', 'kill()      - forcefully kill workers and master',
      'cluster     - node.js cluster module', 'size        - current cluster size', 'connections - number of REPL connections to master',
      'workers     - current workers', 'select(fn)  - call with a function to select workers', 'pids        - get pids of workers',
      'ages        - get ages of workers', 'states      - get states of workers', 'debug(a1)   - output `a1` to stdout and all REPLs', 'sock        - this REPL socket',
      '.exit       - close this connection to the REPL'
    ]
  }
  for (const key of Object.keys(context)) Object.defineProperty(r.context, key, { ...Object.getOwnPropertyDescriptor(context, key), configurable: true, enumerable: true })
  repls.add(r)
  const end = () => {
    if (ended) return
    ended = true
    repls.delete(r)
    sock.end()
  }
  r.on('exit', end)
  sock.on('close', () => { if (!ended) r.close(); end() })
}
