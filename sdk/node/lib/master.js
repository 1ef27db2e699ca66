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
const BUSY_MS = 100 // at most, before a worker that does not read is asked again
const MESSAGE_MOST = 1 << 20 // bytes of a message
const QUEUE_MOST = 64 << 20 // bytes of messages that wait for one worker
const QUEUE_MUCH = 64 << 10 // from which on send says so
// A flag of `handoff run` has a variable each. What is set around the caller is not meant
// for this one.
const FLAGS = new Set(('CONFIG WORKERS PORTS READY_WHEN READY_TIMEOUT READY_DELAY DRAIN_TIMEOUT KILL_GRACE QUIET_TIMEOUT RESPAWN BACKOFF MAX_FAILURES STRATEGY SURGE CANARY ' +
  'BALANCE CONTRACT DRAIN_SIGNAL HOLD NO_HOLD LISTEN WATCHDOG DRAIN_SPREAD UPGRADE_TIMEOUT KEEPALIVE_LINGER WEBSOCKET_CLOSE NO_PRELOAD PID_FILE NAME CWD ' +
  'ENV ENV_FILE LOG LOG_LEVEL LOG_FILE WATCH WATCH_IGNORE WATCH_DELAY ADMIN ADMIN_TOKEN_FILE MAX_AGE MAX_MEMORY MAX_REQUESTS RELOAD_EVERY STALL_KILL HOOK ' +
  'HOOK_TIMEOUT LOG_PREFIX CAPTURE CAPTURE_DIR USER GROUP UMASK NICE RLIMIT CPU_AFFINITY CGROUP PDEATHSIG SLOT_VARIABLE DRAIN_MESSAGE ONLY PM2_ENV ' +
  'NO_STEERING EMBEDDED RACK_VERSION SCRATCH PRIVATE').split(' ').map((name) => 'HANDOFF_' + name))

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

  // send returns false when so much waits that the caller should, too. What goes wrong
  // is for done; without it for who listens for 'error', if anybody does.
  send (message, handle, options, done) {
    const given = handle
    done = [handle, options, done].find((arg) => typeof arg === 'function')
    if (given !== undefined && given !== null && typeof given !== 'function') {
      const err = error('ERR_HANDLE_NOT_SUPPORTED', 'handoff: a handle cannot be sent to a worker, only a message')
      if (!done) throw err
      process.nextTick(done, err)
      return false
    }
    return this._master._send(this, message, done)
  }

  // kill tells whether there was somebody to get the signal; 0 only asks that.
  kill (signal = 'SIGTERM') {
    if (signal === null) signal = 'SIGTERM'
    const { signals } = os.constants
    let name = String(signal).toUpperCase()
    if (typeof signal === 'number') name = Object.keys(signals).find((n) => signals[n] === signal)
    else if (signals[name] === undefined) name = 'SIG' + name
    if (signal !== 0 && signals[name] === undefined) throw error('ERR_UNKNOWN_SIGNAL', `handoff: unknown signal: ${signal}`, TypeError)
    if (this.isDead()) return false
    if (signal === 0) {
      try { return process.kill(this.process.pid, 0) } catch (err) { return err.code === 'EPERM' }
    }
    this._master.signal(this, name).catch(() => {}) // it has ended
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
  // silent; readyTimeout, in ms: how long a new worker of a reload may take
  constructor (options) {
    super()
    this.setMaxListeners(0)
    this.options = options
    this.workers = new Map() // by id
    this.live = 0
    this.ended = false
    this.failures = new Map() // generation -> {reason, stderr}
    this._of = null // the master whose lines are heard, and the last of them
    this._last = 0
    this._early = null // events of workers that nobody knows yet, while the status is asked for
    this._serving = new Set() // reloads that somebody waits for: {generation, reason, stderr}
    this._agent = new http.Agent({ keepAlive: false, maxSockets: 8 })
  }

  start () {
    const o = this.options
    const binary = findBinary()
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'handoff-'))
    this.socket = path.join(this.dir, NAME + '.sock')
    this._clean = () => { // at once: who hears that it has ended may exit
      try { fs.rmSync(this.dir, { recursive: true, force: true }) } catch (err) {}
    }
    process.on('exit', this._clean)
    const what = o.folder !== undefined
      ? [path.resolve(o.folder)]
      : ['--contract', 'node', '-n', String(o.workers), '--', process.execPath, ...(o.execArgv || []), path.resolve(o.exec), ...(o.args || []).map(String)]
    const args = ['run', '--embedded', '--name', NAME, '--log', 'json', '--log-file', '/dev/null',
      ...(o.silent ? ['--capture', 'json'] : []), ...(o.readyTimeout > 0 ? ['--ready-timeout', Math.round(o.readyTimeout) + 'ms'] : []), ...(o.flags || []), ...what]
    const env = { ...process.env, ...o.env, HANDOFF_RUNTIME_DIR: this.dir, HANDOFF_PARENT: String(process.pid) }
    for (const name of Object.keys(env)) if (FLAGS.has(name) || name.startsWith('HANDOFF_PRELOAD_') || env[name] === undefined) delete env[name]
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
    process.removeListener('exit', this._clean)
    this._clean()
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
        const twice = method === 'GET' || /^\/v1\/(reload|scale|freeze|balance|stop|told)/.test(pathname) ? ['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE'] : ['ENOENT', 'ECONNREFUSED']
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
    const req = http.get({ socketPath: this.socket, path: `/v1/told?after=${this._last}&of=${this._of}`, agent: false }, (res) => {
      const of = res.headers['handoff-master']
      if (res.statusCode !== 200) { res.resume(); return once() }
      // Lines are numbered from 1 by each master. What the one before has not come to say
      // is in the status.
      if (of !== this._of) {
        const first = this._of === null
        this._of = of
        this._last = 0
        if (!first) this._sync()
      }
      lines(res, (line) => {
        const at = line.indexOf(' ')
        const number = Number(line.slice(0, at))
        if (of !== this._of || !(number > this._last)) return
        if (number > this._last + 1) this._missed(number - this._last - 1)
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

  _missed (n) {
    warn('HANDOFF_EVENTS_LOST', `handoff: this process was busy for so long that ${n} events and messages of workers are lost`)
    this._sync()
  }

  // _sync has the status put among the events. What comes before it of workers that are
  // not known waits for it.
  _sync () {
    this._early = this._early || []
    this.ask('POST', '/v1/told/status').catch(() => { this._early = null }) // it ends, or another master comes
  }

  // _reconcile makes of the status what the events that were lost would have.
  _reconcile (status) {
    const early = this._early || []
    this._early = null
    const there = new Map(status.workers.map((ws) => [ws.worker, ws]))
    for (const w of [...this.workers.values()]) if (!there.has(w.id)) this._exited(w, null, null)
    for (const ws of there.values()) {
      if (!this.workers.has(ws.worker)) this._heard({ event: 'worker.started', ...ws })
      const w = this.workers.get(ws.worker)
      if (w.state === 'none' && ws.ready_at) this._heard({ event: 'node.online', ...ws })
      if (!w.ready && ws.ready_at) this._heard({ event: 'worker.ready', ...ws })
      if (ws.phase === 'draining' && !w.exitedAfterDisconnect) this._heard({ event: 'worker.draining', ...ws })
      else if (ws.phase === 'quieting') this._leaves(w)
    }
    for (const e of early) if (this.workers.has(e.worker)) this._heard(e)
    if (status.generation > this.live) this._heard({ event: 'cluster.reloaded', generation: status.generation })
    this._look()
  }

  _heard (e) {
    let w = this.workers.get(e.worker)
    if (!w && this._early && e.worker !== undefined && e.event !== 'worker.started') {
      this._early.push(e)
      return
    }
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
        if (!(e.generation > this.live)) break // the status has said so
        this.live = e.generation
        this.emit('live', e.generation)
        break
      case 'cluster.failed':
        if (e.generation === undefined) break // what failed was no generation
        this.failures.set(e.generation, { reason: e.reason, stderr: e.stderr })
        this.emit('failed', e.generation, e.reason, e.stderr)
        break
      case 'reload.refused':
      case 'config.failed':
      case 'upgrade.failed':
        this._look() // perhaps a reload was to follow
        break
      case 'cluster.status':
        this._reconcile(e.status)
        break
      case 'worker.garbled':
        warn('HANDOFF_MESSAGE_DROPPED', `handoff: worker ${e.worker} (slot ${e.slot}, pid ${e.pid}): ${e.msg}`)
        break
      case 'told.lost':
        warn('HANDOFF_EVENTS_LOST', `handoff: this process was busy for so long that ${e.messages} messages of workers are lost`)
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
    if (cluster.workers && cluster.workers[w.id] === w) delete cluster.workers[w.id]
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

  // _send has messages wait in order, for as long as the worker does not read.
  _send (w, message, done) {
    const body = JSON.stringify(message)
    if (body === undefined) throw new TypeError('The "message" argument must be given')
    const size = Buffer.byteLength(body)
    const queue = w._queue || (Object.defineProperty(w, '_queue', { value: { all: [], size: 0, busy: false } }), w._queue)
    let err = null
    if (!w.process.connected) err = error('ERR_IPC_CHANNEL_CLOSED', 'Channel closed')
    else if (size > MESSAGE_MOST) err = error('ERR_MESSAGE_TOO_LARGE', `handoff: a message of ${size} bytes is too large for a worker, ${MESSAGE_MOST} are the most`)
    else if (queue.size + size > QUEUE_MOST) err = error('ERR_WORKER_BUSY', `handoff: worker ${w.id} does not read: ${queue.size} bytes wait for it already`)
    if (err) {
      process.nextTick(() => this._notSent(w, done, err))
      return false
    }
    queue.all.push({ body, size, done })
    queue.size += size
    if (!queue.busy) this._pump(w, queue)
    return queue.size < QUEUE_MUCH
  }

  _notSent (w, done, err) {
    if (done) done(err)
    else if (this.ended || !w.process.connected || w.leaving || err.code === 'ERR_IPC_CHANNEL_CLOSED') return // it goes, as those in a broadcast may
    else if (w.listenerCount('error') > 0) w.emit('error', err)
    else warn('HANDOFF_MESSAGE_DROPPED', `${err.message} (for worker ${w.id})`)
  }

  async _pump (w, queue) {
    queue.busy = true
    let head = 0
    let wait = RETRY_MS
    while (head < queue.all.length) {
      const { body, size, done } = queue.all[head]
      let err = null
      try {
        if (!w.process.connected) throw error('ERR_IPC_CHANNEL_CLOSED', 'Channel closed')
        await this.ask('POST', `/v1/workers/${w.id}/message`, body)
        wait = RETRY_MS
      } catch (e) {
        if (/does not read/.test(e.message) && w.process.connected && !this.ended) {
          await new Promise((resolve) => setTimeout(resolve, wait))
          wait = Math.min(wait * 2, BUSY_MS)
          continue
        }
        err = /has no channel/.test(e.message) ? error('ERR_IPC_CHANNEL_CLOSED', 'Channel closed') : e // it is told in a moment
      }
      queue.all[head++] = null
      queue.size -= size
      if (head > 1000) {
        queue.all.splice(0, head)
        head = 0
      }
      // Not within this promise: what a callback throws is the caller's.
      if (err) process.nextTick(() => this._notSent(w, done, err))
      else if (done) process.nextTick(done, null)
    }
    queue.all.length = 0
    queue.busy = false
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

  // serves resolves when a generation does, or one that has overtaken it. It rejects when
  // it, or the one that has overtaken it, is given up, or nothing comes of the reload.
  async serves (generation) {
    const reload = { generation, failed: null }
    this._serving.add(reload)
    const failed = () => reload.failed || [...this.failures].filter(([g]) => g >= generation).map(([, f]) => f)[0]
    this._look() // what was told before is in the status
    try {
      await this.until(() => this.live >= generation || failed(), 'live', 'failed', 'looked')
    } finally {
      this._serving.delete(reload)
    }
    if (this.live >= generation) return
    const { reason, stderr } = failed()
    throw error('ERR_RELOAD_FAILED', `the new code does not serve, the old serves on: ${reason}` + (stderr ? '\n' + stderr : ''))
  }

  // _look asks what has become of the reloads that are waited for now: one that was
  // refused comes to no generation, and its number is given again.
  _look () {
    const reloads = [...this._serving]
    if (reloads.length === 0) return
    this.status().then((s) => {
      const last = s.reload || {}
      const rests = s.wanted_generation === s.generation
      for (const reload of reloads) {
        if (s.generation >= reload.generation || last.outcome !== 'failed') continue
        if (last.generation === reload.generation || (last.generation > reload.generation && rests)) {
          reload.failed = { reason: last.reason, stderr: (last.stderr || []).join('\n') }
        }
      }
      this.emit('looked')
    }, () => {}) // it ends, or a new master comes and it is asked again
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

function error (code, message, Kind = Error) {
  return Object.assign(new Kind(message), { code })
}

function warn (code, message) { process.emitWarning(message, { type: 'HandoffWarning', code }) }

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
