'use strict'
// cluster-master's interface (0.2.1), with handoff under it.
const cluster = require('cluster')
const fs = require('fs')
const net = require('net')
const os = require('os')
const path = require('path')
const { PassThrough } = require('stream')
const util = require('util')
const { Master } = require('./lib/master')

const STOP_MS = 30000 // the original waits without end
const UNREAD = 64 * 1024 // bytes of a silent worker's output that are kept for who reads it
const LAST_WORDS_MS = 200 // in which the output of a worker that has ended may still come

let master = null
let config = null
let size = 0
let restarting = false
let quitting = false
let hard = false
let danger = false
let connections = 0 // to the REPL, open now
let sockets = 0 // of the REPL, ever
const waiting = [] // callbacks of restarts during a restart
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
  for (const r of repls) {
    r.output.write(text + '\n')
    r.displayPrompt()
  }
}

// Output is a stream of a silent worker's. What nobody reads is dropped beyond a
// bound: the worker goes on, and so does this process.
class Output extends PassThrough {
  constructor () {
    super({ highWaterMark: UNREAD })
    this.dropped = 0 // bytes
  }

  write (chunk, ...rest) {
    const unread = this.readableLength + this.writableLength
    if (this.writableEnded || unread + Buffer.byteLength(chunk) > UNREAD) {
      this.dropped += Buffer.byteLength(chunk)
      return false
    }
    return super.write(chunk, ...rest)
  }
}

// listen has what silent workers write go to their streams, which end after them.
function listen (master) {
  const writers = new Map() // by pid
  master.on('fork', (w) => {
    w.process.stdout = new Output()
    w.process.stderr = new Output()
    writers.set(w.process.pid, w.process)
  })
  master.on('exit', (w) => {
    // Its last words come by another way than its end.
    setTimeout(() => {
      if (writers.get(w.process.pid) === w.process) writers.delete(w.process.pid)
      w.process.stdout.end()
      w.process.stderr.end()
    }, LAST_WORDS_MS).unref()
  })
  master._wrote = (stream, line) => {
    let said
    try { said = JSON.parse(line) } catch (err) {}
    if (!said || said.stream === undefined) {
      debug(line) // handoff's own words
      return
    }
    const process = writers.get(said.pid)
    if (process && process[said.stream]) process[said.stream].write(said.line + '\n')
  }
}

function clusterMaster (c) {
  if (cluster.isWorker || process.env.HANDOFF_GENERATION) throw new Error("ClusterMaster answers to no one!\n(don't run in a cluster worker script)")
  if (master) throw new Error('This cluster has a master already')
  if (typeof c === 'string') c = { exec: c }
  if (!c || !c.exec) throw new Error("Must define a 'exec' script")
  config = c
  size = c.size || os.cpus().length
  const minRestartAge = c.minRestartAge === undefined ? 2000 : c.minRestartAge
  const stop = c.stopTimeout === undefined ? STOP_MS : c.stopTimeout
  const onMessage = c.onMessage || c.onmessage
  master = new Master({
    exec: c.exec,
    args: c.args || c.argv || [],
    execArgv: c.execArgv || process.execArgv,
    env: c.env,
    workers: size,
    silent: c.silent,
    flags: ['--canary', minRestartAge + 'ms', '--drain-timeout', stop + 'ms', '--respawn', '1s', '--max-failures', '3',
      ...(c.readyTimeout === undefined ? [] : ['--ready-timeout', typeof c.readyTimeout === 'number' ? Math.round(c.readyTimeout * 1000) + 'ms' : c.readyTimeout])]
  })
  if (c.silent) listen(master)
  master.on('fork', (w) => {
    debug('Worker %j setting up', w.id)
    w.birth = Date.now()
    Object.defineProperty(w, 'age', { get: () => Date.now() - w.birth, enumerable: true, configurable: true })
    w.pid = w.process.pid
    if (onMessage) w.on('message', function (message) { onMessage.call(w, message) })
  })
  master.on('disconnect', (w) => debug('Worker %j disconnect', w.id))
  master.on('event', (e, w) => { if (e.event === 'worker.killed' && w) debug('Worker %j, forcefully killing', w.id) })
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
// an error when the new code does not: the old serves on. One during another is
// called back with it.
function restart (cb) {
  check()
  if (typeof cb !== 'function') cb = null
  if (restarting) {
    debug('Already restarting.  Cannot restart yet.')
    if (cb) waiting.push(cb)
    return
  }
  restarting = true
  const current = [...master.workers.values()].filter((w) => !w.leaving).length
  if (current !== size) debug('resize %d -> %d, change = %d', current, size, size - current)
  let i = 0
  debug('graceful %d of %d', i, size)
  const count = (w) => { if (w.exitedAfterDisconnect) debug('graceful %d of %d', ++i, size) }
  master.on('exit', count)
  master.reload().then(() => {
    if (current !== size) debug('resize cb')
    debug('graceful completion')
    danger = false
  }, (err) => {
    if (!quitting) {
      debug('New worker died quickly. Aborting restart.')
      debug(err.message)
    }
    return err
  }).then((err) => {
    master.removeListener('exit', count)
    restarting = false
    for (const f of [cb, ...waiting.splice(0)]) if (f) err ? f(err) : f()
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
    return all.length === n && all.every((w) => w.ready) && new Set(all.map((w) => w.slot)).size === n
  }, 'ready', 'exit')).then(() => {
    debug('done resizing')
    danger = false
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
  const id = sockets++
  connections++
  let ended = false
  sock.on('error', () => {})
  sock.write('Starting repl #' + id + '\n')
  const r = require('repl').start({
    prompt: 'ClusterMaster (`help` for cmds) ' + process.pid + ' ' + id + '> ', input: sock, output: sock, terminal: false, useGlobal: false, ignoreUndefined: true
  })
  const context = {
    help: HELP,
    repl: r,
    resize,
    restart,
    stop: quit,
    kill: quitHard,
    cluster,
    get size () { return size },
    get connections () { return connections },
    get workers () { return [...master.workers.values()].map((w) => new Worker(w)) },
    select,
    get pids () { return select('pid') },
    get ages () { return select('age') },
    get states () { return select('state') },
    get danger () { return danger },
    debug,
    sock
  }
  for (const key of Object.keys(context)) Object.defineProperty(r.context, key, { ...Object.getOwnPropertyDescriptor(context, key), configurable: true, enumerable: true })
  repls.add(r)
  const end = () => {
    if (ended) return
    ended = true
    connections--
    repls.delete(r)
    sock.end()
  }
  r.on('exit', end)
  sock.on('close', () => { if (!ended) r.close(); end() })
}

// select is a map of ids to a field of the workers.
function select (field) {
  const all = {}
  for (const w of master.workers.values()) all[w.id] = w[field]
  return all
}

// Worker is what the REPL shows of one.
class Worker {
  constructor (w) {
    this.id = String(w.id)
    this.pid = w.pid
    this.state = w.state
    this.age = w.age
    Object.defineProperty(this, 'disconnect', { value: () => { w.disconnect() } })
    Object.defineProperty(this, 'kill', { value: (signal) => { w.kill(signal) } })
  }
}

const HELP = [
  'help        - display these commands',
  'repl        - access the REPL',
  'resize(n)   - resize the cluster to `n` workers',
  'restart(cb) - gracefully restart workers, cb is optional',
  'stop()      - gracefully stop workers and master',
  'kill()      - forcefully kill workers and master',
  'cluster     - node.js cluster module',
  'size        - current cluster size',
  'connections - number of REPL connections to master',
  'workers     - current workers',
  'select(fld) - map of id to field (from workers)',
  'pids        - map of id to pids',
  'ages        - map of id to worker ages',
  'states      - map of id to worker states',
  'danger      - whether workers died too quickly, or their number is wrong',
  'debug(a1)   - output `a1` to stdout and all REPLs',
  'sock        - this REPL socket',
  '.exit       - close this connection to the REPL'
]
