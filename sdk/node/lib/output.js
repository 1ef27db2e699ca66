'use strict'
// The output of workers as streams: worker.process.stdout and stderr.
const { PassThrough } = require('stream')

const MAX_UNREAD = 64 * 1024 // bytes kept for a reader
const LAST_WORDS_MS = 200 // in which the output of a worker that has ended may still arrive

// Output is one stream of a worker. Unread output beyond a limit is dropped, so that
// neither the worker nor this process blocks.
class Output extends PassThrough {
  constructor () {
    super({ highWaterMark: MAX_UNREAD })
    this.dropped = 0 // bytes
  }

  write (chunk, ...rest) {
    const unread = this.readableLength + this.writableLength
    if (this.writableEnded || unread + Buffer.byteLength(chunk) > MAX_UNREAD) {
      this.dropped += Buffer.byteLength(chunk)
      return false
    }
    return super.write(chunk, ...rest)
  }
}

// capture creates the streams of a silent master's workers, which end after them.
// Handoff's own lines go to log.
function capture (master, log) {
  const writers = new Map() // by pid
  master.on('fork', (w) => {
    w.process.stdout = new Output()
    w.process.stderr = new Output()
    writers.set(w.process.pid, w.process)
  })
  master.on('exit', (w) => {
    setTimeout(() => {
      if (writers.get(w.process.pid) === w.process) writers.delete(w.process.pid)
      w.process.stdout.end()
      w.process.stderr.end()
    }, LAST_WORDS_MS).unref()
  })
  master.on('output', (stream, line) => {
    let of
    try { of = JSON.parse(line) } catch (err) {}
    if (!of || of.stream === undefined) return log(line)
    const writer = writers.get(of.pid)
    if (writer && writer[of.stream]) writer[of.stream].write(of.line + '\n')
  })
}

module.exports = { capture }
