'use strict'
// RackMan's interface (4.6.6), with handoff under it.
const { execFile } = require('child_process')
const { EventEmitter } = require('events')
const fs = require('fs')
const path = require('path')
const { findBinary } = require('./lib/binary')
const { codes } = require('./lib/errors')
const { Master, flags } = require('./lib/master')

const OWN = '.rackman.json'
const MAX_FILES = 100000

const kKey = Symbol('key')
const kKnown = Symbol('known')
const kStopping = Symbol('stopping')
const kManager = Symbol('manager')
const kScan = Symbol('scan')
const kChange = Symbol('change')
const kFail = Symbol('fail')
const kRun = Symbol('run')

class RackMan extends EventEmitter {
  // version: true is the live version of a deployment, a string always that version,
  // false the folder itself, even if it is a deployment. The default is the folder
  // itself, or the live version if the folder has only versions.
  constructor (folder, version) {
    super()
    this.folder = path.resolve(folder)
    this.version = version === undefined ? undefined : version || false
    this.managers = [] // {port, active, worker, status}
  }

  start () {
    if (this.master) return
    const has = (name) => fs.existsSync(path.join(this.folder, name))
    if (this.version === true && !has('.rack.json') && !has('.rackversion')) {
      process.nextTick(() => this[kFail](new codes.HANDOFF_ERR_VERSION_NOT_FOUND(this.folder)))
      return
    }
    const settings = {}
    if (this.version === false || (this.version === undefined && has(OWN))) settings.config = path.join(this.folder, OWN)
    else if (typeof this.version === 'string') settings.rackVersion = this.version
    const m = this.master = new Master({ folder: this.folder, settings })
    this[kKnown] = null
    this[kScan]()
    let began = false
    m.on('fork', (w) => {
      began = true
      w.status = 'Offline'
    })
    m.on('online', (w) => { w.status = 'Online' })
    m.on('ready', (w) => {
      w.status = 'Listening'
      const x = this[kManager](w)
      x.worker = w
      this.emit('workerStarted', x, w)
    })
    m.on('exit', (w) => {
      w.status = 'Closed'
      const x = this[kManager](w)
      if (x.worker === w) x.worker = null
      this.emit(w.crashed ? 'workerCrashed' : 'workerShutdown', x, w)
      // The configuration no longer has this port.
      const others = [...m.workers.values()].some((o) => key(o) === key(w))
      if (!w.crashed && !others && !this[kStopping]) {
        x.active = false
        this.managers.splice(this.managers.indexOf(x), 1)
      }
    })
    m.on('event', (e, w) => {
      if (e.event === 'cluster.reloading') this.emit('reloading')
      else if (e.event === 'cluster.changed') this.emit('modified', e.file, this[kChange](e.file))
      else if (e.event === 'worker.terminated' && w) this.emit('workerKilling', this[kManager](w), w)
      else if (e.event === 'config.failed') this[kFail](new codes.HANDOFF_ERR_CONFIG(e.reason))
    })
    m.on('failed', (generation, reason) => this[kFail](new codes.HANDOFF_ERR_RELOAD_FAILED(reason)))
    m.on('end', (code, err) => {
      this.master = null
      const stopping = this[kStopping]
      this[kStopping] = false
      if (stopping || !err) return
      if (began || err.code !== 'HANDOFF_ERR_EXITED') return this[kFail](err)
      // The reason was printed to stderr, among the workers' output; `check` prints it
      // again.
      execFile(findBinary(), ['check', '--embedded', ...flags(settings), this.folder], (failed, out, errs) => {
        const why = failed ? words(errs) : ''
        this[kFail](why ? new codes.HANDOFF_ERR_CONFIG(why) : err)
      })
    })
    m.start()
  }

  [kManager] (w) {
    let found = this.managers.find((x) => x[kKey] === key(w))
    if (!found) {
      found = { port: w.port, active: true, worker: null, get status () { return this.worker ? this.worker.status : 'Offline' } }
      Object.defineProperty(found, kKey, { value: key(w) })
      this.managers.push(found)
    }
    return found
  }

  // [kScan] lists the files, to distinguish a change from a new file.
  [kScan] () {
    const m = this.master
    files(this.folder).then((names) => { if (this.master === m) this[kKnown] = names }, () => {})
  }

  [kChange] (file) {
    const there = fs.existsSync(path.resolve(this.folder, file))
    const known = this[kKnown] ? this[kKnown].has(path.resolve(this.folder, file)) : there
    this[kScan]()
    return there ? (known ? 'changed' : 'created') : 'removed'
  }

  [kFail] (err) { if (this.listenerCount('error') > 0) this.emit('error', err) }

  // stop calls back when every worker has exited.
  stop (cb) {
    if (!this.master) return cb && process.nextTick(cb)
    this[kStopping] = true
    this.master.stop().then(() => cb && cb())
  }

  // reload calls back when the new workers serve and the old ones have exited, or with an
  // error.
  reload (cb) {
    if (!this.master) return cb && process.nextTick(cb, new codes.HANDOFF_ERR_NOT_RUNNING('call start() first'))
    this.master.reload().then(() => cb && cb(), (err) => { cb ? cb(err) : this[kFail](err) })
  }

  // restartWorker replaces the worker of a port: the new one serves first.
  restartWorker (port) {
    const x = this.managers.find((x) => String(x.port) === String(port))
    if (!this.master || !x || !x.worker) return process.nextTick(() => this[kFail](new codes.HANDOFF_ERR_WORKER_NOT_FOUND('restartWorker', port)))
    this.master.restart(x.worker.slot).catch((err) => this[kFail](err))
  }

  removeWatch () {} // does nothing, like the original

  // The file is read again at each reload.
  addWorker (port) { throw notSupported('addWorker', `put ${port} into "ports" of ${OWN}`) }
  addAndStartWorker (port) { throw notSupported('addAndStartWorker', `put ${port} into "ports" of ${OWN}`) }
  removeWorker (port) { throw notSupported('removeWorker', `take ${port} out of "ports" of ${OWN}`) }
  addWatch (glob) { throw notSupported('addWatch', `put ${JSON.stringify(glob)} into "watch" of ${OWN}`) }
  onNewConfig () { throw notSupported('onNewConfig', `write ${OWN}`) }
}

function notSupported (method, instead) {
  return new codes.HANDOFF_ERR_NOT_SUPPORTED(`RackMan's ${method} is not supported under handoff: ${instead}, and call reload()`)
}

// key identifies a worker and its successors: its port, or its slot if it has none.
function key (w) { return w.port || 'slot ' + w.slot }

// words is what handoff has written to stderr, without its name.
function words (stderr) { return String(stderr).trim().replace(/^handoff: /, '') }

// files lists the watched files of a folder, at most MAX_FILES.
async function files (dir, found = new Set()) {
  for (const e of await fs.promises.readdir(dir, { withFileTypes: true })) {
    if (found.size >= MAX_FILES) break
    const name = path.join(dir, e.name)
    if (e.isDirectory()) {
      if (e.name[0] !== '.' && e.name !== 'node_modules') await files(name, found)
    } else found.add(name)
  }
  return found
}

// Admin has rackadmin's operations. Each resolves to its output, line by line.
class Admin {
  constructor (folder) { this.folder = path.resolve(folder) }

  setup ({ resources } = {}) { return this[kRun]('setup', flags({ resources: resources || undefined })) }
  register (version) { return this[kRun]('register', [version]) }
  async deploy (source, version, { force } = {}) {
    const args = [...(version === undefined ? [] : [version]), ...flags({ from: path.resolve(source), force: force ? true : undefined })]
    return (await this[kRun]('deploy', args, source))[0]
  }

  async checkout (version) { return (await this[kRun]('switch', [version]))[0] }
  async rollback (steps = 1) { return (await this[kRun]('rollback', flags({ steps })))[0] }
  clean (version) { return this[kRun]('clean', version === undefined ? [] : [version]) }
  async head () { return (await this[kRun]('head', []))[0] }
  list () { return this[kRun]('versions', []) }

  [kRun] (operation, args, cwd = path.parse(this.folder).root) {
    return new Promise((resolve, reject) => {
      execFile(findBinary(), [operation, this.folder, ...args.map(String)], { cwd, maxBuffer: 16 << 20 }, (err, out, errs) => {
        if (err) reject(new codes.HANDOFF_ERR_COMMAND_FAILED(words(errs) || err.message))
        else resolve(String(out).split('\n').filter(Boolean))
      })
    })
  }
}

module.exports = RackMan
module.exports.RackMan = RackMan
module.exports.Admin = Admin
