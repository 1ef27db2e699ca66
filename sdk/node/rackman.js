'use strict'
// RackMan's interface (4.6.6), with handoff under it.
const { execFile } = require('child_process')
const { EventEmitter } = require('events')
const fs = require('fs')
const path = require('path')
const { findBinary } = require('./lib/binary')
const { Master } = require('./lib/master')

const OWN = '.rackman.json'
const KEY = Symbol('key')
const FILES_MOST = 100000

class RackMan extends EventEmitter {
  // version: true is the live one of a deployment, a string that one for good; what is
  // false the folder itself, also where it is a deployment. Where nothing is said it is
  // the folder itself, or the live version of one that has versions alone.
  constructor (folder, version) {
    super()
    this.folder = path.resolve(folder)
    this.version = version === undefined ? undefined : version || false
    this.managers = [] // {port, active, worker, status}
  }

  _has (name) { return fs.existsSync(path.join(this.folder, name)) }
  _deployment () { return this._has('.rack.json') || this._has('.rackversion') }

  start () {
    if (this.master) return
    if (this.version === true && !this._deployment()) {
      const err = new Error(`Unable to read version from .rack.json: there is none in ${this.folder}`)
      process.nextTick(() => this._wrong(err))
      return
    }
    const flags = []
    if (this.version === false || (this.version === undefined && this._has(OWN))) flags.push('--config=' + path.join(this.folder, OWN))
    else if (typeof this.version === 'string') flags.push('--rack-version=' + this.version)
    const m = this.master = new Master({ folder: this.folder, flags })
    this._known = null
    this._look()
    let began = false
    m.on('fork', (w) => {
      began = true
      w.status = 'Offline'
    })
    m.on('online', (w) => { w.status = 'Online' })
    m.on('ready', (w) => {
      w.status = 'Listening'
      const x = this._manager(w)
      x.worker = w
      this.emit('workerStarted', x, w)
    })
    m.on('exit', (w) => {
      w.status = 'Closed'
      const x = this._manager(w)
      if (x.worker === w) x.worker = null
      this.emit(w.crashed ? 'workerCrashed' : 'workerShutdown', x, w)
      // A port that the configuration has no longer.
      const others = [...m.workers.values()].some((o) => key(o) === key(w))
      if (!w.crashed && !others && !this._stopping) {
        x.active = false
        this.managers.splice(this.managers.indexOf(x), 1)
      }
    })
    m.on('event', (e, w) => {
      if (e.event === 'cluster.reloading') this.emit('reloading')
      else if (e.event === 'cluster.changed') this.emit('modified', e.file, this._change(e.file))
      else if (e.event === 'worker.terminated' && w) this.emit('workerKilling', this._manager(w), w)
      else if (e.event === 'config.failed') this._wrong(new Error(e.reason))
    })
    m.on('failed', (generation, reason) => this._wrong(new Error(reason)))
    m.on('end', (code, err) => {
      this.master = null
      const stopping = this._stopping
      this._stopping = false
      if (stopping || !(err || code)) return
      if (err || began) return this._wrong(err || new Error('handoff ended with code ' + code))
      // It has said why on our stderr, where the workers' goes as well. It is asked once
      // more: nothing of it runs.
      execFile(findBinary(), ['check', ...flags, this.folder], (failed, out, errs) => {
        const why = failed ? String(errs).trim().replace(/^handoff: /, '') : ''
        this._wrong(new Error(why || 'handoff ended with code ' + code))
      })
    })
    m.start()
  }

  _manager (w) {
    let found = this.managers.find((x) => x[KEY] === key(w))
    if (!found) {
      found = { port: w.port, active: true, worker: null, get status () { return this.worker ? this.worker.status : 'Offline' } }
      Object.defineProperty(found, KEY, { value: key(w) })
      this.managers.push(found)
    }
    return found
  }

  // _look finds out which files there are, for what has changed to be told from what is new.
  _look () {
    const m = this.master
    files(this.folder).then((names) => { if (this.master === m) this._known = names }, () => {})
  }

  _change (file) {
    const there = fs.existsSync(path.resolve(this.folder, file))
    const known = this._known ? this._known.has(path.resolve(this.folder, file)) : there
    this._look()
    return there ? (known ? 'changed' : 'created') : 'removed'
  }

  _wrong (err) { if (this.listenerCount('error') > 0) this.emit('error', err) }

  // stop calls back when every worker has gone.
  stop (cb) {
    if (!this.master) return cb && process.nextTick(cb)
    this._stopping = true
    this.master.stop().then(() => cb && cb())
  }

  // reload calls back when the new workers serve and the old ones have gone, or with
  // why they do not.
  reload (cb) {
    if (!this.master) return cb && process.nextTick(cb, new Error('it does not run'))
    this.master.reload().then(() => cb && cb(), (err) => { cb ? cb(err) : this._wrong(err) })
  }

  // restartWorker replaces the worker of a port: the new one serves first.
  restartWorker (port) {
    const x = this.managers.find((x) => String(x.port) === String(port))
    if (!this.master || !x || !x.worker) return process.nextTick(() => this._wrong(new Error(`restartWorker: no worker serves port ${port}`)))
    this.master.restart(x.worker.slot).catch((err) => this._wrong(err))
  }

  removeWatch () {} // nothing, as ever

  // What runs is what the file says; it is read again at each reload.
  addWorker (port) { throw notHere('addWorker', `put ${port} into "ports" of ${OWN}`) }
  addAndStartWorker (port) { throw notHere('addAndStartWorker', `put ${port} into "ports" of ${OWN}`) }
  removeWorker (port) { throw notHere('removeWorker', `take ${port} out of "ports" of ${OWN}`) }
  addWatch (glob) { throw notHere('addWatch', `put ${JSON.stringify(glob)} into "watch" of ${OWN}`) }
  onNewConfig () { throw notHere('onNewConfig', `write ${OWN}`) }
}

function notHere (method, instead) {
  const err = new Error(`RackMan's ${method} is not there under handoff: ${instead}, and call reload()`)
  err.code = 'ERR_NOT_SUPPORTED'
  return err
}

// key is by what a worker is known in its turn: its port, or its seat where it has none.
function key (w) { return w.port || 'slot ' + w.slot }

// files lists what is in a folder, leaving out what is not watched; of very many the
// first ones.
async function files (dir, found = new Set()) {
  for (const e of await fs.promises.readdir(dir, { withFileTypes: true })) {
    if (found.size >= FILES_MOST) break
    const name = path.join(dir, e.name)
    if (e.isDirectory()) {
      if (e.name[0] !== '.' && e.name !== 'node_modules') await files(name, found)
    } else found.add(name)
  }
  return found
}

// Admin has rackadmin's operations: each resolves to what it prints, line by line.
class Admin {
  constructor (folder) { this.folder = path.resolve(folder) }

  _do (operation, args, options = {}) {
    return new Promise((resolve, reject) => {
      execFile(findBinary(), [operation, this.folder, ...args.map(String)], { cwd: options.cwd || path.parse(this.folder).root, maxBuffer: 16 << 20 }, (err, out, errs) => {
        if (err) reject(new Error(String(errs).trim().replace(/^handoff: /, '') || err.message))
        else resolve(String(out).split('\n').filter(Boolean))
      })
    })
  }

  setup ({ resources } = {}) { return this._do('setup', resources ? ['--resources=' + resources] : []) }
  register (version) { return this._do('register', [version]) }
  async deploy (source, version, { force } = {}) { return (await this._do('deploy', [...(version === undefined ? [] : [version]), '--from=' + path.resolve(source), ...(force ? ['--force'] : [])], { cwd: source }))[0] }
  async checkout (version) { return (await this._do('switch', [version]))[0] }
  async rollback (steps = 1) { return (await this._do('rollback', ['--steps=' + steps]))[0] }
  clean (version) { return this._do('clean', version === undefined ? [] : [version]) }
  async head () { return (await this._do('head', []))[0] }
  list () { return this._do('versions', []) }
}

module.exports = RackMan
module.exports.RackMan = RackMan
module.exports.Admin = Admin
