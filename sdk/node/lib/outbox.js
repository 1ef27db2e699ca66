'use strict'
// Messages to one worker, delivered in order. While the worker does not read, they are
// queued, up to a limit.
const { setTimeout: delay } = require('timers/promises')
const { codes } = require('./errors')

const RETRY_MS = 10
const MAX_RETRY_MS = 100
const MAX_MESSAGE = 1 << 20 // bytes
const MAX_QUEUE = 64 << 20 // bytes
const HIGH_WATER = 64 << 10 // bytes, from which on send returns false

const kQueue = Symbol('queue')
const kBusy = Symbol('busy')
const kPump = Symbol('pump')

class Outbox {
  // deliver(body) sends a message, as JSON, and returns a promise, which rejects with the
  // refusal worker_busy if the worker does not read now, or no_channel if it has no
  // channel. isOpen() returns false if no message can be sent any more. failed(err) is
  // called if a message without a callback cannot be sent.
  constructor (id, { deliver, isOpen, failed }) {
    Object.assign(this, { id, deliver, isOpen, failed })
    this.size = 0 // queued bytes
    this[kQueue] = []
    this[kBusy] = false
  }

  // send returns false if so much is queued that the caller should wait.
  send (message, done) {
    const body = JSON.stringify(message)
    if (body === undefined) throw new codes.ERR_MISSING_ARGS()
    const size = Buffer.byteLength(body)
    let err = null
    if (!this.isOpen()) err = new codes.ERR_IPC_CHANNEL_CLOSED()
    else if (size > MAX_MESSAGE) err = new codes.HANDOFF_ERR_MESSAGE_TOO_LARGE(size, MAX_MESSAGE)
    else if (this.size + size > MAX_QUEUE) err = new codes.HANDOFF_ERR_WORKER_BUSY(this.id, this.size)
    if (err) {
      process.nextTick(done || this.failed, err)
      return false
    }
    this[kQueue].push({ body, size, done })
    this.size += size
    if (!this[kBusy]) this[kPump]()
    return this.size < HIGH_WATER
  }

  async [kPump] () {
    this[kBusy] = true
    const queue = this[kQueue]
    let head = 0
    let wait = RETRY_MS
    while (head < queue.length) {
      const { body, size, done } = queue[head]
      let err = null
      try {
        if (!this.isOpen()) throw new codes.ERR_IPC_CHANNEL_CLOSED()
        await this.deliver(body)
        wait = RETRY_MS
      } catch (e) {
        if (e.refusal === 'worker_busy' && this.isOpen()) {
          await delay(wait)
          wait = Math.min(wait * 2, MAX_RETRY_MS)
          continue
        }
        err = e.refusal === 'no_channel' ? new codes.ERR_IPC_CHANNEL_CLOSED() : e
      }
      queue[head++] = null
      this.size -= size
      if (head > 1000) queue.splice(0, head), head = 0
      // Outside of this promise, so that an exception of a callback is not caught here.
      if (err) process.nextTick(done || this.failed, err)
      else if (done) process.nextTick(done, null)
    }
    queue.length = 0
    this[kBusy] = false
  }
}

module.exports = { Outbox }
