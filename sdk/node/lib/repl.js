'use strict'
// cluster-master's REPL: on a unix socket that only this user can open, or on loopback.
// A client that connects can do everything that this process can.
const fs = require('fs')
const net = require('net')
const path = require('path')
const repl = require('repl')

class Repl {
  // context is the context of a session, with getters for what changes; log(...) reports.
  constructor (context, log) {
    this.context = context
    this.log = log
    this.connections = 0 // open now
    this.count = 0 // of all
    this.sessions = new Set()
    this.server = null
  }

  // listen: on a path, a port of loopback, or an {address, port}.
  listen (at) {
    const { log } = this
    if (typeof at === 'string' && /^[0-9]+$/.test(at)) at = +at
    this.server = net.createServer((socket) => this.start(socket))
    this.server.on('error', (err) => log('ClusterMaster repl: %s', err.message))
    const listening = () => log('ClusterMaster repl listening on %s', typeof at === 'object' ? at.address + ':' + at.port : at)
    if (typeof at === 'string') {
      at = path.resolve(at)
      log('starting repl on %s', at)
      try {
        if (fs.lstatSync(at).isSocket()) fs.unlinkSync(at)
      } catch (err) {} // it does not exist
      const mask = process.umask(0o177)
      this.server.listen(at, listening)
      process.umask(mask)
      return
    }
    const { port, address = '127.0.0.1' } = typeof at === 'number' ? { port: at } : at
    log('starting repl on %s:%d', address, port)
    this.server.listen(port, address, listening)
  }

  close () {
    if (!this.server) return
    this.server.close()
    for (const session of this.sessions) session.close()
    this.server = null
  }

  // print writes a line to every session.
  print (text) {
    for (const session of this.sessions) {
      session.output.write(text + '\n')
      session.displayPrompt()
    }
  }

  start (socket) {
    const id = this.count++
    this.connections++
    let ended = false
    socket.on('error', () => {})
    socket.write('Starting repl #' + id + '\n')
    const session = repl.start({
      prompt: 'ClusterMaster (`help` for cmds) ' + process.pid + ' ' + id + '> ', input: socket, output: socket, terminal: false, useGlobal: false, ignoreUndefined: true
    })
    for (const context of [this.context, { help: HELP, repl: session, sock: socket }]) {
      for (const [key, property] of Object.entries(Object.getOwnPropertyDescriptors(context))) {
        Object.defineProperty(session.context, key, { ...property, configurable: true, enumerable: true })
      }
    }
    this.sessions.add(session)
    const end = () => {
      if (ended) return
      ended = true
      this.connections--
      this.sessions.delete(session)
      socket.end()
    }
    session.on('exit', end)
    socket.on('close', () => {
      if (!ended) session.close()
      end()
    })
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

module.exports = { Repl }
