'use strict'
// RackMan's interface (4.6.6), with handoff under it: new RackMan(folder[, version]),
// where version true is the live one of a deployment, a string that one for good.
const { execFile } = require('child_process')
const { EventEmitter } = require('events')
const fs = require('fs')
const path = require('path')
const { findBinary } = require('./lib/binary')
const { Master } = require('./lib/master')

class RackMan extends EventEmitter {
  constructor (folder, version) {
    super()
    this.folder = path.resolve(folder)
    this.version = version === undefined ? fs.existsSync(path.join(this.folder, '.rack.json')) : version
    this.managers = [] // {port, active, worker, status}
  }

  start () {
    if (this.master) return
    const flags = typeof this.version === 'string' ? ['--rack-version=' + this.version] : []
    const m = this.master = new Master({ folder: this.folder, flags })
    const manager = (w) => {
      let found = this.managers.find((x) => x.slot === w.slot)
      if (!found) this.managers.push(found = { slot: w.slot, port: w.port, active: true, worker: null, get status () { return this.worker ? this.worker.status : 'Offline' } })
      found.port = w.port
      return found
    }
    m.on('fork', (w) => { w.status = 'Offline' })
    m.on('online', (w) => { w.status = 'Online' })
    m.on('ready', (w) => {
      w.status = 'Listening'
      const x = manager(w)
      x.worker = w
      this.emit('workerStarted', x, w)
    })
    m.on('exit', (w) => {
      w.status = 'Closed'
      const x = manager(w)
      if (x.worker === w) x.worker = null
      this.emit(w.crashed ? 'workerCrashed' : 'workerShutdown', x, w)
    })
    m.on('event', (e, w) => {
      if (e.event === 'cluster.reloading') this.emit('reloading')
      else if (e.event === 'cluster.changed') this.emit('modified', e.file, 'changed')
      else if (e.event === 'worker.terminated' && w) this.emit('workerKilling', manager(w), w)
      else if (e.event === 'config.failed') this._wrong(new Error(e.reason))
    })
    m.on('failed', (generation, reason) => this._wrong(new Error(reason)))
    let last = ''
    m.start()
    m.child.stderr && m.child.stderr.on('data', (d) => { last = String(d) })
    m.on('end', (code, err) => {
      this.master = null
      if (err || code) this._wrong(err || new Error(last.trim() || 'handoff ended with code ' + code))
    })
  }

  _wrong (err) { if (this.listenerCount('error') > 0) this.emit('error', err) }

  // stop calls back when every worker has gone.
  stop (cb) {
    if (!this.master) return cb && process.nextTick(cb)
    this.master.stop().then(() => cb && cb())
  }

  // reload calls back when the new workers serve and the old ones have gone, or with
  // why they do not.
  reload (cb) {
    if (!this.master) return cb && process.nextTick(cb, new Error('it does not run'))
    this.master.reload().then(() => cb && cb(), (err) => { cb ? cb(err) : this._wrong(err) })
  }
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
