'use strict'
// The client of a handoff's control socket: calls, and the stream of worker events.
// Between two masters (after a crash or an upgrade) there is briefly no response: calls
// are then retried, and the stream is reopened.
const http = require('http')
const { setTimeout: delay } = require('timers/promises')
const { codes } = require('./errors')
const { lines } = require('./lines')

const RETRY_MS = 10
const TIMEOUT_MS = 10000 // in which a master must answer
const NOT_SENT = ['ENOENT', 'ECONNREFUSED', 'HANDOFF_ERR_NO_RESPONSE']
const MAYBE_DONE = ['ECONNRESET', 'EPIPE']
const EVENTS = ['/v1/worker-events', '/v1/told'] // the second is that of older binaries

const kAgent = Symbol('agent')
const kCall = Symbol('call')
const kConnect = Symbol('connect')
const kEvents = Symbol('events')
const kStream = Symbol('stream')

class Client {
  constructor (socketPath) {
    this.socketPath = socketPath
    this.closed = false
    this[kAgent] = new http.Agent({ keepAlive: false, maxSockets: 8 })
    this[kEvents] = EVENTS[0]
    this[kStream] = null
  }

  // request resolves to the response. A call that may have been carried out is retried
  // only if it is idempotent. An error response is HANDOFF_ERR_REFUSED, with the API's
  // code as `refusal`.
  async request (method, path, { body, idempotent = method === 'GET' } = {}) {
    const until = Date.now() + TIMEOUT_MS
    for (;;) {
      try {
        return await this[kCall](method, path, body)
      } catch (err) {
        if (err.code === 'HANDOFF_ERR_REFUSED') throw err
        if (this.closed) throw new codes.HANDOFF_ERR_ENDED()
        const repeat = NOT_SENT.includes(err.code) || (idempotent && MAYBE_DONE.includes(err.code))
        if (!repeat || Date.now() > until) throw err.code === 'HANDOFF_ERR_NO_RESPONSE' ? err : noResponse(err)
      }
      await delay(RETRY_MS)
    }
  }

  [kCall] (method, path, body) {
    return new Promise((resolve, reject) => {
      const headers = body === undefined ? {} : { 'Content-Type': 'application/json' }
      const req = http.request({ socketPath: this.socketPath, agent: this[kAgent], method, path, headers }, (res) => {
        let text = ''
        res.setEncoding('utf8')
        res.on('data', (part) => { text += part })
        res.on('error', reject)
        res.on('end', () => {
          if (res.statusCode === 503) return reject(noResponse(new Error('its master has ended')))
          let answer
          try { answer = JSON.parse(text) } catch (err) { return reject(noResponse(err)) }
          if (res.statusCode === 200) return resolve(answer)
          reject(Object.assign(new codes.HANDOFF_ERR_REFUSED(answer.error), { refusal: answer.code, status: res.statusCode }))
        })
      })
      req.on('error', reject)
      req.end(body)
    })
  }

  // follow reports each worker event until close: event(e), lost(n) if n events are
  // missing, and replaced() when another master has taken over, whose events begin again.
  follow (to) {
    this[kConnect](to, { master: null, last: 0 })
  }

  [kConnect] (to, at) {
    if (this.closed) return
    let over = false
    const again = () => {
      if (over) return
      over = true
      if (!this.closed) setTimeout(() => this[kConnect](to, at), RETRY_MS)
    }
    const path = `${this[kEvents]}?after=${at.last}&of=${at.master}`
    const req = this[kStream] = http.get({ socketPath: this.socketPath, path, agent: false }, (res) => {
      if (res.statusCode === 404) this[kEvents] = EVENTS[1]
      if (res.statusCode !== 200) {
        res.resume()
        return again()
      }
      const master = res.headers['handoff-master']
      // Each master numbers its events from 1, and keeps them until a higher number is
      // requested: it sends again what a broken connection has lost.
      if (master !== at.master) {
        const first = at.master === null
        Object.assign(at, { master, last: 0 })
        if (!first) to.replaced()
      }
      lines(res, (line) => {
        const space = line.indexOf(' ')
        const number = Number(line.slice(0, space))
        if (this.closed || master !== at.master || !(number > at.last)) return
        if (number > at.last + 1) to.lost(number - at.last - 1)
        at.last = number
        let event
        try { event = JSON.parse(line.slice(space + 1)) } catch (err) { return }
        to.event(event)
      })
      res.on('close', again)
      res.on('error', again)
    })
    req.on('error', again)
  }

  // sync adds the status to the events, as the event cluster.status.
  sync () { return this.request('POST', this[kEvents] + '/status', { idempotent: true }) }

  close () {
    this.closed = true
    this[kAgent].destroy()
    if (this[kStream]) this[kStream].destroy()
  }
}

function noResponse (cause) { return Object.assign(new codes.HANDOFF_ERR_NO_RESPONSE(cause.message), { cause }) }

module.exports = { Client }
