'use strict'
// Runs handoff as a child process of the calling program. It ends with the caller, and is
// controlled over its control socket (client.js). Its workers are mirrored (mirror.js),
// also in require('cluster').workers.
const { spawn } = require('child_process')
const { EventEmitter } = require('events')
const fs = require('fs')
const os = require('os')
const path = require('path')
const { findBinary } = require('./binary')
const { Client } = require('./client')
const { codes } = require('./errors')
const { lines } = require('./lines')
const { Mirror } = require('./mirror')

const kClient = Symbol('client')
const kMirror = Symbol('mirror')
const kReloads = Symbol('reloads')
const kFailures = Symbol('failures')
const kClean = Symbol('clean')
const kEnd = Symbol('end')
const kSettle = Symbol('settle')

// Master runs handoff. Events: fork, online, ready, leaving, draining, disconnect
// (worker); listening (worker, address); message (worker, message); exit (worker, code,
// signal); live (generation); failed (generation, reason, stderr); event (any event of
// handoff's, its worker); output (stream, line), with options.silent; end (code, err).
class Master extends EventEmitter {
  // options: exec, args, execArgv and workers, or folder; env, cwd; settings, the flags
  // of `handoff run` by their names in camelCase (undefined: not set); silent: the output
  // of handoff and the workers is emitted as 'output', that of workers as JSON.
  constructor (options) {
    super()
    this.setMaxListeners(0)
    this.options = options
    this.ended = false
    this[kReloads] = new Set() // pending calls of serves: {generation, failed}
    this[kFailures] = new Map() // by generation: {reason, stderr}
    this[kMirror] = new Mirror(this, () => this[kClient].sync())
    this.on('failed', (generation, reason, stderr) => this[kFailures].set(generation, { reason, stderr }))
    this.on('live', (generation) => { for (const g of this[kFailures].keys()) if (g <= generation) this[kFailures].delete(g) })
    this.on('unsettled', () => this[kSettle]())
  }

  get workers () { return this[kMirror].workers }
  get live () { return this[kMirror].live }

  start () {
    const o = this.options
    const binary = findBinary()
    const name = (o.settings && o.settings.name) || serviceName(o.folder || (process.argv[1] ? path.dirname(process.argv[1]) : process.cwd()))
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'handoff-'))
    this[kClean] = () => {
      try { fs.rmSync(dir, { recursive: true, force: true }) } catch (err) {}
    }
    process.on('exit', this[kClean])
    const output = o.silent ? 'pipe' : 'inherit'
    // In a session of its own: the caller handles the signals of a terminal.
    this.child = spawn(binary, runArguments(o, name), { cwd: o.cwd, env: environment(o, dir), detached: true, stdio: ['ignore', output, output] })
    this.pid = this.child.pid
    if (o.silent) for (const stream of ['stdout', 'stderr']) lines(this.child[stream], (line) => this.emit('output', stream, line))
    this.child.on('error', (err) => this[kEnd](null, err))
    this.child.on('exit', (code, signal) => this[kEnd](code, signal ? new codes.HANDOFF_ERR_KILLED(signal) : null))
    this[kClient] = new Client(path.join(dir, name + '.sock'))
    this[kClient].follow(this[kMirror])
    return this
  }

  [kEnd] (code, err) {
    if (this.ended) return
    this.ended = true
    this[kMirror].end()
    this[kClient].close()
    process.removeListener('exit', this[kClean])
    this[kClean]() // before the event: its listeners may exit
    if (!err && code) err = new codes.HANDOFF_ERR_EXITED(code)
    this.emit('end', code, err)
  }

  status () { return this[kClient].request('GET', '/v1/status') }
  scale (n) { return this[kClient].request('POST', `/v1/scale?workers=${n}`, { idempotent: true }) }
  balance (to) { return this[kClient].request('POST', `/v1/balance?to=${to}`, { idempotent: true }) }
  freeze () { return this[kClient].request('POST', '/v1/freeze', { idempotent: true }) }
  restart (slot) { return this[kClient].request('POST', `/v1/slots/${slot}/restart`) }
  signal (w, name) { return this[kClient].request('POST', `/v1/workers/${w.id}/signal?name=${name}`) }
  send (w, body) { return this[kClient].request('POST', `/v1/workers/${w.id}/message`, { body }) }

  // reload resolves when a new generation serves and the previous workers have exited; it
  // rejects when the new code has failed: the previous workers continue.
  async reload () {
    const { generation } = await this[kClient].request('POST', '/v1/reload', { idempotent: true })
    await this.serves(generation)
    await this.until(() => [...this.workers.values()].every((w) => w.generation >= generation), 'exit')
    return generation
  }

  // serves resolves when this generation, or a later one, serves. It rejects when that
  // generation has failed or the reload was refused.
  async serves (generation) {
    const reload = { generation, failed: null }
    this[kReloads].add(reload)
    const failed = () => reload.failed || [...this[kFailures]].filter(([g]) => g >= generation).map(([, f]) => f)[0]
    this[kSettle]() // it may already have ended
    try {
      await this.until(() => this.live >= generation || failed(), 'live', 'failed', 'settled')
    } finally {
      this[kReloads].delete(reload)
    }
    if (this.live >= generation) return
    const { reason, stderr } = failed()
    throw new codes.HANDOFF_ERR_RELOAD_FAILED(stderr ? reason + '\n' + stderr : reason)
  }

  // [kSettle] queries the outcome of the pending reloads: one that was refused starts no
  // generation, and the next reload uses its number.
  async [kSettle] () {
    const reloads = [...this[kReloads]]
    if (reloads.length === 0) return
    let s
    try { s = await this.status() } catch (err) { return } // it ends
    const last = s.reload || {}
    const idle = s.wanted_generation === s.generation
    for (const reload of reloads) {
      if (s.generation >= reload.generation || last.outcome !== 'failed') continue
      if (last.generation === reload.generation || (last.generation > reload.generation && idle)) {
        reload.failed = { reason: last.reason, stderr: (last.stderr || []).join('\n') }
      }
    }
    this.emit('settled')
  }

  // until resolves when ok() is true. It is checked at each of these events.
  until (ok, ...events) {
    return new Promise((resolve, reject) => {
      const look = () => {
        const done = ok()
        if (!done && !this.ended) return
        for (const name of [...events, 'end']) this.removeListener(name, look)
        if (done) resolve()
        else reject(new codes.HANDOFF_ERR_ENDED())
      }
      for (const name of [...events, 'end']) this.on(name, look)
      look()
    })
  }

  // stop resolves when every process has ended; now: without drain.
  async stop ({ now = false } = {}) {
    if (this.ended) return
    const end = new Promise((resolve) => this.once('end', resolve))
    this[kClient].request('POST', '/v1/stop' + (now ? '?now=1' : ''), { idempotent: true }).catch(() => {
      if (!this.ended) this.child.kill(now ? 'SIGKILL' : 'SIGTERM')
    })
    await end
  }
}

// serviceName is what `handoff ls` calls the service of a program in a folder: the name of
// its package, or the folder's.
function serviceName (folder) {
  for (let dir = path.resolve(folder); ; dir = path.dirname(dir)) {
    try {
      const { name } = JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8'))
      if (typeof name === 'string' && plain(name)) return plain(name)
    } catch (err) {} // there is none, or it is not JSON
    if (dir === path.dirname(dir)) return plain(path.basename(path.resolve(folder))) || 'app'
  }
}

// plain makes a name that a socket can have: short, since its path is limited.
function plain (name) { return name.replace(/[^A-Za-z0-9_.-]+/g, '-').replace(/^[-.]+/, '').slice(0, 32) }

function runArguments (o, name) {
  const what = o.folder !== undefined
    ? [path.resolve(o.folder)]
    : ['--', process.execPath, ...(o.execArgv || []), path.resolve(o.exec), ...(o.args || []).map(String)]
  const settings = { name, log: 'json', logFile: '/dev/null', ...(o.silent && { capture: 'json' }), ...o.settings }
  if (o.folder === undefined) Object.assign(settings, { contract: 'node', workers: o.workers })
  return ['run', '--embedded', ...flags(settings), ...what]
}

// flags of the command line, of settings by their names in camelCase; lists are repeated.
function flags (settings) {
  return Object.entries(settings).flatMap(([name, value]) => (Array.isArray(value) ? value : [value])
    .filter((v) => v !== undefined)
    .map((v) => `--${name.replace(/[A-Z]/g, (c) => '-' + c.toLowerCase())}=${v}`))
}

// What the caller's own handoff, if it is a worker of one, has put there is not meant for
// this one; what is set for flags handoff leaves out by itself (--embedded).
function environment (o, dir) {
  const env = { ...process.env, ...o.env, HANDOFF_RUNTIME_DIR: dir, HANDOFF_PARENT_RUNTIME_DIR: process.env.HANDOFF_RUNTIME_DIR, HANDOFF_PARENT: String(process.pid) }
  for (const name of Object.keys(env)) if (name.startsWith('HANDOFF_PRELOAD_') || env[name] === undefined) delete env[name]
  return env
}

// seconds is a duration for handoff: of a number of seconds, or of a text like '90s' as
// it is.
function seconds (n) { return typeof n === 'number' ? milliseconds(n * 1000) : n === null ? undefined : n }
function milliseconds (n) { return Math.round(n) + 'ms' }

module.exports = { Master, flags, seconds, milliseconds }
