'use strict'
// handoff's drain preload, loaded into an unmodified program by NODE_OPTIONS.
//
// Node's own drain of an HTTP server loses requests of keep-alive clients:
// server.close() closes idle connections at once, and a client may be sending
// its next request on one of them at that moment. Two measures together prevent it
// (docs/internals/drain.md has the measurements):
//
//   C  while draining, each response has `Connection: close`, so that busy clients
//      disconnect;
//   I  idle connections are closed only after a linger, in which a client's next request
//      is still answered.
//
// HTTP/2 sessions get a GOAWAY in two steps: first one with stream 2^31-1, so that
// requests in flight are still answered; then the session's own close, once the client
// has answered a PING sent after that GOAWAY, and so sends no more requests. Servers that
// the cluster module does not know (exclusive port 0) are closed here.
// Websockets are left to the program, or closed with --websocket-close, spread over
// --drain-spread.
//
// The program's own listeners for the drain signal, and for the two messages of a drain,
// are called at the end of the linger: most close their server, and some (Fastify) refuse
// requests from then on.
//
// A server that listens with exclusive or reusePort on a port or path of its choice asks the
// master for its socket, as one without does.
//
// A program that has nothing more to do, and has never listened, ends as it would with no
// channel to handoff.
//
// Before the drain only these are changed: process.env, which is restored to what the
// user had, cluster.worker.disconnect, cluster._getServer until it is first called,
// net.Server.prototype.listen, which asks the master for exclusive servers, fs.unlink and
// fs.rm, which keep the file of a unix socket that handoff holds, and
// net.Server.prototype.emit, which records servers, HTTP/2 sessions and upgraded sockets
// (all servers inherit it); with --max-requests also emit of http.Server and https.Server.
//
// Under --no-preload a program may require it itself, as its first line; of several
// copies only the first is active.
//
// Touched: net.Server.prototype.emit, close of a server that drains, process.emit (behind
// a launcher, for the drain signal; in a drain, for its messages), the handle below an HTTP/2 session's socket (process.binding('stream_wrap'), undocumented; Node 18-26),
// http.ServerResponse.prototype.writeHead, closeIdleConnections of
// http.Server.prototype and https.Server.prototype (Node >= 18.2; before, Node leaves
// idle connections open), process 'internalMessage' and cluster._getServer (undocumented;
// Node 12-26), process.channel.refCounted and unrefCounted (undocumented; Node 14-26).

const LINGER = 'HANDOFF_PRELOAD_LINGER_MS'
const OPTIONS = 'HANDOFF_PRELOAD_NODE_OPTIONS'
const SIGNAL = 'HANDOFF_PRELOAD_SIGNAL' // behind a launcher: the signal that starts the drain
const NOTIFY = 'HANDOFF_PRELOAD_NOTIFY' // behind a launcher: the program that sends notices
const READY = 'HANDOFF_PRELOAD_READY' // handoff waits for ready
const REQUESTS = 'HANDOFF_MAX_REQUESTS' // served requests after which the worker is replaced
const WEBSOCKET = 'HANDOFF_PRELOAD_WEBSOCKET' // the code of the close frame, and the ms over which the closes are spread
const EMIT = 'HANDOFF_PRELOAD_EMIT' // a signal whose listeners are called in the drain
const SETTLE_MS = 1000 // longest time until the first GOAWAY of an HTTP/2 session
const PING_BYTES = 17
const REQUEST_MS = 100 // of that, longest wait for the client's next request
const GOAWAY_MS = 300 // from the client's answer to the second step
const RECHECK_MS = 250
const EXIT_MS = 2000 // for the exit, after the last connection has ended

const ATTACHED = Symbol.for('handoff.preload') // several copies may be required: the injected one, and the package's

const linger = process.env[LINGER]
const emitted = process.env[EMIT]
const websocket = (process.env[WEBSOCKET] || '').split(',').map(Number)
if (linger !== undefined && process.env[SIGNAL]) {
  // The environment stays, since it is meant for the launcher's children.
  once(() => {
    attachBehind(Number(linger), process.env[SIGNAL])
    if (process.env[READY] && process.env[NOTIFY] && process.env.NOTIFY_SOCKET && !process.send) sayReady(process.env[NOTIFY])
  })
} else if (linger !== undefined) {
  // Children and worker threads get the environment without the preload.
  if (process.env[OPTIONS] === undefined) delete process.env.NODE_OPTIONS
  else process.env.NODE_OPTIONS = process.env[OPTIONS]
  delete process.env[LINGER]
  delete process.env[OPTIONS]
  delete process.env[WEBSOCKET]
  delete process.env[EMIT]
  if (process.channel) once(() => attachChannel(Number(linger)))
} else if (process.env.HANDOFF_GENERATION !== undefined && process.env.WORKER_ID !== undefined) {
  // Required by the program itself, under --no-preload.
  once(() => {
    const ms = milliseconds(process.env.HANDOFF_KEEPALIVE_LINGER)
    if (process.channel) attachChannel(ms)
    else attachBehind(ms, 'SIG' + (process.env.HANDOFF_DRAIN_SIGNAL || 'TERM').replace(/^SIG/, ''))
  })
}

function once (f) {
  if (process[ATTACHED] || !require('worker_threads').isMainThread) return
  Object.defineProperty(process, ATTACHED, { value: true })
  f()
}

function attachChannel (lingerMs) {
  attach(lingerMs)
  holdExclusive()
  keepPaths()
  endWhenIdle()
  if (Number(process.env[REQUESTS]) > 0) countRequests(Number(process.env[REQUESTS]))
}

// holdExclusive has servers that listen with exclusive or reusePort ask the master for
// their socket. The cluster module lets them bind by themselves: then the second worker
// gets EADDRINUSE, and no reload could keep the socket. Each gets one of its own from the
// master, too. A port 0 is left to the kernel: it is meant for one process.
function holdExclusive () {
  if (!require('cluster').isWorker) return
  const { prototype } = require('net').Server
  const { listen } = prototype
  prototype.listen = function (options, ...rest) {
    if (options !== null && typeof options === 'object' && (options.exclusive || options.reusePort) && (Number(options.port) > 0 || options.path)) {
      options = Object.create(options, { exclusive: { value: false }, reusePort: { value: false } })
      return listen.call(this, options, ...rest)
    }
    return listen.apply(this, arguments)
  }
}

// endWhenIdle lets a program end that is no server. Node keeps a process alive while it has
// a listener for 'message' or 'disconnect' on its channel, and the cluster module has one
// for each. These two no longer count until the program first listens, which is before the
// master is asked for a socket; listeners of the program's own do, on cluster.worker too.
function endWhenIdle () {
  const cluster = require('cluster')
  const { channel } = process
  const { worker, _getServer } = cluster
  if (!worker || typeof _getServer !== 'function' || typeof channel.unrefCounted !== 'function') return
  const own = 2
  for (let i = 0; i < own; i++) channel.unrefCounted()
  cluster._getServer = function () {
    cluster._getServer = _getServer
    for (let i = 0; i < own; i++) channel.refCounted()
    return _getServer.apply(this, arguments)
  }
  const counts = (name) => name === 'message' || name === 'disconnect'
  worker.on('newListener', (name) => { if (counts(name)) channel.refCounted() })
  worker.on('removeListener', (name) => { if (counts(name)) channel.unrefCounted() })
}

// keepPaths has a program that removes the file of its unix socket, before it listens or at
// its end, succeed and remove nothing: other workers serve there. handoff's file has a second
// name beside it.
function keepPaths () {
  const fs = require('fs')
  const path = require('path')
  const { lstatSync } = fs
  const held = (file) => {
    try {
      const name = path.resolve(Buffer.isBuffer(file) ? file.toString() : file instanceof URL ? require('url').fileURLToPath(file) : file)
      const at = lstatSync(name)
      return at.isSocket() && at.nlink > 1 && lstatSync(path.join(path.dirname(name), '.' + path.basename(name) + '.handoff')).ino === at.ino
    } catch (err) {
      return false
    }
  }
  for (const name of ['unlink', 'rm']) {
    const [later, sync, promised] = [fs[name], fs[name + 'Sync'], fs.promises[name]]
    if (!later) continue // rm: Node 14.14
    fs[name] = function (file, ...rest) {
      const done = rest[rest.length - 1]
      return typeof done === 'function' && held(file) ? process.nextTick(done, null) : later.call(this, file, ...rest)
    }
    fs[name + 'Sync'] = function (file, ...rest) { return held(file) ? undefined : sync.call(this, file, ...rest) }
    fs.promises[name] = async function (file, ...rest) { return held(file) ? undefined : promised.call(this, file, ...rest) }
  }
  const { syncBuiltinESMExports } = require('module')
  if (syncBuiltinESMExports) syncBuiltinESMExports() // for what imports them by name
}

// milliseconds reads a duration as Go writes it: 6s, 1m30s, 200ms.
function milliseconds (text) {
  let ms = 0
  for (const [, n, unit] of String(text || '6s').matchAll(/([\d.]+)(ms|h|m|s)/g)) ms += Number(n) * { ms: 1, s: 1000, m: 60000, h: 3600000 }[unit]
  return ms
}

function attach (lingerMs) {
  let draining = false
  note()
  process.prependListener('internalMessage', (message) => {
    // Sent by the master before {cmd:'disconnect'}, which the program sees,
    // and before the cluster's own disconnect.
    if (message && message.cmd === 'NODE_HANDOFF' && message.act === 'drain' && !draining) {
      draining = true
      drain(lingerMs)
      for (const server of noted.servers) closeOnce(server)
      const deliver = holdMessages(message.message)
      whenOver(noted.servers, () => {
        deliver()
        // For a program that drains on a signal (PM2's SIGINT).
        if (emitted && process.listenerCount(emitted) > 0) process.emit(emitted, emitted, require('os').constants.signals[emitted])
      })
      // After the cluster module has closed its servers.
      setTimeout(() => { for (const server of noted.servers) if (server.listening) server.close() }, 0)
    }
  })
  replaceFirst(() => draining)
}

// holdMessages holds back the messages that follow the order to drain, {cmd: 'disconnect'}
// and the word of --drain-message, if there is one: each once, since a user may send the
// same. It returns the function that delivers them, at the latest before the cluster
// module closes the channel, so that the program can still answer.
function holdMessages (word) {
  const due = [(message) => message && message.cmd === 'disconnect']
  if (typeof word === 'string') due.push((message) => message === word)
  const held = []
  const emit = process.emit
  process.emit = function (event, message) {
    if (event !== 'message' || due.length === 0 || !due[0](message)) return emit.apply(this, arguments)
    due.shift()
    held.push(arguments)
    return true
  }
  return () => {
    due.length = 0
    for (const args of held) {
      // An exception is the program's, and keeps the cluster module from nothing.
      try { process.emit.apply(process, args) } catch (err) { process.nextTick(() => { throw err }) }
    }
  }
}

// countRequests notifies the master when that many requests have come.
function countRequests (most) {
  let requests = 0
  const { Server } = require('http')
  const count = (prototype) => {
    const emit = prototype.emit
    prototype.emit = function (event) {
      if (event === 'request' && ++requests === most && process.connected) {
        process.send({ cmd: 'handoff:requests', requests }, () => {})
      }
      return emit.apply(this, arguments)
    }
  }
  count(Server.prototype)
  count(require('https').Server.prototype)
}

// noted has what a drain must close, besides HTTP/1.
const noted = { servers: new Set(), sessions: new Set(), upgraded: new Set(), held: new Map(), draining: false, lingerMs: 0, lingered: null }

function note () {
  const prototype = require('net').Server.prototype
  const emit = prototype.emit
  prototype.emit = function (event, one, two) {
    switch (event) {
      case 'listening':
        if (!noted.servers.has(this)) {
          noted.servers.add(this)
          this.once('close', () => noted.servers.delete(this))
        }
        break
      case 'session':
        if (one && typeof one.goaway === 'function') {
          noted.sessions.add(one)
          one.once('close', () => noted.sessions.delete(one))
          if (noted.draining) leave(one, noted.lingerMs)
        }
        break
      case 'stream': {
        const held = one && noted.held.get(one.session)
        if (held) {
          held.push(() => { if (!one.destroyed) emit.apply(this, arguments) })
          if (held.next) setImmediate(held.next)
          return true
        }
        break
      }
      case 'upgrade':
        if (two && one && /websocket/i.test(one.headers && one.headers.upgrade)) {
          noted.upgraded.add(two)
          two.once('close', () => noted.upgraded.delete(two))
        }
    }
    return emit.apply(this, arguments)
  }
}

// leave ends an HTTP/2 session: requests in progress and in flight are answered. A close
// in the meantime (by the server itself, from Node 24 on) is delayed.
//
//	PING, answered, nothing sent meanwhile → a request → GOAWAY 2^31-1, PING, answered → close
//
// A Node client refuses, unsent, what it has requested in the turn of its event loop in
// which it reads a GOAWAY (nghttp2's -516; gRPC: "Stream refused by server"): most often
// between reading an answer and the GOAWAY behind it, or by a timer. So new requests are
// held until the client has read every answer, and the GOAWAY comes first; and it follows
// a request, since what a timer requests has just been sent then.
function leave (session, lingerMs) {
  if (session.destroyed || session.closed || noted.held.has(session)) return
  session.close = (done) => { if (typeof done === 'function') session.once('close', done) }
  noted.held.set(session, [])
  const ping = (then) => { try { session.ping(then) } catch (err) {} }
  const end = () => {
    delete session.close
    if (!session.destroyed) session.close()
  }
  const go = () => {
    const held = noted.held.get(session)
    if (!held) return
    clearTimeout(late)
    noted.held.delete(session)
    if (sayShutdown(session)) {
      const last = setTimeout(end, Math.max(GOAWAY_MS, lingerMs)).unref()
      // What the client sends before it has read the GOAWAY comes before its answer.
      ping(() => {
        clearTimeout(last)
        setTimeout(end, GOAWAY_MS).unref()
      })
    } else end()
    for (const emit of held) emit()
  }
  const late = setTimeout(go, SETTLE_MS)
  const settle = () => {
    const before = written(session)
    ping((err) => {
      const held = noted.held.get(session)
      if (!held) return
      if (!err && written(session) - before > PING_BYTES) return settle()
      if (err || held.length > 0) return go()
      held.next = go
      setTimeout(go, REQUEST_MS).unref()
    })
  }
  settle()
}

function written (session) { return (session.socket && session.socket._handle && session.socket._handle.bytesWritten) || 0 }

// sayShutdown writes a GOAWAY with stream 2^31-1 (RFC 9113, 6.8). It writes to the
// socket's handle, between two writes of the session, which are whole frames: after
// session.goaway(), nghttp2 would ignore every new stream, also one in flight. It returns
// false if that is not possible.
function sayShutdown (session) {
  try {
    const handle = session.socket._handle
    const { WriteWrap } = process.binding('stream_wrap')
    const req = new WriteWrap()
    req.handle = handle
    req.oncomplete = () => {}
    req.async = false
    if (handle.writeBuffer(req, Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])) === 0) return true
  } catch (err) {}
  return false
}

// closeWebsockets sends each websocket a close frame (RFC 6455, 5.5.1), one after the
// other.
function closeWebsockets (code, spreadMs) {
  const all = [...noted.upgraded]
  all.forEach((socket, i) => {
    setTimeout(() => {
      if (!socket.destroyed && socket.writable) socket.end(Buffer.from([0x88, 2, code >> 8, code & 255]))
    }, spreadMs * i / all.length).unref()
  })
}

// attachBehind waits for a server of this process to listen. From then on the signal
// drains it. At the end of the drain the program's own listeners for the signal are
// called; without any, the process exits.
function attachBehind (lingerMs, signal) {
  const { Server } = require('net')
  const listen = Server.prototype.listen
  const emit = process.emit
  const servers = new Set()
  let draining = false
  let release = null // calls the program's listeners at once
  note()
  const keep = () => {} // takes the signal's own effect away
  const sdk = () => process[Symbol.for('handoff.drain')] || {} // index.js has a listener of its own, which closes nothing
  const handled = () => {
    const { listening, signalled } = sdk()
    return process.listenerCount(signal) > 1 + (signalled ? process.listeners(signal).includes(signalled) : Boolean(listening))
  }
  const begin = (args) => {
    draining = true
    drain(lingerMs)
    if (sdk().begin) sdk().begin()
    let gone = false // to the program, which ends the process as it likes
    release = () => {
      release = null
      gone = handled()
      if (gone) emit.apply(process, args)
      return gone
    }
    whenOver(servers, () => { if (release) release() })
    if (gone) return
    const exit = () => {
      const { pending } = sdk() // hooks of the program that are still running
      if (pending) pending.then(exit)
      else process.exit(0)
    }
    let open = servers.size
    const closed = () => { if (--open <= 0 && !gone) setTimeout(exit, EXIT_MS).unref() }
    for (const server of servers) {
      closeOnce(server)
      server.close(closed)
    }
  }
  process.emit = function (event, name, number) {
    if (event !== signal || typeof number !== 'number' || (servers.size === 0 && !draining)) return emit.apply(this, arguments)
    if (!draining) {
      begin(arguments)
      return true
    }
    if (release && release()) return true // the drain timeout is over
    if (handled()) return emit.apply(this, arguments)
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
    return true
  }
  Server.prototype.listen = function () {
    if (servers.size === 0 && !draining) process.on(signal, keep)
    servers.add(this)
    this.once('close', () => {
      servers.delete(this)
      if (servers.size === 0 && !draining) process.removeListener(signal, keep)
    })
    return listen.apply(this, arguments)
  }
}

// whenOver calls f at the end of the drain: at the end of the linger, or when the servers
// have no connections any more. If none of them is an HTTP server, at once.
function whenOver (servers, f) {
  const http = [...servers].filter((server) => server.listenerCount('request') + server.listenerCount('stream') > 0)
  let open = http.length
  const over = () => {
    const once = f
    f = null
    if (once) once()
  }
  if (open === 0) return over()
  for (const server of http) server.once('close', () => { if (--open === 0) over() })
  noted.lingered.then(over)
}

// closeOnce makes further calls of a server's close succeed: the drain has closed the
// server before the program does.
function closeOnce (server) {
  const close = server.close
  let called = false
  let closed = false
  server.once('close', () => { closed = true })
  server.close = function (done) {
    if (!called) {
      called = true
      return close.apply(this, arguments)
    }
    if (typeof done === 'function') {
      if (closed) process.nextTick(done)
      else this.once('close', () => done())
    }
    return this
  }
}

// sayReady gives a process without a channel (the launcher has not passed it on) a
// process.send that forwards only ready. Other messages are dropped.
function sayReady (program) {
  process.send = function (message, ...rest) {
    if (message === 'ready' || (message && message.cmd === 'ready')) {
      require('child_process').spawn(program, ['notify', 'READY=1'], { stdio: 'ignore' }).on('error', () => {}).unref()
    }
    const done = rest.find((arg) => typeof arg === 'function')
    if (done) process.nextTick(done, null)
    return true
  }
}

// cluster.worker.disconnect() would close the servers at once and leave the slot
// unserved. It means "replace me": the master drains this worker when another serves.
function replaceFirst (draining) {
  const worker = require('cluster').worker
  if (!worker) return
  const disconnect = worker.disconnect
  worker.disconnect = function () {
    if (draining()) return this // the drain does it; asking the master again would count as a wish to be replaced
    if (!process.connected) return disconnect.call(this)
    process.send({ cmd: 'disconnect' })
    return this
  }
}

function drain (lingerMs) {
  noted.draining = true
  noted.lingerMs = lingerMs
  for (const session of noted.sessions) leave(session, lingerMs)
  if (websocket[0] >= 1000) closeWebsockets(websocket[0], websocket[1] || 0)
  const http = require('http')
  closeAfterResponse(http.ServerResponse.prototype)
  const waiting = new Map() // server -> its closeIdleConnections
  closeIdleLater(http.Server.prototype, waiting)
  if (process.moduleLoadList.includes('NativeModule https')) closeIdleLater(require('https').Server.prototype, waiting)
  noted.lingered = new Promise((resolve) => {
    setTimeout(() => {
      waiting.over = true
      const close = () => setImmediate(() => { for (const [server, closeIdle] of waiting) closeIdle.call(server) })
      close()
      setInterval(close, RECHECK_MS).unref()
      setImmediate(resolve)
    }, lingerMs).unref()
  })
}

function closeAfterResponse (prototype) {
  const writeHead = prototype.writeHead
  prototype.writeHead = function (status, reason, headers) {
    // 1xx responses are not changed: 101 ends HTTP, the others precede the response.
    if (status < 200 || this.headersSent) return writeHead.apply(this, arguments)
    this.shouldKeepAlive = false
    const at = typeof reason === 'string' ? 2 : 1
    const given = at === 2 ? headers : (headers || reason)
    if (given === undefined || given === null || typeof given !== 'object') {
      this.setHeader('Connection', 'close')
      return writeHead.apply(this, arguments)
    }
    const args = [status]
    if (at === 2) args.push(reason)
    args.push(closing(given))
    return writeHead.apply(this, args)
  }
}

// closing returns the headers, in the form in which writeHead got them, with `Connection:
// close` and no other Connection.
function closing (headers) {
  if (!Array.isArray(headers)) {
    const copy = {}
    for (const name of Object.keys(headers)) if (!isConnection(name)) copy[name] = headers[name]
    copy.Connection = 'close'
    return copy
  }
  if (Array.isArray(headers[0])) return headers.filter((pair) => !isConnection(pair[0])).concat([['Connection', 'close']])
  const copy = []
  for (let i = 0; i + 1 < headers.length; i += 2) if (!isConnection(headers[i])) copy.push(headers[i], headers[i + 1])
  copy.push('Connection', 'close')
  return copy
}

function isConnection (name) { return String(name).toLowerCase() === 'connection' }

function closeIdleLater (prototype, waiting) {
  const closeIdle = prototype.closeIdleConnections
  if (typeof closeIdle !== 'function') return
  prototype.closeIdleConnections = function () {
    // What has arrived is read first: timers, which are late on a busy machine, come
    // before the poll, and an immediate after it.
    if (waiting.over) setImmediate(() => closeIdle.call(this))
    else waiting.set(this, closeIdle)
  }
}
