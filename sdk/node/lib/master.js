'use strict'
// A handoff under the calling program: a child process whose life is tied to the
// caller's, spoken to over its control socket. What it does is mirrored here: a
// Worker for each process, in require('cluster').workers as well.
const { spawn } = require('child_process')
const { EventEmitter } = require('events')
const cluster = require('cluster')
const fs = require('fs')
const http = require('http')
const os = require('os')
const path = require('path')
const { findBinary } = require('./binary')

const NAME = 'app'
const RETRY_MS = 10
const PATIENCE_MS = 10000 // in which a control socket must come, and come back

// Worker is what cluster.Worker is to its primary.
class Worker extends EventEmitter {
  constructor (master, event) {
    super()
    this.setMaxListeners(0)
    this.id = event.worker
    this.slot = event.slot
    this.generation = event.generation
    this.port = event.port
    this.state = 'none'
    this.exitedAfterDisconnect = undefined
    this.process = new EventEmitter()
    this.process.pid = event.pid
    this.process.connected = true
    this.process.exitCode = this.process.signalCode = null
    this.process.kill = (signal) => this.kill(signal)
    this.process.send = (message, handle, options, done) => this.send(message, handle, options, done)
    this.ready = false
    this.leaving = false // has been told, or has asked, to go
    Object.defineProperty(this, '_master', { value: master })
  }

  isConnected () { return this.process.connected }
  isDead () { return this.process.exitCode !== null || this.process.signalCode !== null }

  // send returns false when so much waits that the caller should, too.
  send (message, handle, options, done) {
    done = [handle, options, done].find((arg) => typeof arg === 'function')
    if (!this.process.connected) {
      const err = new Error('Channel closed')
      err.code = 'ERR_IPC_CHANNEL_CLOSED'
      if (done) process.nextTick(done, err)
      else process.nextTick(() => this.emit('error', err))
      return false
    }
    return this._master._send(this, message, done)
  }

  kill (signal = 'SIGTERM') {
    if (typeof signal === 'number') signal = Object.keys(os.constants.signals).find((name) => os.constants.signals[name] === signal) || 'SIGTERM'
    this._master.signal(this, signal).catch(() => {}) // it has ended
    return true
  }

  destroy (signal) { this.kill(signal) }

  // disconnect replaces the worker, as {cmd:'disconnect'} of its own does: the slot
  // is not left dark.
  disconnect () {
    this.exitedAfterDisconnect = true
    this._master.restart(this.slot).catch(() => {})
    return this
  }
}

// Master runs handoff. Events: fork, online, listening (worker, address), ready
// (worker), message (worker, message), draining, disconnect, exit (worker, code,
// signal); live (generation), failed (generation, reason, stderr), end (code).
class Master extends EventEmitter {
  // options: exec, args, execArgv, workers, or folder; env, cwd, flags (of handoff run),
  // silent
  constructor (options) {
    super()
    this.setMaxListeners(0)
    this.options = options
    this.workers = new Map() // by id
    this.live = 0
    this.ended = false
    this.failures = new Map() // generation -> {reason, stderr}
    this._waiting = 0 // bytes of messages under way
    this._seen = 0
    this._agent = new http.Agent({ keepAlive: false, maxSockets: 8 })
  }

  start () {
    const o = this.options
    const binary = findBinary()
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'handoff-'))
    this.socket = path.join(this.dir, NAME + '.sock')
    const what = o.folder !== undefined
      ? [path.resolve(o.folder)]
      : ['--contract', 'node', '-n', String(o.workers), '--', process.execPath, ...(o.execArgv || []), path.resolve(o.exec), ...(o.args || []).map(String)]
    const args = ['run', '--embedded', '--name', NAME, '--log', 'json', '--log-file', '/dev/null',
      ...(o.silent ? ['--capture', 'json'] : []), ...(o.flags || []), ...what]
    const env = { ...process.env, ...o.env, HANDOFF_RUNTIME_DIR: this.dir, HANDOFF_PARENT: String(process.pid) }
    for (const name of Object.keys(env)) if (/^HANDOFF_(RUN|WORKERS|NAME|LOG|CONFIG)$/.test(name) || env[name] === undefined) delete env[name]
    // A session of its own: what is typed at a terminal is the caller's to handle.
    this.child = spawn(binary, args, { cwd: o.cwd, env, detached: true, stdio: ['ignore', o.silent ? 'pipe' : 'inherit', o.silent ? 'pipe' : 'inherit'] })
    this.pid = this.child.pid
    if (o.silent) for (const stream of ['stdout', 'stderr']) lines(this.child[stream], (line) => this._wrote(stream, line))
    this.child.on('error', (err) => this._over(null, err))
    this.child.on('exit', (code, signal) => this._over(code, signal ? new Error(`handoff was killed by ${signal}`) : null))
    this._follow()
    return this
  }

  _over (code, err) {
    if (this.ended) return
    this.ended = true
    for (const w of [...this.workers.values()]) this._exited(w, null, null)
    this._agent.destroy()
    fs.rm(this.dir, { recursive: true, force: true }, () => {})
    this.emit('end', code, err)
  }

  // ask is one call of the control API. Between two masters nobody answers for a
  // moment.
  ask (method, pathname, body, since = Date.now()) {
    return new Promise((resolve, reject) => {
      const again = (err) => {
        if (this.ended || Date.now() - since > PATIENCE_MS) return reject(this.ended ? new Error('handoff has ended') : err)
        setTimeout(() => this.ask(method, pathname, body, since).then(resolve, reject), RETRY_MS)
      }
      const req = http.request({ socketPath: this.socket, agent: this._agent, method, path: pathname, headers: body === undefined ? {} : { 'Content-Type': 'application/json' } }, (res) => {
        let text = ''
        res.setEncoding('utf8')
        res.on('data', (part) => { text += part })
        res.on('error', again)
        res.on('end', () => {
          if (res.statusCode === 503) return again(new Error('handoff: nobody answers'))
          let answer
          try { answer = JSON.parse(text) } catch (err) { return again(err) }
          if (res.statusCode !== 200) return reject(new Error('handoff: ' + answer.error))
          resolve(answer)
        })
      })
      req.on('error', (err) => {
        // What may have been done is not asked for twice, unless it only looks.
        const twice = method === 'GET' || /^\/v1\/(reload|scale|freeze|balance|stop)/.test(pathname) ? ['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE'] : ['ENOENT', 'ECONNREFUSED']
        if (twice.includes(err.code)) again(err)
        else reject(err)
      })
      req.end(body)
    })
  }

  // _follow hears what happens, for as long as handoff lives.
  _follow () {
    if (this.ended) return
    const again = () => { if (!this.ended) setTimeout(() => this._follow(), RETRY_MS) }
    let done = false
    const once = () => { if (!done) { done = true; again() } }
    const req = http.get({ socketPath: this.socket, path: '/v1/told?follow=1&last=1000000', agent: false }, (res) => {
      if (res.statusCode !== 200) { res.resume(); return once() }
      // Lines are numbered: of a master that is asked once more only what is new counts.
      if (res.headers['handoff-master'] !== this._of) {
        this._of = res.headers['handoff-master']
        this._last = 0
      }
      lines(res, (line) => {
        const at = line.indexOf(' ')
        const number = Number(line.slice(0, at))
        if (!(number > this._last)) return
        this._last = number
        let event
        try { event = JSON.parse(line.slice(at + 1)) } catch (err) { return }
        this._heard(event)
      })
      res.on('close', once)
      res.on('error', once)
    })
    req.on('error', once)
  }

  _heard (e) {
    let w = this.workers.get(e.worker)
    switch (e.event) {
      case 'worker.started':
        if (w) return
        w = new Worker(this, e)
        this.workers.set(w.id, w)
        cluster.workers = cluster.workers || {}
        cluster.workers[w.id] = w
        this.emit('fork', w)
        break
      case 'node.online':
        if (!w || w.state !== 'none') return
        w.state = 'online'
        w.emit('online')
        this.emit('online', w)
        break
      case 'node.listening':
        if (!w) return
        w.state = 'listening'
        w.emit('listening', e.address)
        this.emit('listening', w, e.address)
        break
      case 'worker.ready':
        if (!w || w.ready) return
        w.ready = true
        this.emit('ready', w)
        break
      case 'node.message':
        if (!w) return
        if (e.message && e.message.cmd === 'disconnect') this._leaves(w)
        w.emit('message', e.message)
        w.process.emit('message', e.message)
        this.emit('message', w, e.message)
        break
      case 'worker.leaving':
        if (w) this._leaves(w)
        break
      case 'worker.draining':
        if (!w) return
        w.exitedAfterDisconnect = true
        w.state = 'disconnecting'
        this._leaves(w)
        this.emit('draining', w)
        break
      case 'node.disconnect':
        if (w) this._disconnected(w)
        break
      case 'worker.shutdown':
      case 'worker.crashed':
      case 'worker.lost':
        if (w) this._exited(w, e.code === undefined ? null : e.code, e.killed_by || null, e.event === 'worker.crashed')
        break
      case 'cluster.started':
      case 'cluster.reloaded':
        this.live = e.generation
        this.emit('live', e.generation)
        break
      case 'cluster.failed':
        this.failures.set(e.generation, { reason: e.reason, stderr: e.stderr })
        this.emit('failed', e.generation, e.reason, e.stderr)
        break
    }
    this.emit('event', e, w)
  }

  _leaves (w) {
    if (w.leaving) return
    w.leaving = true
    this.emit('leaving', w)
  }

  _disconnected (w) {
    if (!w.process.connected) return
    w.process.connected = false
    if (w.state !== 'dead') w.state = 'disconnected'
    w.emit('disconnect')
    this.emit('disconnect', w)
  }

  _exited (w, code, signal, crashed) {
    this.workers.delete(w.id)
    w.process.exitCode = code
    w.process.signalCode = signal
    if (code === null && signal === null) w.process.exitCode = 0
    w.crashed = !!crashed
    this._disconnected(w)
    w.state = 'dead'
    if (cluster.workers && cluster.workers[w.id] === w) delete cluster.workers[w.id]
    w.process.emit('exit', code, signal)
    w.emit('exit', code, signal)
    this.emit('exit', w, code, signal)
  }

  _wrote (stream, line) {
    let l
    try { l = JSON.parse(line) } catch (err) { return }
    if (!l || l.stream === undefined) return
    for (const w of this.workers.values()) {
      if (w.process.pid === l.pid && w.process[l.stream]) w.process[l.stream].write(l.line + '\n')
    }
  }

  _send (w, message, done) {
    const body = JSON.stringify(message)
    if (body === undefined) throw new TypeError('The "message" argument must be given')
    this._waiting += body.length
    // One after another, as a channel has it.
    const sent = (w._sending || Promise.resolve()).catch(() => {}).then(() => this.ask('POST', `/v1/workers/${w.id}/message`, body))
    Object.defineProperty(w, '_sending', { value: sent, writable: true, configurable: true })
    sent.then(() => done && done(null), (err) => {
      if (done) done(err)
      else if (!this.ended && w.process.connected) w.emit('error', err)
    }).finally(() => { this._waiting -= body.length })
    return this._waiting < 64 * 1024
  }

  signal (w, name) { return this.ask('POST', `/v1/workers/${w.id}/signal?name=${encodeURIComponent(name)}`) }
  freeze () { return this.ask('POST', '/v1/freeze') }
  restart (slot) { return this.ask('POST', `/v1/slots/${slot}/restart`) }
  scale (n) { return this.ask('POST', `/v1/scale?workers=${n}`) }
  status () { return this.ask('GET', '/v1/status') }

  // reload resolves when a new generation serves and the workers before it are gone;
  // it rejects when the new code was given up: the old serves on.
  async reload () {
    const { generation } = await this.ask('POST', '/v1/reload')
    await this.serves(generation)
    await this.until(() => [...this.workers.values()].every((w) => w.generation >= generation), 'exit')
    return generation
  }

  async serves (generation) {
    await this.until(() => this.live >= generation || this.failures.has(generation), 'live', 'failed')
    if (this.live >= generation) return
    const { reason, stderr } = this.failures.get(generation)
    const err = new Error(`the new code does not serve, the old serves on: ${reason}` + (stderr ? '\n' + stderr : ''))
    err.code = 'ERR_RELOAD_FAILED'
    throw err
  }

  // until resolves when ok says so, which may change with one of the events.
  until (ok, ...events) {
    return new Promise((resolve, reject) => {
      const look = () => {
        const over = ok()
        if (!over && !this.ended) return
        for (const name of [...events, 'end']) this.removeListener(name, look)
        if (over) resolve()
        else reject(new Error('handoff has ended'))
      }
      for (const name of [...events, 'end']) this.on(name, look)
      look()
    })
  }

  // stop resolves when everything has ended.
  async stop ({ now = false } = {}) {
    if (this.ended) return
    const end = new Promise((resolve) => this.once('end', resolve))
    this.ask('POST', '/v1/stop' + (now ? '?now=1' : '')).catch((err) => {
      if (!this.ended) this.child.kill(now ? 'SIGKILL' : 'SIGTERM')
      return err
    })
    await end
  }
}

// lines calls f for each line of a stream.
function lines (stream, f) {
  let rest = ''
  stream.setEncoding('utf8')
  stream.on('data', (text) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop()
    for (const part of parts) if (part) f(part)
  })
}

module.exports = { Master, Worker }
